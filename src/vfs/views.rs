//! The tree of a mount: one view at its root, or a directory per format and layout, made when it is first asked for.
//!
//! Files are laid out when their size is first asked for. Plans are kept in a bounded number and made again when needed.

mod opening;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use parking_lot::RwLock;

use super::file::ViewFile;
use super::figures::of_mount;
use super::open_files::OpenFiles;
use super::shape::Shape;
use super::spelling;
use super::table::{Node, NodeKind, Table};
use super::usage::{Usage, Use};
use super::backing::Promised;
use super::work::Work;
use super::{Assembling, Attr, DirEntry, Ino, IoMode, Kind, Message, Messages, Opened, Status, Tree, TreeError, Warmed};
use crate::cache::Cache;
use crate::extent::ObjectId;
use crate::layout::{Format, Layout};
use crate::plan::FilePlan;
use crate::reader::{Checksums, CrcMode, Plans, Reader};
use crate::view::{Conversions, ViewError};

/// How a mount behaves.
pub struct Settings {
    /// What its checksum fields hold.
    pub crc: CrcMode,
    /// How files are opened; `None` leaves it to their format.
    pub io: Option<IoMode>,
    /// Keeps what was assembled; the same one that the reader has.
    pub cache: Arc<Cache>,
    /// Time of all its files.
    pub modified: SystemTime,
    /// Where reasons go that an errno cannot tell.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
    /// What was said so far, by whoever says something of this mount.
    pub messages: Arc<Messages>,
    /// Counts how much each view is used; one for all trees of a mount.
    pub usage: Arc<Usage>,
    /// Number of the directory that all is in: that of the mount, or of one tree among several in it.
    pub root: Ino,
}

/// The tree of a mount.
pub struct Views {
    conversions: Arc<Conversions>,
    reader: Reader,
    settings: Settings,
    /// Directories that get a directory for each layout asked for, and in which format.
    growing: BTreeMap<Ino, Format>,
    table: RwLock<Table>,
    plans: Plans<Ino>,
    open_files: OpenFiles,
    work: Work,
    promised: Promised,
    /// What is shown, in words.
    words: String,
    since: Instant,
    started: SystemTime,
}

impl Views {
    /// The tree of `shape` over everything that a source can be shown as.
    ///
    /// # Errors
    /// [`ViewError`] where the layout of the root cannot be laid out: one rank of every stage is tried.
    pub fn new(
        conversions: Arc<Conversions>,
        reader: Reader,
        shape: &Shape,
        settings: Settings,
    ) -> Result<Self, ViewError> {
        let mut views = Self {
            table: RwLock::new(Table::new(settings.root)),
            conversions,
            reader,
            settings,
            growing: BTreeMap::new(),
            plans: Plans::new(),
            open_files: OpenFiles::default(),
            work: Work::default(),
            promised: Promised::default(),
            words: shape.to_string(),
            since: Instant::now(),
            started: SystemTime::now(),
        };
        match shape {
            Shape::One(format, layout) => {
                views.add(*format, layout, &[])?;
            }
            Shape::Many(None) => views.add_formats()?,
            Shape::Many(Some(format)) => views.add_layouts(*format)?,
        }
        Ok(views)
    }

    /// The directories that stand at the root of a mount of many, each with the layout that the source has in it.
    fn add_formats(&mut self) -> Result<(), ViewError> {
        let own = self.conversions.usual_format();
        if !own.is_single() {
            self.add_layouts(own)?;
        }
        for format in Format::ALL {
            // What cannot be shown is not there; `inspect` says why.
            if self.conversions.basis(format).is_err() {
                continue;
            }
            // Laid out when somebody looks into it.
            let directory = self.table.write().directory(self.settings.root, format.name(), format.name());
            self.growing.insert(directory, format);
        }
        Ok(())
    }

    /// Makes `root` the directory of all layouts of a format, with the one that the source has in it.
    fn add_layouts(&mut self, format: Format) -> Result<(), ViewError> {
        self.growing.insert(self.settings.root, format);
        self.add_first(format, &[])
    }

    /// Adds the layout that the source has in this format to the directory that these names lead to; a format with one layout has its files
    /// there.
    fn add_first(&self, format: Format, names: &[&str]) -> Result<(), ViewError> {
        let layout = self.conversions.basis(format)?.catalog.layout.clone();
        let name = format.layout_name(&layout);
        let within = [name.as_str()];
        let names = [names, if format.is_single() { &[] } else { &within }].concat();
        self.add(format, &layout, &names).map(|_| ())
    }

    /// What stands in the directory of a format, before anybody is told: its files, or a first layout as an example.
    fn fill(&self, ino: Ino) -> Result<(), TreeError> {
        let Some(format) = self.growing.get(&ino).filter(|_| ino != self.settings.root) else { return Ok(()) };
        let is_empty = self.table.read().list(ino).is_some_and(|entries| entries.is_empty());
        if !is_empty {
            return Ok(());
        }
        self.add_first(*format, &[format.name()]).map_err(|error| {
            (self.settings.log)(&format!("{format}: {error}"));
            TreeError::from(error)
        })
    }

    /// Adds the files of a layout, to the root or to the directory that these names lead to, and returns where they are.
    ///
    /// Everything that can fail comes before the first entry is added, and all are added at once: a reader sees the whole checkpoint or
    /// none. A directory without its tracker would make training start from nothing.
    fn add(&self, format: Format, layout: &Layout, names: &[&str]) -> Result<Ino, ViewError> {
        let view = self.conversions.view(format, layout)?;
        for (number, _) in view.files().iter().enumerate().filter(|(_, file)| file.is_probe) {
            view.plan(number)?;
        }
        let mut table = self.table.write();
        let (mut root, mut identity) = (self.settings.root, String::new());
        for name in names {
            identity = if identity.is_empty() { (*name).to_owned() } else { format!("{identity}/{name}") };
            root = table.directory(root, name, &identity);
        }
        let used = self.settings.usage.of(Shape::One(format, layout.clone()).to_string());
        let within = if names.is_empty() { identity_of(format, layout) } else { identity };
        for (number, file) in view.files().iter().enumerate() {
            let node = ViewFile {
                view: view.clone(),
                number,
                size: OnceLock::new(),
                checksums: Checksums::new(self.settings.crc),
                used: Arc::clone(&used),
            };
            table.file(root, &within, &file.path, node);
        }
        Ok(root)
    }

    fn node(&self, ino: Ino) -> Result<Arc<Node>, TreeError> {
        self.table.read().get(ino).ok_or(TreeError::NotFound)
    }

    /// What `name` is in `parent`, which grows and does not have it yet: the directory of a layout, or a link to it for another spelling.
    fn layout_directory(&self, parent: Ino, format: Format, name: &str) -> Result<Ino, TreeError> {
        let spec = spelling::layout(name).ok_or(TreeError::NotFound)?;
        let layout = self.conversions.layout(format, &spec).map_err(|error| {
            (self.settings.log)(&format!("{name}: {error}"));
            TreeError::NotFound
        })?;
        if self.table.read().is_full() {
            let message = format!("{name}: too many layouts were looked at in this mount; mount again");
            (self.settings.log)(&message);
            return Err(TreeError::Io(message));
        }
        let canonical = format.layout_name(&layout);
        if canonical != name {
            return Ok(self.table.write().link(parent, name, &canonical));
        }
        let names: &[&str] = if parent == self.settings.root { &[name] } else { &[format.name(), name] };
        self.add(format, &layout, names).map_err(|error| {
            (self.settings.log)(&format!("{name}: {error}"));
            TreeError::from(error)
        })
    }

    /// The link called `name` at the root to the directory of a format, for another spelling of that.
    fn format_link(&self, parent: Ino, name: &str) -> Option<Ino> {
        let format = spelling::format(name).filter(|format| parent == self.settings.root && format.name() != name)?;
        let mut table = self.table.write();
        // What cannot be shown is not there.
        table.child(self.settings.root, format.name()).filter(|ino| self.growing.contains_key(ino))?;
        Some(table.link(self.settings.root, name, format.name()))
    }

    fn plan(&self, ino: Ino, file: &ViewFile) -> Result<Arc<FilePlan>, TreeError> {
        if let Some(plan) = self.plans.get(&ino) {
            return Ok(plan);
        }
        let planned = file.view.plan(file.number)?;
        let plan = Arc::new(planned.plan);
        self.plans.put(ino, plan.clone());
        Ok(plan)
    }

    /// Long work under way.
    pub(super) fn assembling(&self) -> Vec<Assembling> {
        self.work.list()
    }

    /// Whether it has a node of this number so far.
    pub(super) fn has(&self, ino: Ino) -> bool {
        self.table.read().get(ino).is_some()
    }

    /// What is wrong with the first file of the source that is not as it was.
    pub(super) fn source_problem(&self) -> Option<String> {
        let catalog = &self.conversions.own().catalog;
        let buffers = catalog.ranks.iter().flat_map(|file| &file.buffers).map(|file| file.object);
        let files = catalog.ranks.iter().flat_map(|file| file.files.keys().copied().chain([file.object])).chain(buffers);
        let all: BTreeSet<ObjectId> = files.collect();
        all.into_iter().find_map(|object| Some(self.reader.store().check_unchanged(object).err()?.to_string()))
    }

    fn attr_of(&self, node: &Node) -> Result<Attr, TreeError> {
        let (kind, size, links) = match &node.kind {
            NodeKind::Directory => (Kind::Directory, 0, self.table.read().links(node)),
            NodeKind::File(file) => (Kind::File, self.size(node.ino, file)?, 1),
            NodeKind::Link(target) => (Kind::Link, target.len() as u64, 1),
        };
        Ok(Attr { ino: node.ino, kind, size, links, modified: self.settings.modified })
    }

    fn size(&self, ino: Ino, file: &ViewFile) -> Result<u64, TreeError> {
        if let Some(size) = file.size.get() {
            return Ok(*size);
        }
        let size = self.plan(ino, file)?.len();
        Ok(*file.size.get_or_init(|| size))
    }
}

impl Tree for Views {
    fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr, TreeError> {
        let directory = self.node(parent)?;
        if !matches!(directory.kind, NodeKind::Directory) {
            return Err(TreeError::NotDirectory);
        }
        let name = name.to_str().ok_or(TreeError::NotFound)?;
        if self.growing.get(&parent).is_some_and(|format| format.is_single()) {
            self.fill(parent)?;
        }
        let child = self.table.read().child(parent, name);
        let ino = match child {
            Some(ino) => ino,
            None => match (self.format_link(parent, name), self.growing.get(&parent).filter(|format| !format.is_single())) {
                (Some(link), _) => link,
                (None, Some(format)) => self.layout_directory(parent, *format, name)?,
                (None, None) => return Err(TreeError::NotFound),
            },
        };
        let node = self.node(ino)?;
        self.attr_of(&node)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, TreeError> {
        let node = self.node(ino)?;
        self.attr_of(&node)
    }

    fn parent(&self, ino: Ino) -> Result<Ino, TreeError> {
        Ok(self.node(ino)?.parent)
    }

    fn list(&self, ino: Ino) -> Result<Vec<DirEntry>, TreeError> {
        self.node(ino)?;
        self.fill(ino)?;
        self.table.read().list(ino).ok_or(TreeError::NotDirectory)
    }

    fn read_link(&self, ino: Ino) -> Result<Option<String>, TreeError> {
        Ok(match &self.node(ino)?.kind {
            NodeKind::Link(target) => Some(target.clone()),
            NodeKind::Directory | NodeKind::File(_) => None,
        })
    }

    fn grows(&self, ino: Ino) -> bool {
        self.growing.contains_key(&ino)
    }

    fn total_bytes(&self) -> u64 {
        let basis = self.conversions.own();
        let catalog = &basis.catalog;
        let optimizer = catalog.optimizer.iter().filter(|_| basis.optimizer.is_some());
        let states =
            optimizer.flat_map(|optimizer| optimizer.elements().flat_map(|(_, params)| params.all()));
        let params = catalog.params().iter().chain(states);
        params.filter_map(|param| param.shape.bytes(param.dtype)).fold(0, u64::saturating_add)
    }

    fn io_mode(&self, ino: Ino) -> Result<IoMode, TreeError> {
        match &self.node(ino)?.kind {
            NodeKind::Directory => Err(TreeError::IsDirectory),
            // The kernel follows links by itself and never opens one.
            NodeKind::Link(_) => Err(TreeError::NotFound),
            NodeKind::File(file) => match self.settings.io {
                Some(mode) => Ok(mode),
                None => Ok(suited(file)),
            },
        }
    }

    fn open(&self, ino: Ino, passes: bool) -> Result<Opened, TreeError> {
        self.open_file(ino, passes)
    }

    fn close(&self, ino: Ino) {
        self.open_files.close(ino);
    }

    fn warm(&self, ino: Ino, passes: bool) -> Result<Warmed, TreeError> {
        self.warm_file(ino, passes)
    }

    fn messages(&self) -> Vec<Message> {
        self.settings.messages.list()
    }

    fn used(&self, ino: Ino, what: Use) {
        if let Ok(node) = self.node(ino)
            && let NodeKind::File(file) = &node.kind
        {
            self.settings.usage.add(&file.used, what);
        }
    }

    fn status(&self) -> Status {
        Status {
            view: self.words.clone(),
            source_problem: self.source_problem(),
            cache: self.settings.cache.stats().into(),
            assembling: self.assembling(),
            ..of_mount((self.since, self.started), &self.settings.messages, &self.settings.usage)
        }
    }

    fn tensor_end(&self, ino: Ino, offset: u64) -> u64 {
        let Ok(node) = self.node(ino) else { return offset };
        let NodeKind::File(file) = &node.kind else { return offset };
        match self.plan(ino, file) {
            Ok(plan) => plan.stripes_end(offset),
            Err(_) => offset,
        }
    }

    fn unchanged(&self, ino: Ino, range: Range<u64>) -> Result<(), TreeError> {
        let node = self.node(ino)?;
        let NodeKind::File(file) = &node.kind else { return Err(TreeError::IsDirectory) };
        let plan = self.plan(ino, file)?;
        Ok(self.reader.check(&plan, range)?)
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        let node = self.node(ino)?;
        let NodeKind::File(file) = &node.kind else { return Err(TreeError::IsDirectory) };
        let plan = self.plan(ino, file)?;
        Ok(self.reader.read(&plan, &file.checksums, offset, buffer)?)
    }
}

/// Loaders of `.pt` files read: a direct read goes into their memory without a stop in the page cache. Those of safetensors map.
fn suited(file: &ViewFile) -> IoMode {
    let is_mapped = file.view.files().get(file.number).is_some_and(|file| file.is_mapped);
    if is_mapped { IoMode::Cached } else { IoMode::Direct }
}

/// What numbers of nodes are made of where one view is the root.
fn identity_of(format: Format, layout: &Layout) -> String {
    let layout = format.layout_name(layout);
    if format == Format::Megatron { layout } else { format!("{format}/{layout}") }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("crc", &self.crc).field("io", &self.io).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").field("growing", &self.growing).finish_non_exhaustive()
    }
}
