//! One file being written front to back, past the page cache where the file system allows it.
//!
//! Direct writes cost no copy, do not push other files out of the page cache, and are as fast when it is full. What they ask for in return
//! is aligned memory, places and lengths; the end of a file has none and goes the ordinary way, as do files where direct I/O is refused.
//! Not here: what is written and who makes it (`write`).

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};

use super::{MaterializeError, failed};
use crate::aligned::ALIGNMENT;

/// How bytes reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Past the page cache, where that is possible.
    Direct,
    /// Through it.
    #[cfg_attr(not(test), expect(dead_code, reason = "what files fall back to, forced by tests"))]
    Cached,
}

/// A new file.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    path: PathBuf,
    /// Where writes are direct: what their places and lengths are multiples of.
    unit: Option<usize>,
}

impl Output {
    /// Makes an empty file.
    pub(super) fn create(path: &Path, way: Way) -> Result<Self, MaterializeError> {
        let file = File::create_new(path).map_err(failed("create", path))?;
        let unit = match way {
            Way::Direct => direct_unit(&file).filter(|_| set_direct(&file, true).is_ok()),
            Way::Cached => None,
        };
        Ok(Self { file, path: path.to_owned(), unit })
    }

    /// Appends bytes. All but the last are as long as the others, so that what follows starts on a boundary again.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), MaterializeError> {
        self.append(bytes).map_err(failed("write", &self.path))
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, _) =
                bytes.split_at(self.unit.map_or(bytes.len(), |unit| bytes.len() - bytes.len() % unit));
            if now.is_empty() {
                self.leave_direct()?;
                continue;
            }
            match self.file.write(now) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Refused only now, as some network file systems do, or no longer aligned after a part of a block was written.
                Err(error) if error.kind() == ErrorKind::InvalidInput && self.unit.is_some() => {
                    self.leave_direct()?
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// From here on through the page cache.
    fn leave_direct(&mut self) -> io::Result<()> {
        self.unit = None;
        set_direct(&self.file, false)
    }

    /// Returns when the file is safe on disk.
    pub(super) fn sync(self) -> Result<(), MaterializeError> {
        self.file.sync_all().map_err(failed("sync", &self.path))
    }
}

/// What places and lengths of direct writes must be multiples of; `None` where there are none, or they ask for more than our buffers give.
fn direct_unit(file: &File) -> Option<usize> {
    // Kernels before 6.1 do not say, and not every file system does. Pages are enough for nearly all; the rest refuses the first write.
    let Ok(said) = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else { return Some(ALIGNMENT) };
    if said.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Some(ALIGNMENT);
    }
    let (memory, place) = (said.stx_dio_mem_align as usize, said.stx_dio_offset_align as usize);
    (place > 0 && memory <= ALIGNMENT).then(|| place.max(ALIGNMENT))
}

/// Switches direct I/O; where the file system has none this fails.
fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}
