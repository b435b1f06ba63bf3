//! A file system that shows a directory and fails when told to: the disk, or the storage on the network, on a bad day.
//!
//! Not here: what is expected of those who read it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};

/// What goes wrong.
#[derive(Default)]
pub(crate) struct Rules {
    /// Reads that touch these bytes of files below a directory of this name fail with EIO.
    pub(crate) broken: Option<(String, Range<u64>)>,
    /// Reads give at most so many bytes.
    pub(crate) most: Option<usize>,
    /// Every so manieth read is interrupted.
    pub(crate) interrupts: Option<u64>,
    /// After so many reads files look modified.
    pub(crate) modified_after: Option<u64>,
    /// After so many reads none is answered until this is taken back.
    pub(crate) held_after: Option<u64>,
    /// Reads until now.
    pub(crate) reads: u64,
}

impl Rules {
    /// Whether reads wait.
    pub(crate) fn is_held(&self) -> bool {
        self.held_after.is_some_and(|reads| self.reads >= reads)
    }
}

/// The file system, mounted.
pub(crate) struct Faulty {
    pub(crate) rules: Arc<Mutex<Rules>>,
    /// Dropped before the directory that it is mounted on.
    _session: BackgroundSession,
    point: tempfile::TempDir,
}

impl Faulty {
    /// Shows `root`. With `direct` nothing is cached between it and its readers, so that short reads arrive as they are, and files cannot be
    /// mapped.
    pub(crate) fn mount(root: &Path, direct: bool) -> Self {
        let rules = Arc::new(Mutex::new(Rules::default()));
        let mut nodes = vec![root.to_owned()];
        let mut at = 0;
        while at < nodes.len() {
            if nodes[at].is_dir() {
                nodes.extend(fs::read_dir(&nodes[at]).unwrap().map(|entry| entry.unwrap().path()));
            }
            at += 1;
        }
        let point = tempfile::tempdir().unwrap();
        let system = System { nodes, direct, rules: Arc::clone(&rules) };
        let session = fuser::spawn_mount(system, point.path(), &Config::default()).unwrap();
        Self { rules, _session: session, point }
    }

    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }

    pub(crate) fn rule(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.lock().unwrap());
    }
}

struct System {
    /// The node with number n is at n - 1.
    nodes: Vec<PathBuf>,
    direct: bool,
    rules: Arc<Mutex<Rules>>,
}

/// Attributes and names are asked for each time.
const NEVER: Duration = Duration::ZERO;

impl System {
    fn path(&self, ino: INodeNo) -> &Path {
        &self.nodes[ino.0 as usize - 1]
    }

    fn children(&self, ino: INodeNo) -> BTreeMap<&OsStr, u64> {
        let of = |(at, path): (usize, &'_ PathBuf)| {
            (path.parent() == Some(self.path(ino))).then_some(at as u64 + 1)
        };
        self.nodes.iter().enumerate().filter_map(|node| Some((node.1.file_name()?, of(node)?))).collect()
    }

    fn attr(&self, ino: u64) -> FileAttr {
        let meta = fs::metadata(&self.nodes[ino as usize - 1]).unwrap();
        let rules = self.rules.lock().unwrap();
        let is_modified = rules.modified_after.is_some_and(|reads| rules.reads > reads);
        let mtime = meta.modified().unwrap() + Duration::from_secs(u64::from(is_modified));
        let kind = if meta.is_dir() { FileType::Directory } else { FileType::RegularFile };
        FileAttr {
            ino: INodeNo(ino),
            size: meta.len(),
            blocks: meta.len().div_ceil(512),
            atime: mtime,
            mtime,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: mtime,
            kind,
            perm: if meta.is_dir() { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn bytes(&self, ino: INodeNo, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let path = self.path(ino);
        let is_held = || self.rules.lock().unwrap().is_held();
        while is_held() {
            thread::yield_now();
        }
        let mut rules = self.rules.lock().unwrap();
        rules.reads += 1;
        let range = offset..offset + u64::from(size);
        if let Some((name, broken)) = &rules.broken
            && path.parent().is_some_and(|folder| folder.ends_with(name))
            && range.start < broken.end
            && broken.start < range.end
        {
            return Err(Errno::EIO);
        }
        if rules.interrupts.is_some_and(|each| rules.reads.is_multiple_of(each)) {
            return Err(Errno::EINTR);
        }
        let mut bytes = vec![0; (size as usize).min(rules.most.unwrap_or(usize::MAX))];
        drop(rules);
        let file = File::open(path).unwrap();
        let mut got = 0;
        while got < bytes.len() {
            match file.read_at(&mut bytes[got..], offset + got as u64).unwrap() {
                0 => break,
                more => got += more,
            }
        }
        bytes.truncate(got);
        Ok(bytes)
    }
}

impl Filesystem for System {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.children(parent).get(name) {
            Some(ino) => reply.entry(&NEVER, &self.attr(*ino), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&NEVER, &self.attr(ino.0));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for (at, (name, child)) in self.children(ino).into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(child), at as u64 + 1, self.attr(child).kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Pages stay from one opening to the next.
        let flags = if self.direct { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::FOPEN_KEEP_CACHE };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.bytes(ino, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }
}
