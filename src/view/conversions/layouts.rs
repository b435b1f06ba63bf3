//! Every layout with even stages that a source can be shown in: the names that a mount of many answers to, but for those that say their cut.

use super::Conversions;
use crate::layout::{Format, Layout, LayoutSpec};
use crate::view::ViewError;

impl Conversions {
    /// The layouts of a format, without virtual stages and uneven cuts, in the order of their sizes; the one of a format that has no more.
    ///
    /// # Errors
    /// [`ViewError`] saying why there are none.
    pub fn layouts(&self, format: Format) -> Result<Vec<Layout>, ViewError> {
        let basis = self.basis(format)?;
        if format.is_single() {
            return Ok(vec![self.layout(format, &LayoutSpec::default())?]);
        }
        let size = |size: u64| u32::try_from(size).ok();
        let tensor = basis.possible_tp().into_iter().filter_map(size);
        let layers = size(basis.catalog.layout.stages.total()).into_iter().flat_map(|layers| 1..=layers);
        let stages: Vec<u32> = layers.filter(|pp| basis.catalog.layout.stages.total().is_multiple_of(u64::from(*pp))).collect();
        let experts: Vec<Option<u32>> = match basis.possible_ep().as_slice() {
            [] => vec![None],
            sizes => sizes.iter().map(|ep| size(*ep)).collect(),
        };
        let mut found: Vec<Layout> = Vec::new();
        for tp in tensor {
            for pp in &stages {
                for ep in &experts {
                    let spec = LayoutSpec { tp: Some(tp), pp: Some(*pp), ep: *ep, ..LayoutSpec::default() };
                    // What one size allows another may not.
                    found.extend(self.layout(format, &spec).ok());
                }
            }
        }
        Ok(found)
    }
}
