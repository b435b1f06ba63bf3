//! What a distributed checkpoint of torch is made of: the names of a published model or torchtitan's, with the optimizer where there is one.

use std::sync::Arc;

use super::{Conversions, Names};
use crate::catalog::{Catalog, Encoding, RunState};
use crate::family::{Model, Padding};
use crate::layout::Format;
use crate::value::Value;
use crate::view::dcp::DcpNames;
use crate::view::{Basis, OptimizerChoice, ViewError};

/// What families call torchtitan's names.
const TORCHTITAN: &str = "torchtitan";

impl Conversions {
    /// The basis of a distributed checkpoint.
    pub(super) fn distributed(&self) -> Result<Arc<Basis>, ViewError> {
        // Whatever it is in the source, there it is by name.
        let optimizer = match self.view_options.optimizer {
            OptimizerChoice::Nothing => OptimizerChoice::Nothing,
            _ => OptimizerChoice::Keep,
        };
        let is_model = matches!(self.origin.format, Format::Hf | Format::Dcp);
        match self.conversion.dcp_names {
            DcpNames::Hf if is_model => self.own_whole(optimizer),
            DcpNames::Hf => {
                let family = self.hf_family()?;
                self.check_expressible(&family).map_err(|error| self.or_another(error, &family))?;
                let names = Names { dialect: None, optimizer };
                self.rename(&family, RunState::of_args(self.args()?), names, |_| (Padding::Exact, None))
            }
            DcpNames::Torchtitan => {
                let family = self.hf_family()?;
                let model_type = family.model_type().unwrap_or_default();
                let of_titan = self.families.distributed(model_type).find(|of| of.name.starts_with(TORCHTITAN));
                let Some(of_titan) = of_titan else {
                    return Err(ViewError::NoTorchtitan { title: family.title.clone() });
                };
                let names = Names { dialect: Some(TORCHTITAN), optimizer };
                self.rename(of_titan, RunState::of_args(self.args()?), names, |_| (Padding::Exact, None))
            }
        }
    }

    /// Settings of the optimizer's parameter groups, where the source has them by the names that this basis has.
    pub(super) fn groups_of(&self, basis: &Basis) -> Option<&Value> {
        let catalog = &self.origin.catalog;
        let saved = catalog.ranks.first()?.run.optimizer.as_ref()?;
        keeps_parameter_groups(catalog, &self.origin.model, basis).then_some(saved)
    }
}

/// Whether a distributed checkpoint made of `basis` has what this source says of its optimizer's parameter groups: names in it are those that
/// tensors have in both.
#[must_use]
pub fn keeps_parameter_groups(source: &Catalog, model: &Model, basis: &Basis) -> bool {
    let is_named = source.optimizer.as_ref().is_some_and(|optimizer| optimizer.encoding == Encoding::Named);
    let is_alike = basis.model.family().name == model.family().name && basis.catalog.spellings == source.spellings;
    is_named && is_alike
}
