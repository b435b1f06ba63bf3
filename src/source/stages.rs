//! The layout that rank files are in: how many layers each of their stages holds.

use std::collections::{BTreeMap, BTreeSet};

use super::SourceError;
use super::known::Known;
use super::locate::Sizes;
use crate::catalog::RankFile;
use crate::family::{ArgRole, Model};
use crate::layout::{Layout, Place, Stages};

/// More are a damaged or hostile number: as many as there may be ranks.
const MOST_STAGES: u32 = 1 << 16;

/// The layout that the files are in.
pub(super) fn layout(
    model: &Model,
    sizes: Sizes,
    files: &[RankFile],
    known: &[Known<'_>],
    missing: &[String],
) -> Result<Layout, SourceError> {
    let vpp = files.first().map_or(1, RankFile::chunks);
    if let Some(odd) = files.iter().find(|file| file.chunks() != vpp) {
        let what = format!("it has {} virtual stages, other rank files have {vpp}", odd.chunks());
        return Err(SourceError::Contents { file: odd.name.clone(), what });
    }
    check_virtual_stages(model, files, vpp)?;
    let Some(count) = sizes.pp.checked_mul(vpp).filter(|count| *count <= MOST_STAGES) else {
        let file = files.first().map_or_else(String::new, |file| file.name.clone());
        let what = format!("it says {vpp} virtual stages on {} pipeline ranks, which no model has", sizes.pp);
        return Err(SourceError::Contents { file, what });
    };
    let sizes_only = Layout { vpp, ..Layout::dense(sizes.tp, Stages::nearly_even(0, count)) };
    let stages = stages(model, &sizes_only, files, known, missing)?;
    Ok(Layout { stages, ..sizes_only })
}

/// Virtual stages are those that args say: others would put layers where they do not belong.
fn check_virtual_stages(model: &Model, files: &[RankFile], vpp: u32) -> Result<(), SourceError> {
    let field = model.field_of(ArgRole::Vpp);
    let stated = files.first().zip(field).and_then(|(file, field)| {
        let value = file.run.args.attribute(field)?;
        Some((file, field, value.as_int().unwrap_or(1).max(1)))
    });
    match stated {
        Some((file, field, stated)) if stated != i64::from(vpp) => {
            let what = format!(
                "its args.{field} says {stated} virtual stages, but its entries (model0, model1, ..) are {vpp}"
            );
            Err(SourceError::Contents { file: file.name.clone(), what })
        }
        _ => Ok(()),
    }
}

/// Layers per stage: the highest layer that a file of the stage names.
fn stages(
    model: &Model,
    layout: &Layout,
    files: &[RankFile],
    known: &[Known<'_>],
    missing: &[String],
) -> Result<Stages, SourceError> {
    let mut seen: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let stage_of = |file: &RankFile, chunk| layout.stage(Place { rank: file.rank, chunk });
    for known in known {
        if let (Some(file), Some(layer)) = (files.get(known.file), known.numbers.layer) {
            seen.entry(stage_of(file, known.chunk)).or_default().insert(layer);
        }
    }
    // Where names have the numbers of the model, those of a stage go on where the one before it ends.
    let (mut counts, mut before) = (Vec::new(), 0u32);
    for stage in 0..layout.stages.count() {
        let layers = seen.remove(&stage).unwrap_or_default();
        let first = if model.global_layers() { before } else { 0 };
        let layers: BTreeSet<u32> = layers.into_iter().map(|layer| layer.wrapping_sub(first)).collect();
        let count = layers.last().map_or(0, |last| last.saturating_add(1));
        if let Some(gap) = (0..count).find(|layer| !layers.contains(layer)) {
            let file = files
                .iter()
                .find(|file| file.rank.pp == stage % layout.pp())
                .map_or_else(String::new, |file| file.name.clone());
            return Err(SourceError::LayerGap { file, stage, last: count - 1, gap });
        }
        before = before.saturating_add(count);
        counts.push(count);
    }
    let stages = Stages::new(counts).unwrap_or_else(|| Stages::nearly_even(0, 1));
    let layers = model.size("layers").unwrap_or_else(|| stages.total());
    if stages.total() != layers {
        let sum = stages.total();
        let path = files.first().map_or_else(Default::default, |file| std::path::PathBuf::from(&file.name));
        return Err(SourceError::Layers { path, stages, sum, layers, missing: missing.to_vec() });
    }
    Ok(stages)
}
