//! Which piece goes into which data file: in the order of the model's layers, file by file up to a size.
//!
//! Real runs have a few files for each rank, with layers anywhere among them. Loaders open whatever file a piece is in, so how many there are
//! is free: here files are of the size that people want files to have, and a stage of a pipeline finds its layers in few of them.

use super::tensors::DistTensor;
use crate::view::dcp_files::values::Values;
use crate::format::dcp::write::{Chunks, Tensor, WriteError, data_file};

/// The tensors with a file for each of their pieces, and how many files there are: at least one, for what is no tensor.
pub(super) fn share_out(tensors: &[DistTensor], most: u64) -> Result<(Vec<Tensor>, usize), WriteError> {
    let mut cells: Vec<(Values, usize, usize, usize)> = Vec::new();
    for (number, tensor) in tensors.iter().enumerate() {
        let orders = tensor.order.iter().enumerate();
        cells.extend(orders.map(|(cell, order)| (tensor.values, *order, number, cell)));
    }
    cells.sort_unstable();
    let mut files: Vec<Vec<u32>> =
        tensors.iter().map(|tensor| vec![0; tensor.cells.len() * tensor.pieces.len()]).collect();
    let (mut file, mut open) = (0u32, 0u64);
    for (_, _, number, cell) in cells {
        let (Some(tensor), Some(files)) = (tensors.get(number), files.get_mut(number)) else { continue };
        let own = files.iter_mut().skip(cell * tensor.pieces.len());
        for (piece, place) in tensor.pieces.iter().zip(own) {
            let bytes = tensor.bytes(piece);
            if open > 0 && open.saturating_add(bytes) > most {
                (file, open) = (file + 1, 0);
            }
            *place = file;
            open = open.saturating_add(bytes);
        }
    }
    let written = tensors.iter().zip(files).map(|(tensor, files)| written(tensor, &files));
    Ok((written.collect::<Result<_, _>>()?, file as usize + 1))
}

/// Names of so many data files: what as many ranks would have written.
pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|rank| data_file(rank, 0)).collect()
}

/// A tensor with its pieces, cell by cell.
fn written(tensor: &DistTensor, files: &[u32]) -> Result<Tensor, WriteError> {
    let shape = tensor.whole();
    let mut chunks = Chunks::new(shape.rank());
    let pieces = (0..tensor.cells.len()).flat_map(|cell| tensor.pieces.iter().map(move |piece| (cell, piece)));
    for ((cell, piece), file) in pieces.zip(files) {
        let (offsets, sizes) = tensor.place(cell, piece);
        chunks.push(&offsets, &sizes, *file)?;
    }
    Ok(Tensor { key: tensor.key.clone(), dtype: tensor.dtype, shape, chunks })
}
