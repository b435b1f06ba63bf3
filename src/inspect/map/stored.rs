//! The units of a source, and which section of the model each byte of its files is of.

use std::collections::{BTreeMap, HashMap};

use super::{Cell, Piece, Portion, Section, Unit, placed, rank_name};
use crate::catalog::{Catalog, Chunk, Param, RankFile};
use crate::extent::ObjectId;
use crate::inspect::listing::Loop;
use crate::store::Store;

/// What is known of the files of a source. They go by their names, as pieces of a listing have them.
pub(super) struct Stored {
    pub(super) units: Vec<Unit>,
    unit_of: HashMap<String, usize>,
    /// Where a section begins in each file; it goes on to where the next one does.
    begins: HashMap<String, Vec<(u64, Section)>>,
    /// What names of files begin with that are named without it.
    directory: String,
}

impl Stored {
    /// Of the files of `catalog`, which units are called by without `directory` in front.
    pub(super) fn of(catalog: &Catalog, store: &dyn Store, directory: &str) -> Self {
        let directory = format!("{directory}/");
        let mut units = Vec::new();
        let mut by_object: HashMap<ObjectId, usize> = HashMap::new();
        for file in &catalog.ranks {
            for (rank, objects) in units_of(file) {
                by_object.extend(objects.iter().map(|object| (*object, units.len())));
                let files: Vec<String> = objects.iter().map(|object| shorter(store.name(*object), &directory)).collect();
                let name = match rank {
                    Some(rank) => rank_name(&catalog.layout, rank),
                    None => files.concat(),
                };
                units.push(Unit { name, rank, files, bytes: 0, cells: Vec::new() });
            }
        }
        let mut begins: BTreeMap<ObjectId, Vec<(u64, Section)>> = BTreeMap::new();
        let mut bytes: BTreeMap<(usize, Section), u64> = BTreeMap::new();
        for (param, chunk, is_copy) in all_chunks(catalog) {
            let section = Section::of_param(&param.name);
            begins.entry(chunk.object).or_default().push((chunk.start, section));
            let is_first = catalog.layout.places(chunk.rank).any(|place| catalog.layout.is_first(place));
            if let Some(unit) = by_object.get(&chunk.object) {
                let size = chunk.region.shape().bytes(param.dtype).unwrap_or(0);
                *bytes.entry((*unit, placed(section, is_first && !is_copy))).or_default() += size;
            }
        }
        for ((unit, section), bytes) in bytes {
            if let Some(found) = units.get_mut(unit) {
                found.bytes += bytes;
                let from = vec![Portion { unit, bytes, shared: 0 }];
                found.cells.push(Cell { section, bytes, from, fill: 0, cut: 0, shared: 0, tensors: Vec::new() });
            }
        }
        let unit_of = by_object.into_iter().map(|(object, unit)| (store.name(object), unit)).collect();
        let begins = begins.into_iter().map(|(object, begins)| (store.name(object), changes(begins))).collect();
        Self { units, unit_of, begins, directory }
    }

    /// Without units: files with these beginnings of sections.
    #[cfg(test)]
    pub(super) fn with_sections(begins: HashMap<String, Vec<(u64, Section)>>) -> Self {
        Self { units: Vec::new(), unit_of: HashMap::new(), begins, directory: String::new() }
    }

    /// Gives files that `pieces` are read from and that no rank's tensors are in (what a run saved once for all) a unit of their own each.
    pub(super) fn add_files_of<'a>(&mut self, pieces: impl Iterator<Item = &'a Piece>) {
        let mut others: BTreeMap<&str, BTreeMap<(u64, u64), u64>> = BTreeMap::new();
        for piece in pieces {
            if let Some(file) = piece.file.as_deref().filter(|file| !self.unit_of.contains_key(*file)) {
                // Many tensors may be the same bytes, which are there once.
                let read = others.entry(file).or_default().entry((piece.offset, extent(piece))).or_default();
                *read = piece.bytes();
            }
        }
        for (file, read) in others {
            let (unit, bytes) = (self.units.len(), read.values().sum());
            let name = shorter(file.to_owned(), &self.directory);
            let from = vec![Portion { unit, bytes, shared: 0 }];
            let section = Section::Other;
            let cell = Cell { section, bytes, from, fill: 0, cut: 0, shared: 0, tensors: Vec::new() };
            self.units.push(Unit { files: vec![name.clone()], name, rank: None, bytes, cells: vec![cell] });
            self.unit_of.insert(file.to_owned(), unit);
        }
    }

    /// The unit that a file is of.
    pub(super) fn unit_of(&self, file: &str) -> Option<usize> {
        self.unit_of.get(file).copied()
    }

    /// Names the file of a piece as units name it.
    pub(super) fn shorten(&self, piece: &mut Piece) {
        piece.file = piece.file.take().map(|file| shorter(file, &self.directory));
    }

    /// The section of a byte of a file, and where the next one begins.
    fn section(&self, file: &str, offset: u64) -> (Section, u64) {
        let Some(begins) = self.begins.get(file) else { return (Section::Other, u64::MAX) };
        let after = begins.partition_point(|(start, _)| *start <= offset);
        let end = begins.get(after).map_or(u64::MAX, |(start, _)| *start);
        let found = begins.get(after.saturating_sub(1));
        (found.map_or(Section::Other, |(_, section)| *section), end)
    }

    /// Hands on a piece that is in a file, cut where another section begins.
    pub(super) fn split(&self, piece: Piece, sink: &mut impl FnMut(Section, Piece)) {
        let (section, end) = piece.file.as_ref().map_or((Section::Other, u64::MAX), |file| self.section(file, piece.offset));
        if extent(&piece) <= end - piece.offset {
            return sink(section, piece);
        }
        let within = end - piece.offset;
        match piece.loops.split_first() {
            None => {
                let first = Piece { run: within, ..piece.clone() };
                let rest = Piece { offset: end, at: piece.at + within, run: piece.run - within, ..piece };
                sink(section, first);
                self.split(rest, sink);
            }
            Some((outer, inner)) => {
                let one = Piece { loops: inner.to_vec(), ..piece.clone() };
                // So many turns lie in this section as a whole.
                let spare = within.checked_sub(extent(&one));
                let turns = spare.and_then(|spare| spare.checked_div(outer.step)).map_or(0, |more| more + 1).min(outer.count);
                let rest = if turns == 0 {
                    self.split(one, sink);
                    1
                } else {
                    sink(section, Piece { loops: with_outer(outer, turns, inner), ..piece.clone() });
                    turns
                };
                if rest < outer.count {
                    let (offset, at) = (piece.offset + rest * outer.step, piece.at + rest * outer.to);
                    let loops = with_outer(outer, outer.count - rest, inner);
                    self.split(Piece { offset, at, loops, ..piece }, sink);
                }
            }
        }
    }
}

/// Loops, the outermost of which goes round `count` times; one that goes round once is none.
fn with_outer(outer: &Loop, count: u64, inner: &[Loop]) -> Vec<Loop> {
    let outer = Loop { count, ..*outer };
    std::iter::once(outer).filter(|outer| outer.count > 1).chain(inner.iter().copied()).collect()
}

/// Bytes of the file from the first that a piece reads to the end of the last.
fn extent(piece: &Piece) -> u64 {
    piece.loops.iter().map(|of| of.count.saturating_sub(1) * of.step).sum::<u64>() + piece.run
}

/// Files of a rank are one unit; files of a source that is of no rank are one each.
fn units_of(file: &RankFile) -> Vec<(Option<crate::layout::Rank>, Vec<ObjectId>)> {
    if file.files.is_empty() {
        let buffers = file.buffers.iter().map(|buffers| buffers.object);
        return vec![(Some(file.rank), std::iter::once(file.object).chain(buffers).collect())];
    }
    let mut objects: Vec<(&String, ObjectId)> = file.files.iter().map(|(object, name)| (name, *object)).collect();
    objects.sort();
    objects.into_iter().map(|(_, object)| (None, vec![object])).collect()
}

fn shorter(name: String, directory: &str) -> String {
    name.strip_prefix(directory).map_or_else(|| name.clone(), str::to_owned)
}

/// Every stored piece of the weights and of the optimizer's state, and whether it is a copy by the family.
fn all_chunks(catalog: &Catalog) -> impl Iterator<Item = (&Param, &Chunk, bool)> {
    let states = catalog.optimizer.iter().flat_map(|optimizer| optimizer.elements());
    let params = catalog.params().iter().chain(states.flat_map(|(_, params)| params.all()));
    params.flat_map(|param| {
        let own = param.chunks().iter().map(move |chunk| (param, chunk, false));
        own.chain(param.copies().iter().map(move |chunk| (param, chunk, true)))
    })
}

/// Where the section is another one than before.
fn changes(mut begins: Vec<(u64, Section)>) -> Vec<(u64, Section)> {
    begins.sort_unstable();
    begins.dedup_by_key(|(_, section)| *section);
    begins
}
