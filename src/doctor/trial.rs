//! A mount that is made, read and taken away: what no list of conditions can stand for.
//!
//! It is read by another process. One that reads its own mount and is killed meanwhile waits for an answer that only it could give, for ever,
//! and so does whoever looks at the mount.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::fuse::{MountError, MountOptions, mount};
use crate::sys::memory_file::{MemoryFile, MemoryFiles};
use crate::vfs::{Attr, DirEntry, Ino, IoMode, Kind, Opened, Tree, TreeError};

/// What came of it.
#[derive(Debug)]
pub enum Trial {
    /// It was mounted, and its file was what it should be.
    Passed {
        /// How long that took.
        took: Duration,
        /// Whether the kernel takes files whole.
        passes: bool,
    },
    /// The system does not mount.
    NotMounted(MountError),
    /// It was mounted, and its file was not read as it is.
    NotRead(String),
    /// There was no directory to mount on.
    NoDirectory(io::Error),
}

const NAME: &str = "trial";
const CONTENT: &[u8] = b"a file of a mount that ckpt-fs doctor made to see whether it can be read";
const FILE: Ino = Ino(2);

/// How long another process may take to make the trial's mount, and how long to read its file. It takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Mounts a file on a directory of its own, has another process read it, and takes the mount away. The directory is not in `source`, which is
/// never written.
#[must_use]
pub fn trial(source: Option<&Path>, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Trial {
    let began = Instant::now();
    let point = match directory(source) {
        Ok(point) => point,
        Err(error) => return Trial::NoDirectory(error),
    };
    let outcome = tried(&point, began, read);
    // Of a mount that could not be taken away the directory stays, and `ckpt-fs unmount` takes it.
    let _ = fs::remove_dir(&point);
    outcome
}

fn tried(point: &Path, began: Instant, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Trial {
    // As a mount does: without the right to make one there are none, and nothing is handed to the kernel.
    let tree = Arc::new(OneFile { files: MemoryFiles::new(1 << 20).ok(), passes: AtomicBool::new(false) });
    let options = MountOptions { fsname: "ckpt-fs doctor".to_owned(), helper_patience: Some(PATIENCE), ..MountOptions::default() };
    let mounted = match mount(Arc::clone(&tree) as Arc<dyn Tree>, point, &options) {
        Ok(mounted) => mounted,
        Err(error) => return Trial::NotMounted(error),
    };
    let read = read(&point.join(NAME));
    drop(mounted);
    match read {
        Ok(bytes) if bytes == CONTENT => Trial::Passed { took: began.elapsed(), passes: tree.passes.load(Ordering::Relaxed) },
        Ok(bytes) => Trial::NotRead(format!("{} bytes that are not those of the file", bytes.len())),
        Err(error) => Trial::NotRead(error.to_string()),
    }
}

/// A new directory where temporary files are, or wherever one can be made, but for `source`.
fn directory(source: Option<&Path>) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("ckpt-fs-doctor-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let source = source.and_then(|source| source.canonicalize().ok());
    let said = |name: &str| std::env::var_os(name).filter(|said| !said.is_empty()).map(PathBuf::from);
    let own = ["TMPDIR", "XDG_RUNTIME_DIR"].into_iter().filter_map(said).chain([PathBuf::from("/tmp")]);
    let others = ["/dev/shm", "/run", "/var/tmp"].map(PathBuf::from);
    let all = own.chain(said("HOME")).chain(others).chain(std::env::current_dir());
    let mut first = None;
    for directory in all {
        let made = directory.canonicalize().and_then(|directory| {
            if source.as_ref().is_some_and(|source| directory.starts_with(source)) {
                return Err(io::Error::other("it is in the source"));
            }
            let point = directory.join(&name);
            fs::create_dir(&point).map(|()| point)
        });
        match made {
            Ok(point) => return Ok(point),
            Err(error) => {
                first = first.or_else(|| Some(io::Error::new(error.kind(), format!("{}: {error}", directory.display()))));
            }
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// A directory with one file.
#[derive(Debug)]
struct OneFile {
    /// Where a file is made that the kernel reads by itself.
    files: Option<MemoryFiles>,
    /// Whether the kernel took it.
    passes: AtomicBool,
}

impl OneFile {
    fn check(ino: Ino) -> Result<(), TreeError> {
        match ino {
            FILE => Ok(()),
            Ino::ROOT => Err(TreeError::IsDirectory),
            _ => Err(TreeError::NotFound),
        }
    }
}

impl OneFile {
    fn whole(&self) -> Option<MemoryFile> {
        let file = self.files.as_ref()?.create(CONTENT.len() as u64).ok()?;
        file.write_at(0, CONTENT).ok().map(|()| file)
    }
}

impl Tree for OneFile {
    fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr, TreeError> {
        if parent == Ino::ROOT && name == NAME { self.attr(FILE) } else { Err(TreeError::NotFound) }
    }

    fn attr(&self, ino: Ino) -> Result<Attr, TreeError> {
        let (kind, size, links) = match ino {
            Ino::ROOT => (Kind::Directory, 0, 2),
            FILE => (Kind::File, CONTENT.len() as u64, 1),
            _ => return Err(TreeError::NotFound),
        };
        Ok(Attr { ino, kind, size, links, modified: SystemTime::UNIX_EPOCH })
    }

    fn parent(&self, ino: Ino) -> Result<Ino, TreeError> {
        self.attr(ino).map(|_| Ino::ROOT)
    }

    fn list(&self, ino: Ino) -> Result<Vec<DirEntry>, TreeError> {
        match ino {
            Ino::ROOT => Ok(vec![DirEntry { ino: FILE, kind: Kind::File, name: NAME.to_owned() }]),
            _ => Err(TreeError::NotDirectory),
        }
    }

    fn total_bytes(&self) -> u64 {
        CONTENT.len() as u64
    }

    fn io_mode(&self, ino: Ino) -> Result<IoMode, TreeError> {
        Self::check(ino).map(|()| IoMode::Cached)
    }

    /// Where the kernel refuses a whole file, this is asked again for one that is read here.
    fn open(&self, ino: Ino, passes: bool) -> Result<Opened, TreeError> {
        let mode = self.io_mode(ino)?;
        let whole = if passes { self.whole() } else { None };
        self.passes.store(whole.is_some(), Ordering::Relaxed);
        Ok(whole.map_or(Opened::from(mode), |file| Opened::Whole(Arc::new(file))))
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        Self::check(ino)?;
        let rest = usize::try_from(offset).ok().and_then(|offset| CONTENT.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(count)
    }
}
