//! Waiting for the signals that ask a mount to end.
//!
//! Not here: what is done about them (`cli`); the fault handler (`fault`).
#![expect(unsafe_code, reason = "blocks signals and waits for them")]

use std::io;

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, or a service manager.
    Terminate,
    /// The terminal closed.
    HangUp,
}

const ENDING: [(libc::c_int, Signal); 3] =
    [(libc::SIGINT, Signal::Interrupt), (libc::SIGTERM, Signal::Terminate), (libc::SIGHUP, Signal::HangUp)];

/// The ending signals, held back for [`Signals::wait`].
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Holds back SIGINT, SIGTERM and SIGHUP in this thread and those it starts, and ignores SIGPIPE.
    ///
    /// Must come before other threads start: one that does not block them would be ended by them. (Programs started by
    /// `std::process::Command` get an empty mask again.)
    ///
    /// # Errors
    /// What the system answers.
    pub fn block() -> io::Result<Self> {
        let set = ending_set();
        // SAFETY: `set` is an initialised signal set; the old mask is not asked for.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: SIG_IGN is a valid disposition; a closed pipe then is an error of the write.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        Ok(Self(()))
    }

    /// Blocks until one of them arrives.
    ///
    /// # Errors
    /// What the system answers.
    pub fn wait(&self) -> io::Result<Signal> {
        let set = ending_set();
        let mut number = 0;
        loop {
            // SAFETY: an initialised set and a local to write the number to.
            let error = unsafe { libc::sigwait(&raw const set, &raw mut number) };
            if error != 0 && error != libc::EINTR {
                return Err(io::Error::from_raw_os_error(error));
            }
            if let Some((_, signal)) = ENDING.iter().find(|(ending, _)| *ending == number) {
                return Ok(*signal);
            }
        }
    }
}

fn ending_set() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; sigemptyset initialises it before use, and the numbers added are valid signals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for (number, _) in ENDING {
            libc::sigaddset(&raw mut set, number);
        }
        set
    }
}
