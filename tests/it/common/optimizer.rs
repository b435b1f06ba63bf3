//! Synthetic checkpoints with optimizer state, and the naive answer to what that is in any layout and encoding.
//!
//! Masters and moments are values of their own, cut as the weights are. What is done with them here is written down from Megatron's code;
//! nothing of the crate's is used but codecs.

mod flat;
mod groups;

use std::fs;
use std::path::Path;

use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;

use super::naive::{Config, Cut, Fill, Written};
use super::source::{ITERATION, args, nested, virtual_stages};
use super::{Array, Keep, Storages, dict, namespace, pt};

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
    pub era: Era,
    /// Masters have Python attributes.
    pub attributes: bool,
}

/// Which version of the training code, where versions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Each rank has the groups and optimizers that it has parameters for.
    Early,
    /// All ranks have the same groups, in one order.
    Aligned,
    /// And experts that are cut in another way than the rest have an optimizer of their own.
    Newest,
}

/// A rank: TP, PP, EP.
pub type Place = (u64, u32, u64);

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

/// One tensor of a rank with its state.
#[derive(Debug, Clone)]
pub struct Member {
    pub path: String,
    pub weight: Array,
    pub master: Array,
    pub moments: [Array; 2],
    /// Which virtual stage of the rank it is in.
    pub chunk: u32,
    /// It is a parameter, and no buffer.
    pub trained: bool,
    /// An expert, of an optimizer of its own.
    pub apart: bool,
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
            era: Era::Aligned,
            attributes: false,
        }
    }
}

impl Trained {
    /// The same run, had it been trained in another layout and encoding.
    pub fn retold(&self, cut: &Cut, encoding: Encoding) -> Self {
        // Buffers have no room for attributes.
        let attributes = self.attributes && self.encoding == Encoding::Mixed;
        Self { cut: cut.clone(), encoding, attributes, ..self.clone() }
    }

    /// Writes it into `root`.
    pub fn write(&self, root: &Path) {
        let mut ranks = self.ranks(self.cut.tp, Fill::Zero, GARBAGE);
        // With experts, some ranks may be no process's.
        let places = self.cut.all_ranks().into_iter();
        let nobodys: Vec<String> = places
            .filter(|place| self.cut.process(*place, self.replicas()).is_none())
            .map(|place| self.cut.dir(place))
            .collect();
        ranks.retain(|rank| !nobodys.contains(&rank.dir));
        write(root, &ranks);
    }

    /// What a view is to show of it. `source_tp` is what the vocabulary was padded for.
    pub fn shown(&self, source_tp: u64, fill: Fill) -> Vec<RankFiles> {
        Self { replicas: 1, in_buffers: false, ..self.clone() }.ranks(source_tp, fill, 0)
    }

    /// Replicas of what is no expert's: as many as the experts need.
    pub fn replicas(&self) -> u64 {
        if self.config.moe.is_some() { self.cut.replicas(self.replicas) } else { self.replicas }
    }

    fn ranks(&self, source_tp: u64, fill: Fill, gaps: u8) -> Vec<RankFiles> {
        let mut ranks = self.cut.all_ranks();
        ranks.sort_unstable();
        ranks.into_iter().map(|place| self.rank(source_tp, fill, gaps, place)).collect()
    }

    /// Every tensor of a rank, in the model's order.
    pub fn members(&self, source_tp: u64, fill: Fill, place: Place) -> Vec<Member> {
        let of = |dtype: Dtype, salt: u64, fill: Fill| {
            let config = Config { dtype, salt, ..self.config.clone() };
            Written { config, source_tp, fill, unpadded: false }.whole_rank(&self.cut, place)
        };
        let full = of(Dtype::Float32, 0, fill);
        let (masters, first, second) = (
            of(Dtype::Float32, 1, fill),
            of(Dtype::Float32, 2, Fill::Zero),
            of(Dtype::Float32, 3, Fill::Zero),
        );
        let weights = of(self.config.dtype, 0, fill).into_iter().enumerate();
        let members = weights.map(|(at, (path, weight))| {
            // What is no parameter keeps its 32 bits.
            let trained = !path.ends_with("router.expert_bias");
            let in_full = self.config.dtype == Dtype::Float32
                || !trained
                || self.full.is_some_and(|part| path.contains(part));
            let numbered = path.strip_prefix("model").and_then(|rest| rest.split_once('/'));
            let weight = if in_full { full[at].1.clone() } else { weight };
            Member {
                master: if in_full { weight.clone() } else { masters[at].1.clone() },
                moments: [first[at].1.clone(), second[at].1.clone()],
                chunk: numbered.and_then(|(number, _)| number.parse().ok()).unwrap_or(0),
                trained,
                apart: self.experts_apart() && path.contains("mlp.experts."),
                decays: weight.shape.len() > 1 && !path.ends_with(".bias"),
                shared: self.cut.pp() > 1 && self.is_shared(&path),
                path,
                weight,
            }
        });
        members.collect()
    }

    /// Whether two stages keep the parameter, where there are several.
    fn is_shared(&self, path: &str) -> bool {
        let (tied, predicts) = (self.config.tied, self.config.predictions > 0);
        let is_embedding = path.contains("word_embeddings") && (tied || predicts);
        is_embedding || (path.contains("output_layer") && tied && !predicts)
    }

    fn rank(&self, source_tp: u64, fill: Fill, gaps: u8, place: Place) -> RankFiles {
        let tensors = self.members(source_tp, fill, place);
        let mut storages = Storages::default();
        let weights = self.weights(&tensors, place, &mut storages);
        let paths = tensors.iter().map(|member| member.path.clone());
        let leaves = paths.zip(weights).collect();
        let core = self.config.kind.is_core();
        let models = if self.cut.vpp > 1 {
            virtual_stages(leaves, core)
        } else {
            vec![("model".to_owned(), nested(leaves, core))]
        };
        let members: Vec<Member> = tensors.into_iter().filter(|member| member.trained).collect();
        let optimizer = self.optimizer(&members, &mut storages);
        // The same everywhere: which rank's a view shows is another test's business.
        let rng = Array { dtype: Dtype::Uint8, shape: vec![3], bytes: vec![7, 8, 9] };
        let rng = dict(vec![("torch_rng_state".into(), storages.tensor(&rng, Keep::Own))]);
        let mut top = vec![
            ("args".into(), namespace(&self.args(place))),
            ("checkpoint_version".into(), Value::Float(3.0)),
            ("iteration".into(), Value::Int(100)),
        ];
        top.extend(models);
        top.extend([
            ("optimizer".into(), optimizer),
            ("opt_param_scheduler".into(), dict(vec![("num_steps".into(), Value::Int(115_200))])),
            ("rng_state".into(), Value::List(vec![rng].into())),
        ]);
        let buffers = (self.encoding == Encoding::Distributed).then(|| {
            let mut storages = Storages::default();
            let tree = self.buffers(&members, place, gaps, &mut storages);
            (tree, storages.contents)
        });
        RankFiles { dir: self.cut.dir(place), model: (dict(top), storages.contents), buffers }
    }

    fn args(&self, place: Place) -> Vec<(String, Value)> {
        let replicas = self.replicas();
        let mut args = args(&self.config, &self.cut, place);
        let mut set = |field: &str, value: Value| match args.iter_mut().find(|(name, _)| name == field) {
            Some((_, old)) => *old = value,
            None => args.push((field.to_owned(), value)),
        };
        let int = |n: u64| Value::Int(n as i64);
        set("rank", int(self.cut.process(place, replicas).unwrap_or(0)));
        set("world_size", int(u64::from(self.cut.pp()) * self.cut.tp * replicas));
        set("data_parallel_size", int(replicas));
        set("use_distributed_optimizer", Value::Bool(self.encoding == Encoding::Distributed));
        set("accumulate_allreduce_grads_in_fp32", Value::Bool(true));
        set("overlap_grad_reduce", Value::Bool(self.bucket.is_some()));
        set("ddp_bucket_size", self.bucket.map_or(Value::None, int));
        if self.era() == Era::Newest {
            set("expert_tensor_parallel_num_weight_shards", int(self.cut.etp));
        }
        args
    }
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
