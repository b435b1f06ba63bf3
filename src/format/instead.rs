//! What stands in the place of a file that was never fetched: a git-lfs pointer, a web page, an error message.
//!
//! All of them are text, which no torch or safetensors file begins with. Not here: what a file is that was fetched.

use std::fmt;

use serde_json::Value as Json;

/// Bytes from the start of a file that tell.
pub const HEAD: usize = 1024;

/// What is in the place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instead {
    /// What git leaves where git-lfs was not there.
    Pointer,
    /// HTML or XML, with its title where it has one.
    Page(Option<String>),
    /// JSON of a server that says why there is no file.
    Refusal(String),
    /// Other text, and how it begins.
    Text(String),
}

impl Instead {
    /// What a file that should be binary is, by its start; `None` where that is no text.
    #[must_use]
    pub fn of_binary(head: &[u8]) -> Option<Self> {
        let text = text(head)?;
        Self::of_markup(text).or_else(|| refusal(text)).or_else(|| Some(Self::Text(first_line(text))))
    }

    /// What a file that should be JSON and is not, or not the one that it should be, is instead. `None` where it is JSON that is broken.
    #[must_use]
    pub fn of_json(content: &[u8]) -> Option<Self> {
        let text = text(content.get(..HEAD).unwrap_or(content))?;
        let is_json = text.starts_with(['{', '[', '"']);
        let other = || if is_json { refusal(text) } else { Some(Self::Text(first_line(text))) };
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
        if !PAGES.iter().any(|start| small.starts_with(start)) {
            return None;
        }
        // ASCII letters alone were changed, so places are the same.
        let title = [("<title>", "</title>"), ("<code>", "</code>")].iter().find_map(|(start, end)| {
            let from = small.find(start)? + start.len();
            let len = small.get(from..)?.find(end)?;
            Some(first_line(text.get(from..from + len)?)).filter(|title| !title.is_empty())
        });
        Some(Self::Page(title))
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

/// What a server says in JSON, where it says why there is no file.
fn refusal(text: &str) -> Option<Instead> {
    const KEYS: [&str; 4] = ["error", "message", "Message", "detail"];
    let object = serde_json::from_str::<Json>(text).ok()?;
    let said = KEYS.iter().find_map(|key| object.get(key)?.as_str())?;
    Some(Instead::Refusal(first_line(said)))
}

fn first_line(text: &str) -> String {
    const MOST: usize = 60;
    let line = text.trim().lines().next().unwrap_or_default();
    let start: String = line.chars().take(MOST).collect();
    if start.len() < line.len() { format!("{start}..") } else { start }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AGAIN: &str = "as a failed download leaves it, and not the file; download it again";
        match self {
            Self::Pointer => f.write_str(
                "this is a git-lfs pointer and not the file itself; fetch the file (git lfs pull)",
            ),
            Self::Page(None) => write!(f, "this is a web page {AGAIN}"),
            Self::Page(Some(title)) => write!(f, "this is a web page (\"{title}\") {AGAIN}"),
            Self::Refusal(said) => write!(f, "this is the answer of a server (\"{said}\") {AGAIN}"),
            Self::Text(start) => write!(f, "this is text (\"{start}\") and not the file; download it again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(title: &str) -> Option<Instead> {
        Some(Instead::Page(Some(title.to_owned())))
    }

    #[test]
    fn what_stands_in_place_of_a_file_is_told() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 633600\n";
        for of in [Instead::of_binary, Instead::of_json] {
            assert_eq!(of(pointer), Some(Instead::Pointer));
            assert_eq!(of(b"\n <!DOCTYPE html>\n<html><head><title>401 No</title>"), page("401 No"));
            assert_eq!(of(b"<HTML><body>Hello"), Some(Instead::Page(None)));
            let xml = b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>";
            assert_eq!(of(xml), page("AccessDenied"));
            let json = of(b"{\"error\": \"Repository not found\"}");
            assert_eq!(json, Some(Instead::Refusal("Repository not found".into())));
            assert_eq!(of(b"Entry not found"), Some(Instead::Text("Entry not found".into())));
            assert_eq!(of(b"PK\x03\x04rest of it"), None);
            assert_eq!(of(b"\xff\xfe\xfd\xfcx"), None);
            assert_eq!(of(b""), None);
        }
    }

    #[test]
    fn json_in_place_of_json_is_that_of_a_server_or_just_broken() {
        assert_eq!(Instead::of_json(b"{\"model_type\": "), None);
        assert_eq!(Instead::of_json(b"{\"weight_map\": 3}"), None);
        assert_eq!(Instead::of_binary(b"{\"a\": 1}"), Some(Instead::Text("{\"a\": 1}".into())));
    }

    #[test]
    fn long_lines_and_cut_characters_are_short_words() {
        let Some(Instead::Text(start)) = Instead::of_binary("\u{e4}".repeat(100).as_bytes()) else {
            panic!()
        };
        assert_eq!(start, "\u{e4}".repeat(60) + "..");
        let cut = "abc\u{e4}".as_bytes();
        assert_eq!(
            Instead::of_binary(&[b"text ", &cut[..4]].concat()),
            Some(Instead::Text("text abc".into()))
        );
    }
}
