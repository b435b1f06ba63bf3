//! Checkpoints on disk: every rank file as a draft that a test may spoil before it is written.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;

use super::naive::{Config, Cut, Written};
use super::{Array, Keep, Storages, call, dict, namespace, ordered_dict, pt};

/// A checkpoint that is not written yet.
#[derive(Clone)]
pub struct Checkpoint {
    pub config: Config,
    pub cut: Cut,
    pub files: Vec<RankDraft>,
    pub keep: Keep,
    /// Where storages say they are.
    pub location: String,
    /// Wrap every tensor in a `torch.nn.Parameter`.
    pub parameters: bool,
    /// What args are: a namespace where nothing else is wanted.
    pub args_as: fn(&[(String, Value)]) -> Value,
}

/// One rank file.
#[derive(Debug, Clone)]
pub struct RankDraft {
    pub dir: String,
    pub args: Vec<(String, Value)>,
    /// `None` leaves the field out.
    pub version: Option<Value>,
    pub tensors: Vec<(String, Array)>,
    /// Top-level name of the model.
    pub model: String,
}

impl fmt::Debug for Checkpoint {
    /// All that it was made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} as {:?}, {:?}", self.config, self.cut, self.keep)
    }
}

pub const ITERATION: &str = "iter_0000100";

impl Checkpoint {
    /// A checkpoint of `config` as training would have written it in layout `cut`.
    pub fn new(config: &Config, cut: &Cut) -> Self {
        let written = Written::new(config, cut);
        let files = cut.all_ranks().into_iter().map(|rank| RankDraft {
            dir: cut.dir(rank),
            args: args(config, cut, rank),
            version: Some(Value::Float(3.0)),
            tensors: written.whole_rank(cut, rank),
            model: "model".to_owned(),
        });
        Self {
            config: config.clone(),
            cut: cut.clone(),
            files: files.collect(),
            keep: Keep::Own,
            location: String::new(),
            parameters: false,
            args_as: namespace,
        }
    }

    /// The small model that most tests of bad input spoil, as TP2 PP2.
    pub fn small() -> Self {
        Self::new(&Config::default(), &Cut::new(2, &[2, 2]))
    }

    /// The same in this layout.
    pub fn small_as(tp: u64, stages: &[u32]) -> Self {
        Self::new(&Config::default(), &Cut::new(tp, stages))
    }

    /// The bytes of a rank file with its embedding pickled as `make` says.
    pub fn with_embedding(&self, dir: &str, make: impl Fn(&mut Storages) -> Value) -> Vec<u8> {
        self.with_tensors(dir, |path, storages| {
            (path == "embedding.word_embeddings.weight").then(|| make(storages))
        })
    }

    /// The bytes of a rank file in which those tensors that `make` knows are pickled as it says.
    pub fn with_tensors(&self, dir: &str, make: impl Fn(&str, &mut Storages) -> Option<Value>) -> Vec<u8> {
        let mut storages = Storages::default();
        let file = self.files.iter().find(|file| file.dir == dir).unwrap();
        let leaves = file.tensors.iter().map(|(path, array)| {
            let made = make(path, &mut storages);
            (path.clone(), made.unwrap_or_else(|| storages.tensor(array, Keep::Own)))
        });
        let leaves = leaves.collect();
        let tree = dict(vec![
            ("args".into(), namespace(&file.args)),
            ("checkpoint_version".into(), Value::Float(3.0)),
            ("iteration".into(), Value::Int(100)),
            ("model".into(), dict(leaves)),
        ]);
        pt(&tree, &storages.contents)
    }

    /// Sets a field of args in every file.
    pub fn arg(mut self, field: &str, value: &Value) -> Self {
        for file in &mut self.files {
            file.arg(field, value.clone());
        }
        self
    }

    /// Removes a field of args in every file.
    pub fn without_arg(mut self, field: &str) -> Self {
        for file in &mut self.files {
            file.args.retain(|(name, _)| name != field);
        }
        self
    }

    pub fn file(&mut self, dir: &str) -> &mut RankDraft {
        self.files.iter_mut().find(|file| file.dir == dir).unwrap()
    }

    /// Writes it into `root`: a tracker, an iteration, rank directories.
    pub fn write(&self, root: &Path) {
        fs::create_dir_all(root).unwrap();
        fs::write(root.join("latest_checkpointed_iteration.txt"), "100").unwrap();
        for file in &self.files {
            let dir = root.join(ITERATION).join(&file.dir);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("model_optim_rng.pt"), self.bytes(file)).unwrap();
        }
    }

    /// The bytes of one rank file.
    pub fn bytes(&self, file: &RankDraft) -> Vec<u8> {
        let mut storages = Storages { contents: Vec::new(), location: self.location.clone() };
        let tree = self.tree(file, &mut storages);
        pt(&tree, &storages.contents)
    }

    fn tree(&self, file: &RankDraft, storages: &mut Storages) -> Value {
        let arrays: Vec<Array> = file.tensors.iter().map(|(_, array)| array.clone()).collect();
        let values = match self.keep {
            Keep::Shared => storages.shared(&arrays),
            keep => arrays.iter().map(|array| storages.tensor(array, keep)).collect(),
        };
        let wrapped = values.into_iter().map(|value| {
            if !self.parameters {
                return value;
            }
            let hooks = call("collections", "OrderedDict", Vec::new());
            call("torch._utils", "_rebuild_parameter", vec![value, Value::Bool(true), hooks])
        });
        let leaves = file.tensors.iter().map(|(path, _)| path.clone()).zip(wrapped).collect();
        let core = self.config.kind.is_core();
        let models = if self.cut.vpp > 1 {
            virtual_stages(leaves, core)
        } else {
            vec![(file.model.clone(), nested(leaves, core))]
        };
        let rng = Array { dtype: Dtype::Uint8, shape: vec![3], bytes: file.dir.bytes().take(3).collect() };
        let rng = dict(vec![("torch_rng_state".into(), storages.tensor(&rng, Keep::Own))]);
        let mut top = vec![("args".to_owned(), (self.args_as)(&file.args))];
        top.extend(file.version.clone().map(|version| ("checkpoint_version".to_owned(), version)));
        top.push(("iteration".to_owned(), Value::Int(100)));
        top.extend(models);
        top.push(("rng_state".to_owned(), Value::List(vec![rng].into())));
        dict(top)
    }
}

impl RankDraft {
    pub fn arg(&mut self, field: &str, value: Value) {
        match self.args.iter_mut().find(|(name, _)| name == field) {
            Some((_, old)) => *old = value,
            None => self.args.push((field.to_owned(), value)),
        }
    }

    /// The tensor whose path ends so.
    pub fn tensor(&mut self, end: &str) -> &mut (String, Array) {
        self.tensors.iter_mut().find(|(path, _)| path.ends_with(end)).unwrap()
    }
}

/// Leaves of `model0/`, `model1/` and so on as entries of their own.
pub fn virtual_stages(leaves: Vec<(String, Value)>, ordered: bool) -> Vec<(String, Value)> {
    let mut models: Vec<(String, Vec<(String, Value)>)> = Vec::new();
    for (path, value) in leaves {
        let (model, rest) = path.split_once('/').unwrap();
        if models.last().is_none_or(|(name, _)| name != model) {
            models.push((model.to_owned(), Vec::new()));
        }
        models.last_mut().unwrap().1.push((rest.to_owned(), value));
    }
    models.into_iter().map(|(name, leaves)| (name, nested(leaves, ordered))).collect()
}

/// Leaves with `/` in their paths as dicts within dicts.
pub fn nested(leaves: Vec<(String, Value)>, ordered: bool) -> Value {
    let mut items: Vec<(String, Value)> = Vec::new();
    let mut groups: Vec<(String, Vec<(String, Value)>)> = Vec::new();
    for (path, value) in leaves {
        match path.split_once('/') {
            None => items.push((path, value)),
            Some((dict, rest)) => {
                if !groups.iter().any(|(name, _)| name == dict) {
                    groups.push((dict.to_owned(), Vec::new()));
                    items.push((dict.to_owned(), Value::None));
                }
                let group = groups.iter_mut().find(|(name, _)| name == dict).unwrap();
                group.1.push((rest.to_owned(), value));
            }
        }
    }
    for (name, leaves) in groups {
        items.iter_mut().find(|(key, _)| *key == name).unwrap().1 = nested(leaves, false);
    }
    if ordered { ordered_dict(items) } else { dict(items) }
}

/// The `args` that a rank saves.
pub fn args(config: &Config, cut: &Cut, rank: (u64, u32, u64)) -> Vec<(String, Value)> {
    let dp = cut.replicas(1);
    let optional = |n: Option<u64>| n.map_or(Value::None, |n| Value::Int(n as i64));
    let int = |n: u64| Value::Int(n as i64);
    let flag = Value::Bool;
    let vocab = if config.vocab_in_args { int(config.vocab) } else { Value::None };
    let fields = vec![
        ("tensor_model_parallel_size", int(cut.tp)),
        ("pipeline_model_parallel_size", int(cut.pp().into())),
        ("num_layers", int(config.layers.into())),
        ("hidden_size", int(config.hidden)),
        ("num_attention_heads", int(config.heads)),
        ("group_query_attention", flag(config.groups != config.heads)),
        ("num_query_groups", int(config.groups)),
        ("ffn_hidden_size", int(config.ffn)),
        ("swiglu", flag(config.gated)),
        ("untie_embeddings_and_output_weights", flag(!config.tied)),
        ("make_vocab_size_divisible_by", int(config.multiple)),
        ("vocab_size", vocab),
        ("padded_vocab_size", int(config.padded(cut.tp))),
        ("rank", int(cut.process(rank, dp).unwrap_or(0))),
        ("world_size", int(u64::from(cut.pp()) * cut.tp * dp)),
        ("data_parallel_size", int(dp)),
        ("context_parallel_size", Value::Int(1)),
        ("virtual_pipeline_model_parallel_size", optional((cut.vpp > 1).then_some(cut.vpp.into()))),
        ("num_experts", optional(config.moe.map(|moe| moe.experts))),
        ("moe_ffn_hidden_size", optional(config.moe.map(|moe| moe.ffn))),
        ("multi_latent_attention", flag(config.mla.is_some())),
        ("q_lora_rank", optional(config.mla.and_then(|mla| mla.q_rank))),
        ("kv_lora_rank", optional(config.mla.map(|mla| mla.kv_rank))),
        ("qk_pos_emb_head_dim", optional(config.mla.map(|mla| mla.position))),
        ("mtp_num_layers", optional((config.predictions > 0).then_some(config.predictions.into()))),
        ("moe_layer_freq", int(config.moe.map_or(1, |moe| moe.every).into())),
        ("expert_model_parallel_size", int(cut.ep)),
        ("expert_tensor_parallel_size", int(cut.etp)),
        ("save", Value::str("/checkpoints")),
        ("lr", Value::Float(1.5e-4)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Path of a rank file below the root of a checkpoint.
pub fn rank_file(root: &Path, dir: &str) -> PathBuf {
    root.join(ITERATION).join(dir).join("model_optim_rng.pt")
}
