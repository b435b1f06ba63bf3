//! The file with every mutant in it, each behind its switch. Lines stay where they are.

use crate::sites::{Edit, Mutant};

/// `text` with these numbered mutants.
pub fn rewrite(text: &str, mutants: &[(usize, &Mutant)]) -> String {
    let mut edits: Vec<_> =
        mutants.iter().map(|(number, mutant)| Insertions::of(*number, &mutant.edit)).collect();
    // Around each other: of those that begin at one place the longer ones are outside, and later ones are inside of earlier ones.
    edits.sort_by_key(|edit| (edit.start, std::cmp::Reverse(edit.end)));
    let mut out = String::new();
    let mut at = 0;
    let mut open: Vec<Insertions> = Vec::new();
    for edit in edits {
        while let Some(last) = open.pop_if(|last| last.end <= edit.start) {
            out.push_str(&text[at..last.end]);
            out.push_str(&last.after);
            at = last.end;
        }
        out.push_str(&text[at..edit.start]);
        out.push_str(&edit.before);
        at = edit.start;
        open.push(edit);
    }
    while let Some(last) = open.pop() {
        out.push_str(&text[at..last.end]);
        out.push_str(&last.after);
        at = last.end;
    }
    out.push_str(&text[at..]);
    out
}

struct Insertions {
    start: usize,
    before: String,
    end: usize,
    after: String,
}

impl Insertions {
    fn of(number: usize, edit: &Edit) -> Self {
        let on = format!("crate::mutants::on({number})");
        match edit {
            // Behind a pattern.
            Edit::Replace(range, other) if other.is_empty() => Self {
                start: range.start,
                before: format!(" if !{on}"),
                end: range.end,
                after: String::new(),
            },
            Edit::Replace(range, other) => {
                let before = format!("(if {on} {{ {other} }} else {{ ");
                Self { start: range.start, before, end: range.end, after: " })".into() }
            }
            Edit::Omit(range) => Self {
                start: range.start,
                before: format!("if !{on} {{ "),
                end: range.end,
                after: " }".into(),
            },
            Edit::Return(at, value) => {
                let before = format!(" if {on} {{ return {value}; }}");
                Self { start: *at, before, end: *at, after: String::new() }
            }
        }
    }
}
