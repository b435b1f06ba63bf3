//! Kinds of models that are known and not resharded, told by their tensors: another head than that of a language model, predictions on a stage
//! of their own, tensors that no family describes.

use super::{Known, Stored};
use crate::catalog::RankFile;
use crate::family::{DEPTH, Entry, Model, Stage, VOCABULARY, undescribed};
use crate::layout::{Layout, Place};
use crate::source::SourceError;
use crate::source::leaves::Leaf;

/// There are no tensors that the family does not have. Where one says what the model is, that is the better message.
pub(super) fn check_all_known(model: &Model, foreign: &[(&RankFile, Leaf<'_>)]) -> Result<(), SourceError> {
    let Some((file, first)) = foreign.first() else { return Ok(()) };
    let family = model.family();
    let names = foreign.iter().map(|(_, leaf)| leaf.path.as_str());
    if let Some((tensor, what)) = undescribed(names, family.format()) {
        let found = foreign.iter().find(|(_, leaf)| leaf.path == tensor);
        let file = found.map_or(&*file.name, |(file, leaf)| file.name_of(leaf.value)).to_owned();
        return Err(SourceError::Undescribed { file, tensor: tensor.to_owned(), what });
    }
    Err(SourceError::UnknownTensor {
        file: file.name_of(first.value).to_owned(),
        tensor: first.path.clone(),
        family: family.name.clone(),
    })
}

/// Predictions of further tokens are on the last stage. Where they are not, the embedding that they need is found out of place first.
pub(super) fn check_predictions(
    layout: &Layout,
    files: &[RankFile],
    known: &[Known<'_>],
) -> Result<(), SourceError> {
    for Known { file, chunk, leaf, entry, .. } in known {
        let Some(file) = files.get(*file).filter(|_| entry.name.contains(DEPTH)) else { continue };
        let place = Place { rank: file.rank, chunk: *chunk };
        if !entry.is_on(layout, place) {
            let (stage, stages) = (layout.stage(place), layout.stages.count());
            let what = format!(
                "of multi-token prediction on a stage of its own (stage {stage}, counted from 0, of {stages}); this version reshards it where it is on the last stage"
            );
            let (file, tensor) = (file.name_of(leaf.value).to_owned(), leaf.path.clone());
            return Err(SourceError::Undescribed { file, tensor, what });
        }
    }
    Ok(())
}

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
