//! File handles as an NFS server keeps them: numbers that must still lead to the same file after a remount.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::fixture::{can_mount, mount_at, unmount};
use super::tree::bytes;
use crate::common::skip::skip;

/// The system's `struct file_handle` with room for any handle.
#[repr(C)]
struct Handle {
    len: u32,
    kind: i32,
    bytes: [u8; 128],
}

fn handle_of(path: &Path) -> Handle {
    let mut handle = Handle { len: 128, kind: 0, bytes: [0; 128] };
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut mount = 0;
    // SAFETY: a terminated path, a handle with as much room as it says, and a local for the mount's number.
    let answer = unsafe {
        libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), (&raw mut handle).cast(), &raw mut mount, 0)
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    handle
}

fn open_handle(mount: RawFd, handle: &mut Handle) -> std::io::Result<File> {
    // SAFETY: a handle that the kernel filled in; the descriptor that comes back is owned by nobody else.
    unsafe {
        match libc::open_by_handle_at(mount, (&raw mut *handle).cast(), libc::O_RDONLY | libc::O_CLOEXEC) {
            -1 => Err(std::io::Error::last_os_error()),
            descriptor => Ok(File::from_raw_fd(descriptor)),
        }
    }
}

#[test]
fn handles_outlive_a_remount() {
    if !can_mount() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return skip("opening by handle is for root");
    }
    let dir = tempfile::tempdir().unwrap();
    let first = mount_at(dir.path()).unwrap();
    let mut file = handle_of(&dir.path().join("iter_0000100/mp_rank_00/model_optim_rng.pt"));
    let mut directory = handle_of(&dir.path().join("iter_0000100/mp_rank_00"));
    unmount(first);

    let second = mount_at(dir.path()).unwrap();
    let root = File::open(dir.path()).unwrap();
    let opened = open_handle(root.as_raw_fd(), &mut directory).unwrap();
    let names: Vec<_> =
        rustix::fs::Dir::new(opened).unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let opened = open_handle(root.as_raw_fd(), &mut file).unwrap();
    let mut out = [0; 1000];
    std::os::unix::fs::FileExt::read_exact_at(&opened, &mut out, 1_000_000).unwrap();
    assert_eq!(out[..], bytes(4, 1_000_000, 1000));
    drop((opened, root));
    unmount(second);
}
