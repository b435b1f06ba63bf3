//! Units of a side in lanes: those that hold different sections stand one behind the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::inspect::{Cell, Section, Side, Unit};

/// Units that share no section; and lanes that look the same, of which one is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    /// `tp0`, `tp0 ep1`, `tp0 to tp7`; nothing for files, and where there is one rank beside no other.
    pub(super) label: String,
    /// Numbers of its units.
    pub(super) units: Vec<usize>,
    /// The units of the lanes like it, its own at first.
    pub(super) alike: Vec<Vec<usize>>,
}

/// The lanes of a side.
pub(super) fn lanes(side: &Side) -> Vec<Lane> {
    let mut groups: BTreeMap<Option<(u32, u32)>, Vec<usize>> = BTreeMap::new();
    for (number, unit) in side.units.iter().enumerate() {
        groups.entry(unit.rank.map(|rank| (rank.tp, rank.ep))).or_default().push(number);
    }
    let mut all = Vec::new();
    for (beside, units) in groups {
        let mut lanes: Vec<(Vec<usize>, BTreeSet<Section>)> = Vec::new();
        for number in units {
            let Some(unit) = side.units.get(number) else { continue };
            let sections: BTreeSet<Section> = unit.cells.iter().map(|cell| cell.section).collect();
            match lanes.iter_mut().find(|(_, taken)| taken.is_disjoint(&sections)) {
                Some((lane, taken)) => {
                    lane.push(number);
                    taken.extend(sections);
                }
                None => lanes.push((vec![number], sections)),
            }
        }
        let label = label(side, beside);
        all.extend(lanes.into_iter().map(|(units, _)| Lane { label: label.clone(), alike: vec![units.clone()], units }));
    }
    all
}

/// By the numbers that differ.
fn label(side: &Side, beside: Option<(u32, u32)>) -> String {
    let Some((tp, ep)) = beside else { return String::new() };
    let ranks = || side.units.iter().filter_map(|unit| unit.rank);
    let parts = [(ranks().any(|rank| rank.tp > 0), "tp", tp), (ranks().any(|rank| rank.ep > 0), "ep", ep)];
    let parts = parts.iter().filter(|(differs, ..)| *differs);
    parts.map(|(_, word, number)| format!("{word}{number}")).collect::<Vec<_>>().join(" ")
}

/// Neighbours that look the same as one.
pub(super) fn merged(side: &Side, lanes: Vec<Lane>) -> Vec<Lane> {
    let mut all: Vec<(Lane, String)> = Vec::new();
    for lane in lanes {
        match all.last_mut() {
            Some((before, last)) if alike(side, &before.units, &lane.units) => {
                *last = lane.label;
                before.alike.push(lane.units);
            }
            _ => all.push((lane.clone(), lane.label)),
        }
    }
    let named = |(lane, last): (Lane, String)| {
        let label = if lane.alike.len() == 1 { lane.label } else { through(&lane.label, &last) };
        Lane { label, ..lane }
    };
    all.into_iter().map(named).collect()
}

/// Whether units one by one hold as much of the same sections, from the same places.
fn alike(side: &Side, one: &[usize], other: &[usize]) -> bool {
    let unit = |number: &usize| side.units.get(*number);
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| unit(one).zip(unit(other)).is_some_and(|(one, other)| same_look(one, other)))
}

fn same_look(one: &Unit, other: &Unit) -> bool {
    let look = |cell: &Cell| (cell.section, cell.bytes, cell.from.clone(), cell.fill, cell.shared);
    one.rank.map(|rank| rank.pp) == other.rank.map(|rank| rank.pp)
        && one.cells.len() == other.cells.len()
        && one.cells.iter().zip(&other.cells).all(|(one, other)| look(one) == look(other))
}

/// `pp0 tp0 to tp7`: what both names begin with is said once.
pub(super) fn through(first: &str, last: &str) -> String {
    let same = first.split(' ').zip(last.split(' ')).take_while(|(one, other)| one == other).count();
    let rest = last.split(' ').skip(same).collect::<Vec<_>>().join(" ");
    format!("{first} to {rest}")
}
