//! A connection to the kernel that is mounted somewhere: by system call, or through `fusermount3` for users who may not.
//!
//! Not here: what is said over it (`adapter`), when to mount (`mount`).

#![expect(
    clippy::disallowed_methods,
    reason = "nothing here is on the way of a read; what is not said has a default"
)]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{geteuid, getgid, getuid};

use super::FILE_SYSTEM_TYPE;
use super::error::MountError;
use super::options::{Access, Resolved};
use crate::sys::namespaces::owns_mounts;
use crate::sys::process::Process;

/// The kernel's door.
pub const DEVICE: &str = "/dev/fuse";
/// Where the helper is told which of its descriptors is the socket.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// Mounts at `point` and returns the connection.
///
/// # Errors
/// [`MountError`]
pub(super) fn open(point: &Path, options: &Resolved) -> Result<OwnedFd, MountError> {
    if !geteuid().is_root() {
        return through_helper(point, options);
    }
    match directly(point, options) {
        // Root without the right to mount (a container): its helper may be one that asks somebody who has it.
        Err(error @ (MountError::NotPermitted | MountError::NoDevice { .. })) => {
            match through_helper(point, options) {
                Ok(connection) => Ok(connection),
                Err(slow @ MountError::HelperSilent { .. }) => Err(slow),
                Err(_) => Err(explained(error)),
            }
        }
        result => result,
    }
}

/// Rights in a namespace of users are none over mounts of another.
fn explained(error: MountError) -> MountError {
    match error {
        MountError::NotPermitted if owns_mounts() == Some(false) => MountError::ForeignMounts,
        error => error,
    }
}

fn directly(point: &Path, options: &Resolved) -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE);
    let device = OwnedFd::from(device.map_err(|source| MountError::NoDevice { source })?);
    let mut data = vec![
        format!("fd={}", device.as_raw_fd()),
        "rootmode=40000".to_owned(),
        format!("user_id={}", getuid().as_raw()),
        format!("group_id={}", getgid().as_raw()),
    ];
    data.extend(options.fuse_words());
    let failed = |source| MountError::Io { path: point.to_owned(), action: "mount", source };
    let data = CString::new(data.join(",")).map_err(|error| failed(error.into()))?;
    let source = options.base.fsname.as_str();
    match rustix::mount::mount(source, point, FILE_SYSTEM_TYPE, options.flags, data.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::PERM | Errno::ACCESS) => Err(MountError::NotPermitted),
        Err(Errno::NODEV) => Err(MountError::NoDevice { source: Errno::NODEV.into() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Runs the helper, which mounts and sends the connection over a socket. The socket is its standard input: a descriptor
/// that it inherits without ado.
fn through_helper(point: &Path, options: &Resolved) -> Result<OwnedFd, MountError> {
    let failed = |action, source| MountError::Io { path: point.to_owned(), action, source };
    let program = helper_program();
    let (ours, theirs) = UnixStream::pair().map_err(|source| failed("make a socket for", source))?;
    let mut child = {
        let mut command = Command::new(&program);
        command.arg("-o").arg(helper_options(options)).arg("--").arg(point);
        command.env(SOCKET_VARIABLE, "0").env("LC_ALL", "C");
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => MountError::HelperMissing { program: program.display().to_string() },
            _ => failed("run fusermount3 for", source),
        })?
        // Leaving scope, the command lets go of the helper's end: were it kept, its death would go unnoticed.
    };
    let patience = options.base.helper_patience;
    let silent = |child: &mut Child, seconds: Duration| {
        // It runs as root: it may be left alone, but not always ended. Nobody waits for it.
        let _ = child.kill();
        MountError::HelperSilent { program: program.display().to_string(), seconds: seconds.as_secs() }
    };
    ours.set_read_timeout(patience).map_err(|source| failed("set up a socket for", source))?;
    let connection = receive(&ours);
    if let Some(patience) = patience {
        let is_late = connection.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        let ends = |child: &Child| Process::open(child.id())?.wait(patience);
        if is_late || !ends(&child).map_err(|source| failed("wait for fusermount3 for", source))? {
            return Err(silent(&mut child, patience));
        }
    }
    let mut message = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // Whatever could be read of it: only shown.
        let _ = stderr.read_to_string(&mut message);
    }
    child.wait().map_err(|source| failed("wait for fusermount3 for", source))?;
    match connection.map_err(|source| failed("receive the connection for", source))? {
        Some(connection) => Ok(connection),
        None => Err(refusal(point, message.trim(), options.base.access)),
    }
}

/// The words of the helper as one of our errors.
fn refusal(point: &Path, message: &str, access: Access) -> MountError {
    if access != Access::Owner && message.contains("user_allow_other") {
        MountError::AllowOther
    } else if message.contains("fuse device not found") || message.contains("failed to open /dev/fuse") {
        let denied = message.contains("Permission denied");
        let kind = if denied { io::ErrorKind::PermissionDenied } else { io::ErrorKind::NotFound };
        MountError::NoDevice { source: kind.into() }
    } else if message.contains("no write access to mountpoint") {
        MountError::NotYours { path: point.to_owned() }
    } else if message.ends_with("Operation not permitted") {
        MountError::NotPermitted
    } else {
        let message = if message.is_empty() { "fusermount3 failed without a word" } else { message };
        MountError::Helper { path: point.to_owned(), message: message.to_owned() }
    }
}

/// The descriptor that comes over `socket`; `None` when it is closed without one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(received)
}

fn helper_options(options: &Resolved) -> String {
    let mut words = options.flag_words();
    words.extend(options.fuse_words());
    words.push(format!("fsname={}", escape(&options.base.fsname)));
    let subtype = FILE_SYSTEM_TYPE.strip_prefix("fuse.").unwrap_or(FILE_SYSTEM_TYPE);
    words.push(format!("subtype={subtype}"));
    words.join(",")
}

/// The helper splits at commas.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace(',', r"\,")
}

/// The program that mounts and unmounts for users other than root.
#[must_use]
pub fn helper_program() -> PathBuf {
    std::env::var_os("FUSERMOUNT_PATH").map_or_else(|| PathBuf::from("fusermount3"), PathBuf::from)
}
