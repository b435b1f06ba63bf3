//! A checkpoint of a model that a family describes, by its config.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::Found;
use super::keys::{fitting, is_under, prefixes};
use super::members::Contents;
use super::{Opened, Opening};
use crate::catalog::Iteration;
use crate::family::{Family, Model};
use crate::source::SourceError;
use crate::source::hf::{DIVISIBLE_BY, args_of, check_vocabulary, family_of, words};
use crate::tensor::Dtype;

/// A family whose names are in the checkpoint.
struct Fit {
    family: Arc<Family>,
    /// Prefixes that may be the model's.
    prefixes: Vec<String>,
    /// Whether there are others, which the user did not choose.
    has_others: bool,
    /// Names under the best one.
    count: usize,
}

/// Opens it as what its config says.
pub(super) fn open(
    of: &Opening<'_>,
    contents: &Contents<'_>,
    found: &Found,
    iteration: Iteration,
) -> Result<Opened, SourceError> {
    let Found { file, config, .. } = found;
    let names = || Ok(contents.tensors.iter().map(|tensor| tensor.key.clone()).collect());
    let family = family_of(file, config, of.options, &names)?;
    let Fit { family, prefixes, has_others, .. } = fit(of, contents, found, &family)?;
    let prefix = match prefixes.as_slice() {
        [prefix] => prefix,
        several => {
            let several: Vec<&str> = several.iter().map(String::as_str).collect();
            return Err(of.several(&several));
        }
    };
    let names: Vec<String> = model_of(of, found, &family, Dtype::Float32)?.0.entries().iter().map(first_part).collect();
    let first: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let members = contents.members(prefix, &first)?;
    let (model, args, inexpressible) = model_of(of, found, &family, contents.main_dtype(&members))?;
    let known = members.named.iter().filter(|(name, _)| model.find(name).is_some()).count();
    // A few names are those of many models.
    if known.saturating_mul(2) < members.named.len() {
        return Err(nothing_fits(of, contents, found, &family));
    }
    let file_of_rank = contents.rank_file(&members, args, !has_others || is_trained(prefix), of.store)?;
    let catalog = of.catalog(&model, file_of_rank, iteration);
    let catalog = catalog.map_err(|error| words::of_model(error, of.path, config, &model))?;
    check_vocabulary(file, config, &catalog)?;
    Ok(Opened { catalog, model, inexpressible })
}

/// Whether the model under this prefix is what people train, where there are several: `model.` beside `ema.`.
pub(super) fn is_trained(prefix: &str) -> bool {
    prefix.is_empty() || ["model.", "module."].iter().any(|trained| prefix.starts_with(trained))
}

/// What the names of an entry begin with.
fn first_part(entry: &crate::family::Entry) -> String {
    super::keys::root(&entry.name).to_owned()
}

type Modelled = (Model, crate::value::Value, Vec<crate::family::config::ConfigError>);

/// The model that the config says, of this family.
fn model_of(of: &Opening<'_>, found: &Found, family: &Arc<Family>, dtype: Dtype) -> Result<Modelled, SourceError> {
    let divisible_by = Some(of.options.divisible_by.unwrap_or(DIVISIBLE_BY));
    let (args, inexpressible) = args_of(&found.file, family, &found.config, dtype, divisible_by)?;
    let explain =
        |error| SourceError::Model { file: found.file.clone(), source: words::of_config(error, family) };
    Ok((family.model(&args, 0.0).map_err(explain)?, args, inexpressible))
}

/// Of the family and those that call its tensors otherwise, the one with most names in the checkpoint: the first of several.
fn fit(
    of: &Opening<'_>,
    contents: &Contents<'_>,
    found: &Found,
    family: &Arc<Family>,
) -> Result<Fit, SourceError> {
    let others = family.model_type().into_iter().flat_map(|name| of.options.families.distributed(name));
    let mut best: Option<Fit> = None;
    for family in std::iter::once(family).chain(others) {
        let (model, _, _) = model_of(of, found, family, Dtype::Float32)?;
        let keys: Vec<_> = contents.keys().collect();
        let mut all = prefixes(keys.iter().map(|key| &**key), |name| model.find(name).is_some());
        let found = fitting(&all).len();
        if let Some(root) = &of.options.root {
            all.retain(|prefix, _| is_under(prefix, root));
        }
        let fitting: Vec<String> = fitting(&all).into_iter().map(ToOwned::to_owned).collect();
        let count = all.values().copied().max().unwrap_or(0);
        if let Some(known) = best.as_mut().filter(|known| known.count == count && known.prefixes != fitting) {
            // As many names of one kind as of another, elsewhere: two models.
            known.prefixes.extend(fitting);
            known.prefixes.sort();
            known.prefixes.dedup();
            continue;
        }
        if count > best.as_ref().map_or(0, |best| best.count) {
            let has_others = found > fitting.len();
            best = Some(Fit { family: family.clone(), prefixes: fitting, has_others, count });
        }
    }
    best.ok_or_else(|| nothing_fits(of, contents, found, family))
}

/// What to say where no name is one of the family's.
fn nothing_fits(of: &Opening<'_>, contents: &Contents<'_>, found: &Found, family: &Family) -> SourceError {
    let example = contents.tensors.first().map_or("nothing", |tensor| &*tensor.key);
    let below = of.options.root.as_ref().map_or_else(String::new, |root| format!(" below {root}"));
    let what = format!(
        "it has {example}, and no tensors{below} that are called as in a model of {}, which {} says it is",
        family.title, found.file
    );
    SourceError::Unsupported { path: of.path.display().to_string(), what }
}
