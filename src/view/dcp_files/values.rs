//! Whose numbers a tensor of the checkpoint has: the weights', or those of a state of the optimizer.

use crate::catalog::MASTER;
use crate::view::target::Of;
use crate::view::{Basis, VocabularyFill};

/// Whose values a tensor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::view) enum Values {
    /// The weights.
    Weights,
    /// The state of the optimizer with this number in the catalog.
    State(usize),
}

impl Values {
    /// What tensors of these values are made of; `None` for a state that has no number for each element.
    pub(in crate::view) fn of(self, basis: &Basis) -> Option<Of<'_>> {
        let Self::State(number) = self else { return Some(Of::weights(basis)) };
        let (name, params) = basis.catalog.optimizer.as_ref()?.states.get(number)?.elements()?;
        // New rows have no history, whatever they hold.
        let fill = if **name == *MASTER { basis.fill } else { VocabularyFill::Zero };
        Some(Of { basis, params, fill, with_copies: false })
    }
}
