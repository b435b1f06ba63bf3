//! Synthetic checkpoints with optimizer state, and the naive answer to what that is in any layout and encoding.
//!
//! Masters and moments are values of their own, cut as the weights are. What is done with them here is written down from Megatron's
//! `_get_param_groups`, `Float16OptimizerWithFloat16Params.state_dict`, `_compute_per_buffer_param_layout` and `get_parameter_state_dp_zero`;
//! nothing of the crate's is used but codecs.

use std::fs;
use std::path::Path;

use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;

use super::naive::{Config, Cut, Fill, Kind, Written};
use super::source::{Checkpoint, ITERATION, nested};
use super::{Array, Keep, Storages, dict, global, namespace, pt, tuple};

/// A training run with Adam.
#[derive(Debug, Clone)]
pub struct Trained {
    pub config: Config,
    pub cut: Cut,
    pub encoding: Encoding,
    pub steps: Steps,
    /// Whether a loss scale is kept.
    pub scaler: bool,
    /// Weights whose paths have this in them have 32 bits, whatever the others have.
    pub full: Option<&'static str>,
    pub replicas: u64,
    /// `ddp_bucket_size`, for runs with `overlap_grad_reduce`.
    pub bucket: Option<u64>,
    /// The model's tensors lie in the buffers that the optimizer works with.
    pub in_buffers: bool,
    /// Groups stand in the order in which a rank's parameters come upon them, as megatron-core 0.6 to 0.15 lists them.
    pub first_come: bool,
}

/// How state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// By parameter, in the rank file.
    Mixed,
    /// In flat buffers, in a file of their own.
    Distributed,
}

/// Where the number of steps is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steps {
    /// In each group, as apex does.
    InGroups(i64),
    /// With each parameter, as torch does; a distributed optimizer then has it in its groups, as a float.
    WithParameters(f32),
}

/// One parameter of a rank with its state.
#[derive(Debug, Clone)]
pub struct Member {
    pub path: String,
    pub weight: Array,
    pub master: Array,
    pub moments: [Array; 2],
    pub decays: bool,
    /// An embedding that another stage has too.
    pub shared: bool,
}

/// The files of one rank.
#[derive(Debug, Clone)]
pub struct RankFiles {
    pub dir: String,
    pub model: (Value, Vec<Vec<u8>>),
    pub buffers: Option<(Value, Vec<Vec<u8>>)>,
}

const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// What is in a source's buffers between and behind parameters, and must be in no view.
const GARBAGE: u8 = 0xEE;

impl Default for Trained {
    fn default() -> Self {
        Self {
            config: Config { dtype: Dtype::Bfloat16, ..Config::default() },
            cut: Cut::new(2, &[2, 2]),
            encoding: Encoding::Mixed,
            steps: Steps::InGroups(100),
            scaler: false,
            full: None,
            replicas: 1,
            bucket: None,
            in_buffers: false,
            first_come: false,
        }
    }
}

impl Trained {
    /// The same run, had it been trained in another layout and encoding.
    pub fn retold(&self, cut: &Cut, encoding: Encoding) -> Self {
        Self { cut: cut.clone(), encoding, ..self.clone() }
    }

    /// Writes it into `root`.
    pub fn write(&self, root: &Path) {
        write(root, &self.ranks(self.cut.tp, Fill::Zero, GARBAGE));
    }

    /// What a view is to show of it. `source_tp` is what the vocabulary was padded for.
    pub fn shown(&self, source_tp: u64, fill: Fill) -> Vec<RankFiles> {
        Self { replicas: 1, in_buffers: false, ..self.clone() }.ranks(source_tp, fill, 0)
    }

    fn ranks(&self, source_tp: u64, fill: Fill, gaps: u8) -> Vec<RankFiles> {
        let mut ranks = self.cut.ranks();
        ranks.sort_unstable();
        let files = ranks.into_iter().map(|(tp, pp)| self.rank(source_tp, fill, gaps, (tp, pp)));
        files.collect()
    }

    /// Every parameter of a rank, in the model's order.
    pub fn members(&self, source_tp: u64, fill: Fill, (tp, pp): (u64, u32)) -> Vec<Member> {
        let of = |dtype: Dtype, salt: u64, fill: Fill| {
            let config = Config { dtype, salt, ..self.config.clone() };
            Written { config, source_tp, fill }.rank(&self.cut, tp, pp)
        };
        let full = of(Dtype::Float32, 0, fill);
        let (masters, first, second) = (
            of(Dtype::Float32, 1, fill),
            of(Dtype::Float32, 2, Fill::Zero),
            of(Dtype::Float32, 3, Fill::Zero),
        );
        let weights = of(self.config.dtype, 0, fill).into_iter().enumerate();
        let members = weights.map(|(at, (path, weight))| {
            let in_full =
                self.config.dtype == Dtype::Float32 || self.full.is_some_and(|part| path.contains(part));
            let weight = if in_full { full[at].1.clone() } else { weight };
            Member {
                master: if in_full { weight.clone() } else { masters[at].1.clone() },
                moments: [first[at].1.clone(), second[at].1.clone()],
                decays: weight.shape.len() > 1 && !path.ends_with(".bias"),
                shared: self.config.tied
                    && self.cut.pp() > 1
                    && ["word_embeddings", "output_layer"].iter().any(|name| path.contains(name)),
                path,
                weight,
            }
        });
        members.collect()
    }

    fn rank(&self, source_tp: u64, fill: Fill, gaps: u8, (tp, pp): (u64, u32)) -> RankFiles {
        let members = self.members(source_tp, fill, (tp, pp));
        let mut storages = Storages::default();
        let weights = self.weights(&members, pp, &mut storages);
        let paths = members.iter().map(|member| member.path.clone());
        let model = nested(paths.zip(weights).collect(), self.config.kind.is_core());
        let optimizer = self.optimizer(&members, &mut storages);
        let rng = Array { dtype: Dtype::Uint8, shape: vec![3], bytes: vec![7, tp as u8, pp as u8] };
        let rng = dict(vec![("torch_rng_state".into(), storages.tensor(&rng, Keep::Own))]);
        let tree = dict(vec![
            ("args".into(), namespace(&self.args(tp, pp))),
            ("checkpoint_version".into(), Value::Float(3.0)),
            ("iteration".into(), Value::Int(100)),
            ("model".into(), model),
            ("optimizer".into(), optimizer),
            ("opt_param_scheduler".into(), dict(vec![("num_steps".into(), Value::Int(115_200))])),
            ("rng_state".into(), Value::List(vec![rng].into())),
        ]);
        let buffers = (self.encoding == Encoding::Distributed).then(|| {
            let mut storages = Storages::default();
            let tree = self.buffers(&members, pp, gaps, &mut storages);
            (tree, storages.contents)
        });
        RankFiles { dir: self.cut.rank_dir(tp, pp), model: (tree, storages.contents), buffers }
    }

    fn args(&self, tp: u64, pp: u32) -> Vec<(String, Value)> {
        let mut draft = Checkpoint::new(&self.config, &self.cut);
        let file = draft.file(&self.cut.rank_dir(tp, pp));
        file.arg("use_distributed_optimizer", Value::Bool(self.encoding == Encoding::Distributed));
        file.arg("accumulate_allreduce_grads_in_fp32", Value::Bool(true));
        file.arg("data_parallel_size", Value::Int(self.replicas as i64));
        file.arg("overlap_grad_reduce", Value::Bool(self.bucket.is_some()));
        file.arg("ddp_bucket_size", self.bucket.map_or(Value::None, |size| Value::Int(size as i64)));
        file.args.clone()
    }

    /// `optimizer`, of a rank.
    fn optimizer(&self, members: &[Member], storages: &mut Storages) -> Value {
        let mut groups = groups(members);
        if self.first_come {
            groups.sort_by_key(|group| group[0].decays != members[0].decays);
        }
        let is_half = |member: &&&Member| member.weight.dtype != Dtype::Float32;
        let mut inner = Vec::new();
        if self.encoding == Encoding::Mixed {
            let numbered = (0i64..).zip(groups.iter().flatten());
            let states = numbered.map(|(number, member)| (Value::Int(number), self.state(member, storages)));
            inner.push(("state".to_owned(), Value::Dict(states.collect())));
        }
        inner.push(("param_groups".to_owned(), self.param_groups(&groups)));
        if self.encoding == Encoding::Mixed && self.config.dtype == Dtype::Float32 {
            return dict(inner);
        }
        let mut entries = vec![("optimizer".to_owned(), dict(inner))];
        if self.scaler {
            let scale = Array { dtype: Dtype::Float32, shape: vec![1], bytes: vec![0, 0, 128, 71] };
            let scale = ("scale".to_owned(), storages.tensor(&scale, Keep::Own));
            entries.push((
                "grad_scaler".to_owned(),
                dict(vec![scale, ("growth_tracker".into(), Value::Int(5))]),
            ));
        }
        if self.encoding == Encoding::Mixed {
            let masters = groups.iter().map(|group| {
                let halves = group.iter().filter(is_half);
                Value::List(halves.map(|member| storages.tensor(&member.master, Keep::Own)).collect())
            });
            entries.push(("fp32_from_fp16_params".to_owned(), Value::List(masters.collect())));
        }
        dict(entries)
    }

    fn state(&self, member: &Member, storages: &mut Storages) -> Value {
        let mut state = Vec::new();
        if let Steps::WithParameters(step) = self.steps {
            let step = Array { dtype: Dtype::Float32, shape: vec![], bytes: step.to_le_bytes().to_vec() };
            state.push(("step".to_owned(), storages.tensor(&step, Keep::Own)));
        }
        for (name, moment) in MOMENTS.iter().zip(&member.moments) {
            state.push(((*name).to_owned(), storages.tensor(moment, Keep::Own)));
        }
        dict(state)
    }

    fn param_groups(&self, groups: &[Vec<&Member>]) -> Value {
        let mut next = 0i64;
        let dicts = groups.iter().map(|group| {
            let decay = if group[0].decays { 1.0 } else { 0.0 };
            let mut fields = vec![
                ("wd_mult".to_owned(), Value::Float(decay)),
                ("lr_mult".to_owned(), Value::Float(1.0)),
                ("lr".to_owned(), Value::Float(1e-4)),
                ("betas".to_owned(), tuple(vec![Value::Float(0.9), Value::Float(0.95)])),
                ("weight_decay".to_owned(), Value::Float(0.1 * decay)),
            ];
            if self.first_come {
                fields.push(("is_expert_parallel".to_owned(), Value::Bool(false)));
                fields.push(("is_decoupled_lr".to_owned(), Value::Bool(false)));
            }
            match (self.steps, self.encoding) {
                (Steps::InGroups(step), _) => fields.push(("step".to_owned(), Value::Int(step))),
                (Steps::WithParameters(step), Encoding::Distributed) => {
                    fields.push(("step".to_owned(), Value::Float(step.into())));
                }
                (Steps::WithParameters(_), Encoding::Mixed) => {}
            }
            let end = next + group.len() as i64;
            if self.encoding == Encoding::Mixed {
                fields.push(("params".to_owned(), Value::List((next..end).map(Value::Int).collect())));
            }
            next = end;
            dict(fields)
        });
        Value::List(dicts.collect())
    }

    /// `distrib_optim.pt`, of a rank.
    fn buffers(&self, members: &[Member], pp: u32, gaps: u8, storages: &mut Storages) -> Value {
        let core = self.config.kind.is_core();
        let mut entries = Vec::new();
        if core {
            entries.push((Value::str("buckets_coalesced"), Value::Bool(true)));
        }
        for (number, (dtype, members)) in (0i64..).zip(self.sets(members)) {
            let flat = self.lay_out(&members, pp);
            let len = if core { flat.len } else { flat.len.next_multiple_of(self.replicas) };
            let mut row = |of: &dyn Fn(&Member) -> Array| {
                let mut bytes = vec![gaps; len as usize * 4];
                for (member, (saved, _)) in members.iter().zip(&flat.places) {
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
                tuple(vec![torch(dtype), torch(Dtype::Float32)])
            } else {
                torch(Dtype::Float32)
            };
            entries.push((Value::Int(number), Value::Dict([(key, dict(buffer))].into())));
        }
        Value::Dict(entries.into())
    }

    /// Parameters that share a buffer: of one element type in megatron-core, all of them before it.
    fn sets<'a>(&self, members: &'a [Member]) -> Vec<(Dtype, Vec<&'a Member>)> {
        let mut sets: Vec<(Dtype, Vec<&Member>)> = Vec::new();
        for member in members {
            let dtype = if self.config.kind.is_core() { member.weight.dtype } else { Dtype::Float32 };
            match sets.iter_mut().find(|(known, _)| *known == dtype) {
                Some((_, set)) => set.push(member),
                None => sets.push((dtype, vec![member])),
            }
        }
        sets
    }

    fn lay_out(&self, members: &[&Member], pp: u32) -> Flat {
        let items: Vec<(u64, bool)> =
            members.iter().map(|member| (member.weight.shape.iter().product(), member.shared)).collect();
        if self.config.kind.is_core() {
            aligned(&items, self.bucket.filter(|_| pp == 0), self.replicas)
        } else {
            dense(&items)
        }
    }

    /// The model's tensors.
    fn weights(&self, members: &[Member], pp: u32, storages: &mut Storages) -> Vec<Value> {
        if !self.in_buffers {
            return members.iter().map(|member| storages.tensor(&member.weight, Keep::Own)).collect();
        }
        let mut values: Vec<(String, Value)> = Vec::new();
        for dtype in [Dtype::Float32, self.config.dtype] {
            let set: Vec<&Member> = members.iter().filter(|member| member.weight.dtype == dtype).collect();
            if set.is_empty() || values.len() == members.len() {
                continue;
            }
            let flat = self.lay_out(&set, pp);
            let size = dtype.size();
            let len = flat.whole * size;
            let mut bytes = vec![GARBAGE; len as usize];
            for (member, (_, at)) in set.iter().zip(&flat.places) {
                let at = (at * size) as usize;
                bytes[at..at + member.weight.bytes.len()].copy_from_slice(&member.weight.bytes);
            }
            let number = storages.add(bytes);
            for (member, (_, at)) in set.iter().zip(&flat.places) {
                let Array { shape, .. } = &member.weight;
                let value = storages.tensor_at(dtype, number, len, *at, shape, &member.weight.strides());
                values.push((member.path.clone(), value));
            }
        }
        let find = |member: &Member| values.iter().find(|(path, _)| *path == member.path).unwrap().1.clone();
        members.iter().map(find).collect()
    }

    /// Whether buffers of this family may have buckets and gaps.
    pub fn is_core(&self) -> bool {
        matches!(self.config.kind, Kind::Core | Kind::CoreTe)
    }
}

/// With weight decay, then without; a group that nothing is in is not there.
fn groups(members: &[Member]) -> Vec<Vec<&Member>> {
    let of = |decays: bool| members.iter().filter(|member| member.decays == decays).collect::<Vec<_>>();
    [of(true), of(false)].into_iter().filter(|group| !group.is_empty()).collect()
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

/// Writes the files of all ranks.
pub fn write(root: &Path, ranks: &[RankFiles]) {
    fs::create_dir_all(root).unwrap();
    fs::write(root.join("latest_checkpointed_iteration.txt"), "100").unwrap();
    for rank in ranks {
        let dir = root.join(ITERATION).join(&rank.dir);
        fs::create_dir_all(&dir).unwrap();
        let (tree, storages) = &rank.model;
        fs::write(dir.join("model_optim_rng.pt"), pt(tree, storages)).unwrap();
        if let Some((tree, storages)) = &rank.buffers {
            fs::write(dir.join("distrib_optim.pt"), pt(tree, storages)).unwrap();
        }
    }
}
