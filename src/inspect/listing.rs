//! The files of a view with their sizes, and where each tensor's bytes come from.

use serde::Serialize;

use crate::plan::{FilePlan, Read, Segment, SegmentPart, Stripe};
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
    /// Where its bytes come from.
    pub from: Vec<Piece>,
}

/// Some bytes of a tensor: runs of `run` bytes, in loops of any depth. The run at the indices `i` of the loops is read at `offset` plus each
/// `i * step`, and stands in the tensor at `at` plus each `i * to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The source file; `None` for bytes that are in none.
    pub file: Option<String>,
    /// First byte in the source file.
    pub offset: u64,
    /// First byte in the tensor.
    pub at: u64,
    /// Bytes of each run.
    pub run: u64,
    /// Loops over runs, outermost first; none for one run.
    pub loops: Vec<Loop>,
    /// The bytes that are in no file, hexadecimal; without these they are zeros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub literal: Option<String>,
}

/// A loop over runs of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Loop {
    /// How often.
    pub count: u64,
    /// Bytes from one to the next in the source file.
    pub step: u64,
    /// Bytes from one to the next in the tensor.
    pub to: u64,
}

impl Piece {
    /// Bytes of all its runs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.loops.iter().map(|of| of.count).product::<u64>() * self.run
    }
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
        from: plan.parts(tensor.bytes.clone()).flat_map(|part| pieces(part, store)).collect(),
    }
}

/// What a part of a segment is made of. Zeros may go on beyond the tensor; source bytes never do, and are told as the loops that they are.
fn pieces(part: SegmentPart<'_>, store: &dyn Store) -> Vec<Piece> {
    match part.segment {
        Segment::Stripe(stripe) if part.within == (0..stripe.bytes()) => looped(stripe, part.to, store),
        _ => {
            let mut pieces = Vec::new();
            part.resolve(&mut |read| pieces.extend(single(&read, store)));
            pieces
        }
    }
}

/// The pieces of a stripe that stands at byte `at` of the tensor.
fn looped(stripe: &Stripe, mut at: u64, store: &dyn Store) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for piece in stripe.pieces() {
        let mut to = piece.bytes();
        let rows = Loop { count: stripe.repeat(), step: piece.step, to: stripe.row_bytes() };
        let inner = piece.dims.iter().map(|dim| {
            // Within a piece, runs follow each other in the tensor.
            to /= dim.count.max(1);
            Loop { count: dim.count, step: dim.step, to }
        });
        let loops = std::iter::once(rows).chain(inner).filter(|of| of.count != 1).collect();
        let (file, offset, run) = (Some(store.name(piece.object)), piece.start, piece.run);
        pieces.push(Piece { file, offset, at, run, loops, literal: None });
        at += piece.bytes();
    }
    pieces
}

/// One run of bytes.
fn single(read: &Read<'_>, store: &dyn Store) -> Option<Piece> {
    let of = |file, offset, at, run, literal| Piece { file, offset, at, run, loops: Vec::new(), literal };
    match *read {
        Read::Copy { object, from, to, len } => Some(of(Some(store.name(object)), from, to, len, None)),
        Read::Zero { to, len } => Some(of(None, 0, to, len, None)),
        Read::Literal { bytes, to } => {
            let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(of(None, 0, to, bytes.len() as u64, Some(text)))
        }
        // No tensor holds one.
        Read::Crc32 { .. } => None,
    }
}
