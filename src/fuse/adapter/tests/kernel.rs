//! The kernel's end of a connection: questions as FUSE spells them, and what comes back.
//!
//! The session reads and writes a descriptor, which here is one end of a pair of sockets. A stream has no borders between messages, and
//! whoever reads takes what is there, but for one: no read goes on behind a message that brings a descriptor (unix(7)). So every question
//! brings one, which nobody takes. A kind of socket that keeps messages apart does not take answers of a megabyte.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::time::Duration;

use fuser::{BackgroundSession, Config, InitFlags, Session, SessionACL};
use parking_lot::Mutex;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::geteuid;

use super::super::{Adapter, CAPABILITIES, Dispatch, Owner};
use super::tree::Fake;
use crate::fuse::attr::Modes;
use crate::fuse::errno::Warn;

/// Numbers of the calls.
pub(super) mod call {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const GETLK: u32 = 31;
    pub(in super::super) const ACCESS: u32 = 34;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const BMAP: u32 = 37;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const IOCTL: u32 = 39;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const LSEEK: u32 = 46;
    pub(in super::super) const COPY_FILE_RANGE: u32 = 47;
}

/// An answer that does not come is an error, not a hang.
const PATIENCE: Duration = Duration::from_secs(60);
const HEADER: usize = 40;
const REPLY_HEADER: usize = 16;
/// Who owns all nodes.
pub(super) const OWNER: Owner = Owner { uid: 70, gid: 71, modes: Modes { file: 0o444, directory: 0o555 } };

/// What a question says beside its call and its node.
#[derive(Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn zeros(mut self, len: usize) -> Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }

    pub(super) fn name(mut self, name: &str) -> Self {
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self
    }
}

/// The fields of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Answer(pub(super) Vec<u8>);

impl Answer {
    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.0[at..at + 2].try_into().unwrap())
    }
}

/// What the kernel has to offer, who may use the mount, how many threads answer.
pub(super) struct Setup {
    pub(super) offered: InitFlags,
    pub(super) access: SessionACL,
    pub(super) threads: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let offered = CAPABILITIES.into_iter().fold(InitFlags::FUSE_INIT_EXT, |all, one| all | one);
        Self { offered, access: SessionACL::All, threads: 1 }
    }
}

/// The other end of a session.
pub(super) struct Kernel {
    socket: UnixStream,
    session: Option<BackgroundSession>,
    last: u64,
    /// Who asks.
    pub(super) uid: u32,
    /// The answer to the first question.
    pub(super) granted: Answer,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) over: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Kernel {
    pub(super) fn new(tree: &Arc<Fake>) -> Self {
        Self::with(tree, Setup::default())
    }

    pub(super) fn with(tree: &Arc<Fake>, setup: Setup) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let (over, said) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let sink = Arc::clone(&said);
        let warn = Warn::new(move |message| sink.lock().push(message.to_owned()));
        let adapter = Adapter::new(Arc::clone(tree) as _, OWNER, warn, Arc::clone(&over));
        let dispatch = Arc::clone(&adapter.dispatch);
        let (uid, granted) = (geteuid().as_raw(), Answer(Vec::new()));
        let mut kernel = Self {
            socket: ours,
            session: None,
            last: 0,
            uid,
            granted,
            dispatch,
            over,
            said,
        };
        // Version 7.40, and 128 KiB of read-ahead.
        let flags = setup.offered.bits();
        let offer = Body::default().u32(7).u32(40).u32(128 << 10).u32(flags as u32).u32((flags >> 32) as u32);
        kernel.send(call::INIT, 0, offer.zeros(44));
        let mut config = Config::default();
        config.n_threads = Some(setup.threads);
        let session = Session::from_fd(adapter, OwnedFd::from(theirs), setup.access, config).unwrap();
        kernel.granted = kernel.receive().1.unwrap();
        kernel.session = Some(session.spawn().unwrap());
        kernel
    }

    /// Asks, and returns the number of the question.
    pub(super) fn send(&mut self, call: u32, node: u64, Body(body): Body) -> u64 {
        self.last += 1;
        let len = (HEADER + body.len()) as u32;
        let header = Body::default().u32(len).u32(call).u64(self.last).u64(node).u32(self.uid).zeros(12);
        let border = [self.socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut brought = SendAncillaryBuffer::new(&mut space);
        assert!(brought.push(SendAncillaryMessage::ScmRights(&border)));
        let question = [header.0, body].concat();
        let sent =
            sendmsg(&self.socket, &[IoSlice::new(&question)], &mut brought, SendFlags::empty()).unwrap();
        assert_eq!(sent, question.len());
        self.last
    }

    /// The next answer: to which question, and what.
    pub(super) fn receive(&mut self) -> (u64, Result<Answer, i32>) {
        let mut header = vec![0; REPLY_HEADER];
        self.socket.read_exact(&mut header).unwrap();
        let header = Answer(header);
        let mut body = vec![0; header.u32(0) as usize - REPLY_HEADER];
        self.socket.read_exact(&mut body).unwrap();
        let answer = match header.u32(4) as i32 {
            0 => Ok(Answer(body)),
            error => Err(-error),
        };
        (header.u64(8), answer)
    }

    /// Asks, and waits for the answer.
    #[track_caller]
    pub(super) fn ask(&mut self, call: u32, node: u64, body: Body) -> Result<Answer, i32> {
        let number = self.send(call, node, body);
        let (to, answer) = self.receive();
        assert_eq!(to, number, "answers another question");
        answer
    }

    pub(super) fn open(&mut self, node: u64) -> u64 {
        self.ask(call::OPEN, node, Body::default().zeros(8)).unwrap().u64(0)
    }

    pub(super) fn release(&mut self, node: u64, handle: u64) {
        self.ask(call::RELEASE, node, Body::default().u64(handle).zeros(16)).unwrap();
    }

    pub(super) fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, i32> {
        self.ask(call::READ, node, part(handle, offset, size)).map(|Answer(bytes)| bytes)
    }

    /// The warnings so far.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.lock().clone()
    }

    /// Hangs up, and waits until that was noticed.
    pub(super) fn hang_up(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(session) = self.session.take() {
            // An end of the stream is no message, which the session says.
            let _ = session.join();
            assert!(self.over.load(Acquire));
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Part of a file or of a listing.
pub(super) fn part(handle: u64, offset: u64, size: u32) -> Body {
    Body::default().u64(handle).u64(offset).u32(size).zeros(20)
}
