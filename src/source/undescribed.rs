//! Kinds of models that are known and not resharded, told by their tensors: those that no family describes, and predictions on a stage of
//! their own.

use super::SourceError;
use super::known::Known;
use super::state_dict::Leaf;
use crate::catalog::RankFile;
use crate::family::{DEPTH, Model, undescribed};
use crate::layout::{Layout, Place};

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
