//! What rank files hold, as a catalog: where their layers are, the weights, and then the optimizer's state.

use super::SourceError;
use super::build::Builder;
use super::complete;
use super::detect::leaves_of;
use super::known::Known;
use super::locate::Sizes;
use super::optimizer;
use super::stages::layout;
use super::undescribed;
use crate::catalog::{Catalog, Iteration, RankFile};
use crate::family::Model;
use crate::layout::{Experts, Layout};
use crate::store::Store;

/// The catalog of these rank files.
pub(super) fn catalog(
    model: &Model,
    (sizes, experts): (Sizes, Option<Experts>),
    iteration: Iteration,
    files: Vec<RankFile>,
    missing: &[String],
    store: &dyn Store,
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
    let mut builder = Builder::new(Catalog::new(layout, iteration, files.clone()), model);
    for known in &known {
        if let Some(file) = files.get(known.file) {
            builder.leaf(file, known)?;
        }
    }
    // What the weights lack, the optimizer lacks too: the weights say it better.
    complete::check(&builder.catalog, model, missing)?;
    optimizer::read(&mut builder, &files, &known, store)?;
    Ok(builder.catalog)
}
