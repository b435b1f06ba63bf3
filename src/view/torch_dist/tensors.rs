//! The tensors of a checkpoint: a rank file's, stacked layer by layer and expert by expert under one key where keys stack them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::keys::Keys;
use crate::view::dcp_files::values::Values;
use crate::family::{Numbers, Saved};
use crate::format::megatron::dist_keys::{DistName, Of as KeysOf};
use crate::layout::Layout;
use crate::plan::Target;
use crate::tensor::{Dtype, Shape};
use crate::view::dcp_files::pieces;
use crate::view::hf::WHOLE;
use crate::view::target::{TargetTensor, tensor_of_values};
use crate::view::ViewError;

/// A tensor of the checkpoint.
#[derive(Debug)]
pub(super) struct DistTensor {
    pub(super) key: Arc<str>,
    pub(super) dtype: Dtype,
    /// Sizes of the axes that its cells are stacked along: layers, experts, both or none.
    pub(super) stack: Vec<u64>,
    /// Shape of each cell.
    pub(super) shape: Shape,
    /// Axis of a cell that it is cut along.
    pub(super) axis: usize,
    /// Whose values it has.
    pub(super) values: Values,
    /// A rank file's tensors, row-major.
    pub(super) cells: Vec<Saved>,
    /// Where cells stand among all that a rank saves.
    pub(super) order: Vec<usize>,
    /// Positions along the axis that are a piece, of every cell.
    pub(super) pieces: Arc<[Range<u64>]>,
}

impl DistTensor {
    /// Shape of the whole.
    pub(super) fn whole(&self) -> Shape {
        Shape([self.stack.as_slice(), &self.shape.0].concat())
    }

    /// Bytes of a piece of a cell.
    pub(super) fn bytes(&self, piece: &Range<u64>) -> u64 {
        let position = position_bytes(&self.shape, self.axis, self.dtype);
        (piece.end - piece.start).saturating_mul(position)
    }

    /// Offsets and sizes of a piece of cell `cell`, in the whole.
    pub(super) fn place(&self, cell: usize, piece: &Range<u64>) -> (Vec<u64>, Vec<u64>) {
        let mut offsets = Shape(self.stack.clone()).index_of(cell as u64);
        let mut sizes = vec![1; self.stack.len()];
        for (axis, size) in self.shape.0.iter().enumerate() {
            let is_cut = axis == self.axis;
            offsets.push(if is_cut { piece.start } else { 0 });
            sizes.push(if is_cut { piece.end - piece.start } else { *size });
        }
        (offsets, sizes)
    }
}

/// Bytes of one position along an axis; of all of a tensor without axes.
fn position_bytes(shape: &Shape, axis: usize, dtype: Dtype) -> u64 {
    let others = shape.0.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, size)| *size);
    others.fold(dtype.size(), u64::saturating_mul)
}

/// A cell before it is known whether all of its tensor are there.
struct Cell {
    /// Where it stands along the axes that cells are stacked along.
    at: Vec<u64>,
    saved: Saved,
    order: usize,
}

/// The tensors of these values that a rank with everything saves, in its order.
pub(super) fn of(keys: &Keys<'_>, layout: &Layout, values: Values, least: u64) -> Result<Vec<DistTensor>, ViewError> {
    let Some(of) = values.of(keys.basis) else { return Ok(Vec::new()) };
    let mut places: HashMap<(DistName, Option<u32>), usize> = HashMap::new();
    let mut found: Vec<(DistTensor, Vec<Cell>)> = Vec::new();
    for (order, saved) in keys.basis.model.saved_at(layout, WHOLE).into_iter().enumerate() {
        let Some(tensor) = tensor_of_values(of, layout, WHOLE, saved)? else { continue };
        let Some(target) = tensor.target.as_ref().filter(|_| keys.has(values, &tensor)) else { continue };
        let name = keys.name(tensor.entry)?;
        let other = keys.other_name(&name, saved.global);
        for name in [name].into_iter().chain(other) {
            let own = keys.own_layer(&name, saved.global);
            let cell = Cell { at: index(&name, own, saved.global), saved, order };
            match places.get(&(name.clone(), own)).and_then(|at| found.get_mut(*at)) {
                Some((known, cells)) => {
                    known.check_alike(target, &tensor)?;
                    cells.push(cell);
                }
                None => {
                    let new =
                        DistTensor::begun(keys, &name, own, values, target, least).ok_or_else(|| tensor.too_large())?;
                    places.insert((name, own), found.len());
                    found.push((new, vec![cell]));
                }
            }
        }
    }
    found.into_iter().map(|(tensor, cells)| tensor.filled(cells)).collect()
}

impl DistTensor {
    /// The tensor that a first cell is of; `None` where its size does not fit 64 bits.
    fn begun(
        keys: &Keys<'_>,
        name: &DistName,
        own: Option<u32>,
        values: Values,
        target: &Target<'_>,
        least: u64,
    ) -> Option<Self> {
        let layers = (name.of == KeysOf::Layers && own.is_none()).then(|| keys.layers());
        let experts = name.of_experts.then(|| keys.experts());
        let stack: Vec<u64> = layers.into_iter().chain(experts).map(u64::from).collect();
        let (dtype, shape) = (target.dtype, target.shape.clone());
        let part = target.parts.first()?;
        Shape([stack.as_slice(), &shape.0].concat()).bytes(dtype)?;
        let pieces = pieces::of(part, position_bytes(&shape, part.axis, dtype), least);
        Some(Self {
            key: keys.key(name, own, values).into(),
            dtype,
            stack,
            shape,
            axis: part.axis,
            values,
            cells: Vec::new(),
            order: Vec::new(),
            pieces: pieces.into(),
        })
    }

    /// One tensor has one type, one shape, and is cut in one way.
    fn check_alike(&self, target: &Target<'_>, tensor: &TargetTensor<'_>) -> Result<(), ViewError> {
        let axis = target.parts.first().map(|part| part.axis);
        if (self.dtype, &self.shape, Some(self.axis)) == (target.dtype, &target.shape, axis) {
            return Ok(());
        }
        Err(ViewError::Unlike {
            key: self.key.to_string(),
            tensor: tensor.name.to_string(),
            dtype: target.dtype,
            shape: target.shape.clone(),
            others: (self.dtype, self.shape.clone()),
        })
    }

    /// The tensor with its cells, of which there is one for each layer and expert.
    fn filled(mut self, mut cells: Vec<Cell>) -> Result<Self, ViewError> {
        cells.sort_by(|one, other| one.at.cmp(&other.at));
        let stack = Shape(self.stack.clone());
        // As many as there are tensors, so it fits.
        let wanted = self.stack.iter().fold(1, |all: u64, size| all.saturating_mul(*size));
        let mut places = (0..wanted).zip(cells.iter().map(Some).chain(std::iter::repeat(None)));
        let missing = places.find(|(index, cell)| cell.is_none_or(|cell| cell.at != stack.index_of(*index)));
        if let Some((index, _)) = missing {
            return Err(ViewError::NotStacked { key: self.key.to_string(), at: stack.index_of(index), stack });
        }
        (self.cells, self.order) = cells.into_iter().map(|cell| (cell.saved, cell.order)).unzip();
        Ok(self)
    }
}

/// Where a tensor of these numbers stands along the axes that keys stack it along.
fn index(name: &DistName, own_layer: Option<u32>, numbers: Numbers) -> Vec<u64> {
    let is_stacked = name.of == KeysOf::Layers && own_layer.is_none();
    let layer = numbers.layer.filter(|_| is_stacked);
    let expert = numbers.expert.filter(|_| name.of_experts);
    layer.into_iter().chain(expert).map(u64::from).collect()
}
