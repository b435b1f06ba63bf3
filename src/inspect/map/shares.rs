//! What units hold alike, and what they hold parts of.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Section, Stored, Tensor, Unit};

/// A tensor of ranks that differ in the tensor-parallel rank alone: each has a part of it, or all of it. Numbers in names are those of a
/// stage's layers and an expert rank's experts, so others have other tensors of the same name.
type Key<'a> = (Option<(u32, u32)>, Section, &'a str, usize);

/// Counts for every tensor who holds the same bytes, and how many bytes there are of it.
pub(super) fn count(units: &mut [Unit], stored: &Stored) {
    let mut holders: HashMap<(u64, Section, &str), usize> = HashMap::new();
    let mut parts: HashMap<Key<'_>, HashMap<u64, u64>> = HashMap::new();
    let mut counted: Vec<(usize, u64)> = Vec::new();
    for unit in units.iter() {
        for cell in &unit.cells {
            for tensor in &cell.tensors {
                let bytes = fingerprint(tensor);
                *holders.entry((bytes, cell.section, &tensor.name)).or_default() += 1;
                parts.entry(key(unit, cell.section, tensor)).or_default().insert(bytes, tensor.bytes);
            }
        }
    }
    for unit in units.iter() {
        for cell in &unit.cells {
            for tensor in &cell.tensors {
                let alike = holders.get(&(fingerprint(tensor), cell.section, &tensor.name));
                let all = parts.get(&key(unit, cell.section, tensor));
                let of = all.map_or(tensor.bytes, |parts| parts.values().sum());
                counted.push((alike.copied().unwrap_or(1), of));
            }
        }
    }
    let mut counted = counted.into_iter();
    for cell in units.iter_mut().flat_map(|unit| &mut unit.cells) {
        for (tensor, (holders, of)) in cell.tensors.iter_mut().zip(&mut counted) {
            (tensor.holders, tensor.of) = (holders, of);
        }
        let sum = |is: fn(&&Tensor) -> bool| cell.tensors.iter().filter(is).map(|tensor| tensor.bytes).sum();
        cell.cut = sum(|tensor| tensor.of > tensor.bytes);
        cell.shared = sum(|tensor| tensor.holders > 1);
        let pieces = cell.tensors.iter().filter(|tensor| tensor.holders > 1).flat_map(|tensor| &tensor.from);
        for piece in pieces {
            let unit = piece.file.as_ref().and_then(|file| stored.unit_of(file));
            if let Some(portion) = cell.from.iter_mut().find(|portion| Some(portion.unit) == unit) {
                portion.shared += piece.bytes();
            }
        }
    }
}

fn key<'a>(unit: &Unit, section: Section, tensor: &'a Tensor) -> Key<'a> {
    (unit.rank.map(|rank| (rank.pp, rank.ep)), section, &tensor.name, tensor.file)
}

/// What tells tensors apart that have other bytes.
fn fingerprint(tensor: &Tensor) -> u64 {
    let mut hasher = DefaultHasher::new();
    for piece in &tensor.from {
        let fixed = [piece.offset, piece.at, piece.run];
        (&piece.file, fixed, &piece.literal).hash(&mut hasher);
        piece.loops.iter().for_each(|of| [of.count, of.step, of.to].hash(&mut hasher));
    }
    hasher.finish()
}
