//! Writes one planned file, front to back: while one block is on its way to the disk, the next is gathered and summed.
//!
//! Not here: how a block is written (`output`), which bytes are summed (`reader`).

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::output::Output;
use super::{MaterializeError, failed};
use crate::aligned::Aligned;
use crate::plan::FilePlan;
use crate::reader::{Checksums, CrcMode, ReadError, Reader, Sums};

/// Bytes written at a time. Larger ones cost the kernel less, for each of their bytes too; from here on that is hardly to be measured.
const BLOCK: usize = 8 << 20;

/// Buffers of one job: one being filled, one being written. A third of them gains nothing.
const BUFFERS: usize = 2;

/// How a file is written.
pub(super) struct Writing<'a> {
    /// Reads what is written.
    pub(super) reader: &'a Reader,
    /// What checksum fields hold.
    pub(super) crc: CrcMode,
    /// Whether a file may be there, as another run left it.
    pub(super) resume: bool,
    /// Told of bytes as they are written.
    pub(super) written: &'a (dyn Fn(u64) + Sync),
    /// Whether to stop.
    pub(super) stop: &'a (dyn Fn() -> bool + Sync),
}

/// The buffers of a job, kept from file to file.
#[derive(Debug)]
pub(super) struct Buffers(Vec<Aligned>);

/// A buffer and how many of its bytes are the file's.
type Block = (Aligned, usize);

impl Buffers {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }
}

impl Writing<'_> {
    /// Writes `plan` to the file at `path`, a new one unless it resumes, and syncs it.
    pub(super) fn file(
        &self,
        plan: &FilePlan,
        path: &Path,
        buffers: &mut Buffers,
    ) -> Result<(), MaterializeError> {
        let output = if self.resume { Output::resume(path)? } else { Output::create(path)? };
        self.output(plan, output, buffers)
    }

    fn output(&self, plan: &FilePlan, output: Output, buffers: &mut Buffers) -> Result<(), MaterializeError> {
        let (full, to_write) = sync_channel(BUFFERS);
        let (empty, to_fill) = channel();
        buffers.0.resize_with(BUFFERS, || Aligned::new(BLOCK));
        for buffer in buffers.0.drain(..) {
            // The receiver is here, so this cannot fail.
            let _ = empty.send(buffer);
        }
        let output = thread::scope(|scope| {
            let start = failed("start a thread to write", output.path());
            let write = move || self.write(output, to_write, &empty);
            let writer = thread::Builder::new().spawn_scoped(scope, write).map_err(start)?;
            let filled = self.fill(plan, &to_fill, full);
            let output = match writer.join() {
                Ok(output) => output,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            buffers.0.extend(to_fill.try_iter());
            // The writer's error first: where it has one, filling merely ended early.
            output.and_then(|output| filled.map(|()| output))
        })?;
        output.sync()
    }

    /// Fills blocks with the bytes of the file; ends early when nobody writes them.
    fn fill(
        &self,
        plan: &FilePlan,
        empty: &Receiver<Aligned>,
        full: SyncSender<Block>,
    ) -> Result<(), MaterializeError> {
        let mut sums = match self.crc {
            CrcMode::Exact => Sums::new(plan),
            CrcMode::Zero => Sums::none(),
        };
        let checksums = Checksums::new(self.crc);
        let mut at = 0;
        while at < plan.len() {
            if (self.stop)() {
                return Err(MaterializeError::Stopped);
            }
            let Ok(mut buffer) = empty.recv() else { return Ok(()) };
            let filled = sums.fill((self.reader, plan), &checksums, at, &mut buffer)?;
            at += filled as u64;
            if full.send((buffer, filled)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes blocks until there are no more, and hands back the buffers.
    fn write(
        &self,
        mut output: Output,
        full: Receiver<Block>,
        empty: &Sender<Aligned>,
    ) -> Result<Output, MaterializeError> {
        for (buffer, len) in full {
            if (self.stop)() {
                return Err(MaterializeError::Stopped);
            }
            output.write(buffer.get(..len).ok_or(ReadError::Plan(0..len as u64))?)?;
            (self.written)(len as u64);
            // Where filling ended early nobody takes it, and nothing is lost.
            let _ = empty.send(buffer);
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests;
