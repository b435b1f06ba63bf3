//! The system's log, for mounts in the background: a datagram a message to `/dev/log`, where syslog daemons and journald listen (RFC 3164).
//!
//! A message waits for nobody: one that the daemon has no room for is lost, and counted. Not here: which messages (`log`).

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use super::error::harmless;
use crate::sys::local_time::{LocalTime, local};

const SOCKET: &str = "/dev/log";

/// `LOG_DAEMON`, in its place.
const FACILITY: u8 = 3 << 3;

/// Bytes of a message; daemons cut longer ones.
const LONGEST: usize = 8000;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A way to the system's log, whether somebody listens there or not.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: UnixDatagram,
    /// Messages that were lost since the last one that was not.
    lost: AtomicU64,
}

impl Syslog {
    /// Opens a way. `None` where there is none to be had.
    pub(super) fn open() -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, lost: AtomicU64::new(0) })
    }

    /// Sends a message.
    pub(super) fn send(&self, level: log::Level, message: &str) {
        let lost = self.lost.swap(0, Relaxed);
        if lost > 0 {
            let words = format!("{lost} messages are missing here: the system's log took no more");
            if !self.try_send(log::Level::Warn, &words) {
                self.lost.fetch_add(lost, Relaxed);
            }
        }
        if !self.try_send(level, message) {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// By its path every time: a daemon that was started again, or late, is found.
    fn try_send(&self, level: log::Level, message: &str) -> bool {
        let text = datagram(level, local(SystemTime::now()), process::id(), message);
        // Where nobody listens nothing is missed: that is no log that took no more.
        let is_there = Path::new(SOCKET).exists();
        !is_there || self.socket.send_to(text.as_bytes(), SOCKET).is_ok()
    }
}

fn datagram(level: log::Level, time: Option<LocalTime>, pid: u32, message: &str) -> String {
    let severity = match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    };
    let time = time.and_then(|time| {
        let LocalTime { month, day, hour, minute, second } = time;
        Some(format!("{} {day:>2} {hour:02}:{minute:02}:{second:02} ", MONTHS.get(month)?))
    });
    // A line is a message.
    let mut message = harmless(message).replace('\n', " ");
    while message.len() > LONGEST {
        message.pop();
    }
    format!("<{}>{}ckpt-fs[{pid}]: {message}", FACILITY | severity, time.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_as_the_daemons_expect_them() {
        let time = Some(LocalTime { month: 1, day: 3, hour: 4, minute: 5, second: 6 });
        let text = datagram(log::Level::Warn, time, 77, "a\nb\u{7}");
        assert_eq!(text, "<28>Feb  3 04:05:06 ckpt-fs[77]: a b\\u{7}");
        assert_eq!(datagram(log::Level::Error, None, 1, "x"), "<27>ckpt-fs[1]: x");
        assert_eq!(datagram(log::Level::Info, None, 1, "x"), "<30>ckpt-fs[1]: x");
        assert_eq!(datagram(log::Level::Trace, None, 1, "x"), "<31>ckpt-fs[1]: x");
        let long = datagram(log::Level::Info, None, 1, &"é".repeat(LONGEST));
        assert!(long.ends_with('é') && long.len() <= LONGEST + 20);
    }
}
