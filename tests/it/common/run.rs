//! Runs the program, and the library in its place where a test needs thousands of runs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use ckpt_fs::family::Families;
use ckpt_fs::layout::{Layout, LayoutSpec, Stages};
use ckpt_fs::reader::{Checksums, CrcMode, Reader};
use ckpt_fs::source::{Options, open};
use ckpt_fs::store::FileStore;
use ckpt_fs::view::megatron::{self, MegatronView};
use ckpt_fs::view::{OptimizerChoice, View as _, ViewFile, ViewOptions, VocabularyFill};

use super::naive::{Cut, Fill};
use super::{Pt, read_pt};

/// What a run of the program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    /// It ended with this code and said all of these on standard error, in so many words and no panic.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> Self {
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "'{word}' is missing in: {}", self.err);
        }
        assert_eq!(self.code, code, "{}", self.err);
        // A message is for people: it must not become a dump of what was read.
        assert!(self.err.len() < 4000, "{} bytes: {:.400}", self.err.len(), self.err);
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ckpt-fs");

/// Runs the program with bounded time and address space.
pub fn program<S: AsRef<OsStr>>(args: &[S]) -> Said {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", "sh", "-c", "ulimit -v 4000000; exec \"$@\"", "sh", PROGRAM]);
    Said::of(command.args(args).output().unwrap())
}

/// Runs the program with words and paths.
#[macro_export]
macro_rules! ckpt {
    ($($arg:expr),* $(,)?) => {
        $crate::common::run::program(&[$(std::ffi::OsStr::new(&$arg)),*])
    };
}

/// Every file and directory below `root`, with what would change if it were written.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        all.insert(path.clone(), (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

/// A view of the checkpoint at `root`, opened by the library.
pub struct View {
    view: MegatronView,
    reader: Reader,
}

impl View {
    pub fn of(root: &Path, cut: &Cut, fill: Fill, vocab_size: Option<u64>) -> Result<Self, String> {
        let fill = if fill == Fill::Zero { VocabularyFill::Zero } else { VocabularyFill::LastRow };
        Self::choosing(root, cut, &ViewOptions { vocab_size, fill, ..ViewOptions::default() })
    }

    /// With everything that a user can choose.
    pub fn choosing(root: &Path, cut: &Cut, choices: &ViewOptions) -> Result<Self, String> {
        let store = Arc::new(FileStore::new());
        let families = Families::default();
        let without_optimizer = choices.optimizer == OptimizerChoice::Nothing;
        let options = Options { families, without_optimizer, ..Options::default() };
        let source = open(root, &options, &store).map_err(|error| error.to_string())?;
        let basis = megatron::basis(source.catalog, source.model, choices);
        let basis = Arc::new(basis.map_err(|error| error.to_string())?);
        let spec = LayoutSpec {
            tp: Some(cut.tp as u32),
            pp: Some(cut.pp()),
            vpp: Some(cut.vpp),
            ep: Some(cut.ep as u32),
            etp: Some(cut.etp as u32),
            stages: Stages::new(cut.stages.clone()),
            ..LayoutSpec::default()
        };
        let layout: Layout = basis.layout(&spec).map_err(|error| error.to_string())?;
        Ok(Self { view: MegatronView::new(basis, layout), reader: Reader::new(store) })
    }

    /// Bytes of one file from `offset` on; fewer where it ends.
    pub fn piece(&self, path: &str, offset: u64, len: usize) -> Vec<u8> {
        let number = self.view.files().iter().position(|file| file.path == path).unwrap();
        let plan = self.view.plan(number).unwrap().plan;
        let mut bytes = vec![0; len];
        let read = self.reader.read(&plan, &Checksums::new(CrcMode::Exact), offset, &mut bytes).unwrap();
        bytes.truncate(read);
        bytes
    }

    /// Every file with its bytes.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let files = self.view.files();
        let read = |(number, file): (usize, &ViewFile)| {
            let plan = self.view.plan(number).unwrap().plan;
            let mut bytes = vec![0; plan.len() as usize];
            let checksums = Checksums::new(CrcMode::Exact);
            let read = self.reader.read(&plan, &checksums, 0, &mut bytes).unwrap();
            assert_eq!(read, bytes.len());
            (file.path.clone(), bytes)
        };
        files.iter().enumerate().map(read).collect()
    }

    /// Every rank file, read.
    pub fn ranks(&self) -> Vec<(String, Pt)> {
        let files = self.files().into_iter().filter(|(path, _)| path.ends_with("model_optim_rng.pt"));
        files.map(|(path, bytes)| (path, read_pt(&bytes))).collect()
    }
}
