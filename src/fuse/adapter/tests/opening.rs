//! Opening and closing files, and work that a thread of its own does.

use std::sync::Arc;
use std::sync::mpsc;

use fuser::FopenFlags;

use super::kernel::{Body, Kernel, call};
use super::tree::{CACHED, DIRECT, Fake, GROWS, Outcome, WHOLE};
use crate::fuse::dispatch::on_thread;

fn open(kernel: &mut Kernel, node: u64, flags: i32) -> Result<(u64, FopenFlags), i32> {
    let opened = kernel.ask(call::OPEN, node, Body::default().u32(flags as u32).zeros(4))?;
    Ok((opened.u64(0), FopenFlags::from_bits_retain(opened.u32(8))))
}

const CACHED_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

#[test]
fn files_are_opened_for_reading_only() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC, libc::O_CREAT, libc::O_RDWR | libc::O_APPEND] {
        assert_eq!(open(&mut kernel, DIRECT, flags), Err(libc::EROFS), "{flags:#o}");
    }
    assert_eq!(tree.asked(""), [""; 0]);
    for flags in [libc::O_RDONLY, libc::O_DIRECT, libc::O_NOATIME | libc::O_CLOEXEC] {
        assert!(open(&mut kernel, DIRECT, flags).is_ok(), "{flags:#o}");
    }
    assert_eq!(open(&mut kernel, 1, 0), Err(libc::EISDIR));
    assert_eq!(open(&mut kernel, 99, 0), Err(libc::ENOENT));
}

#[test]
fn files_that_are_read_directly_have_handles_of_their_own() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
    let handles = [(); 3].map(|()| open(&mut kernel, DIRECT, 0).unwrap());
    assert!(handles.iter().all(|(handle, given)| *handle >= 16 && *given == flags), "{handles:?}");
    assert!(handles[0].0 != handles[1].0 && handles[1].0 != handles[2].0, "{handles:?}");
    kernel.release(DIRECT, handles[0].0);
    assert_eq!((tree.asked("open"), tree.asked("close")), (vec![], vec![]), "the tree counts others");
}

#[test]
fn the_tree_is_told_of_files_that_the_kernel_keeps() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let (handle, flags) = open(&mut kernel, CACHED, 0).unwrap();
    assert_eq!((flags, tree.asked("open")), (CACHED_FLAGS, vec!["open 4 false".to_owned()]));
    kernel.release(CACHED, handle);
    assert_eq!(tree.asked("close"), ["close 4"]);
    tree.make("close 4", Outcome::Panic);
    kernel.release(CACHED, handle);
}

/// Assembling a file takes a while: the only thread that answers must not be the one that does it.
#[test]
fn others_are_answered_while_a_file_is_opened() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    kernel.dispatch.passthrough().pretend();
    tree.hold("open 4 true");
    let waiting = kernel.send(call::OPEN, CACHED, Body::default().zeros(8));
    tree.wait_for("open 4 true");
    let handle = kernel.open(DIRECT);
    assert_eq!(kernel.read(DIRECT, handle, 0, 4096).unwrap().len(), 4096);
    tree.let_go("open 4 true");
    let (number, answer) = kernel.receive();
    assert_eq!((number, answer.unwrap().u32(8)), (waiting, CACHED_FLAGS.bits()));
    tree.make("open 4 true", Outcome::Panic);
    assert_eq!(open(&mut kernel, CACHED, 0), Err(libc::EIO), "a panic on that thread is an answer too");
}

#[test]
fn the_tree_is_told_of_every_file_that_is_open() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    for node in [DIRECT, CACHED] {
        let (handle, _) = open(&mut kernel, node, 0).unwrap();
        let (held, free) = (format!("hold {node}"), format!("let_go {node}"));
        assert_eq!((tree.asked(&held).len(), tree.asked(&free).len()), (1, 0));
        kernel.release(node, handle);
        assert_eq!((tree.asked(&held).len(), tree.asked(&free).len()), (1, 1));
    }
    tree.make("open 4 false", Outcome::Io);
    assert_eq!(open(&mut kernel, CACHED, 0), Err(libc::EIO));
    assert_eq!((tree.asked("hold 4").len(), tree.asked("let_go 4").len()), (2, 2), "what was not opened is not held");
}

/// Opening a checkpoint takes seconds.
#[test]
fn others_are_answered_while_a_directory_is_entered() {
    for (call, question, body) in
        [(call::OPENDIR, "list 2", Body::default().zeros(8)), (call::LOOKUP, "lookup 2 x", Body::default().name("x"))]
    {
        let tree = Fake::new();
        let mut kernel = Kernel::new(&tree);
        tree.hold(question);
        let waiting = kernel.send(call, GROWS, body);
        tree.wait_for(question);
        let handle = kernel.open(DIRECT);
        assert_eq!(kernel.read(DIRECT, handle, 0, 4096).unwrap().len(), 4096);
        tree.let_go(question);
        assert_eq!(kernel.receive().0, waiting);
    }
}

/// The socket is no device that takes files, so this is a kernel that refuses.
#[test]
fn a_kernel_that_takes_no_files_is_not_asked_again() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    kernel.dispatch.passthrough().pretend();
    let (handle, flags) = open(&mut kernel, WHOLE, 0).unwrap();
    assert_eq!(flags, CACHED_FLAGS, "still readable, by way of this process");
    let opened = ["open 5 true", "close 5", "open 5 false"];
    let asked = || {
        tree.asked("")
            .into_iter()
            .filter(|asked| asked.ends_with(" 5") || asked.starts_with("open 5"))
            .filter(|asked| ["open", "close"].iter().any(|method| asked.starts_with(method)))
            .collect::<Vec<_>>()
    };
    assert_eq!(asked(), opened, "opened one way for all");
    assert!(kernel.said().iter().any(|said| said.starts_with("the kernel does not read files by itself")));
    assert!(!kernel.dispatch.passthrough().is_possible());
    open(&mut kernel, WHOLE, 0).unwrap();
    kernel.release(WHOLE, handle);
    assert_eq!(asked()[3..], ["open 5 false", "close 5"]);
}

#[test]
fn work_is_done_once_and_elsewhere() {
    let (sender, receiver) = mpsc::channel();
    let here = std::thread::current().id();
    let reply = Arc::new(());
    on_thread("work", Arc::clone(&reply), move |_| sender.send(std::thread::current().id()).unwrap());
    assert_ne!(receiver.recv().unwrap(), here);
    assert!(receiver.recv().is_err(), "done twice");
}
