//! The time on the wall, which the system's log wants to be told.
//!
//! Not here: who is told (`cli`).
#![expect(unsafe_code, reason = "asks the C library, which knows the time zone")]

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment as a clock shows it, without the year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// From 0 on.
    pub month: usize,
    /// From 1 on.
    pub day: u8,
    /// Of the day.
    pub hour: u8,
    /// Of the hour.
    pub minute: u8,
    /// Of the minute.
    pub second: u8,
}

/// What clocks here show at a moment; `None` where that is not known.
#[must_use]
pub fn local(time: SystemTime) -> Option<LocalTime> {
    // Of the type that the call takes, which libc does not name for every C library.
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs().try_into().ok()?;
    // SAFETY: tm is plain data; localtime_r reads the first and writes the second, and keeps neither.
    let broken = unsafe {
        let mut broken: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const seconds, &raw mut broken).is_null() {
            return None;
        }
        broken
    };
    Some(LocalTime {
        month: usize::try_from(broken.tm_mon).ok()?,
        day: u8::try_from(broken.tm_mday).ok()?,
        hour: u8::try_from(broken.tm_hour).ok()?,
        minute: u8::try_from(broken.tm_min).ok()?,
        second: u8::try_from(broken.tm_sec).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn it_is_what_date_says() {
        for seconds in [0, 951_782_400, 1_720_000_000, 1_735_689_599] {
            let output = Command::new("date").args(["-d", &format!("@{seconds}"), "+%m %d %H %M %S"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let said: Vec<u8> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
            let LocalTime { month, day, hour, minute, second } = local(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            assert_eq!([month as u8 + 1, day, hour, minute, second], said[..]);
        }
    }
}
