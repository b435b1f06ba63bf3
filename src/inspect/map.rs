//! Which source file makes which part of which rank of a view: units (ranks, or files that are of no rank) against sections of the model.
//!
//! Every byte of a tensor of the view is in one cell. Not here: how it is drawn (`picture`).

mod sections;
mod shares;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use sections::Section;

use super::{FileListing, Listing, Piece, TensorListing};
use crate::layout::{Layout, Rank};
use crate::source::Source;
use crate::store::Store;
use crate::view::{View, ViewError};
use sections::{is_head, placed};
use stored::Stored;

/// What makes what.
#[derive(Debug, Clone, Serialize)]
pub struct Map {
    /// Where the files of the source are, which are named without it.
    pub directory: String,
    /// Sections of the model that anybody holds something of, in the order of the model.
    pub sections: Vec<Section>,
    /// The source: each unit's cells are of itself.
    pub from: Side,
    /// The view.
    pub to: Side,
}

/// A source or a view.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Its format.
    pub format: &'static str,
    /// Name of its layout.
    pub layout: String,
    /// Bytes of all its tensors.
    pub bytes: u64,
    /// Who holds them: ranks, stage by stage, or files.
    pub units: Vec<Unit>,
}

/// A rank, or a file that is of no rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// `pp1 tp0`, or the name of the file.
    pub name: String,
    /// The rank.
    pub rank: Option<Rank>,
    /// Its files with tensors.
    pub files: Vec<String>,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// What it holds, in the order of the model.
    pub cells: Vec<Cell>,
}

/// What a unit holds of a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The section.
    pub section: Section,
    /// Bytes of it.
    pub bytes: u64,
    /// Bytes by the unit of the source that they are read from, in the order of units.
    pub from: Vec<Portion>,
    /// Bytes that are in no file: new rows, constants.
    pub fill: u64,
    /// Bytes of tensors that other units hold other parts of.
    pub cut: u64,
    /// Bytes that other units hold too.
    pub shared: u64,
    /// The tensors, of a view.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<Tensor>,
}

/// Bytes from one unit of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Portion {
    /// Its number.
    pub unit: usize,
    /// How many.
    pub bytes: u64,
    /// How many of them other units hold too.
    pub shared: u64,
}

/// What a tensor of a view has of one section: all of it, unless it holds several layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tensor {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: &'static str,
    /// Shape on its rank.
    pub shape: Vec<u64>,
    /// Number of its file among those of the unit.
    pub file: usize,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes of this section.
    pub bytes: u64,
    /// Bytes that all ranks hold of it together, what is alike counted once.
    pub of: u64,
    /// Units that hold the same bytes, this one included.
    pub holders: usize,
    /// Where its bytes come from.
    pub from: Vec<Piece>,
}

impl Map {
    /// What makes the tensors of `view`, which is one of `source`.
    ///
    /// # Errors
    /// [`ViewError`] where a file cannot be laid out.
    pub fn of(source: &Source, view: &dyn View, store: &dyn Store) -> Result<Self, ViewError> {
        let listing = Listing::of(view, store, true)?;
        let ranks: Vec<Option<Rank>> = view.files().iter().map(|file| file.rank).collect();
        let directory = source.directory.display().to_string();
        let mut stored = Stored::of(&source.catalog, store, &directory);
        let tensors = listing.files.iter().flat_map(|file| file.tensors.iter().flatten());
        stored.add_files_of(tensors.flat_map(|tensor| &tensor.from));
        let catalog = &source.catalog;
        let mut to = Side {
            format: listing.format,
            layout: view.format().layout_name(view.layout()),
            bytes: 0,
            units: units(&listing, &ranks, view.layout(), &stored),
        };
        to.bytes = to.units.iter().map(|unit| unit.bytes).sum();
        shares::count(&mut to.units, &stored);
        let tensors = to.units.iter_mut().flat_map(|unit| &mut unit.cells).flat_map(|cell| &mut cell.tensors);
        tensors.flat_map(|tensor| &mut tensor.from).for_each(|piece| stored.shorten(piece));
        let from = Side {
            format: source.format.name(),
            layout: source.format.layout_name(&catalog.layout),
            bytes: stored.units.iter().map(|unit| unit.bytes).sum(),
            units: stored.units,
        };
        let all = from.units.iter().chain(&to.units).flat_map(|unit| &unit.cells);
        let sections: BTreeSet<Section> = all.map(|cell| cell.section).collect();
        Ok(Self { directory, sections: sections.into_iter().collect(), from, to })
    }
}

/// What a rank is called: by the sizes of the layout that are more than one.
fn rank_name(layout: &Layout, rank: Rank) -> String {
    let all = [("pp", layout.pp(), rank.pp), ("tp", layout.tp, rank.tp), ("ep", layout.ep(), rank.ep)];
    let parts = all.iter().filter(|(_, size, _)| *size > 1);
    let name = parts.map(|(word, _, number)| format!("{word}{number}")).collect::<Vec<_>>().join(" ");
    if name.is_empty() { "the only rank".to_owned() } else { name }
}

/// Those of a view: files of a rank are of one unit.
fn units(listing: &Listing, ranks: &[Option<Rank>], layout: &Layout, stored: &Stored) -> Vec<Unit> {
    let mut of_ranks: BTreeMap<Rank, Vec<&FileListing>> = BTreeMap::new();
    let mut of_files: Vec<&FileListing> = Vec::new();
    let has_tensors = |file: &FileListing| file.tensors.iter().flatten().next().is_some();
    for (file, rank) in listing.files.iter().zip(ranks).filter(|(file, _)| has_tensors(file)) {
        match rank {
            Some(rank) => of_ranks.entry(*rank).or_default().push(file),
            None => of_files.push(file),
        }
    }
    let ranked = of_ranks.into_iter().map(|(rank, files)| {
        let is_first = layout.places(rank).any(|place| layout.is_first(place));
        let cells = cells(&files, is_first, stored);
        unit(rank_name(layout, rank), Some(rank), &files, cells)
    });
    let unranked = of_files.into_iter().map(|file| unit(file.path.clone(), None, &[file], cells(&[file], true, stored)));
    ranked.chain(unranked).collect()
}

fn unit(name: String, rank: Option<Rank>, files: &[&FileListing], cells: Vec<Cell>) -> Unit {
    let files = files.iter().map(|file| file.path.clone()).collect();
    Unit { name, rank, files, bytes: cells.iter().map(|cell| cell.bytes).sum(), cells }
}

/// What these files of one unit hold of each section.
fn cells(files: &[&FileListing], is_first: bool, stored: &Stored) -> Vec<Cell> {
    let mut held: BTreeMap<Section, Vec<Tensor>> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        let tensors: Vec<_> = file.tensors.iter().flatten().map(|tensor| (tensor, Sectioned::of(tensor, is_first, stored))).collect();
        for (tensor, sectioned) in &tensors {
            let section = sectioned.last().unwrap_or_else(|| beside(&tensor.name, &tensors));
            for (section, pieces) in sectioned.with_fill_in(section) {
                held.entry(section).or_default().push(part(tensor, number, pieces));
            }
        }
    }
    held.into_iter().map(|(section, tensors)| cell(section, tensors, stored)).collect()
}

/// The pieces of a tensor.
struct Sectioned {
    stored: BTreeMap<Section, Vec<Piece>>,
    /// Those that are in no file of the source.
    fill: Vec<Piece>,
}

impl Sectioned {
    fn of(tensor: &TensorListing, is_first: bool, stored: &Stored) -> Self {
        let mut sectioned = Self { stored: BTreeMap::new(), fill: Vec::new() };
        let is_body = is_first && !is_head(&tensor.name);
        for piece in &tensor.from {
            if piece.file.is_none() {
                sectioned.fill.push(piece.clone());
            } else {
                stored.split(piece.clone(), &mut |section, piece| {
                    sectioned.stored.entry(placed(section, is_body)).or_default().push(piece);
                });
            }
        }
        sectioned
    }

    fn last(&self) -> Option<Section> {
        self.stored.keys().next_back().copied()
    }

    /// All pieces, with those that are made in this section.
    fn with_fill_in(&self, section: Section) -> BTreeMap<Section, Vec<Piece>> {
        let mut pieces = self.stored.clone();
        if !self.fill.is_empty() || pieces.is_empty() {
            pieces.entry(section).or_default().extend(self.fill.iter().cloned());
        }
        pieces
    }
}

/// The section of a tensor of which the source has nothing: that of the one in the same file whose name begins most like its own.
fn beside(name: &str, tensors: &[(&TensorListing, Sectioned)]) -> Section {
    let alike = |other: &str| name.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    let known = tensors.iter().filter_map(|(tensor, sectioned)| Some((alike(&tensor.name), sectioned.last()?)));
    known.max_by_key(|(alike, _)| *alike).map_or(Section::Other, |(_, section)| section)
}

/// What a tensor has of a section.
fn part(tensor: &TensorListing, file: usize, from: Vec<Piece>) -> Tensor {
    let bytes = from.iter().map(Piece::bytes).sum();
    let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
    let (dtype, offset) = (tensor.dtype, tensor.offset);
    Tensor { name, dtype, shape, file, offset, bytes, of: bytes, holders: 1, from }
}

fn cell(section: Section, tensors: Vec<Tensor>, stored: &Stored) -> Cell {
    let mut from: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut bytes, mut fill) = (0, 0);
    for piece in tensors.iter().flat_map(|tensor| &tensor.from) {
        bytes += piece.bytes();
        match piece.file.as_ref().and_then(|file| stored.unit_of(file)) {
            Some(unit) => *from.entry(unit).or_default() += piece.bytes(),
            None => fill += piece.bytes(),
        }
    }
    let from = from.into_iter().map(|(unit, bytes)| Portion { unit, bytes, shared: 0 }).collect();
    Cell { section, bytes, from, fill, cut: 0, shared: 0, tensors }
}
