//! No two files, and no two folders, that stand beside each other use each other, in however many steps: every path in a `use` line or in
//! the code is followed to the file that defines what it names, through re-exports.
//!
//! A file and those in the folder of its name are one room: what a module says of itself may be used by its parts, and the reverse.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, sources};

/// A module: the names that lead to it from the root.
type Module = Vec<String>;

/// Names of a path as it is written, with what the last one is called here.
struct Path {
    names: Vec<String>,
    alias: String,
}

/// Every module and its code.
struct Crate(BTreeMap<Module, (String, Vec<Path>)>);

impl Crate {
    fn read() -> Self {
        let mut modules = BTreeMap::new();
        for (path, text) in sources().into_values().flatten() {
            let mut module: Module = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
            let name = module.pop().unwrap();
            match name.as_str() {
                "lib.rs" | "main.rs" | "mod.rs" => {}
                name => module.push(name.trim_end_matches(".rs").to_owned()),
            }
            if path.ends_with("main.rs")
                || path.ends_with("tests.rs")
                || path.iter().any(|part| part == "tests")
            {
                continue;
            }
            let code = code(&text);
            let uses = use_lines(&code);
            modules.insert(module, (code, uses));
        }
        Self(modules)
    }

    /// The module that defines what `names`, said in `module`, lead to; `None` where that is none of ours.
    fn resolve(&self, module: &[String], names: &[String], depth: usize) -> Option<Module> {
        let mut at: Module = match names.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            first => {
                let child: Module = module.iter().cloned().chain([first.to_owned()]).collect();
                self.0.contains_key(&child).then_some(child)?
            }
        };
        for (index, name) in names.iter().enumerate().skip(1) {
            if name == "super" {
                at.pop()?;
                continue;
            }
            at.push(name.clone());
            if self.0.contains_key(&at) {
                continue;
            }
            at.pop();
            let (_, uses) = self.0.get(&at)?;
            let through = uses.iter().find(|path| path.alias == *name && depth < 8);
            let Some(through) = through else { break };
            let rest = [through.names.as_slice(), &names[index + 1..]].concat();
            return self.resolve(&at, &rest, depth + 1).or(Some(at));
        }
        Some(at)
    }
}

/// What a `use` line names, each path for itself.
fn use_lines(code: &str) -> Vec<Path> {
    let mut paths = Vec::new();
    for line in code.split(';') {
        let Some(at) = line.find("use ").filter(|at| is_start(line, *at)) else { continue };
        expand(&[], &line[at + 4..].split_whitespace().collect::<Vec<_>>().join(" "), &mut paths);
    }
    paths
}

/// Whether `use` is the statement's first word, but for how far it can be seen and what is said of it.
fn is_start(line: &str, at: usize) -> bool {
    let before = line[..at].rsplit(['\n', '}', ']']).next().unwrap().trim();
    before.is_empty() || before.starts_with("pub")
}

fn expand(prefix: &[String], text: &str, paths: &mut Vec<Path>) {
    let text = text.trim();
    let Some((head, rest)) = text.split_once("::").filter(|(head, _)| !head.contains('{')) else {
        if let Some(list) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            split_list(list).iter().for_each(|item| expand(prefix, item, paths));
        } else if !text.is_empty() {
            let (name, alias) = text.split_once(" as ").unwrap_or((text, text));
            let mut names = prefix.to_vec();
            if name != "self" && name != "*" {
                names.push(name.to_owned());
            }
            let alias =
                if alias == "self" { names.last().cloned().unwrap_or_default() } else { alias.to_owned() };
            paths.push(Path { names, alias });
        }
        return;
    };
    expand(&[prefix, &[head.trim().to_owned()]].concat(), rest, paths);
}

/// Items between commas that are in no further braces.
fn split_list(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    items
}

/// Paths in the code that begin with `crate`, `super` or `self`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let starts = ["crate::", "super::", "self::"].into_iter().flat_map(|start| code.match_indices(start));
    let whole = starts.filter(|(at, _)| !code[..*at].ends_with(|before| is_word(before) || before == ':'));
    whole
        .map(|(at, _)| {
            let mut names = Vec::new();
            let mut rest = &code[at..];
            loop {
                let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
                names.push(rest[..end].to_owned());
                match rest[end..].strip_prefix("::").filter(|rest| rest.starts_with(is_word)) {
                    Some(next) => rest = next,
                    None => return names,
                }
            }
        })
        .collect()
}

/// Who uses whom among those that stand beside each other, by the module above them.
fn neighbours(all: &Crate) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
    let mut groups: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, (code, uses)) in &all.0 {
        let said = uses.iter().map(|path| path.names.clone()).chain(inline_paths(code));
        for used in said.filter_map(|names| all.resolve(module, &names, 0)) {
            let same = module.iter().zip(&used).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (module.get(same), used.get(same)) {
                let group = groups.entry(module[..same].to_vec()).or_default();
                group.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    groups
}

/// Everything that `from` leads to.
fn reached<'a>(from: &'a str, edges: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        let further = edges.get(next).into_iter().flatten().map(String::as_str);
        open.extend(further.filter(|name| found.insert(*name)));
    }
    found
}

#[test]
fn nothing_uses_what_uses_it() {
    let all = Crate::read();
    let mut wrong = Vec::new();
    for (above, edges) in neighbours(&all) {
        let around: Vec<&String> =
            edges.keys().filter(|name| reached(name, &edges).contains(name.as_str())).collect();
        if !around.is_empty() {
            let inside = |name: &&String| {
                let to: Vec<_> = edges[*name].iter().filter(|to| around.contains(to)).cloned().collect();
                format!("{name} uses {}", to.join(", "))
            };
            wrong.push(format!(
                "in {}: {}",
                above.join("::"),
                around.iter().map(inside).collect::<Vec<_>>().join("; ")
            ));
        }
    }
    assert!(wrong.is_empty(), "cycles:\n{}", wrong.join("\n"));
}

#[test]
fn paths_are_followed_to_the_file_that_defines_what_they_name() {
    let all = Crate::read();
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
    let defined =
        |module_: &str, path: &str| all.resolve(&module(module_), &module(path), 0).map(|at| at.join("::"));
    assert_eq!(defined("view::hf", "super::ViewError").as_deref(), Some("view::error"));
    assert_eq!(defined("cli::open", "crate::view::ViewError").as_deref(), Some("view::error"));
    assert_eq!(defined("view", "hf::HfView").as_deref(), Some("view::hf"));
    assert_eq!(defined("view", "std::fmt::Debug"), None);
    let mut paths = Vec::new();
    expand(&[], "a::{self, b::{C, d as E}, f::*}", &mut paths);
    let said: Vec<_> = paths.iter().map(|path| (path.names.join("::"), path.alias.as_str())).collect();
    let wanted = [("a", "a"), ("a::b::C", "C"), ("a::b::d", "E"), ("a::f", "*")];
    assert_eq!(said, wanted.map(|(names, alias)| (names.to_owned(), alias)));
}
