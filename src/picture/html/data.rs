//! What the page tells: cells and tensors as JSON, with what is often said said once.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::inspect::{Cell, Map, Piece, Side, Tensor};
use crate::picture::lanes::{lanes, merged};
use crate::picture::sheet::{Panel, Sheet};

/// Tensors of which each is told. Of more, those of ranks that look alike are told once, and tensors that differ in a number in their names.
const MOST_TENSORS: usize = 20_000;

/// Pieces of a tensor that are told; of the rest their number.
const MOST_PIECES: usize = 4;

/// Words that are said once, by their numbers.
#[derive(Default)]
struct Words {
    numbers: HashMap<String, usize>,
    words: Vec<String>,
}

impl Words {
    fn number(&mut self, word: &str) -> usize {
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        self.numbers.insert(word.to_owned(), self.words.len());
        self.words.push(word.to_owned());
        self.words.len() - 1
    }
}

/// All that the page tells.
pub(super) fn data(map: &Map, sheet: &Sheet) -> Value {
    let mut words = Words::default();
    let places: Vec<_> = (0..map.sections.len()).map(|column| sheet.columns.span((column, column))).collect();
    let from = side(map, &map.from, &sheet.from, &mut words);
    let to = side(map, &map.to, &sheet.to, &mut words);
    let sections: Vec<String> = map.sections.iter().map(ToString::to_string).collect();
    json!({ "sections": sections, "places": places, "sides": [from, to], "words": words.words })
}

fn side(map: &Map, side: &Side, panel: &Panel, words: &mut Words) -> Value {
    let count: usize = side.units.iter().flat_map(|unit| &unit.cells).map(|cell| cell.tensors.len()).sum();
    let told_by = if count > MOST_TENSORS { told_by(side) } else { HashMap::new() };
    let kept = |unit: usize| !told_by.contains_key(&unit);
    let left: usize = side.units.iter().enumerate().filter(|(unit, _)| kept(*unit)).flat_map(|(_, unit)| &unit.cells).map(|cell| cell.tensors.len()).sum();
    let units = side.units.iter().enumerate().map(|(number, unit)| {
        let cells = unit.cells.iter().filter_map(|held| {
            let column = map.sections.binary_search(&held.section).ok()?;
            let tensors = if kept(number) { tensors(held, left > MOST_TENSORS, words) } else { Vec::new() };
            Some((column.to_string(), cell(held, tensors)))
        });
        let cells: serde_json::Map<String, Value> = cells.collect();
        json!({ "name": unit.name, "bytes": unit.bytes, "files": unit.files, "cells": cells, "by": told_by.get(&number) })
    });
    let units: Vec<Value> = units.collect();
    let lanes = panel.lanes.iter().zip(&panel.tops);
    let lanes: Vec<Value> = lanes.map(|(lane, top)| json!({ "label": lane.label, "top": top, "alike": lane.alike })).collect();
    json!({ "units": units, "lanes": lanes, "height": panel.height })
}

/// By which other unit the tensors of a unit are told: by the first that looks like it.
fn told_by(side: &Side) -> HashMap<usize, usize> {
    let all = merged(side, lanes(side));
    let others = all.iter().flat_map(|lane| lane.alike.iter().skip(1).flat_map(|other| other.iter().zip(&lane.units)));
    others.map(|(other, first)| (*other, *first)).collect()
}

fn cell(cell: &Cell, tensors: Vec<Value>) -> Value {
    let from: Vec<_> = cell.from.iter().map(|portion| (portion.unit, portion.bytes)).collect();
    json!([cell.bytes, from, cell.fill, cell.cut, cell.shared, tensors])
}

/// Each tensor, or one of those that differ in numbers, and how many they are.
fn tensors(cell: &Cell, is_folded: bool, words: &mut Words) -> Vec<Value> {
    let mut told: Vec<(&Tensor, usize, u64)> = Vec::new();
    let mut folds: HashMap<(String, &[u64]), usize> = HashMap::new();
    for tensor in &cell.tensors {
        let next = told.len();
        let at = if is_folded { *folds.entry((folded(&tensor.name), tensor.shape.as_slice())).or_insert(next) } else { next };
        match told.get_mut(at) {
            Some((_, count, bytes)) => (*count, *bytes) = (*count + 1, *bytes + tensor.bytes),
            None => told.push((tensor, 1, tensor.bytes)),
        }
    }
    told.into_iter().map(|(tensor, count, bytes)| row(tensor, count, bytes, words)).collect()
}

/// A name without its numbers.
fn folded(name: &str) -> String {
    let mut folded = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '0'..='9' if folded.ends_with('*') => {}
            '0'..='9' => folded.push('*'),
            c => folded.push(c),
        }
    }
    folded
}

fn row(tensor: &Tensor, count: usize, bytes: u64, words: &mut Words) -> Value {
    let shape = tensor.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let kind = words.number(&format!("{} [{shape}]", tensor.dtype));
    let from: Vec<Value> = tensor.from.iter().take(MOST_PIECES).map(|from| piece(from, words)).collect();
    let name = words.number(&tensor.name);
    let pieces = tensor.from.len();
    json!([name, kind, tensor.file, tensor.offset, bytes, tensor.of, tensor.holders, from, count, pieces])
}

fn piece(piece: &Piece, words: &mut Words) -> Value {
    let mut all: Vec<i64> = Vec::new();
    // A file has fewer bytes than 2^63, and there are fewer words.
    let file = piece.file.as_ref().map_or(-1, |file| words.number(file) as i64);
    all.extend([file, piece.offset as i64, piece.run as i64]);
    all.extend(piece.loops.iter().flat_map(|of| [of.count as i64, of.step as i64]));
    json!(all)
}
