//! Models that are known and not resharded because their head is another than that of a language model.

use super::Stored;
use crate::family::{Entry, Stage, VOCABULARY};
use crate::source::SourceError;

/// The head of a language model has a row for each token. A critic, a reward model or a classifier has one for each of its few values, and
/// every rank has all of them. `size` is what the rows of all ranks would make of dimension `name`, `known` what the embedding does.
pub(super) fn check_rows(
    stored: &Stored<'_>,
    entry: &Entry,
    name: &str,
    (size, known): (u64, u64),
) -> Result<(), SourceError> {
    // Fewer values than that stand in no damaged file by chance.
    const FEWER: u64 = 8;
    let is_few = size.checked_mul(FEWER).is_some_and(|size| size <= known);
    if name != VOCABULARY || entry.stage != Stage::Last || !is_few {
        return Ok(());
    }
    let rows = stored.tensor.shape.0.first().copied().unwrap_or(0);
    let rows = if rows == 1 { "one row".to_owned() } else { format!("{rows} rows") };
    let what = format!(
        "a head of {rows}, not of the {known} rows of the vocabulary: that of a value or reward model or of a classifier, which this version does not reshard"
    );
    Err(SourceError::Undescribed { file: stored.file.to_owned(), tensor: stored.path.to_owned(), what })
}
