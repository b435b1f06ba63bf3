//! What systemd is told of a service of `Type=notify`: a datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)).
//!
//! Nothing is said where nobody asked, and nobody depends on its being heard.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The mount is live and serves this.
pub(super) fn ready(status: &str) -> io::Result<()> {
    // One line is one assignment, and a path may hold anything.
    say(&format!("READY=1\nSTATUS={}", status.replace(char::is_control, " ")))
}

/// The mount is going away.
pub(super) fn stopping() -> io::Result<()> {
    say("STOPPING=1\nSTATUS=waiting until open files are closed")
}

fn say(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(state.as_bytes(), &address(&name)?)?;
    Ok(())
}

/// A path, or after an `@` a name in the namespace of the kernel.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}
