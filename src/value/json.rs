//! JSON as Python's `json` reads and writes it: with `NaN` and infinities, integers of any length, and halves of surrogate pairs.
//!
//! Published configs have such values, in keys that concern nobody here, and they must come back as they were. `serde_json` cannot hold
//! them, so [`readable`] puts a marked string in the place of each, which [`pretty`] and [`shown`] turn back. A string that begins with
//! the mark itself gets another in front, so that nothing in a file can pass for a number.
//!
//! Not here: what keys mean.

use std::borrow::Cow;

use serde_json::Value as Json;

/// Stands in front of what `serde_json` cannot hold: a code point that no text has.
const MARK: char = '\u{fdd0}';

/// What Python's `json` knows beside the words of JSON.
const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The text with what `serde_json` does not read replaced by marked strings; the text itself where there is nothing to replace.
#[must_use]
pub fn readable(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut taken = 0;
    for token in tokens(text) {
        let Some(marked) = marked(token.text).filter(|_| token.is_string || !is_key(text, token.end)) else {
            continue;
        };
        let start = token.end - token.text.len();
        out.push_str(text.get(taken..start).unwrap_or_default());
        out.push_str(&Json::from(marked).to_string());
        taken = token.end;
    }
    if taken == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(taken..).unwrap_or_default());
    Cow::Owned(out)
}

/// A value on several lines, with everything as it was read.
#[must_use]
pub fn pretty(json: &Json) -> String {
    restored(&format!("{json:#}"))
}

/// A value on one line, with everything as it was read.
#[must_use]
pub fn shown(json: &Json) -> String {
    restored(&json.to_string())
}

/// The text that `serde_json` wrote, with marked strings as what they stand for.
fn restored(text: &str) -> String {
    if !text.contains(MARK) {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut taken = 0;
    for token in tokens(text).filter(|token| token.is_string) {
        let Ok(held) = serde_json::from_str::<String>(token.text) else { continue };
        let Some(carried) = carried(&held) else { continue };
        out.push_str(text.get(taken..token.end - token.text.len()).unwrap_or_default());
        match carried.strip_prefix(MARK) {
            Some(_) => out.push_str(&Json::from(carried).to_string()),
            None => out.push_str(carried),
        }
        taken = token.end;
    }
    out.push_str(text.get(taken..).unwrap_or_default());
    out
}

/// What a marked string stands for.
fn carried(held: &str) -> Option<&str> {
    held.strip_prefix(MARK)
}

/// What takes the place of a string or number of the file; `None` where it can stay.
fn marked(token: &str) -> Option<String> {
    let Some(inside) = token.strip_prefix('"') else {
        return is_odd(token).then(|| format!("{MARK}{token}"));
    };
    if has_half_pair(inside) {
        return Some(format!("{MARK}{token}"));
    }
    let escaped = inside.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("\\ufdd0"));
    if !escaped && !inside.starts_with(MARK) {
        return None;
    }
    serde_json::from_str::<String>(token).ok().map(|held| format!("{MARK}{held}"))
}

/// A number, or a word for one, that does not fit 64 bits.
fn is_odd(token: &str) -> bool {
    let is_integer = token.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    WORDS.contains(&token)
        || token == "-0"
        || if is_integer {
            token.parse::<i64>().is_err() && token.parse::<u64>().is_err() && is_number(token)
        } else {
            token.parse::<f64>().is_ok_and(f64::is_infinite) && is_number(token)
        }
}

/// Whether JSON has such a number: what is none must stay, to be refused.
fn is_number(token: &str) -> bool {
    let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    digits(whole) && digits(fraction) && digits(exponent) && (whole == "0" || !whole.starts_with('0'))
}

/// Whether a string, from behind its first quote, has half of a surrogate pair.
fn has_half_pair(inside: &str) -> bool {
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        rest = rest.get(at..).unwrap_or_default();
        match (code_unit(rest), rest.get(6..).and_then(code_unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => rest = rest.get(12..).unwrap_or_default(),
            (Some(0xd800..=0xdfff), _) => return true,
            _ => rest = rest.char_indices().nth(2).map_or("", |(end, _)| rest.get(end..).unwrap_or_default()),
        }
    }
    false
}

/// The number of a `\uXXXX` that the text begins with.
fn code_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| are_digits)
}

/// A string, or a number or word, of a text.
struct Token<'t> {
    text: &'t str,
    end: usize,
    is_string: bool,
}

/// The strings, numbers and words of a text, whether or not it is JSON.
fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let bytes = text.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_');
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes.get(at..)?.iter().position(|byte| *byte == b'"' || is_word(byte))?;
        let is_string = bytes.get(start) == Some(&b'"');
        let rest = bytes.get(start..)?;
        let len =
            if is_string { string_len(rest)? } else { rest.iter().take_while(|byte| is_word(byte)).count() };
        at = start + len;
        Some(Token { text: text.get(start..at)?, end: at, is_string })
    })
}

/// The length of the string that begins here, with both quotes.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Whether a colon follows: no number is a key.
fn is_key(text: &str, end: usize) -> bool {
    text.get(end..).unwrap_or_default().trim_start().starts_with(':')
}

#[cfg(test)]
mod tests;
