//! Going into the background only once there is something to report: the parent waits for the child's verdict.
//!
//! Not here: what the child does (`cli`).
#![expect(unsafe_code, reason = "forks")]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use rustix::process::{Pid, WaitOptions, WaitStatus};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Role {
    /// The one the user started: waits for the verdict, then exits.
    Parent(Waiter),
    /// The one that stays: a session of its own, stderr still the user's until it reports.
    Child(Notifier),
}

/// Splits this process in two.
///
/// # Errors
/// The process has more than one thread (the child would get only this one), or the system refuses.
pub fn start() -> io::Result<Role> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        let message =
            format!("cannot go into the background with {threads} threads running; use --foreground");
        return Err(io::Error::other(message));
    }
    let (reader, writer) = io::pipe()?;
    // SAFETY: this is the only thread (checked above), so the child starts with no lock held by a thread it lacks, and
    // may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            rustix::process::setsid()?;
            Ok(Role::Child(Notifier { writer }))
        }
        child => {
            drop(writer);
            let child = Pid::from_raw(child).ok_or_else(|| io::Error::other("fork returned no process"))?;
            Ok(Role::Parent(Waiter { reader, child }))
        }
    }
}

/// The parent's end.
#[derive(Debug)]
pub struct Waiter {
    reader: PipeReader,
    child: Pid,
}

/// Exit code for an end that was not foreseen.
const UNEXPECTED: u8 = 9;

/// What became of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is up and stays.
    Ready,
    /// It said why on stderr and ends with this exit code.
    Failed(u8),
    /// It ended with this exit code and without a word.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
}

impl Outcome {
    /// The exit code the parent should end with.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Failed(code) => code.max(1),
            // Whatever it ended with, it did not say that all is well.
            Self::Exited(_) | Self::Killed(_) => UNEXPECTED,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => write!(f, "the background process is ready"),
            Self::Failed(code) => write!(f, "the background process failed (exit code {code})"),
            Self::Exited(code) => {
                write!(f, "the background process ended without a word (exit code {code}); try --foreground")
            }
            Self::Killed(signal) => {
                write!(f, "the background process was killed by signal {signal}; try --foreground")
            }
        }
    }
}

impl Waiter {
    /// Blocks until the child reports or dies.
    ///
    /// # Errors
    /// The pipe or the child's status could not be read.
    pub fn wait(mut self) -> io::Result<Outcome> {
        let mut verdict = Vec::new();
        self.reader.read_to_end(&mut verdict)?;
        match verdict[..] {
            [] => self.status(),
            [0, ..] => Ok(Outcome::Ready),
            [code, ..] => Ok(Outcome::Failed(code)),
        }
    }

    /// How a child ended that closed the pipe without a verdict.
    fn status(&self) -> io::Result<Outcome> {
        let status =
            rustix::process::waitpid(Some(self.child), WaitOptions::empty())?.map(|(_, status)| status);
        let signal = status.and_then(WaitStatus::terminating_signal);
        let code = status.and_then(WaitStatus::exit_status);
        Ok(signal.map_or(Outcome::Exited(code.unwrap_or(-1)), Outcome::Killed))
    }
}

/// The child's end; dropped without a word, the parent reports how the child ended.
#[derive(Debug)]
pub struct Notifier {
    writer: PipeWriter,
}

impl Notifier {
    /// Lets go of the terminal (standard output and error go to `log`, appended, or nowhere) and tells the parent to exit.
    ///
    /// # Errors
    /// A standard stream cannot be replaced; the parent then still waits for the end.
    pub fn ready(self, log: Option<&File>) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let output = log.unwrap_or(&null);
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(output)?;
        self.tell(0)
    }

    /// Tells the parent to exit with `code` (at least 1); the reason was written to stderr before.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn failed(self, code: u8) -> io::Result<()> {
        self.tell(code.max(1))
    }

    fn tell(mut self, verdict: u8) -> io::Result<()> {
        self.writer.write_all(&[verdict])
    }
}
