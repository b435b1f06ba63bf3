//! The files of a view with their sizes, and where each tensor's bytes come from.

use serde::Serialize;

use crate::plan::{FilePlan, Segment};
use crate::store::Store;
use crate::view::{PlacedTensor, View, ViewError};

/// The files of a view.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Its format.
    pub format: &'static str,
    /// Name of its layout.
    pub layout: String,
    /// Files, in the order of a directory listing.
    pub files: Vec<FileListing>,
    /// Bytes of all files.
    pub bytes: u64,
}

/// One file.
#[derive(Debug, Clone, Serialize)]
pub struct FileListing {
    /// Path within the view.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Its tensors, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<TensorListing>>,
}

/// One tensor of a file.
#[derive(Debug, Clone, Serialize)]
pub struct TensorListing {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: &'static str,
    /// Shape on its rank.
    pub shape: Vec<u64>,
    /// First byte in the file.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Where its bytes come from, in order.
    pub from: Vec<Piece>,
}

/// Source bytes of a tensor: `runs` runs of `run` bytes, the first at `offset` and each `step` bytes after the one before.
#[derive(Debug, Clone, Serialize)]
pub struct Piece {
    /// The source file; `None` for new vocabulary rows of zeros.
    pub file: Option<String>,
    /// First byte in the source file.
    pub offset: u64,
    /// Bytes of each run.
    pub run: u64,
    /// Number of runs.
    pub runs: u64,
    /// Bytes from one run to the next, where there are several.
    pub step: u64,
}

impl Listing {
    /// Lists a view.
    ///
    /// # Errors
    /// [`ViewError`] where a file cannot be laid out.
    pub fn of(view: &dyn View, store: &dyn Store, with_tensors: bool) -> Result<Self, ViewError> {
        let mut files = Vec::new();
        for (number, file) in view.files().iter().enumerate() {
            let planned = view.plan(number)?;
            let tensors = planned.tensors.iter().map(|tensor| listed(tensor, &planned.plan, store));
            let tensors = with_tensors.then(|| tensors.collect());
            files.push(FileListing { path: file.path.clone(), bytes: planned.plan.len(), tensors });
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        Ok(Self { format: view.format().name(), layout: view.layout().to_string(), files, bytes })
    }
}

fn listed(tensor: &PlacedTensor, plan: &FilePlan, store: &dyn Store) -> TensorListing {
    TensorListing {
        name: tensor.name.to_string(),
        dtype: tensor.dtype.name(),
        shape: tensor.shape.0.clone(),
        offset: tensor.bytes.start,
        bytes: tensor.bytes.end - tensor.bytes.start,
        from: plan.within(tensor.bytes.clone()).flat_map(|segment| pieces(segment, store)).collect(),
    }
}

fn pieces(segment: &Segment, store: &dyn Store) -> Vec<Piece> {
    match segment {
        Segment::Stripe(stripe) => {
            let piece = |piece: &crate::plan::Piece| Piece {
                file: Some(store.name(piece.object)),
                offset: piece.start,
                run: piece.run,
                runs: stripe.repeat() * (piece.bytes() / piece.run.max(1)),
                step: if stripe.repeat() > 1 { piece.step } else { 0 },
            };
            stripe.pieces().iter().map(piece).collect()
        }
        Segment::Zero(len) => vec![Piece { file: None, offset: 0, run: *len, runs: 1, step: 0 }],
        Segment::Literal(_) | Segment::Crc32(_) => Vec::new(),
    }
}
