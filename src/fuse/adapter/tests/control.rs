//! Questions to the mount itself, by way of attributes: which there are, how much room they need, who may ask.

use std::collections::BTreeSet;

use fuser::SessionACL;
use rustix::process::geteuid;

use super::kernel::{Answer, Body, Kernel, Setup, call};
use super::tree::{DIRECT, Fake, Outcome};
use crate::vfs::{Status, Warmed};

const STATUS: &str = "user.ckpt-fs.status";
const WARM: &str = "user.ckpt-fs.warm";
/// More than any answer.
const ROOM: u32 = 60 << 10;

fn question(name: &str, room: u32) -> Body {
    Body::default().u32(room).u32(0).name(name)
}

fn ask(kernel: &mut Kernel, name: &str, room: u32) -> Result<Answer, i32> {
    kernel.ask(call::GETXATTR, DIRECT, question(name, room))
}

#[test]
fn figures_are_told() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let Answer(json) = ask(&mut kernel, STATUS, ROOM).unwrap();
    let told: Status = serde_json::from_slice(&json).unwrap();
    assert_eq!((&*told.version, told.reads), ("a version", 7));
    assert_eq!(told.requests.into_iter().collect::<Vec<_>>(), [("getxattr".to_owned(), 1)]);
    // Exactly enough room, and one byte too little. The figures differ in nothing but how often they were asked for.
    assert_eq!(ask(&mut kernel, STATUS, json.len() as u32).unwrap().0.len(), json.len());
    assert_eq!(ask(&mut kernel, STATUS, json.len() as u32 - 1), Err(libc::ERANGE));
    tree.make("status", Outcome::Panic);
    assert_eq!(ask(&mut kernel, STATUS, ROOM), Err(libc::EIO));
    assert!(kernel.said().last().unwrap().contains("bug in ckpt-fs"), "{:?}", kernel.said());
}

/// What the kernel asked for and got, an error or not, by the operation's name.
#[test]
fn requests_are_counted_with_their_errors() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let handle = kernel.open(DIRECT);
    assert!(kernel.open(DIRECT) > handle);
    kernel.read(DIRECT, handle, 0, 4096).unwrap();
    tree.make(&format!("read {DIRECT} 0"), Outcome::Stale);
    assert_eq!(kernel.read(DIRECT, handle, 0, 4096), Err(libc::ESTALE));
    kernel.release(DIRECT, handle);
    for _ in 0..2 {
        assert_eq!(kernel.ask(call::LOOKUP, 1, Body::default().name("nothing")), Err(libc::ENOENT));
    }
    assert_eq!(ask(&mut kernel, "user.other", 0), Err(libc::ENODATA));
    assert_eq!(ask(&mut kernel, STATUS, 1), Err(libc::ERANGE));
    let status = kernel.dispatch.status().unwrap();
    let requests: Vec<_> = status.requests.iter().map(|(name, count)| (&**name, *count)).collect();
    assert_eq!(requests, [("getxattr", 2), ("lookup", 2), ("open", 2), ("read", 2), ("release", 1)]);
    let errors = status.request_errors.iter().map(|error| (&*error.operation, &*error.errno, error.count));
    let expected =
        [("getxattr", "ERANGE", 1), ("getxattr", "ENODATA", 1), ("lookup", "ENOENT", 2), ("read", "ESTALE", 1)];
    assert_eq!(errors.collect::<Vec<_>>(), expected);
    assert_eq!((status.open_files, status.read_latency.unwrap().reads), (1, 2));
}

#[test]
fn files_are_warmed() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    let Answer(json) = ask(&mut kernel, WARM, ROOM).unwrap();
    assert_eq!(serde_json::from_slice::<Warmed>(&json).unwrap(), Warmed::Source);
    assert_eq!(tree.asked(""), ["warm 3 false"]);
    assert_eq!(ask(&mut kernel, WARM, 1), Err(libc::ERANGE));
    kernel.dispatch.passthrough().pretend();
    ask(&mut kernel, WARM, ROOM).unwrap();
    assert_eq!(tree.asked("warm")[2], "warm 3 true");
    for (outcome, errno) in
        [(Outcome::Stale, libc::ESTALE), (Outcome::Io, libc::EIO), (Outcome::Panic, libc::EIO)]
    {
        tree.make("warm 3 true", outcome);
        assert_eq!(ask(&mut kernel, WARM, ROOM), Err(errno));
    }
}

#[test]
fn asking_for_the_room_does_nothing() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    for name in [STATUS, WARM] {
        assert_eq!(ask(&mut kernel, name, 0).unwrap().u32(0), ROOM);
    }
    assert_eq!(tree.asked(""), [""; 0]);
}

#[test]
fn there_are_no_other_attributes_and_no_listing_shows_these() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    for name in [
        "user.ckpt-fs.statu",
        "user.ckpt-fs.status2",
        "user.ckpt-fs.",
        "user.ckpt-fs.WARM",
        "trusted.ckpt-fs.warm",
        "security.selinux",
        "security.capability",
        "system.posix_acl_access",
        "",
    ] {
        for room in [0, ROOM] {
            assert_eq!(ask(&mut kernel, name, room), Err(libc::ENODATA), "{name}");
        }
    }
    assert_eq!(kernel.ask(call::LISTXATTR, DIRECT, Body::default().zeros(8)).unwrap().u32(0), 0);
    assert_eq!(
        kernel.ask(call::LISTXATTR, DIRECT, Body::default().u32(ROOM).zeros(4)),
        Ok(Answer(Vec::new()))
    );
    assert_eq!(tree.asked(""), [""; 0]);
}

/// Warming takes as long as reading the file: many may ask for it at once, and the only thread that answers goes on.
#[test]
fn others_are_answered_while_files_are_warmed() {
    let tree = Fake::new();
    let mut kernel = Kernel::new(&tree);
    tree.hold("warm 3 false");
    let waiting: BTreeSet<u64> =
        (0..20).map(|_| kernel.send(call::GETXATTR, DIRECT, question(WARM, ROOM))).collect();
    let handle = kernel.open(DIRECT);
    assert_eq!(kernel.read(DIRECT, handle, 0, 4096).unwrap().len(), 4096);
    assert!(ask(&mut kernel, STATUS, ROOM).is_ok());
    tree.let_go("warm 3 false");
    let answered: BTreeSet<u64> = waiting
        .iter()
        .map(|_| {
            let (number, answer) = kernel.receive();
            assert!(answer.is_ok());
            number
        })
        .collect();
    assert_eq!(answered, waiting);
}

#[test]
fn only_those_may_ask_who_may_use_the_mount() {
    let (owner, other) = (geteuid().as_raw(), 54_321);
    for (access, uid, is_allowed) in [
        (SessionACL::Owner, owner, true),
        (SessionACL::Owner, other, false),
        (SessionACL::RootAndOwner, owner, true),
        (SessionACL::RootAndOwner, 0, true),
        (SessionACL::RootAndOwner, other, false),
        (SessionACL::All, other, true),
    ] {
        let tree = Fake::new();
        let mut kernel = Kernel::with(&tree, Setup { access, ..Setup::default() });
        kernel.uid = uid;
        for name in [STATUS, WARM] {
            let answer = ask(&mut kernel, name, ROOM).map(drop);
            assert_eq!(
                answer,
                if is_allowed { Ok(()) } else { Err(libc::EACCES) },
                "{access:?} {uid} {name}"
            );
        }
        assert_eq!(tree.asked("").is_empty(), !is_allowed, "{access:?} {uid}");
    }
}
