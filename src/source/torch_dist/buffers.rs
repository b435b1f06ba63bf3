//! The flat buffers of a distributed optimizer, as the file that ranks save beside their own would have them.
//!
//! Three of Megatron's ways are such buffers: `dp_zero_gather_scatter`, in which one object is that file; `dp_reshardable`, in which each
//! bucket is a tensor with a chunk for each parameter on each rank; and the older `fully_sharded_bucket_space`, which is the same with the
//! padding at the end of buckets. What padding holds is never looked at. Where parameters are in them is not said here (`source/optimizer`).
//!
//! Where ranks share out experts, these have an optimizer of their own, and keys begin with its number.
//!
//! Source: megatron-core's `distrib_optimizer.py`, `sharded_param_state_dp_zero` and `sharded_param_state_dp_reshardable`, and
//! `ChainedOptimizer.sharded_state_dict` in `optimizer.py`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::storages::renamed;
use super::names::{CHAINED, DISTRIBUTED, Named, chained};
use crate::catalog::{BufferFile, Chunk};
use crate::extent::ObjectId;
use crate::format::dcp::metadata::{Object, Tensor};
use crate::format::megatron::keys::{BUFFER_MASTERS, COALESCED, OPTIMIZER, ROW_LENGTH};
use crate::source::SourceError;
use crate::source::dcp::Opened;
use crate::store::Store;
use crate::tensor::{Dtype, Region, Shape};
use crate::value::{Global, Storage, TensorRef, Value};

/// What stands before the number of a group of data-parallel ranks.
const GROUP: &str = "dp_group_idx_";
/// The only part of an object.
const ONLY: &str = "/shard_0_1";
/// The whole of the buffers, in one object.
const WHOLE: &str = "param_state";
/// Lengths of buckets without what shares them out among ranks.
const LENGTHS: &str = "per_bucket_numel_unpadded";

/// One optimizer of the data-parallel ranks that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Owner {
    /// Which of several optimizers of its ranks; `None` where they have one.
    pub(super) chain: Option<u32>,
    /// The group of ranks. Dense parameters and experts are counted apart.
    pub(super) group: u32,
}

/// What the groups of data-parallel ranks saved.
pub(super) struct Buffers<'a> {
    opened: &'a Opened,
    objects: HashMap<(Owner, &'a str), &'a Object>,
    tensors: BTreeMap<Owner, Vec<(Bucket<'a>, &'a Tensor)>>,
}

/// What the key of a bucket's tensor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket<'a> {
    buffer: u32,
    /// Element types of weights and gradients, as Python writes them.
    types: &'a str,
    bucket: u32,
    state: &'a str,
}

impl<'a> Buffers<'a> {
    /// Sorts what there is by group.
    ///
    /// # Errors
    /// [`SourceError::Optimizer`] for a key that is none of these, as of another version.
    pub(super) fn of(opened: &'a Opened, named: &Named<'a>, file: &str) -> Result<Self, SourceError> {
        let unknown = |key: &str| SourceError::Optimizer {
            file: file.to_owned(),
            what: format!(
                "it has {key}, of a way to keep flat buffers that is not known; load it and save it again as fully_reshardable"
            ),
        };
        let mut found = Self { opened, objects: HashMap::new(), tensors: BTreeMap::new() };
        for object in &named.optimizer_objects {
            let parsed = object.key.strip_suffix(ONLY).and_then(owner);
            let (owner, rest) = parsed.ok_or_else(|| unknown(&object.key))?;
            found.objects.insert((owner, rest), object);
        }
        for tensor in &named.buffers {
            let parsed = owner(&tensor.key).and_then(|(owner, rest)| Some((owner, Bucket::parse(rest)?)));
            let (owner, bucket) = parsed.ok_or_else(|| unknown(&tensor.key))?;
            found.tensors.entry(owner).or_default().push((bucket, tensor));
        }
        for buckets in found.tensors.values_mut() {
            buckets.sort_by_key(|(bucket, _)| *bucket);
        }
        Ok(found)
    }

    /// Whose parameter groups or buffers there are, in an order.
    pub(super) fn owners(&self) -> BTreeSet<Owner> {
        self.objects.keys().map(|(owner, _)| *owner).chain(self.tensors.keys().copied()).collect()
    }

    /// The parameter groups of an optimizer.
    pub(super) fn groups(&self, owner: Owner, store: &dyn Store) -> Result<Option<Value>, SourceError> {
        match self.objects.get(&(owner, OPTIMIZER)) {
            Some(object) => Ok(only(&self.opened.object(object, store)?.tree)),
            None => Ok(None),
        }
    }

    /// The file of buffers that a rank would have saved which keeps those of `owners`, one for each of its optimizers; `None` where another
    /// rank keeps them. Messages call it `name` where the rank keeps none.
    pub(super) fn file(&self, owners: &[Option<Owner>], name: &str, store: &dyn Store) -> Result<BufferFile, SourceError> {
        let mut whole = self.empty(name.to_owned());
        for owner in owners {
            let Some(owner) = *owner else {
                whole.sets.push(Value::None);
                continue;
            };
            let BufferFile { object, name, sets, storages, pieces } = self.file_of(owner, store)?;
            (whole.object, whole.name) = (object, name);
            whole.sets.extend(sets);
            whole.storages.extend(storages);
            whole.pieces.extend(pieces);
        }
        Ok(whole)
    }

    fn empty(&self, name: String) -> BufferFile {
        let object = self.opened.names().into_keys().min().map_or(ObjectId(0), |object| object);
        BufferFile { object, name, sets: Vec::new(), storages: HashMap::new(), pieces: HashMap::new() }
    }

    /// That of one optimizer.
    fn file_of(&self, owner: Owner, store: &dyn Store) -> Result<BufferFile, SourceError> {
        if let Some(object) = self.objects.get(&(owner, WHOLE)) {
            let found = self.opened.object(object, store)?;
            let object = self.opened.object_file(object)?;
            let set = only(&found.tree).and_then(|set| renamed(&set, &|key| owner.key(key)));
            let set = set.ok_or_else(|| SourceError::Optimizer {
                file: found.name.clone(),
                what: format!("its object {owner}.{WHOLE} is not a list of one dict of buffers"),
            })?;
            let storages = found.storages.into_iter().map(|(key, record)| (owner.key(&key), record)).collect();
            return Ok(BufferFile { object, name: found.name, sets: vec![set], storages, pieces: HashMap::new() });
        }
        let mut file = self.empty(format!("{}: {owner}", self.opened.directory().display()));
        let Some(buckets) = self.tensors.get(&owner) else {
            let what = "it has parameter groups of an optimizer without its buffers".to_owned();
            return Err(SourceError::Optimizer { file: file.name, what });
        };
        let lengths = match self.objects.get(&(owner, LENGTHS)) {
            Some(object) => only(&self.opened.object(object, store)?.tree),
            None => None,
        };
        let tensors: Vec<&Tensor> = buckets.iter().map(|(_, tensor)| *tensor).collect();
        let mut pieces = self.opened.pieces(&tensors, store)?.into_iter();
        let mut set = vec![(Value::str(COALESCED), Value::Bool(true))];
        for of_buffer in buckets.chunk_by(|(one, _), (other, _)| (one.buffer, one.types) == (other.buffer, other.types)) {
            let Some((first, _)) = of_buffer.first() else { continue };
            let mut joiner = Joiner { owner, of: first, lengths: lengths.as_ref(), states: Vec::new() };
            for ((bucket, tensor), pieces) in of_buffer.iter().zip(pieces.by_ref()) {
                joiner.add(bucket, tensor, pieces).ok_or_else(|| SourceError::Tensor {
                    file: file.name.clone(),
                    tensor: tensor.key.to_string(),
                    what: "expected one row of numbers, as long as its bucket".to_owned(),
                })?;
            }
            let types = types_of(first.types);
            let row = joiner.finish(&mut file.pieces);
            set.push((Value::Int(first.buffer.into()), Value::Dict([(types, row)].into())));
        }
        file.sets = vec![Value::Dict(set.into())];
        Ok(file)
    }
}

impl Owner {
    /// A key of a storage that no other optimizer of the rank has.
    fn key(self, key: &str) -> Arc<str> {
        match self.chain {
            Some(chain) => format!("{chain}.{key}").into(),
            None => key.into(),
        }
    }
}

impl fmt::Display for Owner {
    /// As keys begin.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(chain) = self.chain {
            write!(f, "{CHAINED}{chain}.")?;
        }
        write!(f, "{DISTRIBUTED}{GROUP}{}", self.group)
    }
}

/// Whose key it is, and what follows that.
fn owner(key: &str) -> Option<(Owner, &str)> {
    let (chain, key) = chained(key)?;
    let (group, rest) = key.strip_prefix(DISTRIBUTED)?.strip_prefix(GROUP)?.split_once('.')?;
    Some((Owner { chain, group: group.parse().ok()? }, rest))
}

/// The only element of a list.
fn only(list: &Value) -> Option<Value> {
    match list.elements() {
        Some([only]) => Some(only.clone()),
        _ => None,
    }
}

impl<'a> Bucket<'a> {
    /// `gbuf_idx_0.dtype_(torch.bfloat16, torch.float32).bucket_idx_0.param`
    fn parse(rest: &'a str) -> Option<Self> {
        let (buffer, rest) = rest.strip_prefix("gbuf_idx_")?.split_once(".dtype_")?;
        let (types, rest) = rest.split_once(".bucket_idx_")?;
        let (bucket, state) = rest.split_once('.')?;
        let is_pair = types.starts_with("(torch.") && types.ends_with(')');
        is_pair.then_some(Self { buffer: buffer.parse().ok()?, types, bucket: bucket.parse().ok()?, state })
    }
}

/// `(torch.bfloat16, torch.float32)` as a pickle has it.
fn types_of(text: &str) -> Value {
    let names = text.trim_matches(['(', ')']).split(", ");
    let globals = names.filter_map(|name| {
        let (module, name) = name.rsplit_once('.')?;
        Some(Value::Global(Arc::new(Global { module: module.into(), name: name.into() })))
    });
    Value::Tuple(globals.collect())
}

/// Buckets of a buffer on their way into one row for each state.
struct Joiner<'a> {
    owner: Owner,
    of: &'a Bucket<'a>,
    lengths: Option<&'a Value>,
    /// In the order in which they are met.
    states: Vec<(&'a str, Row)>,
}

#[derive(Debug)]
struct Row {
    dtype: Dtype,
    len: u64,
    pieces: Vec<Chunk>,
}

impl<'a> Joiner<'a> {
    /// Adds a bucket behind those before it.
    fn add(&mut self, bucket: &Bucket<'a>, tensor: &Tensor, pieces: Vec<Chunk>) -> Option<()> {
        let [stored] = *tensor.shape.0.as_slice() else { return None };
        let len = match self.length_of(bucket) {
            Some(len) => Some(len).filter(|len| *len <= stored)?,
            None => stored,
        };
        let known = self.states.iter().position(|(state, _)| *state == bucket.state);
        let index = match known {
            Some(index) => index,
            None => {
                self.states.push((bucket.state, Row { dtype: tensor.dtype, len: 0, pieces: Vec::new() }));
                self.states.len() - 1
            }
        };
        let (_, row) = self.states.get_mut(index)?;
        if row.dtype != tensor.dtype {
            return None;
        }
        for piece in pieces {
            let held = piece.region.along(0);
            // What shares the bucket out among ranks is no part of it.
            let end = held.end.min(len);
            if held.start < end {
                let span = row.len.checked_add(held.start)?..row.len.checked_add(end)?;
                row.pieces.push(Chunk { region: Region::new(vec![span]), ..piece });
            }
        }
        row.len = row.len.checked_add(len)?;
        Some(())
    }

    /// `[{types: [elements of each bucket]}, ..]`, one for each buffer.
    fn length_of(&self, bucket: &Bucket<'_>) -> Option<u64> {
        let of_buffer = self.lengths?.elements()?.get(usize::try_from(bucket.buffer).ok()?)?;
        let (_, lengths) = of_buffer.items()?.first()?;
        let length = lengths.elements()?.get(usize::try_from(bucket.bucket).ok()?)?;
        u64::try_from(length.as_int()?).ok()
    }

    /// The buffer as a dict of states; where their bytes are goes into `pieces`.
    fn finish(mut self, pieces: &mut HashMap<Arc<str>, Vec<Chunk>>) -> Value {
        // Masters come first where ranks save them.
        self.states.sort_by_key(|(state, _)| *state != BUFFER_MASTERS);
        let mut row = Vec::new();
        let mut elements = 0;
        for (state, Row { dtype, len, pieces: of_row }) in self.states {
            let key = self.owner.key(&format!("{}.{}.{state}", self.of.buffer, self.of.types));
            let shape = Shape(vec![len]);
            let bytes = shape.bytes(dtype).into_iter().sum();
            let storage = Storage { key: key.clone(), bytes };
            let tensor = TensorRef { dtype, shape, strides: vec![1], offset: 0, storage, requires_grad: false };
            row.push((Value::str(state), Value::Tensor(Arc::new(tensor))));
            pieces.insert(key, of_row);
            elements = len;
        }
        row.extend(i64::try_from(elements).ok().map(|len| (Value::str(ROW_LENGTH), Value::Int(len))));
        Value::Dict(row.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_buckets_are_taken_apart() {
        let key = "optimizer.distributed.dp_group_idx_3.gbuf_idx_1.dtype_(torch.bfloat16, torch.float32).bucket_idx_2.exp_avg_sq";
        let of_several = format!("chained_1.{key}");
        let (only, rest) = owner(key).unwrap();
        assert_eq!(only, Owner { chain: None, group: 3 });
        assert_eq!(owner(&of_several), Some((Owner { chain: Some(1), group: 3 }, rest)));
        assert!(key.starts_with(&only.to_string()) && of_several.starts_with(&Owner { chain: Some(1), ..only }.to_string()));
        let bucket = Bucket::parse(rest).unwrap();
        assert_eq!((bucket.buffer, bucket.bucket, bucket.state), (1, 2, "exp_avg_sq"));
        let types = types_of(bucket.types);
        let names = types.elements().unwrap().iter().map(|value| match value {
            Value::Global(global) => format!("{}.{}", global.module, global.name),
            other => panic!("{other:?}"),
        });
        assert_eq!(names.collect::<Vec<_>>(), ["torch.bfloat16", "torch.float32"]);
        for bad in ["gbuf_idx_1.dtype_x.bucket_idx_2.a", "gbuf_idx_x.dtype_(torch.a).bucket_idx_2.a", "per_bucket_numel"] {
            assert_eq!(Bucket::parse(bad), None, "{bad}");
        }
        for bad in ["chained_x.optimizer.distributed.dp_group_idx_0.optimizer", "optimizer.distributed.dp_group_idx_.optimizer", "optimizer.state.a"] {
            assert_eq!(owner(bad), None, "{bad}");
        }
    }
}
