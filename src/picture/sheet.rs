//! Where everything of a drawn picture is: the source above, the view below, sections of the model from left to right.

use super::columns::Columns;
use super::lanes::{Lane, lanes, merged};
use crate::inspect::{Map, Side};

/// Width of a drawn picture, and the least of it, which legends need.
const WIDTH: f64 = 1000.0;
const LEAST: f64 = 800.0;
/// Room for what lanes are called.
pub(super) const LEFT: f64 = 96.0;
const RIGHT: f64 = 12.0;
/// Room for titles.
const TOP: f64 = 52.0;
/// Room for the numbers of layers, between source and view.
const AXIS: f64 = 34.0;
/// Room for names over lanes.
const NAMES: f64 = 14.0;

/// A picture's measures.
#[derive(Debug, Clone)]
pub(super) struct Sheet {
    pub(super) columns: Columns,
    pub(super) from: Panel,
    pub(super) to: Panel,
    /// Base line of the numbers of layers.
    pub(super) axis: f64,
    pub(super) width: f64,
    /// Where the last lane ends.
    pub(super) bottom: f64,
}

/// The lanes of a side.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) lanes: Vec<Lane>,
    /// Top edge of each lane.
    pub(super) tops: Vec<f64>,
    /// Height of each.
    pub(super) height: f64,
    /// Whether each lane has room for names over it, and not the first alone.
    pub(super) is_named: bool,
}

impl Sheet {
    /// Of a map; where a side has more lanes than `most`, those that look the same are drawn once.
    pub(super) fn new(map: &Map, most: usize) -> Self {
        let columns = Columns::new(&map.sections, LEFT, WIDTH - LEFT - RIGHT);
        let from = Panel::new(&map.from, most, TOP);
        let axis = from.bottom() + AXIS / 2.0 + 4.0;
        let to = Panel::new(&map.to, most, from.bottom() + AXIS);
        let bottom = to.bottom();
        let width = (columns.right() + RIGHT).max(LEAST);
        Self { columns, from, to, axis, width, bottom }
    }
}

impl Panel {
    fn new(side: &Side, most: usize, top: f64) -> Self {
        let all = lanes(side);
        let lanes = if all.len() > most { merged(side, all) } else { all };
        let height = (260.0 / lanes.len().max(1) as f64).clamp(9.0, 44.0);
        let gap = if height > 14.0 { 4.0 } else { 2.0 };
        let is_named = side.units.iter().any(|unit| unit.rank.is_none());
        let mut at = top;
        let tops = (0..lanes.len()).map(|number| {
            at += if number == 0 || is_named { NAMES } else { gap };
            at += height;
            at - height
        });
        let tops = tops.collect();
        Self { lanes, tops, height, is_named }
    }

    /// Where its last lane ends.
    pub(super) fn bottom(&self) -> f64 {
        self.tops.last().map_or(0.0, |top| top + self.height)
    }
}
