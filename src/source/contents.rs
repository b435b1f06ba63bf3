//! What rank files hold, as a catalog: where their layers are, the weights, and then the optimizer's state.

use super::build::Builder;
use super::coverage;
use super::detect::leaves_of;
use super::known::Known;
use super::locate::Sizes;
use super::optimizer;
use super::stages::layout;
use super::undescribed;
use super::{SourceError, TiedHead};
use crate::catalog::{Catalog, Iteration, RankFile};
use crate::family::Model;
use crate::layout::{Experts, Layout};
use crate::store::Store;

/// The catalog of these rank files.
pub(super) fn catalog(
    model: &Model,
    sizes: (Sizes, Option<Experts>),
    iteration: Iteration,
    files: Vec<RankFile>,
    missing: &[String],
    tied_head: TiedHead,
    store: &dyn Store,
) -> Result<Catalog, SourceError> {
    let ranks = files.clone();
    let optimizer = |builder: &mut Builder<'_>, known: &[Known<'_>]| optimizer::read(builder, &ranks, known, store);
    catalog_with(model, sizes, iteration, files, (missing, tied_head), store, optimizer)
}

/// As [`catalog`], where the optimizer's state is added by somebody who knows where it is.
pub(super) fn catalog_with(
    model: &Model,
    (sizes, experts): (Sizes, Option<Experts>),
    iteration: Iteration,
    files: Vec<RankFile>,
    (missing, tied_head): (&[String], TiedHead),
    store: &dyn Store,
    optimizer: impl FnOnce(&mut Builder<'_>, &[Known<'_>]) -> Result<(), SourceError>,
) -> Result<Catalog, SourceError> {
    let (mut known, mut foreign) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        for (chunk, leaf) in leaves_of(file)? {
            match model.find(&leaf.path) {
                Some((entry, numbers)) => known.push(Known { file: index, chunk, leaf, entry, numbers }),
                None => foreign.push((file, leaf)),
            }
        }
    }
    undescribed::check_all_known(model, &foreign)?;
    let layout = Layout { experts, ..layout(model, sizes, &files, &known, missing)? };
    undescribed::check_predictions(&layout, &files, &known)?;
    let mut builder = Builder::new(Catalog::new(layout, iteration, files.clone()), model, tied_head);
    // Copies last: whether one is needed shows when everything else is there.
    for copies in [false, true] {
        for known in known.iter().filter(|known| known.entry.is_copy() == copies) {
            if let Some(file) = files.get(known.file) {
                builder.leaf(file, known)?;
            }
        }
    }
    builder.name_originals();
    builder.compare_copies(store)?;
    // What the weights lack, the optimizer lacks too: the weights say it better.
    coverage::check(&builder.catalog, model, missing)?;
    optimizer(&mut builder, &known)?;
    Ok(builder.catalog)
}
