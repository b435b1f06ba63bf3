//! What stands beside the tensors: how the state dict was nested, and Megatron's shapes of flattened tensors.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::sync::Arc;

use super::parts::{Parts, describe};
use super::{DcpError, KeyPath, KeyPaths, PathItem};
use crate::format::dcp::error::Name;
use crate::format::pickle::Item;
use crate::tensor::Shape;

/// What Megatron says of a tensor in `mcore_data`.
const ORIGINAL_SHAPE: &str = "nd_reformulated_orig_global_shape";

impl Parts {
    /// `planner_data` of torch's own planner: the path of each flat key. `None` for that of another one.
    pub(super) fn key_paths(&mut self, item: Item<'_>) -> Result<Option<KeyPaths>, DcpError> {
        let Some(items) = item.dict() else { return Ok(None) };
        let mut paths: KeyPaths = Vec::with_capacity(items.len());
        for (key, path) in items {
            let Some(key) = key.text() else { return Err(expected("a key of planner_data", key)) };
            let path = self.key_path(path).map_err(|error| error.of(key))?;
            paths.push((Arc::clone(key), path));
        }
        paths.sort_by(|(a, _), (b, _)| a.cmp(b));
        let again = paths.iter().zip(paths.iter().skip(1)).find(|((a, _), (b, _))| a == b);
        match again {
            Some(((key, _), _)) => Err(DcpError::Twice { what: "key of planner_data", name: Name::new(key) }),
            None => Ok(Some(paths)),
        }
    }

    fn key_path(&mut self, path: Item<'_>) -> Result<KeyPath, DcpError> {
        let Some(items) = path.tuple() else { return Err(expected("a tuple of keys", path)) };
        self.spend(items.len().saturating_mul(size_of::<PathItem>()))?;
        let items = items.map(|item| match (item.text(), item.int()) {
            (Some(key), _) => Ok(PathItem::Key(Arc::clone(key))),
            (None, Some(number)) => Ok(PathItem::Number(number)),
            (None, None) => Err(expected("a key or a position", item)),
        });
        items.collect()
    }

    /// `mcore_data`: by number of a key, the shape that the tensor has in the model.
    pub(super) fn original_shapes(&mut self, item: Item<'_>) -> Result<HashMap<u32, Shape>, DcpError> {
        let mut shapes = HashMap::new();
        let Some(items) = item.dict() else { return Err(expected("a dict as mcore_data", item)) };
        for (key, said) in items {
            let Some(text) = key.text() else { return Err(expected("a key of mcore_data", key)) };
            let key = self.key(text)?;
            let shape = self.original_shape(said).map_err(|error| error.of(text))?;
            let Some(shape) = shape else { continue };
            if shapes.insert(key, shape).is_some() {
                return Err(DcpError::Twice { what: "key of mcore_data", name: Name::new(text) });
            }
        }
        Ok(shapes)
    }

    fn original_shape(&mut self, said: Item<'_>) -> Result<Option<Shape>, DcpError> {
        let mut shape = None;
        let Some(items) = said.dict() else { return Err(expected("a dict in mcore_data", said)) };
        for (name, value) in items {
            match name.text() {
                Some(name) if **name == *ORIGINAL_SHAPE => {
                    let numbers = self.numbers(value)?;
                    let found = Shape(self.lists.get(numbers).to_vec());
                    if shape.replace(found).is_some() {
                        return Err(DcpError::Twice { what: "field", name: Name::new(name) });
                    }
                }
                // It may say that the tensor is stored in yet another way.
                Some(name) => {
                    return Err(DcpError::UnknownField { class: "dict in mcore_data", field: Name::new(name) });
                }
                None => return Err(expected("a name in mcore_data", name)),
            }
        }
        Ok(shape)
    }
}

fn expected(expected: &'static str, found: Item<'_>) -> DcpError {
    DcpError::Expected { expected, found: describe(found) }
}
