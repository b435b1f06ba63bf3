//! Rebuilding a tree node by node, children first, in the order in which a pickle has them. Nodes that were shared stay shared.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::sync::Arc;

use super::TorchError;
use crate::format::pickle::PickleError;
use crate::value::{Object, Value};

/// As deep as `pickle::encode` goes; trees from `pickle::decode` are shallower.
const MAX_DEPTH: u32 = 400;

/// The tree under `root` with each node replaced by what `change` makes of it. `change` gets nodes whose children are replaced already;
/// it sees a shared container or object once. Errors carry the keys that lead to the node.
pub(super) fn rewrite(
    root: &Value,
    change: &mut dyn FnMut(Value) -> Result<Value, TorchError>,
) -> Result<Value, TorchError> {
    Rewriter { change, seen: HashMap::new() }.value(root, MAX_DEPTH)
}

struct Rewriter<'a> {
    change: &'a mut dyn FnMut(Value) -> Result<Value, TorchError>,
    /// New values by the address of the old, where something else refers to the old one too. The old tree is borrowed meanwhile, so no address is used twice.
    seen: HashMap<usize, Value>,
}

impl Rewriter<'_> {
    fn value(&mut self, value: &Value, depth: u32) -> Result<Value, TorchError> {
        let address = match value {
            Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
                address(items)
            }
            Value::Dict(items) => address(items),
            Value::Object(object) => address(object),
            Value::Persistent(id) => address(id),
            Value::Tensor(tensor) => address(tensor),
            _ => return (self.change)(value.clone()),
        };
        if let Some(new) = address.and_then(|address| self.seen.get(&address)) {
            return Ok(new.clone());
        }
        let depth = depth.checked_sub(1).ok_or(PickleError::TooDeep { limit: MAX_DEPTH })?;
        let new = self.children(value, depth)?;
        let new = (self.change)(new)?;
        if let Some(address) = address {
            self.seen.insert(address, new.clone());
        }
        Ok(new)
    }

    fn children(&mut self, value: &Value, depth: u32) -> Result<Value, TorchError> {
        Ok(match value {
            Value::List(items) => Value::List(self.values(items, depth)?.into()),
            Value::Tuple(items) => Value::Tuple(self.values(items, depth)?.into()),
            Value::Set(items) => Value::Set(self.values(items, depth)?.into()),
            Value::FrozenSet(items) => Value::FrozenSet(self.values(items, depth)?.into()),
            Value::Dict(items) => Value::Dict(self.items(items, depth)?.into()),
            Value::Object(object) => Value::Object(Arc::new(Object {
                construct: object.construct,
                callable: self.value(&object.callable, depth)?,
                args: self.value(&object.args, depth)?,
                appended: self.values(&object.appended, depth)?,
                items: self.items(&object.items, depth)?,
                state: object.state.as_ref().map(|state| self.value(state, depth)).transpose()?,
            })),
            Value::Persistent(id) => Value::Persistent(Arc::new(self.value(id, depth)?)),
            other => other.clone(),
        })
    }

    fn values(&mut self, values: &[Value], depth: u32) -> Result<Vec<Value>, TorchError> {
        values.iter().map(|value| self.value(value, depth)).collect()
    }

    fn items(&mut self, items: &[(Value, Value)], depth: u32) -> Result<Vec<(Value, Value)>, TorchError> {
        let item = |(key, value): &(Value, Value)| {
            let new = self.value(key, depth)?;
            let value = self.value(value, depth).map_err(|error| error.within(key))?;
            Ok((new, value))
        };
        items.iter().map(item).collect()
    }
}

/// Where it is, if it may be met again.
fn address<T: ?Sized>(content: &Arc<T>) -> Option<usize> {
    (Arc::strong_count(content) > 1).then(|| Arc::as_ptr(content).addr())
}
