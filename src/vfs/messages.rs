//! What a mount said: its last messages, kept so that whoever got an errno can ask for the reason.
//!
//! Not here: where else messages go (`cli`), how they are asked for (`fuse`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::MessageCounts;

/// Messages that are kept. Those before them are counted alone.
const MOST: usize = 300;

/// Bytes of a message that are kept: enough for every path and reason, and 300 of them fit in an answer's room several times over.
const LONGEST: usize = 2000;

/// How bad a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It ends the mount.
    Error,
    /// A reader got an error, or less than it might expect.
    Warning,
    /// Something happened that was asked for.
    Info,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// When it was said first.
    pub time: SystemTime,
    /// How bad it is.
    pub severity: Severity,
    /// The message.
    pub text: String,
    /// How often it was said in a row.
    pub times: u64,
}

/// The last messages of a mount.
#[derive(Debug, Default)]
pub struct Messages {
    kept: Mutex<VecDeque<Message>>,
    /// All that were ever said.
    errors: AtomicU64,
    warnings: AtomicU64,
    infos: AtomicU64,
}

impl Messages {
    /// Keeps a message; one that was said just before is counted.
    pub fn keep(&self, severity: Severity, text: &str) {
        let count = match severity {
            Severity::Error => &self.errors,
            Severity::Warning => &self.warnings,
            Severity::Info => &self.infos,
        };
        count.fetch_add(1, Relaxed);
        let text: String = text.chars().scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= LONGEST).then_some(c)
        }).collect();
        let mut kept = self.kept.lock();
        if let Some(last) = kept.back_mut().filter(|last| last.text == text && last.severity == severity) {
            last.times = last.times.saturating_add(1);
            return;
        }
        if kept.len() >= MOST {
            kept.pop_front();
        }
        kept.push_back(Message { time: SystemTime::now(), severity, text, times: 1 });
    }

    /// How many there were so far.
    #[must_use]
    pub fn counts(&self) -> MessageCounts {
        let [error, warning, info] = [&self.errors, &self.warnings, &self.infos].map(|count| count.load(Relaxed));
        MessageCounts { error, warning, info }
    }

    /// What is kept, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Message> {
        self.kept.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_messages_are_kept_and_all_bad_ones_counted() {
        let messages = Messages::default();
        messages.keep(Severity::Info, "mounted");
        for number in 0..MOST + 5 {
            messages.keep(Severity::Warning, &format!("reason {number}"));
        }
        let kept = messages.list();
        let counts = MessageCounts { error: 0, warning: MOST as u64 + 5, info: 1 };
        assert_eq!((kept.len(), messages.counts()), (MOST, counts));
        assert_eq!((&*kept[0].text, &*kept[MOST - 1].text), ("reason 5", "reason 304"));
    }

    #[test]
    fn the_same_message_again_is_counted() {
        let messages = Messages::default();
        for text in ["a", "a", "b", "a"] {
            messages.keep(Severity::Warning, text);
        }
        let kept: Vec<_> = messages.list().into_iter().map(|message| (message.text, message.times)).collect();
        assert_eq!(kept, [("a".to_owned(), 2), ("b".to_owned(), 1), ("a".to_owned(), 1)]);
        assert_eq!(messages.counts().warning, 4);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let messages = Messages::default();
        messages.keep(Severity::Error, &"é".repeat(LONGEST));
        assert_eq!(messages.list()[0].text.len(), LONGEST);
    }
}
