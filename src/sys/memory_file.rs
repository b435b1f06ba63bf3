//! Files in memory that have no name: what the kernel can read and map by itself.
//!
//! They live in a private tmpfs that is mounted nowhere, because only a mount can ask for huge pages, without which copying from and to such
//! files is half as fast, and set a limit that holds whatever happens.
//!
//! Not here: what is in them (`vfs`), how many there may be (`cache`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, fstatvfs, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

/// Bytes of a huge page: a file is written fastest in whole ones, which need not be cleared first.
pub const HUGE_PAGE: usize = 2 << 20;

/// A place for files in memory.
#[derive(Debug)]
pub struct MemoryFiles {
    mount: OwnedFd,
}

impl MemoryFiles {
    /// A place for at most `limit` bytes. Needs the right to mount.
    ///
    /// # Errors
    /// The system refuses, or is too old (Linux 5.2).
    pub fn new(limit: u64) -> io::Result<Self> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "size", limit.to_string())?;
        fsconfig_set_string(context.as_fd(), "mode", "0700")?;
        // A kernel without huge pages is slower, not wrong.
        let _ = fsconfig_set_string(context.as_fd(), "huge", "within_size");
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Ok(Self { mount })
    }

    /// A new file of `bytes` zero bytes, none of which takes memory yet.
    ///
    /// # Errors
    /// The system refuses.
    pub fn create(&self, bytes: u64) -> io::Result<MemoryFile> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(openat(&self.mount, ".", flags, Mode::RUSR | Mode::WUSR)?);
        file.set_len(bytes)?;
        Ok(MemoryFile { file })
    }

    /// Bytes of memory that its files take, with those of files that are closed here and still mapped somewhere.
    #[must_use]
    pub fn used(&self) -> u64 {
        let Ok(room) = fstatvfs(&self.mount) else { return 0 };
        room.f_blocks.saturating_sub(room.f_bfree).saturating_mul(room.f_frsize)
    }
}

/// A file in memory.
#[derive(Debug)]
pub struct MemoryFile {
    file: File,
}

impl MemoryFile {
    /// One that is on no file system of ours, for tests: those need the right to mount.
    #[cfg(test)]
    pub(crate) fn of(file: File) -> Self {
        Self { file }
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs the right to mount, as the mounts of other tests do.
    #[test]
    fn files_take_memory_as_they_are_written_and_give_it_back() {
        let files = MemoryFiles::new(16 << 20).unwrap();
        let file = files.create(8 << 20).unwrap();
        assert_eq!(files.used(), 0);
        file.write_at(0, &vec![7; HUGE_PAGE]).unwrap();
        assert_eq!(files.used(), HUGE_PAGE as u64);
        let mut end = [1; 4];
        file.file.read_exact_at(&mut end, (8 << 20) - 4).unwrap();
        assert_eq!(end, [0; 4]);
        drop(file);
        assert_eq!(files.used(), 0);
    }

    #[test]
    fn the_limit_holds() {
        let files = MemoryFiles::new(4 << 20).unwrap();
        let file = files.create(8 << 20).unwrap();
        let written = (0..4u64).map(|n| file.write_at(n << 21, &vec![7; HUGE_PAGE]).is_ok());
        assert_eq!(written.collect::<Vec<_>>(), [true, true, false, false]);
    }
}
