//! Reads: gathered when they are asked for, or ahead of that, and timed.
//!
//! Not here: what is worth reading ahead (`ahead`).

use fuser::Errno;

use super::{Adapter, FIRST_DIRECT};
use crate::fuse::ahead::{Part, Taken, Task};
use crate::fuse::buffer::with_buffer;
use crate::fuse::requests::{Operation, Waiting};
use crate::vfs::{Ino, Tree, TreeError, Use};

impl Adapter {
    /// Answers the read of a part of file `ino`.
    pub(super) fn answer_read(&self, ino: Ino, part: Part, waiting: Waiting) {
        self.came(Operation::Read);
        let next = |got: usize| {
            // The kernel reads ahead by itself for files that it keeps pages of.
            let is_whole = part.handle >= FIRST_DIRECT && got == part.size as usize;
            let end = |tree: &dyn Tree| Ok(tree.tensor_end(ino, part.offset + u64::from(part.size)));
            is_whole.then(|| self.ahead.next(part, self.ask(end).ok()?))?
        };
        match self.ahead.take(part, waiting) {
            Taken::HandedOver => {}
            Taken::Ready(buffer, got, waiting) => {
                let range = part.offset..part.offset + got as u64;
                match self.ask(|tree| tree.unchanged(ino, range)) {
                    Ok(()) => {
                        let next = next(got);
                        self.hand_out(ino, waiting, &buffer, got);
                        self.ahead.give_back(buffer);
                        self.read_ahead(ino, next);
                    }
                    Err(errno) => self.fail(waiting, errno),
                }
            }
            Taken::Nothing(waiting) => {
                let next = with_buffer(part.size as usize, |buffer| match self.fill(ino, part.offset, buffer) {
                    Ok(got) => {
                        let next = next(got);
                        self.hand_out(ino, waiting, buffer, got);
                        next
                    }
                    Err(errno) => {
                        self.fail(waiting, errno);
                        None
                    }
                });
                self.read_ahead(ino, next);
            }
        }
    }

    /// Fills `buffer` and returns how much of it counts.
    fn fill(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.ask(|tree| {
            let got = tree.read(ino, offset, buffer)?;
            // The kernel takes what is missing for zeros: a short answer is only right at the end of the file.
            if got < buffer.len() && offset.saturating_add(got as u64) < tree.attr(ino)?.size {
                return Err(TreeError::Io(format!("short read of node {} at {offset}; this is a bug", ino.0)));
            }
            Ok(got.min(buffer.len()))
        })
    }

    /// Gathers what will be asked for next, and answers it where it was asked for meanwhile.
    fn read_ahead(&self, ino: Ino, task: Option<Task>) {
        let Some(mut task) = task else { return };
        let filled = match task.buffer.get_mut(..task.part.size as usize) {
            Some(buffer) => self.fill(ino, task.part.offset, buffer),
            None => Err(Errno::EIO),
        };
        if let Some((buffer, got, waiting)) = self.ahead.finish(task, filled.as_ref().ok().copied()) {
            match filled {
                Ok(_) => self.hand_out(ino, waiting, &buffer, got),
                Err(errno) => self.fail(waiting, errno),
            }
            self.ahead.give_back(buffer);
        }
    }

    /// Answers with the first `got` bytes of what was gathered: fewer would be zeros to the reader.
    fn hand_out(&self, ino: Ino, waiting: Waiting, buffer: &[u8], got: usize) {
        let Some(bytes) = buffer.get(..got) else { return self.fail(waiting, Errno::EIO) };
        let _ = self.ask(|tree| {
            tree.used(ino, Use::Read(got as u64));
            Ok(())
        });
        self.dispatch.requests().read_took(waiting.since.elapsed());
        waiting.reply.data(bytes);
    }

    fn fail(&self, waiting: Waiting, errno: Errno) {
        let requests = self.dispatch.requests();
        requests.read_took(waiting.since.elapsed());
        requests.failed(Operation::Read, errno, waiting.reply);
    }
}
