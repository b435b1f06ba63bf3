//! Rows of the vocabulary in a view: those of the source, and new padding rows where the target has more.

#![deny(clippy::disallowed_methods)]

use crate::catalog::Param;
use crate::plan::{Fill, Source};
use crate::tensor::Band;

/// What new padding rows hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VocabularyFill {
    /// Zeros.
    #[default]
    Zero,
    /// Copies of the source's last row, as Megatron's converter writes them.
    LastRow,
}

/// Cuts `band` behind the first `stored` positions; what is beyond is filled. Only bands of one run have rows to spare.
pub(super) fn fill<'catalog>(
    band: Band,
    param: &'catalog Param,
    stored: u64,
    fill: VocabularyFill,
) -> Vec<(Band, Source<'catalog>)> {
    let kept = stored.saturating_sub(band.from).min(band.len);
    if band.repeat != 1 || kept == band.len {
        return vec![(band, Source::Param(param))];
    }
    let new = match fill {
        VocabularyFill::Zero => Fill::Zero,
        VocabularyFill::LastRow => Fill::Last(param),
    };
    let mut bands = Vec::with_capacity(2);
    if kept > 0 {
        bands.push((Band::once(band.part, band.at, band.from, kept), Source::Param(param)));
    }
    bands.push((Band::once(band.part, band.at + kept, band.from + kept, band.len - kept), Source::Fill(new)));
    bands
}
