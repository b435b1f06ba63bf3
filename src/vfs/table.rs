//! Nodes by number. Numbers are made of names, so that a file keeps its number across mounts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::file::ViewFile;
use super::{DirEntry, Ino, Kind};

/// A file or directory.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ino: Ino,
    pub(super) parent: Ino,
    pub(super) kind: NodeKind,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Directory,
    File(Box<ViewFile>),
    /// Another spelling of the name of something beside it.
    Link(String),
}

/// Nodes after which no layout is added. Nobody looks at so many; who asks for layout after layout must not fill the memory, which takes about
/// 2 KB a node.
const MOST_NODES: usize = 200_000;

/// All nodes there are so far. Nodes are only ever added.
#[derive(Debug)]
pub(super) struct Table {
    /// The directory that all others are in.
    root: Ino,
    nodes: HashMap<Ino, Arc<Node>>,
    /// Entries of each directory, sorted by name.
    children: HashMap<Ino, BTreeMap<String, Ino>>,
    /// Other spellings of entries, in no listing: who copies a tree copies each layout once.
    links: HashMap<(Ino, String), Ino>,
}

impl Table {
    /// The directory `root` alone.
    pub(super) fn new(root: Ino) -> Self {
        let node = Node { ino: root, parent: root, kind: NodeKind::Directory };
        Self {
            root,
            nodes: HashMap::from([(root, Arc::new(node))]),
            children: HashMap::from([(root, BTreeMap::new())]),
            links: HashMap::new(),
        }
    }

    /// Whether there is no room for another layout.
    pub(super) fn is_full(&self) -> bool {
        self.nodes.len() >= MOST_NODES
    }

    pub(super) fn get(&self, ino: Ino) -> Option<Arc<Node>> {
        self.nodes.get(&ino).cloned()
    }

    pub(super) fn child(&self, parent: Ino, name: &str) -> Option<Ino> {
        let listed = self.children.get(&parent)?.get(name);
        listed.or_else(|| self.links.get(&(parent, name.to_owned()))).copied()
    }

    /// The link called `name` in `parent` to `target` beside it, made if it is not there.
    pub(super) fn link(&mut self, parent: Ino, name: &str, target: &str) -> Ino {
        if let Some(ino) = self.child(parent, name) {
            return ino;
        }
        let ino = self.insert(parent, &format!("{}/{name} -> {target}", parent.0), NodeKind::Link(target.to_owned()));
        self.links.insert((parent, name.to_owned()), ino);
        ino
    }

    /// Entries of a directory; `None` for what is none.
    pub(super) fn list(&self, ino: Ino) -> Option<Vec<DirEntry>> {
        let entries = self.children.get(&ino)?.iter().map(|(name, ino)| {
            let kind = if self.children.contains_key(ino) { Kind::Directory } else { Kind::File };
            DirEntry { ino: *ino, kind, name: name.clone() }
        });
        Some(entries.collect())
    }

    /// Two, and one for every directory in it.
    pub(super) fn links(&self, node: &Node) -> u32 {
        let children = self.children.get(&node.ino).into_iter().flat_map(BTreeMap::values);
        // There are no more than nodes, and of those not too many.
        children.filter(|ino| self.children.contains_key(ino)).count() as u32 + 2
    }

    /// The directory `name` in `parent`, made if it is not there. `identity` is what its number is made of.
    pub(super) fn directory(&mut self, parent: Ino, name: &str, identity: &str) -> Ino {
        if let Some(ino) = self.child(parent, name) {
            return ino;
        }
        let ino = self.add(parent, name, identity, NodeKind::Directory);
        self.children.insert(ino, BTreeMap::new());
        ino
    }

    /// Adds a file at `path` below `root`, with the directories that lead to it. What is there already stays.
    pub(super) fn file(&mut self, root: Ino, layout: &str, path: &str, file: ViewFile) {
        let mut parent = root;
        let mut identity = layout.to_owned();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            identity = format!("{identity}/{part}");
            if parts.peek().is_some() {
                parent = self.directory(parent, part, &identity);
            } else if self.child(parent, part).is_none() {
                self.add(parent, part, &identity, NodeKind::File(Box::new(file)));
                return;
            }
        }
    }

    fn add(&mut self, parent: Ino, name: &str, identity: &str, kind: NodeKind) -> Ino {
        let ino = self.insert(parent, identity, kind);
        self.children.entry(parent).or_default().insert(name.to_owned(), ino);
        ino
    }

    fn insert(&mut self, parent: Ino, identity: &str, kind: NodeKind) -> Ino {
        // Beside other trees no number is one of theirs.
        let mut ino = match self.root {
            Ino::ROOT => number(identity),
            root => number(&format!("{}: {identity}", root.0)),
        };
        // Two names with one number are next to impossible; if it happens the later one takes the next free number.
        while self.nodes.contains_key(&ino) {
            ino = Ino(ino.0.wrapping_add(1).max(2));
        }
        self.nodes.insert(ino, Arc::new(Node { ino, parent, kind }));
        ino
    }
}

/// A number for a name: 63 bits, so that no tool takes it for a negative one.
pub(super) fn number(identity: &str) -> Ino {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(identity.as_bytes()).as_bytes();
    Ino((u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 1).max(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_a_bound() {
        let mut table = Table::new(Ino::ROOT);
        for number in 1..MOST_NODES {
            assert!(!table.is_full());
            table.directory(Ino::ROOT, &number.to_string(), &number.to_string());
        }
        assert!(table.is_full());
        // What is there stays there.
        let first = table.child(Ino::ROOT, "1").unwrap();
        assert_eq!(table.directory(Ino::ROOT, "1", "1"), first);
    }
}
