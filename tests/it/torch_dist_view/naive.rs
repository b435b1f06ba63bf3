//! The naive answer: what a rank with everything saves, each name changed by hand and stacked by its numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::Array;
use crate::common::naive::{Config, Kind};
use crate::dcp_write::archive::Archive;
use crate::dcp_write::read::Loaded;
use crate::dcp_write::unpickle::Node;

/// A checkpoint.
pub(super) struct Dist {
    pub(super) tensors: BTreeMap<String, Array>,
    /// Keys of extra states that a loader asks for.
    objects: BTreeSet<String>,
}

/// A name taken apart.
struct Name {
    key: String,
    /// Places on the axes that it is stacked along.
    at: Vec<u64>,
}

impl Dist {
    pub(super) fn of(config: &Config, tensors: &[(String, Array)]) -> Self {
        let mut stacked: BTreeMap<String, Vec<(Vec<u64>, Array)>> = BTreeMap::new();
        for (name, array) in tensors {
            let Name { key, at } = dist_name(config, name);
            for key in [other_norm(config, name, &key), Some(key)].into_iter().flatten() {
                stacked.entry(key).or_default().push((at.clone(), array.clone()));
            }
        }
        let join = |(key, mut cells): (String, Vec<(Vec<u64>, Array)>)| {
            cells.sort_by(|a, b| a.0.cmp(&b.0));
            let last: Vec<u64> = cells.last().unwrap().0.iter().map(|at| at + 1).collect();
            assert_eq!(last.iter().product::<u64>(), cells.len() as u64, "{key}");
            let first = &cells[0].1;
            let shape = [last, first.shape.clone()].concat();
            let bytes = cells.iter().flat_map(|(_, cell)| cell.bytes.clone()).collect();
            (key, Array { dtype: first.dtype, shape, bytes })
        };
        let tensors: BTreeMap<String, Array> = stacked.into_iter().map(join).collect();
        let objects = objects(config);
        Self { tensors, objects }
    }

    /// Every extra state that is asked for is there and holds nothing.
    pub(super) fn check_objects(&self, found: &Loaded, files: &BTreeMap<String, Vec<u8>>) {
        for key in &self.objects {
            let (file, start, len) = found.objects.get(key).unwrap_or_else(|| panic!("{key} is missing"));
            let pickle = Archive::of(&files[file], *start, *len).pickle();
            let [only] = pickle.elements(pickle.root) else { panic!("{key} is no list of one") };
            assert_eq!(*pickle.node(*only), Node::None, "{key}");
        }
        // Nothing but extra states of modules that have tensors.
        for key in found.objects.keys() {
            let module = key.split("._extra_state/shard_").next().unwrap();
            let has_tensors = self.tensors.keys().any(|key| key.rsplit_once('.').unwrap().0 == module);
            assert!(has_tensors || module.ends_with("core_attention"), "{key}");
        }
    }
}

fn dist_name(config: &Config, name: &str) -> Name {
    let apart = config.moe.is_some_and(|moe| moe.every > 1);
    let parts: Vec<&str> = name.splitn(4, '.').collect();
    match parts[..] {
        ["decoder", "layers", layer, rest] => {
            let (rest, expert) = split_expert(&renamed(config, rest));
            let own = if apart { format!("{layer}.") } else { String::new() };
            let layer = (!apart).then(|| layer.parse().unwrap());
            Name { key: format!("decoder.layers.{own}{rest}"), at: layer.into_iter().chain(expert).collect() }
        }
        ["mtp", "layers", depth, rest] => {
            let rest = match rest.strip_prefix("transformer_layer.") {
                Some(rest) => format!("transformer_layer.{}", renamed(config, rest)),
                None => rest.to_owned(),
            };
            let (rest, expert) = split_expert(&rest);
            Name { key: format!("mtp.layers.{depth}.{rest}"), at: expert.into_iter().collect() }
        }
        _ => Name { key: name.to_owned(), at: vec![] },
    }
}

/// Megatron's own layers call two norms as Transformer Engine does, but for latent attention.
fn renamed(config: &Config, rest: &str) -> String {
    if config.kind != Kind::Core || config.mla.is_some() {
        return rest.to_owned();
    }
    rest.replace("input_layernorm.", "self_attention.linear_qkv.layer_norm_")
        .replace("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_")
}

/// What the other kind of layers call the norm with this name and key, where they do not agree: the norm before experts, and with latent
/// attention that before a dense layer and those within.
fn other_norm(config: &Config, name: &str, key: &str) -> Option<String> {
    let layer = match name.strip_prefix("decoder.layers.") {
        Some(rest) => rest.split('.').next().unwrap().parse::<u32>().unwrap(),
        None if name.contains("transformer_layer.") => config.layers - 1,
        None => return None,
    };
    let has_experts = config.moe.is_some_and(|moe| layer.is_multiple_of(moe.every));
    let before_mlp = ("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_");
    let mut norms = vec![];
    if config.mla.is_some() {
        norms.push(("q_layernorm.", "linear_q_up_proj.layer_norm_"));
        norms.push(("kv_layernorm.", "linear_kv_up_proj.layer_norm_"));
    }
    if config.mla.is_some() != has_experts {
        norms.push(before_mlp);
    }
    let swap = |(apart, fused): (&str, &str)| match (key.contains(&format!(".{apart}")), key.contains(fused))
    {
        (true, _) => Some(key.replace(apart, fused)),
        (_, true) => Some(key.replace(fused, apart)),
        _ => None,
    };
    norms.into_iter().find_map(swap)
}

/// A name without its expert, and the expert.
fn split_expert(rest: &str) -> (String, Option<u64>) {
    if let Some((before, after)) = rest.split_once(".local_experts.") {
        let (expert, after) = after.split_once('.').unwrap();
        return (format!("{before}.experts.{after}"), Some(expert.parse().unwrap()));
    }
    let Some((before, after)) = rest.split_once("mlp.experts.linear_fc") else {
        return (rest.to_owned(), None);
    };
    let name = after.trim_end_matches(|c: char| c.is_ascii_digit());
    (format!("{before}mlp.experts.experts.linear_fc{name}"), after[name.len()..].parse().ok())
}

/// Extra states of the linear layers, for which Megatron's own layers and Transformer Engine's ask.
fn objects(config: &Config) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let (layers, apart) = (config.layers, config.moe.is_some_and(|moe| moe.every > 1));
    let attention: &[&str] = match config.mla {
        None => &["linear_qkv", "linear_proj"],
        Some(mla) if mla.q_rank.is_some() => &[
            "linear_q_down_proj",
            "linear_q_up_proj",
            "linear_kv_down_proj",
            "linear_kv_up_proj",
            "linear_proj",
        ],
        Some(_) => &["linear_q_proj", "linear_kv_down_proj", "linear_kv_up_proj", "linear_proj"],
    };
    let of_layer = |has_experts: bool| {
        let mut modules: Vec<(String, bool)> =
            attention.iter().map(|name| (format!("self_attention.{name}"), false)).collect();
        let (mlp, expert) = if has_experts { ("mlp.experts.experts", true) } else { ("mlp", false) };
        modules.extend(["linear_fc1", "linear_fc2"].map(|name| (format!("{mlp}.{name}"), expert)));
        if has_experts && config.moe.is_some_and(|moe| moe.shared.is_some()) {
            modules.push(("mlp.shared_experts.linear_fc1".into(), false));
        }
        modules
    };
    let mut add = |before: &str, module: &str, layer: Option<u32>, expert: bool| {
        let experts = config.moe.map_or(1, |moe| moe.experts);
        for at in 0..if expert { experts } else { 1 } {
            let offsets: Vec<u64> = layer.map(u64::from).into_iter().chain(expert.then_some(at)).collect();
            let counts: Vec<u64> =
                layer.map(|_| u64::from(layers)).into_iter().chain(expert.then_some(experts)).collect();
            let text = |numbers: &[u64], none: &str| match numbers {
                [] => none.to_owned(),
                _ => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("."),
            };
            let part = format!("{}_{}", text(&offsets, "0"), text(&counts, "1"));
            all.insert(format!("{before}{module}._extra_state/shard_{part}"));
        }
    };
    for layer in 0..layers {
        let has_experts = config.moe.is_some_and(|moe| layer.is_multiple_of(moe.every));
        let before = if apart { format!("decoder.layers.{layer}.") } else { "decoder.layers.".to_owned() };
        for (module, expert) in of_layer(has_experts) {
            add(&before, &module, (!apart).then_some(layer), expert);
        }
    }
    for depth in 0..config.predictions {
        let before = format!("mtp.layers.{depth}.");
        add(&before, "eh_proj", None, false);
        let has_experts = config.moe.is_some_and(|moe| (layers - 1).is_multiple_of(moe.every));
        for (module, expert) in of_layer(has_experts) {
            add(&before, &format!("transformer_layer.{module}"), None, expert);
        }
    }
    all
}
