//! The file system as the kernel calls it: each call one question to the tree and one answer.
//!
//! Calls that would change something answer EROFS, also where the read-only mount already stops them.
//! Not here: errors in words (`errno`), mounting (`mount`).

mod reading;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::ahead::{Ahead, Part};
use super::attr::{Owner, file_type};
use super::control::{self, Control};
use super::dispatch::Dispatch;
use super::errno::Warn;
use super::kept::{FORGET, grows, keep};
use super::limits::MAX_REQUEST;
use super::listing::{Listing, OpenDirectories, dot};
use super::requests::{Counted, Operation, Waiting};
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
    ahead: Ahead<Waiting>,
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

    pub(super) fn dispatch(&self) -> &Arc<Dispatch> {
        &self.dispatch
    }

    fn came(&self, operation: Operation) -> Counted<'_> {
        self.dispatch.requests().came(operation)
    }

    fn ask<T>(&self, question: impl FnOnce(&dyn Tree) -> Result<T, TreeError>) -> Result<T, Errno> {
        self.dispatch.ask(question)
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
    ($($operation:ident fn $name:ident($($argument:ty),*), $reply:ty;)*) => {
        $(fn $name(&self, _: &Request, $(_: $argument,)* reply: $reply) {
            self.came(Operation::$operation).refuse(Errno::EROFS, reply);
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
        let request = self.came(Operation::Lookup);
        if name.len() > NAME_MAX {
            return request.refuse(Errno::ENAMETOOLONG, reply);
        }
        let (parent, name, owner) = (Ino(parent.0), name.to_owned(), self.owner);
        Dispatch::reply(&self.dispatch, parent, reply, move |dispatch, reply| {
            let found = dispatch.ask(|tree| match dot(tree, parent, &name) {
                Some(ino) => tree.attr(ino?),
                None => tree.lookup(parent, &name),
            });
            match found {
                Ok(attr) => reply.entry(&keep(dispatch, &attr), &owner.attributes(&attr), GENERATION),
                Err(errno) => dispatch.requests().failed(Operation::Lookup, errno, reply),
            }
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.came(Operation::Getattr);
        let (ino, owner) = (Ino(ino.0), self.owner);
        Dispatch::reply(&self.dispatch, ino, reply, move |dispatch, reply| match dispatch.ask(|tree| tree.attr(ino)) {
            Ok(attr) => reply.attr(&keep(dispatch, &attr), &owner.attributes(&attr)),
            Err(errno) => dispatch.requests().failed(Operation::Getattr, errno, reply),
        });
    }

    /// Only asked where the kernel does not check modes itself.
    fn access(&self, _: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let request = self.came(Operation::Access);
        match self.ask(|tree| tree.attr(Ino(ino.0))) {
            Ok(_) if mask.contains(AccessFlags::W_OK) => request.refuse(Errno::EROFS, reply),
            Ok(_) => reply.ok(),
            Err(errno) => request.refuse(errno, reply),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.came(Operation::Opendir);
        let (ino, directories) = (Ino(ino.0), Arc::clone(&self.directories));
        Dispatch::reply(&self.dispatch, ino, reply, move |dispatch, reply| match dispatch.ask(|tree| Listing::new(tree, ino)) {
            Ok(listing) => {
                let kept = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
                let flags = if grows(dispatch, ino) { FopenFlags::empty() } else { kept };
                reply.opened(directories.add(listing), flags);
            }
            Err(errno) => dispatch.requests().failed(Operation::Opendir, errno, reply),
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let request = self.came(Operation::Readdir);
        let Some(listing) = self.directories.get(handle) else { return request.refuse(Errno::EBADF, reply) };
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
        let request = self.came(Operation::Readdirplus);
        let Some(listing) = self.directories.get(handle) else { return request.refuse(Errno::EBADF, reply) };
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
        self.came(Operation::Releasedir);
        self.directories.remove(handle);
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let request = self.came(Operation::Open);
        if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & (libc::O_TRUNC | libc::O_CREAT) != 0 {
            return request.refuse(Errno::EROFS, reply);
        }
        match self.ask(|tree| tree.io_mode(Ino(ino.0))) {
            Ok(IoMode::Direct) => {
                self.dispatch.hold(Ino(ino.0));
                let handle = FileHandle(self.handles.fetch_add(1, Ordering::Relaxed) + 1);
                self.dispatch.opened(Ino(ino.0));
                log::debug!("node {ino} is opened for direct reads");
                reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
            }
            Ok(IoMode::Cached) => Dispatch::open_cached(&self.dispatch, Ino(ino.0), reply),
            Err(errno) => request.refuse(errno, reply),
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
        self.came(Operation::Release);
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
        let waiting = Waiting { reply, since: Instant::now() };
        self.answer_read(Ino(ino.0), Part { handle: handle.0, offset, size }, waiting);
    }

    /// Files have no holes.
    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let request = self.came(Operation::Lseek);
        let size = match self.ask(|tree| tree.attr(Ino(ino.0))) {
            Ok(attr) => attr.size,
            Err(errno) => return request.refuse(errno, reply),
        };
        let Ok(size) = i64::try_from(size) else { return request.refuse(Errno::EOVERFLOW, reply) };
        match whence {
            libc::SEEK_DATA | libc::SEEK_HOLE if !(0..size).contains(&offset) => request.refuse(Errno::ENXIO, reply),
            libc::SEEK_DATA => reply.offset(offset),
            libc::SEEK_HOLE => reply.offset(size),
            _ => request.refuse(Errno::EINVAL, reply),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let request = self.came(Operation::Statfs);
        match self.ask(|tree| Ok(tree.total_bytes())) {
            Ok(bytes) => {
                let blocks = bytes.div_ceil(u64::from(BLOCK_SIZE));
                reply.statfs(blocks, 0, 0, 0, 0, BLOCK_SIZE, NAME_MAX as u32, BLOCK_SIZE);
            }
            Err(errno) => request.refuse(errno, reply),
        }
    }

    /// No file has attributes; two names are how programs talk to the mount.
    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let request = self.came(Operation::Getxattr);
        match Control::named(name) {
            Some(question) => control::answer(&self.dispatch, question, Ino(ino.0), size, reply),
            None => request.refuse(Errno::ENODATA, reply),
        }
    }

    fn listxattr(&self, _: &Request, _: INodeNo, size: u32, reply: ReplyXattr) {
        self.came(Operation::Listxattr);
        if size == 0 { reply.size(0) } else { reply.data(&[]) }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let request = self.came(Operation::Readlink);
        match self.ask(|tree| tree.read_link(Ino(ino.0))) {
            Ok(Some(target)) => reply.data(target.as_bytes()),
            // What is no link.
            Ok(None) => request.refuse(Errno::EINVAL, reply),
            Err(errno) => request.refuse(errno, reply),
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
        self.came(Operation::Ioctl).refuse(Errno::ENOTTY, reply);
    }

    // Nothing is ever waiting to be written.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.came(Operation::Flush);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.came(Operation::Fsync);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.came(Operation::Fsyncdir);
        reply.ok();
    }

    read_only! {
        Mknod fn mknod(INodeNo, &OsStr, u32, u32, u32), ReplyEntry;
        Mkdir fn mkdir(INodeNo, &OsStr, u32, u32), ReplyEntry;
        Unlink fn unlink(INodeNo, &OsStr), ReplyEmpty;
        Rmdir fn rmdir(INodeNo, &OsStr), ReplyEmpty;
        Symlink fn symlink(INodeNo, &OsStr, &Path), ReplyEntry;
        Rename fn rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags), ReplyEmpty;
        Link fn link(INodeNo, INodeNo, &OsStr), ReplyEntry;
        Create fn create(INodeNo, &OsStr, u32, u32, i32), ReplyCreate;
        Setattr fn setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>, Option<TimeOrNow>,
            Option<SystemTime>, Option<FileHandle>, Option<SystemTime>, Option<SystemTime>, Option<SystemTime>,
            Option<BsdFileFlags>
        ), ReplyAttr;
        Write fn write(INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>), ReplyWrite;
        Fallocate fn fallocate(INodeNo, FileHandle, u64, u64, i32), ReplyEmpty;
        CopyFileRange fn copy_file_range(
            INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ), ReplyWrite;
        Setxattr fn setxattr(INodeNo, &OsStr, &[u8], i32, u32), ReplyEmpty;
        Removexattr fn removexattr(INodeNo, &OsStr), ReplyEmpty;
    }
}

#[cfg(test)]
mod tests;
