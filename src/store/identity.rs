//! Whether a path still leads to the file that was opened.
//!
//! Compared are device, inode, size and time of modification. The time of status change is left out on purpose: a chmod or
//! a hard link to a source file (a snapshot being taken) changes it, and no byte. It only counts for a file that lost pages, where it tells
//! a cut from a disk that failed. What is missed is listed in `store`.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Stat, stat};

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Identity {
    /// The identity in a `stat` answer.
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as u64,
            seconds: stat.st_mtime as i64,
            nanoseconds: stat.st_mtime_nsec as i64,
        }
    }

    /// Time of modification.
    #[expect(
        clippy::disallowed_methods,
        reason = "a time that cannot be said is shown as the epoch; nothing else hangs on it"
    )]
    pub(super) fn modified(&self) -> SystemTime {
        let nanoseconds = Duration::from_nanos(u64::try_from(self.nanoseconds).unwrap_or(0));
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let whole = if self.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(seconds)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(seconds)
        };
        whole.and_then(|time| time.checked_add(nanoseconds)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// What is different at `path` now; `None` when nothing is.
    ///
    /// # Errors
    /// The path cannot be examined for a reason other than that the file is gone.
    pub(super) fn change_at(&self, path: &Path) -> io::Result<Option<String>> {
        match stat(path) {
            Ok(now) => Ok(self.change_to(&Self::of(&now))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(Some("it is gone".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    fn change_to(&self, now: &Self) -> Option<String> {
        if now == self {
            None
        } else if (now.device, now.inode) != (self.device, self.inode) {
            Some("another file is in its place".to_owned())
        } else if now.size != self.size {
            Some(format!("it had {} bytes, now {}", self.size, now.size))
        } else {
            Some("it was modified".to_owned())
        }
    }
}

/// When a file's contents or its attributes last changed; nobody can put it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatusTime(i64, i64);

impl StatusTime {
    /// The time in a `stat` answer.
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
    pub(super) fn of(stat: &Stat) -> Self {
        Self(stat.st_ctime as i64, stat.st_ctime_nsec as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_the_epoch() {
        let at =
            |seconds, nanoseconds| Identity { device: 0, inode: 0, size: 0, seconds, nanoseconds }.modified();
        assert_eq!(at(0, 0), SystemTime::UNIX_EPOCH);
        assert_eq!(at(2, 5), SystemTime::UNIX_EPOCH + Duration::new(2, 5));
        // As stat tells it: whole seconds round down, nanoseconds go up from there.
        assert_eq!(at(-2, 500_000_000), SystemTime::UNIX_EPOCH - Duration::from_millis(1500));
    }
}
