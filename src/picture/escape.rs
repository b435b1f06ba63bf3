//! Text of a checkpoint in markup: names of tensors and files may hold anything.

/// As text or as the value of an attribute. Characters that XML has no place for are spelled out.
pub(super) fn markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.extend(c.escape_default()),
            c => escaped.push(c),
        }
    }
    escaped
}

/// As text on a terminal, where control characters would do something; lines stay lines.
pub(super) fn terminal(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() || c == '\n';
    text.chars().map(|c| if is_plain(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// JSON within a `script` element: nothing in it can end the element or begin a comment.
pub(super) fn script(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // They stand in strings alone, where they may be written so.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_whatever_they_hold() {
        assert_eq!(markup("<script>\"a\" & 'b'"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
        assert_eq!(markup("a\u{0}\u{1b}\nb\u{ffff}"), "a\\u{0}\\u{1b}\\nb\\u{ffff}");
        assert_eq!(markup("\u{e4}\u{1F980}"), "\u{e4}\u{1F980}");
    }

    #[test]
    fn a_script_ends_where_it_should() {
        let name = "</script><!--\u{2028}&";
        let json = script(&serde_json::to_string(name).unwrap());
        assert!(!json.contains(['<', '>', '&', '\u{2028}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
    }
}
