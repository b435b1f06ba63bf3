//! Where questions are put to the tree, also by threads that outlive the call they answer.
//!
//! Not here: the calls themselves (`adapter`), which errno is which (`errno`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use fuser::{Errno, FileHandle, FopenFlags, ReplyOpen};
use parking_lot::Mutex;

use super::errno::{Report, Warn};
use super::passthrough::Passthrough;
use super::requests::{Operation, Requests};
use crate::vfs::{Ino, Opened, Status, Tree, TreeError, Use};

/// Handle of files whose closing the tree wants to know of.
const COUNTED: FileHandle = FileHandle(1);

/// The tree, and what to say of its errors.
pub(super) struct Dispatch {
    /// Reached by [`Dispatch::ask`] alone, where a panic is caught.
    tree: Arc<dyn Tree>,
    report: Report,
    passthrough: Passthrough,
    requests: Requests,
}

impl Dispatch {
    pub(super) fn new(tree: Arc<dyn Tree>, warn: Warn) -> Self {
        Self { tree, report: Report::new(warn), passthrough: Passthrough::default(), requests: Requests::default() }
    }

    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The figures of this moment.
    pub(super) fn status(&self) -> Result<Status, Errno> {
        let mut status = self.ask(|tree| Ok(tree.status()))?;
        self.requests.tell(&mut status);
        Ok(status)
    }

    pub(super) fn passthrough(&self) -> &Passthrough {
        &self.passthrough
    }

    /// Puts a question to the tree. A panic there is a failed request, not the end of the thread that serves all others.
    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&dyn Tree) -> Result<T, TreeError>,
    ) -> Result<T, Errno> {
        match catch_unwind(AssertUnwindSafe(|| question(&*self.tree))) {
            Ok(answer) => answer.map_err(|error| self.report.errno(&error)),
            Err(_) => {
                self.report.say("a request failed by a bug in ckpt-fs; the lines before say where");
                Err(Errno::EIO)
            }
        }
    }

    /// Answers a question about node `ino`, on a thread of its own where it may take long: the one that asks is needed for the reads of
    /// others.
    pub(super) fn reply<R: Send + 'static>(
        dispatch: &Arc<Self>,
        ino: Ino,
        reply: R,
        answer: impl FnOnce(&Arc<Self>, R) + Send + 'static,
    ) {
        if !matches!(dispatch.ask(|tree| Ok(tree.takes_long(ino))), Ok(true)) {
            return answer(dispatch, reply);
        }
        let mine = Arc::clone(dispatch);
        on_thread("opening", reply, move |reply| answer(&mine, reply));
    }

    /// Opens a file that the kernel may keep pages of, or take whole. Assembling one takes a while, so it is not done by a thread that others
    /// need for their reads.
    pub(super) fn open_cached(dispatch: &Arc<Self>, ino: Ino, reply: ReplyOpen) {
        if !dispatch.passthrough.is_possible() {
            return dispatch.reply_open(ino, reply);
        }
        let mine = Arc::clone(dispatch);
        on_thread("open", reply, move |reply| mine.reply_open(ino, reply));
    }

    fn reply_open(&self, ino: Ino, reply: ReplyOpen) {
        // Before it is open: how it is open must not be forgotten in between.
        self.hold(ino);
        let opened = match self.ask(|tree| tree.open(ino, self.passthrough.is_possible())) {
            Ok(opened) => opened,
            Err(errno) => {
                self.let_go(ino);
                return self.requests.failed(Operation::Open, errno, reply);
            }
        };
        self.opened(ino);
        log::debug!("node {} is opened {}", ino.0, way(&opened));
        let cached = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        match opened {
            Opened::Direct => reply.opened(COUNTED, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH),
            Opened::Cached => reply.opened(COUNTED, cached),
            Opened::Whole(file) => match self.passthrough.register(ino, &file, &reply) {
                Ok(id) => reply.opened_passthrough(COUNTED, FopenFlags::empty(), &id),
                Err(error) => {
                    self.report.say(&format!("the kernel does not read files by itself: {error}"));
                    // Never asked for again, so that it is open one way for all.
                    let _ = self.ask(|tree| {
                        tree.close(ino);
                        tree.open(ino, false)
                    });
                    reply.opened(COUNTED, cached);
                }
            },
        }
    }

    /// A file is open, which its reader is told next.
    pub(super) fn opened(&self, ino: Ino) {
        self.requests.opened();
        let _ = self.ask(|tree| {
            tree.used(ino, Use::Open);
            Ok(())
        });
    }

    /// A file is about to be opened, in whatever way.
    pub(super) fn hold(&self, ino: Ino) {
        let _ = self.ask(|tree| {
            tree.hold(ino);
            Ok(())
        });
    }

    fn let_go(&self, ino: Ino) {
        let _ = self.ask(|tree| {
            tree.let_go(ino);
            Ok(())
        });
    }

    /// A file was closed.
    pub(super) fn closed(&self, ino: Ino, handle: FileHandle) {
        self.requests.closed();
        if handle == COUNTED {
            self.passthrough.release(ino);
            let _ = self.ask(|tree| {
                tree.close(ino);
                Ok(())
            });
        }
        self.let_go(ino);
    }
}

/// How a file is opened, in words.
fn way(opened: &Opened) -> &'static str {
    match opened {
        Opened::Direct => "for direct reads",
        Opened::Cached => "for the kernel to keep pages of",
        Opened::Whole(_) => "for the kernel to read whole from memory",
    }
}

/// Answers on a thread of its own, or on this one where there are no more.
pub(super) fn on_thread<R: Send + 'static>(name: &str, reply: R, answer: impl FnOnce(R) + Send + 'static) {
    let work = Arc::new(Mutex::new(Some((reply, answer))));
    let theirs = Arc::clone(&work);
    if thread::Builder::new().name(name.to_owned()).spawn(move || take(&theirs)).is_err() {
        take(&work);
    }
}

/// Does what nobody has done yet.
fn take<R, A: FnOnce(R)>(work: &Mutex<Option<(R, A)>>) {
    let taken = work.lock().take();
    if let Some((reply, answer)) = taken {
        answer(reply);
    }
}
