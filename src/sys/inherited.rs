//! A descriptor that whoever started this program left open for it, taken by its number.
//!
//! Not here: what it is for (`fuse`).
#![expect(unsafe_code, reason = "makes a number a descriptor")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// One is all that anybody leaves open, and the same number must not be owned twice.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptor of this number. Programs that this one starts do not get it.
///
/// # Errors
/// There is none, it was opened by this program itself, or one was taken before.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    if (0..3).contains(&number) {
        return Err(refused("0, 1 and 2 are the standard streams"));
    }
    // SAFETY: asks for the flags of a number, whatever it is; nothing is changed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags == -1 {
        let error = io::Error::last_os_error();
        return Err(if error.raw_os_error() == Some(libc::EBADF) { refused("it is not open") } else { error });
    }
    // What was open when this program began has survived an exec; what the program opens itself never would.
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(refused("it is not open for this program"));
    }
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Err(refused("another descriptor was taken before"));
    }
    // SAFETY: sets a flag of a descriptor that is open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, none of the standard streams, and not opened by this program, so nobody in it owns it; it is handed out once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
