//! Directories: a listing stays what it was when it was opened, in any portions, and one bad entry hides no other.

use fuser::FopenFlags;

use crate::fuse::kept::KEEP;
use super::kernel::{Answer, Body, Kernel, call, part};
use super::tree::{CACHED, DIRECT, Fake, GROWS, NODES, Outcome, SIZE, WHOLE};

const DT_DIR: u32 = 4;
const DT_REG: u32 = 8;

fn open(kernel: &mut Kernel, node: u64) -> (u64, FopenFlags) {
    let opened = kernel.ask(call::OPENDIR, node, Body::default().zeros(8)).unwrap();
    (opened.u64(0), FopenFlags::from_bits_retain(opened.u32(8)))
}

/// Node, offset of the next, kind and name of each entry.
type Entries = Vec<(u64, u64, u32, String)>;

/// The entries of an answer; before each stand `more` bytes, which are handed out too.
fn entries(answer: &Answer, more: usize) -> (Entries, Vec<Answer>) {
    let (mut found, mut before, mut at) = (Entries::new(), Vec::new(), 0);
    while at < answer.0.len() {
        before.push(Answer(answer.0[at..at + more].to_vec()));
        at += more;
        let name = &answer.0[at + 24..][..answer.u32(at + 16) as usize];
        let text = String::from_utf8(name.to_vec()).unwrap();
        found.push((answer.u64(at), answer.u64(at + 8), answer.u32(at + 20), text));
        at = (at + 24 + name.len()).next_multiple_of(8);
    }
    (found, before)
}

fn expected() -> Entries {
    let named = |(ino, name, is_directory): (u64, &str, bool)| (ino, name.to_owned(), is_directory);
    let nodes = NODES.iter().skip(1).map(|(ino, name, _)| named((*ino, name, *ino == GROWS)));
    let all = [named((1, ".", true)), named((1, "..", true))].into_iter().chain(nodes);
    all.zip(1..).map(|((ino, name, is), next)| (ino, next, if is { DT_DIR } else { DT_REG }, name)).collect()
}

#[test]
fn a_listing_comes_in_any_portions() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let (handle, flags) = open(&mut kernel, 1);
    assert_eq!(flags, FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    // Room for all, for one or two at a time, and for none.
    for room in [4096, 32, 70] {
        let (mut found, mut offset) = (Entries::new(), 0);
        loop {
            let some = entries(&kernel.ask(call::READDIR, 1, part(handle, offset, room)).unwrap(), 0).0;
            let Some((_, next, ..)) = some.last() else { break };
            offset = *next;
            found.extend(some);
        }
        assert_eq!(found, expected(), "{room} bytes at a time");
    }
    for (offset, room) in [(0, 8), (6, 4096), (u64::MAX, 4096)] {
        assert_eq!(kernel.ask(call::READDIR, 1, part(handle, offset, room)), Ok(Answer(Vec::new())));
    }
    assert_eq!(tree.asked("list"), ["list 1"], "listed again, and it may have changed");
}

#[test]
fn a_directory_that_grows_is_not_kept() {
    let mut kernel = Kernel::new(&Fake::new());
    let (handle, flags) = open(&mut kernel, GROWS);
    assert_eq!(flags, FopenFlags::empty());
    let (found, _) = entries(&kernel.ask(call::READDIR, GROWS, part(handle, 0, 4096)).unwrap(), 0);
    assert_eq!(found, [(GROWS, 1, DT_DIR, ".".to_owned()), (1, 2, DT_DIR, "..".to_owned())]);
}

#[test]
fn entries_with_attributes_are_complete_also_where_one_has_none() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let (handle, _) = open(&mut kernel, 1);
    tree.make("attr 4", Outcome::Io);
    tree.make("attr 5", Outcome::Panic);
    let (found, attributes) =
        entries(&kernel.ask(call::READDIRPLUS, 1, part(handle, 0, 1 << 16)).unwrap(), 128);
    assert_eq!(found, expected());
    for (entry, (ino, ..)) in attributes.iter().zip(found) {
        let (size, kept) = match ino {
            DIRECT => (SIZE, KEEP.as_secs()),
            CACHED | WHOLE | GROWS => (0, 0),
            _ => (0, KEEP.as_secs()),
        };
        assert_eq!((entry.u64(0), entry.u64(40), entry.u64(48)), (ino, ino, size), "{ino}");
        assert_eq!((entry.u64(16), entry.u64(24)), (kept, kept), "{ino}");
    }
    assert!(kernel.said().iter().any(|said| said.starts_with("attr 4")), "{:?}", kernel.said());
}

#[test]
fn handles_are_told_apart_and_forgotten() {
    let mut kernel = Kernel::new(&Fake::new());
    let (first, _) = open(&mut kernel, 1);
    let (second, _) = open(&mut kernel, GROWS);
    assert_ne!(first, second);
    kernel.ask(call::RELEASEDIR, 1, Body::default().u64(first).zeros(16)).unwrap();
    for call in [call::READDIR, call::READDIRPLUS] {
        assert_eq!(kernel.ask(call, 1, part(first, 0, 4096)), Err(libc::EBADF));
        assert!(kernel.ask(call, GROWS, part(second, 0, 4096)).is_ok());
    }
    let files = kernel.ask(call::OPENDIR, DIRECT, Body::default().zeros(8));
    assert_eq!(
        (files, kernel.ask(call::OPENDIR, 99, Body::default().zeros(8))),
        (Err(libc::ENOTDIR), Err(libc::ENOENT))
    );
}
