//! Reads the files of every rank: the model with what belongs to it, and the buffers of a distributed optimizer.

use std::path::Path;

use super::SourceError;
use super::entries::{self, without_foreign};
use super::locate::Located;
use super::torch_file::{self, TorchFile};
use super::workers::in_parallel;
use crate::catalog::RankFile;
use crate::extent::ObjectId;
use crate::format::megatron::RankDir;
use crate::store::{FileStore, OpenFile, Store};

/// The files of one rank as read, before it is known which rank it is.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) dir: RankDir,
    /// What they hold. Its rank is not the right one yet.
    pub(super) file: RankFile,
}

/// One file to be read.
struct Job<'a> {
    path: &'a Path,
    /// Whether it holds a rank's model, and not the buffers of its optimizer.
    is_model: bool,
}

/// Reads the files of every rank, with the optimizer's state or without.
pub(super) fn read_all(
    located: &Located,
    store: &FileStore,
    with_optimizer: bool,
) -> Result<Vec<ReadFile>, SourceError> {
    let models = located.files.iter().map(|file| Job { path: &file.path, is_model: true });
    let buffers = located.files.iter().filter_map(|file| file.buffers.as_deref());
    let buffers = buffers.map(|path| Job { path, is_model: false }).filter(|_| with_optimizer);
    let jobs: Vec<Job<'_>> = models.chain(buffers).collect();
    let open = in_parallel(&jobs, Job::open)?;
    let mut opened = Vec::with_capacity(jobs.len());
    for (job, file) in jobs.iter().zip(open) {
        opened.push((job, store.take(file)?));
    }
    let read = in_parallel(&opened, |(job, object)| job.read(*object, store, with_optimizer))?;
    let mut read = opened.iter().map(|(_, object)| *object).zip(read);
    let models: Vec<_> = read.by_ref().take(located.files.len()).collect();
    let ranks = located.files.iter().zip(models).map(|(file, (object, model))| {
        // What is left are buffers, of the ranks that have them.
        let buffers = file.buffers.as_ref().and_then(|_| read.next());
        let buffers = buffers.map(|(object, file)| entries::buffer_file(object, file));
        Ok(ReadFile { dir: file.dir, file: entries::rank_file(object, model, buffers)? })
    });
    ranks.collect()
}

impl Job<'_> {
    fn open(&self) -> Result<OpenFile, SourceError> {
        let explain = |error: SourceError| if self.is_model { error } else { state(error) };
        OpenFile::open(self.path).map_err(|error| explain(error.into()))
    }

    fn read(
        &self,
        object: ObjectId,
        store: &dyn Store,
        with_optimizer: bool,
    ) -> Result<TorchFile, SourceError> {
        if !self.is_model {
            return torch_file::read(object, store, |tree| (tree.clone(), Vec::new())).map_err(state);
        }
        let model = |with| torch_file::read(object, store, |tree| without_foreign(tree, with));
        // Where the file can be read without the optimizer, that is what is wrong with it.
        model(with_optimizer)
            .map_err(|error| if with_optimizer && model(false).is_ok() { state(error) } else { error })
    }
}

/// An error about state that one can do without.
fn state(error: SourceError) -> SourceError {
    SourceError::State(Box::new(error))
}
