//! Reads, and what is gathered before it is asked for.

use super::kernel::{Body, Kernel, Setup, call, part};
use super::tree::{CACHED, DIRECT, Fake, Outcome, SIZE, bytes};
use crate::fuse::ahead::MOST_ANSWERS;
use crate::vfs::Use;

const MIB: u32 = 1 << 20;
const AHEAD: &str = "read 3 2097152";
const STILL_SO: &str = "unchanged 3 2097152..3145728";

/// Reads the first two parts, after which the third one is gathered.
fn begin(kernel: &mut Kernel) -> u64 {
    let handle = kernel.open(DIRECT);
    for number in 0..2 {
        let offset = number * u64::from(MIB);
        let expected = bytes(offset..offset + u64::from(MIB));
        assert!(kernel.read(DIRECT, handle, offset, MIB).unwrap() == expected, "part {number}");
    }
    handle
}

fn third(kernel: &mut Kernel, handle: u64) -> Result<(), i32> {
    let found = kernel.read(DIRECT, handle, 2 << 20, MIB)?;
    assert!(found == bytes(2 << 20..3 << 20), "wrong bytes");
    Ok(())
}

#[test]
fn every_byte_is_the_one_of_the_tree() {
    let mut kernel = Kernel::new(&Fake::new());
    for node in [DIRECT, CACHED] {
        let handle = kernel.open(node);
        for (offset, size) in [(0, 1), (1, 4096), (4095, 4098), (SIZE - 6, 6), (3 << 20, MIB), (0, 0)] {
            let expected = bytes(offset..offset + u64::from(size));
            assert!(kernel.read(node, handle, offset, size).unwrap() == expected, "{size} bytes at {offset}");
        }
        // Fewer at the end, and none behind it.
        assert_eq!(kernel.read(node, handle, SIZE - 5, 4096).unwrap(), bytes(SIZE - 5..SIZE));
        for offset in [SIZE, SIZE + 1, i64::MAX as u64] {
            assert_eq!(kernel.read(node, handle, offset, 4096).unwrap(), b"");
        }
    }
}

/// The kernel takes what is missing for zeros.
#[test]
fn fewer_bytes_than_there_are_fail_the_read() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let handle = kernel.open(DIRECT);
    for (offset, size) in [(0, 4096), (SIZE - 5, 4096), (SIZE - 5, 5)] {
        tree.make(&format!("read 3 {offset}"), Outcome::Short);
        assert_eq!(kernel.read(DIRECT, handle, offset, size), Err(libc::EIO), "{offset}");
        assert_eq!(
            *kernel.said().last().unwrap(),
            format!("short read of node 3 at {offset}; this is a bug")
        );
    }
}

#[test]
fn what_comes_next_is_gathered_before_it_is_asked_for() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let handle = begin(&mut kernel);
    tree.wait_for(AHEAD);
    third(&mut kernel, handle).unwrap();
    assert_eq!(tree.asked(AHEAD).len(), 1, "gathered twice");
    assert_eq!(tree.asked("unchanged"), [STILL_SO], "and handed out without looking");
}

/// Figures are of what readers got, not of what was gathered for them.
#[test]
fn what_is_gathered_counts_when_it_is_handed_out() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let handle = begin(&mut kernel);
    tree.wait_for(AHEAD);
    let (open, part) = ((DIRECT, Use::Open), (DIRECT, Use::Read(1 << 20)));
    assert_eq!(tree.used(), [open, part, part]);
    third(&mut kernel, handle).unwrap();
    assert_eq!(tree.used(), [open, part, part, part]);
    tree.make(&format!("read {DIRECT} 5"), Outcome::Io);
    assert_eq!(kernel.read(DIRECT, handle, 5, 10), Err(libc::EIO));
    assert_eq!(kernel.read(DIRECT, handle, SIZE - 5, 10).unwrap().len(), 5);
    assert_eq!(tree.used(), [open, part, part, part, (DIRECT, Use::Read(5))]);
    let status = kernel.dispatch.status().unwrap();
    assert_eq!((status.requests["read"], status.read_latency.unwrap().reads), (5, 5));
}

#[test]
fn what_changed_since_it_was_gathered_is_not_handed_out() {
    for (outcome, errno) in [(Outcome::Stale, libc::ESTALE), (Outcome::Panic, libc::EIO)] {
        let tree = Fake::new();
        let mut kernel = Kernel::new(&tree);
        let handle = begin(&mut kernel);
        tree.wait_for(AHEAD);
        tree.make(STILL_SO, outcome);
        assert_eq!(third(&mut kernel, handle), Err(errno));
    }
}

#[test]
fn only_long_reads_of_directly_read_files_are_read_ahead() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let handle = kernel.open(CACHED);
    for offset in [0, 1 << 20, 2 << 20] {
        kernel.read(CACHED, handle, offset, MIB).unwrap();
    }
    let handle = kernel.open(DIRECT);
    for offset in [0, 4096, 8192] {
        kernel.read(DIRECT, handle, offset, 4096).unwrap();
    }
    // The one that the read at the end would gather lies behind the end.
    kernel.read(DIRECT, handle, SIZE - 2 * u64::from(MIB), MIB).unwrap();
    kernel.read(DIRECT, handle, SIZE - u64::from(MIB), MIB).unwrap();
    let asked = ["4 0", "4 1048576", "4 2097152", "3 0", "3 4096", "3 8192", "3 6291461", "3 7340037"];
    assert_eq!(tree.asked("read"), asked.map(|asked| format!("read {asked}")));
}

/// A question that comes while its answer is being gathered is left with the thread that gathers: the other one is free.
#[test]
fn who_asks_too_early_is_answered_by_the_one_at_it() {
    for outcome in [None, Some(Outcome::Stale), Some(Outcome::Io), Some(Outcome::Panic), Some(Outcome::Short)]
    {
        let tree = Fake::new();
        let mut kernel = Kernel::with(&tree, Setup { threads: 2, ..Setup::default() });
        tree.hold(AHEAD);
        let handle = begin(&mut kernel);
        tree.wait_for(AHEAD);
        let early = kernel.send(call::READ, DIRECT, part(handle, 2 << 20, MIB));
        // The answer to the next question says that the thread that took the early one is done with it.
        assert!(kernel.ask(call::STATFS, 1, Body::default()).is_ok());
        if let Some(outcome) = outcome {
            tree.make(AHEAD, outcome);
        }
        tree.let_go(AHEAD);
        let (number, answer) = kernel.receive();
        assert_eq!((number, tree.asked(AHEAD).len()), (early, 1));
        match outcome {
            None => assert!(answer.unwrap().0 == bytes(2 << 20..3 << 20), "wrong bytes"),
            Some(Outcome::Stale) => assert_eq!(answer, Err(libc::ESTALE)),
            Some(_) => assert_eq!(answer, Err(libc::EIO)),
        }
    }
}

/// What nobody asked for and could not be had is no error of anybody; who asks later is answered anew.
#[test]
fn failing_to_gather_ahead_fails_nobody() {
    for outcome in [Outcome::Stale, Outcome::Panic, Outcome::Short] {
        let tree = Fake::new();
        let mut kernel = Kernel::new(&tree);
        tree.make(AHEAD, outcome);
        tree.hold(AHEAD);
        let handle = begin(&mut kernel);
        tree.wait_for(AHEAD);
        tree.let_go(AHEAD);
        // The only thread takes this when it is done with that.
        assert!(third(&mut kernel, handle).is_err());
        assert_eq!(tree.asked(AHEAD).len(), 2, "{outcome:?}");
    }
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    tree.make("tensor_end 3 2097152", Outcome::Panic);
    let handle = begin(&mut kernel);
    third(&mut kernel, handle).unwrap();
    assert_eq!(tree.asked("unchanged"), [""; 0], "nothing was gathered");
}

#[test]
fn closing_while_something_is_gathered_leaves_nothing() {
    let tree = Fake::new();
    let mut kernel = Kernel::with(&tree, Setup { threads: 2, ..Setup::default() });
    tree.hold(AHEAD);
    let handle = begin(&mut kernel);
    tree.wait_for(AHEAD);
    kernel.release(DIRECT, handle);
    tree.let_go(AHEAD);
    // A late question through the handle, which no kernel has, finds nothing of it.
    third(&mut kernel, handle).unwrap();
    assert_eq!((tree.asked(AHEAD).len(), tree.asked("unchanged").len()), (2, 0));
}

/// Memory for what is gathered is bounded whoever reads: the oldest answer that nobody asked for gives way.
#[test]
fn what_is_gathered_is_bounded() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let handles: Vec<u64> = (0..=MOST_ANSWERS).map(|_| begin(&mut kernel)).collect();
    // Answered when the only thread is done with the last of them.
    assert!(kernel.ask(call::STATFS, 1, Body::default()).is_ok());
    let gathered = tree.asked(AHEAD).len();
    third(&mut kernel, handles[MOST_ANSWERS]).unwrap();
    third(&mut kernel, handles[1]).unwrap();
    assert_eq!((gathered, tree.asked(AHEAD).len()), (MOST_ANSWERS + 1, MOST_ANSWERS + 1));
    third(&mut kernel, handles[0]).unwrap();
    assert_eq!(tree.asked(AHEAD).len(), MOST_ANSWERS + 2, "was kept beyond the bound");
}
