//! A set of parameters: one state (the weights, the masters, a moment) of the whole model.

use std::collections::HashMap;
use std::sync::Arc;

use super::Param;

/// Parameters by name, in the order they were met. A clone shares them until it is added to.
#[derive(Debug, Clone, Default)]
pub struct Params {
    list: Arc<Vec<Param>>,
    by_name: Arc<HashMap<Arc<str>, usize>>,
}

impl Params {
    /// The parameter called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.by_name.get(name).and_then(|index| self.list.get(*index))
    }

    /// All parameters, in the order they were met.
    #[must_use]
    pub fn all(&self) -> &[Param] {
        &self.list
    }

    /// The parameter of `fresh`'s name: the one already there, or `fresh` itself. The caller compares the two.
    #[expect(
        clippy::indexing_slicing,
        reason = "the index is that of a parameter in the list, or of the one just added"
    )]
    pub fn get_or_insert(&mut self, fresh: Param) -> &mut Param {
        let list = Arc::make_mut(&mut self.list);
        let index = match self.by_name.get(&fresh.name) {
            Some(index) => *index,
            None => {
                Arc::make_mut(&mut self.by_name).insert(fresh.name.clone(), list.len());
                list.push(fresh);
                list.len() - 1
            }
        };
        &mut list[index]
    }
}
