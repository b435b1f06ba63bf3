//! Data files of a directory of torch DCP as plans, and in which pieces its tensors are.
//!
//! Not here: how the directory is laid out (`format::dcp::write`), which tensors it has and what they are called (`torch_dist`).

#![deny(clippy::disallowed_methods)]

pub(super) mod pieces;
pub(super) mod values;

use std::collections::HashMap;
use std::sync::Arc;

use super::{PlacedTensor, PlannedFile, ViewError};
use crate::extent::Extent;
use crate::format::dcp::write::{Directory, Part, Payload};
use crate::plan::{Builder, Stripe, Target, gather};
use crate::tensor::{Region, Shape};

/// A laid-out directory.
#[derive(Debug)]
pub(super) struct DcpFiles {
    directory: Directory,
    /// Where storages of the source are that objects refer to.
    storages: HashMap<Arc<str>, Extent>,
}

/// A chunk of a tensor: what stands in it, and where it is in the whole.
pub(super) struct Piece<'basis> {
    pub(super) key: Arc<str>,
    pub(super) target: Target<'basis>,
    pub(super) offsets: Vec<u64>,
    pub(super) sizes: Vec<u64>,
}

impl DcpFiles {
    pub(super) fn new(directory: Directory, storages: HashMap<Arc<str>, Extent>) -> Self {
        Self { directory, storages }
    }

    /// Names of the data files.
    pub(super) fn names(&self) -> &[String] {
        &self.directory.spec().files
    }

    /// The file that says where everything is.
    pub(super) fn metadata(&self) -> Result<PlannedFile, ViewError> {
        Ok(PlannedFile::of_bytes(self.directory.metadata()?))
    }

    /// The data file with this number. `piece` is asked for the chunks in it, each by its tensor's number and its own.
    pub(super) fn data<'basis>(
        &self,
        number: usize,
        piece: impl Fn(usize, usize) -> Result<Piece<'basis>, ViewError>,
    ) -> Result<PlannedFile, ViewError> {
        let file = || self.names().get(number).cloned().into_iter().collect::<String>();
        let mut builder = Builder::new();
        let mut placed = Vec::new();
        for part in self.directory.parts(number) {
            match part {
                Part::Bytes(bytes) => builder.literal(bytes.clone()),
                Part::Crc32(of) => builder.crc32(of),
                Part::Payload { of: Payload::Chunk { tensor, chunk }, .. } => {
                    placed.push(piece(tensor, chunk)?.place(&mut builder)?);
                }
                Part::Payload { of: Payload::Storage { key, .. }, .. } => {
                    let lost = || ViewError::Storage { file: file(), key: key.to_string() };
                    let extent = self.storages.get(key).ok_or_else(lost)?;
                    builder.stripe(Stripe::contiguous(extent.object, extent.offset, extent.len));
                }
            }
        }
        // Every place in `.metadata` counts on it.
        let wanted = self.directory.file_len(number).ok_or(ViewError::NoFile(number))?;
        let planned = builder.position();
        if planned != wanted {
            return Err(ViewError::RecordSize { record: file(), wanted, planned });
        }
        Ok(PlannedFile { plan: builder.finish(), tensors: placed })
    }
}

impl Piece<'_> {
    /// Appends what stands in it.
    fn place(self, builder: &mut Builder) -> Result<PlacedTensor, ViewError> {
        let Self { key, target, offsets, sizes } = self;
        let start = builder.position();
        builder.cut();
        gather(&target, builder).map_err(|source| ViewError::Gather { tensor: key.to_string(), source })?;
        let name = match Region::at(&offsets, &sizes) {
            Some(region) if !offsets.is_empty() => format!("{key}{region}").into(),
            _ => key,
        };
        let bytes = start..builder.position();
        Ok(PlacedTensor { name, dtype: target.dtype, shape: Shape(sizes), bytes })
    }
}

/// Whether a file is called as data files of views are.
pub(super) fn is_data_file(name: &str) -> bool {
    let number = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("_0.distcp"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
