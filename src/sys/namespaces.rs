//! Whose the mounts are that this process sees.
//!
//! Not here: what follows for a mount (`fuse`, `doctor`).
#![expect(unsafe_code, reason = "a request to the kernel that has no wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Whether the mounts that this process sees are of its namespace of users, or of one within: root of another may not change them, whatever
/// rights it has in its own (`unshare -Ur`). `None` where the system does not say.
#[must_use]
pub fn owns_mounts() -> Option<bool> {
    let mounts = File::open("/proc/self/ns/mnt").ok()?;
    // SAFETY: asks the kernel about a descriptor that is open, and hands it no memory.
    let owner = unsafe { libc::ioctl(mounts.as_raw_fd(), libc::NS_GET_USERNS) };
    if owner >= 0 {
        // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(owner) });
        return Some(true);
    }
    // Outside of what this process may see: that is the answer.
    (io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_given_back() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        (0..1000).for_each(|_| assert!(owns_mounts().is_some()));
        assert!(open() < before + 500);
    }
}
