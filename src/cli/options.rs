//! The words of `-o`: a list that is split at commas, as libfuse and mount(8) split it.
//!
//! A comma that belongs to a value is written `\,`, or stands between double quotes. fstab has no way of its own to say it: mount(8) turns
//! `\054` into a plain comma and hands the rest on as it is. Not here: what the options mean (`helper`, `fuse`).

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;

/// The options of one `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OptionList(pub(crate) Vec<String>);

impl FromStr for OptionList {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let words = split(OsStr::new(text));
        Ok(Self(words.iter().map(|word| word.to_string_lossy().into_owned()).collect()))
    }
}

/// The options in a text, without escapes and quotes. Empty ones, as a comma at the end leaves them, are left out.
pub(super) fn split(text: &OsStr) -> Vec<OsString> {
    let mut words = vec![Vec::new()];
    let mut bytes = text.as_bytes();
    let mut quoted = false;
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        let byte = match byte {
            b'"' => {
                quoted = !quoted;
                continue;
            }
            b',' if !quoted => {
                words.push(Vec::new());
                continue;
            }
            b'\\' => {
                let (byte, rest) = escaped(rest);
                bytes = rest;
                byte
            }
            byte => *byte,
        };
        if let Some(word) = words.last_mut() {
            word.push(byte);
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).map(OsString::from_vec).collect()
}

/// What follows a backslash: the number of a byte in three octal digits, or the byte that is meant.
fn escaped(rest: &[u8]) -> (u8, &[u8]) {
    match rest {
        [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
            ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), rest)
        }
        [byte, rest @ ..] => (*byte, rest),
        [] => (b'\\', rest),
    }
}

/// The option as one word of a list, whatever it holds.
pub(super) fn escape(option: &OsStr) -> OsString {
    let mut text = Vec::new();
    for byte in option.as_bytes() {
        if matches!(byte, b',' | b'\\' | b'"') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        split(OsStr::new(text)).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn commas_split_unless_they_are_escaped_or_quoted() {
        assert_eq!(words("tp=8,ro,,pp=4,"), ["tp=8", "ro", "pp=4"]);
        assert_eq!(words(r"pp-layers=10\,32,ro"), ["pp-layers=10,32", "ro"]);
        assert_eq!(words(r#"context="u:r:t:s0:c1,c2",ro"#), ["context=u:r:t:s0:c1,c2", "ro"]);
        assert_eq!(words(r"template=/a\040b,family=/c\\d"), ["template=/a b", r"family=/c\d"]);
        assert_eq!(words(r"pp-layers=10\05432"), ["pp-layers=10,32"]);
        assert_eq!(words(r"root=a\"), [r"root=a\"]);
        assert_eq!(words(r"root=\9\477"), ["root=9477"]);
    }

    proptest! {
        #[test]
        fn what_was_escaped_comes_back(options in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 0..5)) {
            let options: Vec<OsString> = options.into_iter().map(OsString::from_vec).collect();
            let escaped: Vec<OsString> = options.iter().map(|option| escape(option)).collect();
            prop_assert_eq!(split(&escaped.join(OsStr::new(","))), options);
        }
    }
}
