//! The file system as the kernel calls it: each call one question to the tree and one answer.
//!
//! Calls that would change something answer EROFS, also where the read-only mount already stops them.
//! Not here: errors in words (`errno`), mounting (`mount`).

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::ahead::{Ahead, Taken, Part, Task};
use super::attr::{Owner, file_type};
use super::buffer::{answer, with_buffer};
use super::control::{self, Control};
use super::dispatch::Dispatch;
use super::errno::Warn;
use super::kept::{FORGET, grows, keep};
use super::limits::MAX_REQUEST;
use super::listing::{Listing, OpenDirectories, dot};
use crate::vfs::{Attr, DirEntry, Ino, IoMode, Tree, TreeError};

/// Numbers are never given to another node.
const GENERATION: Generation = Generation(0);
/// Longest name in bytes, as everywhere on Linux; FUSE itself would let longer ones through.
const NAME_MAX: usize = 255;
/// Unit of the sizes that `df` is told.
const BLOCK_SIZE: u32 = 4096;
/// Requests the kernel may have under way without anybody waiting, such as read-ahead.
const MAX_BACKGROUND: u16 = 64;

/// What the kernel is asked for, where it has it.
const CAPABILITIES: [InitFlags; 7] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // Lookups of "." and "..": re-exports over NFS find nodes by number again.
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_ASYNC_DIO,
    // Without it a shared mapping of a directly read file fails.
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// The first number of handles that are read directly; those below are said by the dispatch.
const FIRST_DIRECT: u64 = 16;

/// A tree behind the FUSE protocol.
pub(super) struct Adapter {
    dispatch: Arc<Dispatch>,
    owner: Owner,
    directories: Arc<OpenDirectories>,
    ahead: Ahead<ReplyData>,
    /// The last number given to a handle whose reads come here.
    handles: AtomicU64,
    /// Told to the outside when the kernel hangs up.
    over: Arc<AtomicBool>,
}

impl Adapter {
    pub(super) fn new(tree: Arc<dyn Tree>, owner: Owner, warn: Warn, over: Arc<AtomicBool>) -> Self {
        let directories = Arc::new(OpenDirectories::default());
        let (ahead, handles) = (Ahead::default(), AtomicU64::new(FIRST_DIRECT - 1));
        Self { dispatch: Arc::new(Dispatch::new(tree, warn)), owner, directories, ahead, handles, over }
    }

    fn ask<T>(&self, question: impl FnOnce(&dyn Tree) -> Result<T, TreeError>) -> Result<T, Errno> {
        self.dispatch.ask(question)
    }

    /// Fills `buffer` and returns how much of it counts.
    fn fill(&self, ino: INodeNo, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.ask(|tree| {
            let got = tree.read(Ino(ino.0), offset, buffer)?;
            // The kernel takes what is missing for zeros: a short answer is only right at the end of the file.
            if got < buffer.len() && offset.saturating_add(got as u64) < tree.attr(Ino(ino.0))?.size {
                return Err(TreeError::Io(format!(
                    "short read of node {} at {offset}; this is a bug",
                    ino.0
                )));
            }
            Ok(got.min(buffer.len()))
        })
    }

    /// Gathers what will be asked for next, and answers it where it was asked for meanwhile.
    fn read_ahead(&self, ino: INodeNo, task: Option<Task>) {
        let Some(mut task) = task else { return };
        let filled = match task.buffer.get_mut(..task.part.size as usize) {
            Some(buffer) => self.fill(ino, task.part.offset, buffer),
            None => Err(Errno::EIO),
        };
        if let Some((buffer, got, reply)) = self.ahead.finish(task, filled.as_ref().ok().copied()) {
            match filled {
                Ok(_) => answer(reply, &buffer, got),
                Err(errno) => reply.error(errno),
            }
            self.ahead.give_back(buffer);
        }
    }

    /// How long the kernel may keep the attributes of a node.
    fn keep(&self, attr: &Attr) -> Duration {
        keep(&self.dispatch, attr)
    }

    /// Attributes for a listing and how long they hold: one file that cannot be laid out must not hide the others.
    fn listed(&self, entry: &DirEntry) -> (Attr, Duration) {
        match self.ask(|tree| tree.attr(entry.ino)) {
            Ok(attr) => {
                let keep = self.keep(&attr);
                (attr, keep)
            }
            Err(_) => {
                let modified = SystemTime::UNIX_EPOCH;
                (Attr { ino: entry.ino, kind: entry.kind, size: 0, links: 1, modified }, FORGET)
            }
        }
    }
}

/// Calls that would change something: all the same answer, whatever they are called with.
macro_rules! read_only {
    ($(fn $name:ident($($argument:ty),*), $reply:ty;)*) => {
        $(fn $name(&self, _: &Request, $(_: $argument,)* reply: $reply) {
            reply.error(Errno::EROFS);
        })*
    };
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in CAPABILITIES {
            // A kernel without it is slower or stricter, not wrong.
            let _ = config.add_capabilities(capability);
        }
        let _ = config.set_max_write(MAX_REQUEST);
        let _ = config.set_max_background(MAX_BACKGROUND);
        self.dispatch.passthrough().ask_for(config);
        Ok(())
    }

    fn destroy(&mut self) {
        self.over.store(true, Ordering::Release);
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name.len() > NAME_MAX {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let (parent, name, owner) = (Ino(parent.0), name.to_owned(), self.owner);
        Dispatch::reply(&self.dispatch, parent, reply, move |dispatch, reply| {
            let found = dispatch.ask(|tree| match dot(tree, parent, &name) {
                Some(ino) => tree.attr(ino?),
                None => tree.lookup(parent, &name),
            });
            match found {
                Ok(attr) => reply.entry(&keep(dispatch, &attr), &owner.attributes(&attr), GENERATION),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let (ino, owner) = (Ino(ino.0), self.owner);
        Dispatch::reply(&self.dispatch, ino, reply, move |dispatch, reply| match dispatch.ask(|tree| tree.attr(ino)) {
            Ok(attr) => reply.attr(&keep(dispatch, &attr), &owner.attributes(&attr)),
            Err(errno) => reply.error(errno),
        });
    }

    /// Only asked where the kernel does not check modes itself.
    fn access(&self, _: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        match self.ask(|tree| tree.attr(Ino(ino.0))) {
            Ok(_) if mask.contains(AccessFlags::W_OK) => reply.error(Errno::EROFS),
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let (ino, directories) = (Ino(ino.0), Arc::clone(&self.directories));
        Dispatch::reply(&self.dispatch, ino, reply, move |dispatch, reply| match dispatch.ask(|tree| Listing::new(tree, ino)) {
            Ok(listing) => {
                let kept = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
                let flags = if grows(dispatch, ino) { FopenFlags::empty() } else { kept };
                reply.opened(directories.add(listing), flags);
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(listing) = self.directories.get(handle) else { return reply.error(Errno::EBADF) };
        for (next, entry) in listing.entries_from(offset) {
            if reply.add(INodeNo(entry.ino.0), next, file_type(entry.kind), &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(listing) = self.directories.get(handle) else { return reply.error(Errno::EBADF) };
        for (next, entry) in listing.entries_from(offset) {
            let (attr, keep) = self.listed(entry);
            let attributes = self.owner.attributes(&attr);
            if reply.add(attributes.ino, next, &entry.name, &keep, &attributes, GENERATION) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.directories.remove(handle);
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & (libc::O_TRUNC | libc::O_CREAT) != 0 {
            return reply.error(Errno::EROFS);
        }
        match self.ask(|tree| tree.io_mode(Ino(ino.0))) {
            Ok(IoMode::Direct) => {
                self.dispatch.hold(Ino(ino.0));
                let handle = FileHandle(self.handles.fetch_add(1, Ordering::Relaxed) + 1);
                reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
            }
            Ok(IoMode::Cached) => Dispatch::open_cached(&self.dispatch, Ino(ino.0), reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.ahead.closed(handle.0);
        self.dispatch.closed(Ino(ino.0), handle);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let part = Part { handle: handle.0, offset, size };
        let next = |got: usize| {
            // The kernel reads ahead by itself for files that it keeps pages of.
            let is_whole = handle.0 >= FIRST_DIRECT && got == size as usize;
            let end = |tree: &dyn Tree| Ok(tree.tensor_end(Ino(ino.0), offset + u64::from(size)));
            is_whole.then(|| self.ahead.next(part, self.ask(end).ok()?))?
        };
        match self.ahead.take(part, reply) {
            Taken::HandedOver => {}
            Taken::Ready(buffer, got, reply) => {
                let range = offset..offset + got as u64;
                match self.ask(|tree| tree.unchanged(Ino(ino.0), range)) {
                    Ok(()) => {
                        let next = next(got);
                        answer(reply, &buffer, got);
                        self.ahead.give_back(buffer);
                        self.read_ahead(ino, next);
                    }
                    Err(errno) => reply.error(errno),
                }
            }
            Taken::Nothing(reply) => {
                let next = with_buffer(size as usize, |buffer| match self.fill(ino, offset, buffer) {
                    Ok(got) => {
                        let next = next(got);
                        answer(reply, buffer, got);
                        next
                    }
                    Err(errno) => {
                        reply.error(errno);
                        None
                    }
                });
                self.read_ahead(ino, next);
            }
        }
    }

    /// Files have no holes.
    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let size = match self.ask(|tree| tree.attr(Ino(ino.0))) {
            Ok(attr) => attr.size,
            Err(errno) => return reply.error(errno),
        };
        let Ok(size) = i64::try_from(size) else { return reply.error(Errno::EOVERFLOW) };
        match whence {
            libc::SEEK_DATA | libc::SEEK_HOLE if !(0..size).contains(&offset) => reply.error(Errno::ENXIO),
            libc::SEEK_DATA => reply.offset(offset),
            libc::SEEK_HOLE => reply.offset(size),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.ask(|tree| Ok(tree.total_bytes())) {
            Ok(bytes) => {
                let blocks = bytes.div_ceil(u64::from(BLOCK_SIZE));
                reply.statfs(blocks, 0, 0, 0, 0, BLOCK_SIZE, NAME_MAX as u32, BLOCK_SIZE);
            }
            Err(errno) => reply.error(errno),
        }
    }

    /// No file has attributes; two names are how programs talk to the mount.
    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match Control::named(name) {
            Some(question) => control::answer(&self.dispatch, question, Ino(ino.0), size, reply),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _: &Request, _: INodeNo, size: u32, reply: ReplyXattr) {
        if size == 0 { reply.size(0) } else { reply.data(&[]) }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.ask(|tree| tree.read_link(Ino(ino.0))) {
            Ok(Some(target)) => reply.data(target.as_bytes()),
            // What is no link.
            Ok(None) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // Nothing is ever waiting to be written.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    read_only! {
        fn mknod(INodeNo, &OsStr, u32, u32, u32), ReplyEntry;
        fn mkdir(INodeNo, &OsStr, u32, u32), ReplyEntry;
        fn unlink(INodeNo, &OsStr), ReplyEmpty;
        fn rmdir(INodeNo, &OsStr), ReplyEmpty;
        fn symlink(INodeNo, &OsStr, &Path), ReplyEntry;
        fn rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags), ReplyEmpty;
        fn link(INodeNo, INodeNo, &OsStr), ReplyEntry;
        fn create(INodeNo, &OsStr, u32, u32, i32), ReplyCreate;
        fn setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>, Option<TimeOrNow>,
            Option<SystemTime>, Option<FileHandle>, Option<SystemTime>, Option<SystemTime>, Option<SystemTime>,
            Option<BsdFileFlags>
        ), ReplyAttr;
        fn write(INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>), ReplyWrite;
        fn fallocate(INodeNo, FileHandle, u64, u64, i32), ReplyEmpty;
        fn copy_file_range(
            INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ), ReplyWrite;
        fn setxattr(INodeNo, &OsStr, &[u8], i32, u32), ReplyEmpty;
        fn removexattr(INodeNo, &OsStr), ReplyEmpty;
    }
}

#[cfg(test)]
mod tests;
