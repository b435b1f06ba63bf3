//! What stands in the place of a file that was never fetched: a git-lfs pointer, a web page, an error message.
//!
//! All of them are text, which no torch or safetensors file begins with. Not here: what a file is that was fetched.

use std::fmt;

use serde_json::Value as Json;

/// Bytes from the start of a file that tell.
pub const HEAD: usize = 1024;

/// What is in the place of a file. Nothing of its contents is kept: a link may have led to what is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// What git leaves where git-lfs was not there.
    Pointer,
    /// HTML or XML.
    Page,
    /// JSON of a server that says why there is no file.
    Answer,
    /// Other text.
    Text,
}

impl Instead {
    /// What a file that should be binary is, by its start; `None` where that is no text.
    #[must_use]
    pub fn of_binary(head: &[u8]) -> Option<Self> {
        let text = text(head)?;
        let other = if is_answer(text) { Self::Answer } else { Self::Text };
        Self::of_markup(text).or(Some(other))
    }

    /// What a file that should be JSON and is not, or not the one that it should be, is instead. `None` where it is JSON that is broken.
    #[must_use]
    pub fn of_json(content: &[u8]) -> Option<Self> {
        let text = text(content.get(..HEAD).unwrap_or(content))?;
        let is_json = text.starts_with(['{', '[', '"']);
        let other = || match (is_json, is_answer(text)) {
            (false, _) => Some(Self::Text),
            (true, true) => Some(Self::Answer),
            (true, false) => None,
        };
        Self::of_markup(text).or_else(other)
    }

    /// A pointer or a page, which begin like nothing else.
    #[must_use]
    pub fn of_markup(text: &str) -> Option<Self> {
        /// The start of a page; stores of objects answer in XML.
        const PAGES: [&str; 6] = ["<!doctype html", "<html", "<head", "<body", "<?xml", "<error"];
        if text.starts_with("version https://git-lfs") {
            return Some(Self::Pointer);
        }
        let small = text.to_ascii_lowercase();
        PAGES.iter().any(|start| small.starts_with(start)).then_some(Self::Page)
    }
}

/// The start of a file as text, if it is some.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut in two where the start ends.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    let is_plain = |c: char| !c.is_control() || c.is_ascii_whitespace();
    // A few bytes may be anything.
    (text.len() >= 4 && text.chars().all(is_plain)).then_some(text)
}

/// Whether it is what a server says in JSON where it says why there is no file.
fn is_answer(text: &str) -> bool {
    const KEYS: [&str; 4] = ["error", "message", "Message", "detail"];
    let object = serde_json::from_str::<Json>(text).ok();
    object.is_some_and(|object| KEYS.iter().any(|key| object.get(key).is_some_and(Json::is_string)))
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pointer => "this is a git-lfs pointer and not the file itself; fetch the file (git lfs pull)",
            Self::Page => {
                "this is a web page as a failed download leaves it, and not the file; download it again"
            }
            Self::Answer => {
                "this is the answer of a server as a failed download leaves it, and not the file; download it again"
            }
            Self::Text => "this is text, as a failed download may leave it, and not the file; download it again",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_place_of_a_file_is_told() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 633600\n";
        for of in [Instead::of_binary, Instead::of_json] {
            assert_eq!(of(pointer), Some(Instead::Pointer));
            assert_eq!(of(b"\n <!DOCTYPE html>\n<html><head><title>401 No</title>"), Some(Instead::Page));
            assert_eq!(of(b"<HTML><body>Hello"), Some(Instead::Page));
            assert_eq!(
                of(b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>"),
                Some(Instead::Page)
            );
            assert_eq!(of(b"{\"error\": \"Repository not found\"}"), Some(Instead::Answer));
            assert_eq!(of(b"Entry not found"), Some(Instead::Text));
            assert_eq!(of(b"PK\x03\x04rest of it"), None);
            assert_eq!(of(b"\xff\xfe\xfd\xfcx"), None);
            assert_eq!(of(b""), None);
        }
    }

    #[test]
    fn json_in_place_of_json_is_that_of_a_server_or_just_broken() {
        assert_eq!(Instead::of_json(b"{\"model_type\": "), None);
        assert_eq!(Instead::of_json(b"{\"weight_map\": 3}"), None);
        assert_eq!(Instead::of_binary(b"{\"a\": 1}"), Some(Instead::Text));
    }

    #[test]
    fn a_character_that_is_cut_in_two_is_text() {
        let cut = "text abc\u{e4}".as_bytes();
        assert_eq!(Instead::of_binary(&cut[..cut.len() - 1]), Some(Instead::Text));
    }
}
