//! Another process, held so that its number cannot come to mean a third one, and its end.
//!
//! Also what this process is to others. Not here: which process that is, and why anybody waits for it (`cli`).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process that is watched.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The process with this number.
    ///
    /// # Errors
    /// There is none (`ESRCH`), or the system cannot watch it.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(Errno::SRCH))?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Waits until it has ended and let go of all its files, and no longer than `most`: whether it has.
    ///
    /// # Errors
    /// The system cannot wait.
    pub fn wait(&self, most: Duration) -> io::Result<bool> {
        let end = Instant::now() + most;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                polled => return Ok(polled? > 0),
            }
        }
    }
}

/// What numbers of processes count in, as seen from here: two processes that say the same mean the same by a number.
#[must_use]
pub fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

/// Whether `/proc` is there, which says of this process what no system call does.
#[must_use]
pub fn has_proc() -> bool {
    std::path::Path::new("/proc/self/mountinfo").exists()
}

/// Whether this process is root, and that of the machine: in a namespace of users root is whoever made that.
#[must_use]
pub fn is_root_of_all() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map");
    let is_whole = map.is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    rustix::process::geteuid().is_root() && is_whole
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_end_of_a_process_is_noticed() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.wait(Duration::ZERO).unwrap());
        drop(child.stdin.take());
        assert!(process.wait(Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
        // Its number may be another's by now, what is held is not.
        assert!(process.wait(Duration::ZERO).unwrap());
        assert!(Process::open(0).is_err() && Process::open(u32::MAX).is_err());
    }
}
