//! The tree of a mount: one view at its root, or a directory per layout, made when it is first asked for.
//!
//! Files are laid out when their size is first asked for. Plans are kept in a bounded number and made again when needed.

use std::ffi::OsStr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::RwLock;

use super::plans::Plans;
use super::table::{Node, NodeKind, Table};
use super::{Attr, DirEntry, Ino, IoMode, Kind, Tree, TreeError};
use crate::layout::{Layout, LayoutSpec};
use crate::plan::FilePlan;
use crate::reader::{Checksums, CrcMode, ReadError, Reader};
use crate::store::StoreError;
use crate::view::megatron::{FileKind, MegatronView};
use crate::view::{Stock, ViewError};

/// What a mount shows.
#[derive(Debug, Clone)]
pub enum Shape {
    /// One layout, at the root.
    One(Layout),
    /// Every layout, each in a directory of its name.
    Many,
}

/// How a mount behaves.
pub struct Settings {
    /// What its checksum fields hold.
    pub crc: CrcMode,
    /// How files are opened; `None` leaves it to their format.
    pub io: Option<IoMode>,
    /// Time of all its files.
    pub modified: SystemTime,
    /// Where reasons go that an errno cannot tell.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
}

/// The tree of a mount.
pub struct Views {
    stock: Arc<Stock>,
    reader: Reader,
    settings: Settings,
    many: bool,
    table: RwLock<Table>,
    plans: Plans,
}

/// A file of a view, until it is laid out and after.
#[derive(Debug)]
pub(super) struct ViewFile {
    view: Arc<MegatronView>,
    kind: FileKind,
    size: OnceLock<u64>,
    checksums: Checksums,
}

impl Views {
    /// The tree of `shape` over `stock`.
    ///
    /// # Errors
    /// [`ViewError`] where the layout of the root cannot be laid out: one rank of every stage is tried.
    pub fn new(
        stock: Arc<Stock>,
        reader: Reader,
        shape: &Shape,
        settings: Settings,
    ) -> Result<Self, ViewError> {
        let views = Self {
            stock,
            reader,
            settings,
            many: matches!(shape, Shape::Many),
            table: RwLock::new(Table::new()),
            plans: Plans::new(),
        };
        match shape {
            Shape::One(layout) => views.add(layout, None)?,
            Shape::Many => {
                let source = views.stock.catalog.layout.clone();
                views.add(&source, Some(&source.to_string()))?
            }
        };
        Ok(views)
    }

    /// Adds the files of a layout, to the root or to the directory of this name in it, and returns where they are.
    ///
    /// Everything that can fail comes before the first entry is added, and all are added at once: a reader sees the whole checkpoint or
    /// none. A directory without its tracker would make training start from nothing.
    fn add(&self, layout: &Layout, directory: Option<&str>) -> Result<Ino, ViewError> {
        let view = Arc::new(MegatronView::new(self.stock.clone(), layout.clone()));
        for rank in layout.ranks().filter(|rank| rank.tp == 0) {
            view.plan(FileKind::Rank(rank))?;
        }
        let files = view.files();
        // Buffers are laid out by rules of their own.
        if let Some(buffers) = files.iter().find(|file| matches!(file.kind, FileKind::Buffers(_))) {
            view.plan(buffers.kind)?;
        }
        let mut table = self.table.write();
        let root = directory.map_or(Ino::ROOT, |name| table.directory(Ino::ROOT, name, name));
        for file in files {
            let node = ViewFile {
                view: view.clone(),
                kind: file.kind,
                size: OnceLock::new(),
                checksums: Checksums::new(self.settings.crc),
            };
            table.file(root, &layout.to_string(), &file.path, node);
        }
        Ok(root)
    }

    fn node(&self, ino: Ino) -> Result<Arc<Node>, TreeError> {
        self.table.read().get(ino).ok_or(TreeError::NotFound)
    }

    /// The directory of the layout called `name`: only canonical names are names.
    fn layout_directory(&self, name: &str) -> Result<Ino, TreeError> {
        let spec = LayoutSpec::parse(name).map_err(|_| TreeError::NotFound)?;
        let layout = self.stock.layout(&spec).map_err(|error| {
            (self.settings.log)(&format!("{name}: {error}"));
            TreeError::NotFound
        })?;
        if layout.to_string() != name {
            (self.settings.log)(&format!("{name}: this layout is called {layout} here"));
            return Err(TreeError::NotFound);
        }
        self.add(&layout, Some(name)).map_err(|error| {
            (self.settings.log)(&format!("{name}: {error}"));
            TreeError::Io(error.to_string())
        })
    }

    fn plan(&self, ino: Ino, file: &ViewFile) -> Result<Arc<FilePlan>, TreeError> {
        if let Some(plan) = self.plans.get(ino) {
            return Ok(plan);
        }
        let planned = file.view.plan(file.kind).map_err(|error| TreeError::Io(error.to_string()))?;
        let plan = Arc::new(planned.plan);
        self.plans.put(ino, plan.clone());
        Ok(plan)
    }

    fn attr_of(&self, node: &Node) -> Result<Attr, TreeError> {
        let (kind, size, links) = match &node.kind {
            NodeKind::Directory => (Kind::Directory, 0, self.table.read().links(node)),
            NodeKind::File(file) => (Kind::File, self.size(node.ino, file)?, 1),
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
        let child = self.table.read().child(parent, name);
        let ino = match child {
            Some(ino) => ino,
            None if self.many && parent == Ino::ROOT => self.layout_directory(name)?,
            None => return Err(TreeError::NotFound),
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
        self.table.read().list(ino).ok_or(TreeError::NotDirectory)
    }

    fn grows(&self, ino: Ino) -> bool {
        self.many && ino == Ino::ROOT
    }

    fn total_bytes(&self) -> u64 {
        let catalog = &self.stock.catalog;
        let optimizer = catalog.optimizer.iter().filter(|_| self.stock.optimizer.is_some());
        let states =
            optimizer.flat_map(|optimizer| optimizer.elements().flat_map(|(_, params)| params.all()));
        let params = catalog.params().iter().chain(states);
        params.map(|param| param.shape.bytes(param.dtype).unwrap_or(0)).fold(0, u64::saturating_add)
    }

    fn io_mode(&self, ino: Ino) -> Result<IoMode, TreeError> {
        match &self.node(ino)?.kind {
            NodeKind::Directory => Err(TreeError::IsDirectory),
            // Loaders of `.pt` files read; a direct read goes into their memory without a stop in the page cache.
            NodeKind::File(_) => Ok(self.settings.io.unwrap_or(IoMode::Direct)),
        }
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        let node = self.node(ino)?;
        let NodeKind::File(file) = &node.kind else { return Err(TreeError::IsDirectory) };
        let plan = self.plan(ino, file)?;
        self.reader.read(&plan, &file.checksums, offset, buffer).map_err(|error| match error {
            ReadError::Store(error @ StoreError::Changed { .. }) => TreeError::Stale(error.to_string()),
            error => TreeError::Io(error.to_string()),
        })
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("crc", &self.crc).field("io", &self.io).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").field("many", &self.many).finish_non_exhaustive()
    }
}
