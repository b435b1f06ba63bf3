//! The flat buffers of a distributed optimizer: who is in which, and where. Written down from Megatron's `_ParamAndGradBuffer`,
//! `_compute_per_buffer_param_layout` and `get_parameter_state_dp_zero`.

use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;

use super::{GARBAGE, MOMENTS, Member, Place, Trained};
use crate::common::{Array, Keep, Storages, dict, global, tuple};

/// A buffer: parameters of one part of the model, of one element type in megatron-core.
struct Set<'a> {
    chunk: u32,
    dtype: Dtype,
    apart: bool,
    members: Vec<&'a Member>,
}

impl Trained {
    /// `distrib_optim.pt`, of a rank: of several optimizers those whose first replica the process is.
    pub(super) fn buffers(
        &self,
        members: &[Member],
        place: Place,
        gaps: u8,
        storages: &mut Storages,
    ) -> Value {
        let dense = members.iter().filter(|member| !member.apart).collect();
        let has_own = self.has_expert_optimizer(members);
        let experts: Vec<&Member> = members.iter().filter(|member| member.apart).collect();
        let (saves_dense, saves_experts) = if has_own { self.first_replica(place) } else { (true, true) };
        let mut part = |is_saved: bool, members: Vec<&Member>| {
            if is_saved { self.part(&members, place, gaps, storages) } else { Value::None }
        };
        let dense = part(saves_dense, dense);
        if !has_own {
            return dense;
        }
        Value::List(vec![dense, part(saves_experts, experts)].into())
    }

    /// Whether the process that saves a rank is the first replica of the dense part, and of the experts. A rank without a process has all.
    fn first_replica(&self, place: Place) -> (bool, bool) {
        let (replicas, cut) = (self.replicas(), &self.cut);
        let process = cut.process(place, replicas);
        let within = process.map(|number| number % (cut.tp * replicas));
        within.map_or((true, true), |within| (within < cut.tp, within < cut.etp * cut.ep))
    }

    /// The buffers of one optimizer.
    fn part(&self, members: &[&Member], place: Place, gaps: u8, storages: &mut Storages) -> Value {
        let core = self.config.kind.is_core();
        let mut entries = Vec::new();
        if core {
            entries.push((Value::str("buckets_coalesced"), Value::Bool(true)));
        }
        // A part of the model without parameters has no buffer and takes no number.
        for (number, set) in (0i64..).zip(self.sets(members)) {
            let flat = self.lay_out(&set, place);
            let len = if core { flat.len } else { flat.len.next_multiple_of(self.replicas) };
            let mut row = |of: &dyn Fn(&Member) -> Array| {
                let mut bytes = vec![gaps; len as usize * 4];
                for (member, (saved, _)) in set.members.iter().zip(&flat.places) {
                    let part = of(member).bytes;
                    bytes[*saved as usize * 4..*saved as usize * 4 + part.len()].copy_from_slice(&part);
                }
                storages.tensor(&Array { dtype: Dtype::Float32, shape: vec![len], bytes }, Keep::Own)
            };
            let mut buffer = vec![("param".to_owned(), row(&|member| member.master.clone()))];
            for (index, name) in MOMENTS.iter().enumerate() {
                buffer.push(((*name).to_owned(), row(&|member| member.moments[index].clone())));
            }
            let torch = |dtype: Dtype| global("torch", dtype.name());
            let key = if core {
                buffer.push(("numel_unpadded".to_owned(), Value::Int(flat.len as i64)));
                tuple(vec![torch(set.dtype), torch(Dtype::Float32)])
            } else {
                torch(Dtype::Float32)
            };
            entries.push((Value::Int(number), Value::Dict([(key, dict(buffer))].into())));
        }
        Value::Dict(entries.into())
    }

    /// Parameters that share a buffer, part of the model by part of the model: of one element type in megatron-core, all of them before it.
    fn sets<'a>(&self, members: &[&'a Member]) -> Vec<Set<'a>> {
        let mut sets: Vec<Set<'a>> = Vec::new();
        for member in members {
            let dtype = if self.config.kind.is_core() { member.weight.dtype } else { Dtype::Float32 };
            let same =
                |set: &&mut Set<'_>| (set.chunk, set.dtype, set.apart) == (member.chunk, dtype, member.apart);
            match sets.iter_mut().find(same) {
                Some(set) => set.members.push(member),
                None => {
                    let (chunk, apart) = (member.chunk, member.apart);
                    sets.push(Set { chunk, dtype, apart, members: vec![member] });
                }
            }
        }
        sets
    }

    fn lay_out(&self, set: &Set<'_>, (_, pp, _): Place) -> Flat {
        let items: Vec<(u64, bool)> =
            set.members.iter().map(|member| (member.weight.shape.iter().product(), member.shared)).collect();
        if !self.config.kind.is_core() {
            return dense(&items);
        }
        // Experts have replicas of their own.
        let replicas = if set.apart {
            self.cut.tp * self.replicas() / (self.cut.etp * self.cut.ep)
        } else {
            self.replicas()
        };
        aligned(&items, self.bucket.filter(|_| pp == 0 && set.chunk == 0), replicas)
    }

    /// The model's tensors: each on its own, or those that are trained as parts of the buffers.
    pub(super) fn weights(&self, members: &[Member], place: Place, storages: &mut Storages) -> Vec<Value> {
        let mut values: Vec<(&str, Value)> = Vec::new();
        let trained: Vec<&Member> =
            members.iter().filter(|member| self.in_buffers && member.trained).collect();
        for set in self.sets(&trained) {
            let flat = self.lay_out(&set, place);
            let size = set.dtype.size();
            let len = flat.whole * size;
            let mut bytes = vec![GARBAGE; len as usize];
            for (member, (_, at)) in set.members.iter().zip(&flat.places) {
                let at = (at * size) as usize;
                bytes[at..at + member.weight.bytes.len()].copy_from_slice(&member.weight.bytes);
            }
            let number = storages.add(bytes);
            for (member, (_, at)) in set.members.iter().zip(&flat.places) {
                let Array { shape, .. } = &member.weight;
                let strides = member.weight.strides();
                values.push((&member.path, storages.tensor_at(set.dtype, number, len, *at, shape, &strides)));
            }
        }
        let value = |member: &Member| match values.iter().find(|(path, _)| *path == member.path) {
            Some((_, value)) => value.clone(),
            None => storages.tensor(&member.weight, Keep::Own),
        };
        members.iter().map(value).collect()
    }
}

/// A buffer laid out.
struct Flat {
    /// Where each parameter is in what is saved, and in the buffer that training works with.
    places: Vec<(u64, u64)>,
    /// Elements that are saved.
    len: u64,
    /// Elements of the whole buffer.
    whole: u64,
}

/// One after the other, the last one first.
fn dense(items: &[(u64, bool)]) -> Flat {
    let (mut at, mut places) = (0, vec![(0, 0); items.len()]);
    for (index, (elements, _)) in items.iter().enumerate().rev() {
        places[index] = (at, at);
        at += elements;
    }
    Flat { places, len: at, whole: at }
}

/// Megatron-core's buffers: absolute places first, bucket by bucket, and then every bucket moved to where it is saved.
fn aligned(items: &[(u64, bool)], bucket: Option<u64>, replicas: u64) -> Flat {
    let end_of_bucket = (1..).map(|n| n * replicas).find(|n| n % 128 == 0).unwrap();
    let mut buckets: Vec<(u64, u64, Vec<usize>)> = Vec::new();
    let mut absolute = vec![0; items.len()];
    let (mut at, mut start, mut inside) = (0u64, 0u64, Vec::new());
    for (index, (elements, shared)) in items.iter().enumerate().rev() {
        at = at.next_multiple_of(64);
        if *shared && !inside.is_empty() {
            buckets.push((start, at, std::mem::take(&mut inside)));
            at = at.next_multiple_of(end_of_bucket);
            start = at;
        }
        absolute[index] = at;
        at += elements;
        inside.push(index);
        if *shared || bucket.is_some_and(|full| at - start >= full) {
            buckets.push((start, at, std::mem::take(&mut inside)));
            at = at.next_multiple_of(end_of_bucket);
            start = at;
        }
    }
    if !inside.is_empty() {
        buckets.push((start, at, inside));
    }
    let (mut places, mut len) = (vec![(0, 0); items.len()], 0);
    for (from, to, inside) in buckets {
        for index in inside {
            places[index] = (len + absolute[index] - from, absolute[index]);
        }
        len += to - from;
    }
    Flat { places, len, whole: at.next_multiple_of(end_of_bucket) }
}
