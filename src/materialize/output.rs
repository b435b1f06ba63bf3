//! One file being written front to back, past the page cache where the file system allows it.
//!
//! Direct writes cost no copy, do not push other files out of the page cache, and are as fast when it is full. What they ask for in return
//! is aligned memory, places and lengths; the end of a file has none and goes the ordinary way, as do files where direct I/O is refused.
//! Not here: what is written and who makes it (`write`).

use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};

use super::{MaterializeError, failed};
use crate::aligned::ALIGNMENT;

/// A new file.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    path: PathBuf,
    /// Where writes are direct: what their places and lengths are multiples of.
    unit: Option<usize>,
    /// The file as another run left it, where there was one: bytes that are as they should be are not written again.
    left: Option<File>,
}

/// Bytes that are compared at a time.
const COMPARED: usize = 1 << 20;

impl Output {
    /// Makes an empty file.
    pub(super) fn create(path: &Path) -> Result<Self, MaterializeError> {
        File::create_new(path).map_err(failed("create", path)).map(|file| Self::new(file, path))
    }

    /// Opens the file that another run left, or makes an empty one.
    pub(super) fn resume(path: &Path) -> Result<Self, MaterializeError> {
        match Self::reopen(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create(path),
            opened => opened.map_err(failed("open", path)),
        }
    }

    fn reopen(path: &Path) -> io::Result<Self> {
        let open = |write: bool| {
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            File::options().read(true).write(write).custom_flags(flags).open(path)
        };
        // Read through the page cache by an open file of its own: direct I/O is a matter of the other.
        Ok(Self { left: Some(open(false)?), ..Self::new(open(true)?, path) })
    }

    pub(super) fn new(file: File, path: &Path) -> Self {
        // Set on the open file: an open for direct I/O that is refused may leave a file behind.
        let unit = direct_unit(&file).filter(|_| set_direct(&file, true).is_ok());
        Self { file, path: path.to_owned(), unit, left: None }
    }

    /// Which file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes. Whoever wants direct writes gives a number of bytes that ends on a boundary, save at the end of the file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), MaterializeError> {
        self.pass_or_append(bytes).map_err(failed("write", &self.path))
    }

    fn pass_or_append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(left) = &self.left
            && holds(left, self.file.stream_position()?, bytes)
        {
            self.file.seek_relative(bytes.len() as i64)?;
            return Ok(());
        }
        self.append(bytes)
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let beyond = match self.unit {
                Some(unit) => bytes.len() % unit,
                None => 0,
            };
            let (now, _) = bytes.split_at(bytes.len() - beyond);
            if now.is_empty() {
                self.leave_direct()?;
                continue;
            }
            match self.file.write(now) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).ok_or(ErrorKind::InvalidData)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if self.unit.is_some() && is_refusal(&error) => self.leave_direct()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// From here on through the page cache.
    pub(super) fn leave_direct(&mut self) -> io::Result<()> {
        self.unit = None;
        set_direct(&self.file, false)
    }

    /// Returns when the file is safe on disk.
    pub(super) fn sync(mut self) -> Result<(), MaterializeError> {
        self.end().map_err(failed("sync", &self.path))
    }

    fn end(&mut self) -> io::Result<()> {
        if self.left.is_some() {
            let end = self.file.stream_position()?;
            // Not where it is so already: that would be a change.
            if self.file.metadata()?.len() != end {
                self.file.set_len(end)?;
            }
        }
        self.file.sync_all()
    }
}

/// Whether the file holds `bytes` at `offset`. What cannot be read does not.
fn holds(file: &File, offset: u64, bytes: &[u8]) -> bool {
    let mut read = vec![0; COMPARED.min(bytes.len())];
    let mut at = offset;
    bytes.chunks(COMPARED).all(|wanted| {
        let read = read.get_mut(..wanted.len());
        let is_it = read.is_some_and(|read| file.read_exact_at(read, at).is_ok() && read == wanted);
        at += wanted.len() as u64;
        is_it
    })
}

/// Whether the write was refused because it is direct: by a file system that finds out only now, or since a part of a block was written and
/// what remains is not aligned.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::aligned::Aligned;

    fn bytes(len: usize) -> Aligned {
        let mut bytes = Aligned::new(len);
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
        bytes
    }

    fn is_direct(output: &Output) -> bool {
        fcntl_getfl(&output.file).unwrap().contains(OFlags::DIRECT)
    }

    #[test]
    fn only_the_unaligned_end_of_a_file_goes_through_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut output = Output::create(&path).unwrap();
        let Some(unit) = output.unit else { return };
        let wanted = bytes(3 * unit + 1);
        output.write(&wanted[..2 * unit]).unwrap();
        assert!(is_direct(&output));
        output.write(&wanted[2 * unit..]).unwrap();
        assert!(!is_direct(&output));
        output.sync().unwrap();
        assert!(fs::read(&path).unwrap() == *wanted);
    }

    #[test]
    fn a_first_write_that_is_refused_goes_the_ordinary_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let wanted = bytes(10_000);
        let mut output = Output::create(&path).unwrap();
        // As if this file system took any length, which the first write shows to be wrong.
        output.unit = output.unit.map(|_| 1);
        output.write(&wanted[..5]).unwrap();
        output.write(&wanted[5..]).unwrap();
        output.sync().unwrap();
        assert!(fs::read(&path).unwrap() == *wanted);
    }

    #[test]
    fn where_direct_io_cannot_be_had_writes_are_ordinary_from_the_start() {
        let path = Path::new("/dev/null");
        let mut output = Output::new(File::options().write(true).open(path).unwrap(), path);
        assert!(output.unit.is_none() && !is_direct(&output));
        output.write(&bytes(4096)).unwrap();
    }

    #[test]
    fn errors_name_the_file() {
        let path = Path::new("/dev/full");
        let mut output = Output::new(File::options().write(true).open(path).unwrap(), path);
        let error = output.write(&bytes(4096)).unwrap_err().to_string();
        assert!(error.starts_with("cannot write /dev/full: No space left"), "{error}");
    }
}
