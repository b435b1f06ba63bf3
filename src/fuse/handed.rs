//! A connection to the kernel that somebody else has mounted, and handed to this process as an open descriptor: in containers, whoever may mount
//! is another program than the one that serves.
//!
//! What is mounted waits for an answer from then on, so nothing here touches the mount point. Not here: serving it (`mount`).

#![expect(
    clippy::disallowed_methods,
    reason = "nothing here is on the way of a read; what is not said has a default"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat, major, minor};

use super::error::MountError;
use super::mounts;
use crate::sys::inherited;

/// Numbers of `/dev/fuse` on every Linux.
const DEVICE: (u32, u32) = (10, 229);

/// A connection that is mounted already.
#[derive(Debug)]
pub struct Connection {
    pub(super) descriptor: OwnedFd,
    pub(super) point: PathBuf,
}

/// The number in `/dev/fd/N`, which stands for a mount point where that is all that is known.
#[must_use]
pub fn number(point: &Path) -> Option<u32> {
    let number = point.to_str()?.strip_prefix("/dev/fd/")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

impl Connection {
    /// Takes the descriptor of this number. `point` is where it is mounted, if whoever started this program said so.
    ///
    /// # Errors
    /// [`MountError::Descriptor`]
    pub fn take(number: u32, point: Option<&Path>) -> Result<Self, MountError> {
        let refused = |why: String| MountError::Descriptor { number, why };
        let failed = |error: io::Error| refused(error.to_string());
        let raw = i32::try_from(number).map_err(|_| refused("it is not open".to_owned()))?;
        let descriptor = inherited::take(raw).map_err(failed)?;
        let stat = fstat(&descriptor).map_err(|error| failed(error.into()))?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if !is_device || (major(stat.st_rdev), minor(stat.st_rdev)) != DEVICE {
            return Err(refused("it is not /dev/fuse".to_owned()));
        }
        if let Some(why) = wrong_state(&descriptor).map_err(failed)? {
            return Err(refused(why.to_owned()));
        }
        // The threads that serve wait for requests; a descriptor that never waits would have them turn in circles.
        let flags = fcntl_getfl(&descriptor).map_err(|error| failed(error.into()))?;
        fcntl_setfl(&descriptor, flags - OFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let point = match point {
            Some(point) => std::path::absolute(point).map_err(failed)?,
            None => where_mounted(&descriptor).unwrap_or_else(|| PathBuf::from(format!("/dev/fd/{number}"))),
        };
        Ok(Self { descriptor, point })
    }

    /// Where it is mounted, as far as that is known.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }
}

/// Why a connection cannot be served. From the mount on its first question is there, until somebody takes it.
fn wrong_state(descriptor: &OwnedFd) -> io::Result<Option<&'static str>> {
    let mut state = [PollFd::new(descriptor, PollFlags::IN)];
    poll(&mut state, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let [state] = state;
    Ok(if state.revents().contains(PollFlags::ERR) {
        Some("it is not mounted, or no longer")
    } else if state.revents().contains(PollFlags::IN) {
        None
    } else {
        Some("another process serves it already, or did")
    })
}

/// Where the connection is mounted, which newer kernels tell in fdinfo.
fn where_mounted(descriptor: &OwnedFd) -> Option<PathBuf> {
    let device = device(descriptor)?;
    mounts::all().ok()?.into_iter().find(|entry| entry.device == device).map(|entry| entry.point)
}

/// The number of the mounted device. Devices without a disk have the major number 0.
pub(super) fn device(descriptor: &OwnedFd) -> Option<(u32, u32)> {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd())).ok()?;
    let number = told.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?;
    Some((0, number.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_descriptors_alone() {
        assert_eq!(number(Path::new("/dev/fd/17")), Some(17));
        for other in ["/dev/fd/", "/dev/fd/+1", "/dev/fd/1/2", "/dev/fd/x", "dev/fd/1", "/dev/fd/99999999999", "/mnt"] {
            assert_eq!(number(Path::new(other)), None, "{other}");
        }
    }
}
