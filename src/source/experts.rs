//! Experts of a source: how they are shared out, and which rank files a run with experts saves.

use super::SourceError;
use super::locate::Sizes;
use crate::catalog::RankFile;
use crate::family::{ArgRole, Model};
use crate::format::megatron::rank_dir;
use crate::layout::{Experts, Layout, Stages};
use crate::value::Value;

/// How the experts are shared out; `None` for a model without experts.
pub(super) fn shared_out(
    model: &Model,
    sizes: Sizes,
    files: &[RankFile],
) -> Result<Option<Experts>, SourceError> {
    let Some(file) = files.first() else { return Ok(None) };
    let problem = |what: String| Err(SourceError::Contents { file: file.name.clone(), what });
    let Some(experts) = model.size("experts") else {
        if sizes.ep > 1 {
            return problem(format!("its args say {} expert ranks, but no experts", sizes.ep));
        }
        return Ok(None);
    };
    if !experts.is_multiple_of(u64::from(sizes.ep)) {
        return problem(format!("its args say {experts} experts on {} expert ranks", sizes.ep));
    }
    let etp = number(model, file, ArgRole::Etp).unwrap_or(sizes.tp);
    if !sizes.tp.is_multiple_of(etp) {
        return problem(format!(
            "its args say expert-tensor-parallel size {etp} at tensor-parallel size {}, of which its files would overwrite each other",
            sizes.tp
        ));
    }
    Ok(Some(Experts { ep: sizes.ep, etp }))
}

/// Those of the `missing` files that the run should have saved: with experts, not every pair of tensor and expert rank is a process's.
pub(super) fn really_missing(
    missing: Vec<String>,
    model: &Model,
    sizes: Sizes,
    experts: Option<Experts>,
    files: &[RankFile],
    ending: &str,
) -> Vec<String> {
    let layout = Layout { experts, ..Layout::dense(sizes.tp, Stages::nearly_even(0, sizes.pp)) };
    let Some(first) = files.first() else { return missing };
    if experts.is_none() || missing.is_empty() {
        return missing;
    }
    let processes = model.processes(&first.run.args, &layout);
    let saved = layout.ranks().filter(|rank| processes.saves(*rank));
    let saved: std::collections::HashSet<String> =
        saved.map(|rank| format!("{}{ending}", rank_dir(rank, sizes.pp, sizes.ep))).collect();
    missing.into_iter().filter(|name| saved.contains(name)).collect()
}

/// The size that args say in a field with this role.
fn number(model: &Model, file: &RankFile, role: ArgRole) -> Option<u32> {
    let values = model.fields_of(role).filter_map(|field| file.run.args.attribute(field).and_then(Value::as_int));
    values.filter_map(|n| u32::try_from(n).ok()).find(|n| *n > 0)
}
