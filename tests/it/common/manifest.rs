//! What `scripts/fixture-manifest` wrote down of a checkpoint, and the same words for what is read here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::Path;

use ckpt_fs::value::{Construct, Object, Value};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::naive::Cut;
use super::{Array, cut_out};

/// A checkpoint that training wrote.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub latest: String,
    pub ranks: Vec<Rank>,
}

/// One of its rank files, and the buffers of a distributed optimizer beside it.
#[derive(Debug, Clone)]
pub struct Rank {
    pub path: String,
    pub keys: Vec<String>,
    pub args: Vec<(String, String)>,
    pub scalars: Vec<(String, String)>,
    pub metadata: Vec<(String, Vec<String>)>,
    pub other: Vec<(String, String)>,
    pub tensors: Vec<Tensor>,
    /// Entries beside the model, whole.
    pub state: Vec<(String, Json)>,
    /// The tree of `distrib_optim.pt`.
    pub buffers: Option<Json>,
}

/// Path, dtype, shape and digest of a tensor.
pub type Tensor = (String, String, Vec<u64>, String);

/// A manifest as its file has it: what is as in the one that it is `like` is left out.
#[derive(serde::Deserialize)]
struct Written {
    latest: String,
    like: Option<String>,
    args: Option<Ordered<String>>,
    args_changed: Option<BTreeMap<String, String>>,
    ranks: Vec<WrittenRank>,
}

/// A rank file. What it leaves out is as in the file of its name in the other manifest, or else as in the rank file before.
#[derive(serde::Deserialize)]
struct WrittenRank {
    path: String,
    keys: Vec<String>,
    args: Option<Ordered<String>>,
    args_changed: Option<BTreeMap<String, String>>,
    scalars: Ordered<String>,
    metadata: Option<Ordered<Vec<String>>>,
    other: Option<Vec<(String, String)>>,
    tensors: Option<Vec<Tensor>>,
    #[serde(default)]
    state: Vec<(String, Json)>,
    buffers: Option<Json>,
}

impl Manifest {
    pub fn read(path: &Path) -> Self {
        let written: Written = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let like = written.like.map(|name| Self::read(&path.with_file_name(format!("{name}.json"))));
        let shared =
            fields(written.args, written.args_changed, like.as_ref().map(|like| &like.ranks[0].args));
        let mut ranks: Vec<Rank> = Vec::new();
        for rank in written.ranks {
            let same_name = like.iter().flat_map(|like| &like.ranks).find(|other| other.path == rank.path);
            let base = same_name.or(ranks.last());
            let other = |what: &str| base.unwrap_or_else(|| panic!("{}: no {what}", rank.path)).clone();
            ranks.push(Rank {
                args: fields(rank.args, rank.args_changed, Some(&shared)),
                scalars: rank.scalars.0,
                metadata: rank.metadata.map_or_else(|| other("metadata").metadata, |list| list.0),
                other: rank.other.unwrap_or_else(|| other("other").other),
                tensors: rank.tensors.unwrap_or_else(|| other("tensors").tensors),
                state: rank.state,
                buffers: rank.buffers,
                path: rank.path.clone(),
                keys: rank.keys,
            });
        }
        Self { latest: written.latest, ranks }
    }

    /// The layout: sizes by args, stages by the layers that files name.
    pub fn cut(&self) -> Cut {
        let size = |field: &str| match self.arg(field) {
            None | Some("None") => 1,
            Some(number) => number.parse::<u32>().unwrap(),
        };
        let (tp, pp) = (size("tensor_model_parallel_size"), size("pipeline_model_parallel_size"));
        let vpp = size("virtual_pipeline_model_parallel_size");
        let mut stages: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); (pp * vpp) as usize];
        for rank in &self.ranks {
            let name = rank.path.split('/').nth(1).unwrap().strip_prefix("mp_rank_").unwrap();
            let stage = if pp > 1 { name.split('_').nth(1).unwrap().parse().unwrap() } else { 0 };
            for (path, ..) in &rank.tensors {
                let part = path.strip_prefix("model").and_then(|rest| rest.split('/').next()?.parse().ok());
                let layer = path.split(['.', '/']).skip_while(|part| *part != "layers").nth(1);
                let layer = layer.and_then(|number| number.parse::<u32>().ok());
                stages[(part.unwrap_or(0) * pp + stage) as usize].extend(layer);
            }
        }
        let stages: Vec<u32> = stages.iter().map(|layers| layers.len() as u32).collect();
        let cut = Cut::new(tp.into(), &stages).virtually(vpp);
        if !self.has_experts() {
            return cut;
        }
        cut.experts(size("expert_model_parallel_size").into(), size("expert_tensor_parallel_size").into())
    }

    pub fn arg(&self, field: &str) -> Option<&str> {
        self.ranks[0].args.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }

    pub fn has_experts(&self) -> bool {
        self.arg("num_experts").is_some_and(|value| value != "None")
    }

    pub fn has_optimizer(&self) -> bool {
        self.ranks.iter().any(|rank| rank.state.iter().any(|(entry, _)| entry == "optimizer"))
    }

    pub fn is_distributed(&self) -> bool {
        self.ranks.iter().any(|rank| rank.buffers.is_some())
    }
}

/// All fields of args, from all of them or from what differs.
fn fields(
    all: Option<Ordered<String>>,
    changed: Option<BTreeMap<String, String>>,
    base: Option<&Vec<(String, String)>>,
) -> Vec<(String, String)> {
    let Some(changed) = changed else { return all.unwrap().0 };
    let field = |(name, value): &(String, String)| (name.clone(), changed.get(name).unwrap_or(value).clone());
    base.unwrap().iter().map(field).collect()
}

/// A JSON object in the order of its text.
#[derive(Debug, Clone, PartialEq)]
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(std::marker::PhantomData))
    }
}

/// One text per value, as `scripts/fixture-manifest` writes it.
pub fn canonical(value: &Value) -> String {
    let list = |items: &[Value]| items.iter().map(canonical).collect::<Vec<_>>().join(", ");
    let pairs = |items: &[(Value, Value)]| {
        let text = |(key, value): &(Value, Value)| format!("{}: {}", canonical(key), canonical(value));
        format!("{{{}}}", items.iter().map(text).collect::<Vec<_>>().join(", "))
    };
    match value {
        Value::None => "None".into(),
        Value::Bool(flag) => if *flag { "True" } else { "False" }.into(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => python_float(*number),
        Value::Str(text) => json_ascii(text),
        Value::Bytes(bytes) => {
            format!("bytes({})", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        Value::List(items) | Value::Tuple(items) => format!("[{}]", list(items)),
        Value::Global(global) => format!("{}.{}", global.module, global.name),
        Value::Tensor(tensor) => format!("tensor({}, {:?})", tensor.dtype, tensor.shape.0),
        _ if value.items().is_some() => pairs(value.items().unwrap()),
        Value::Object(object) => {
            assert!(matches!(object.construct, Construct::Call | Construct::New));
            let Value::Tuple(args) = &object.args else { panic!("arguments of {value:?}") };
            let mut text = format!("{}({})", canonical(&object.callable), list(args));
            let appended = object.appended.iter().enumerate();
            let items: Vec<_> = appended
                .map(|(index, item)| (Value::Int(index as i64), item.clone()))
                .chain(object.items.iter().cloned())
                .collect();
            if !items.is_empty() {
                text += &pairs(&items);
            }
            if let Some(state) = &object.state {
                text += &format!("={}", canonical(state));
            }
            text
        }
        other => panic!("no canonical text for {other:?}"),
    }
}

/// `repr` of a Python float.
fn python_float(number: f64) -> String {
    if !number.is_finite() {
        return format!("{number}").to_lowercase();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `json.dumps` of a Python text.
fn json_ascii(text: &str) -> String {
    let plain = serde_json::to_string(text).unwrap();
    let escape = |c: char| {
        if c.is_ascii() && c != '\u{7f}' {
            return c.to_string();
        }
        c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    plain.chars().map(escape).collect()
}

/// First 32 hex digits of the SHA-256 of an array.
pub fn sha256(array: &Array) -> String {
    Sha256::digest(&array.bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A value with everything in it: dicts and lists as marked lists, tensors by dtype, shape and digest, the rest as text.
pub fn tree(value: &Value, storages: &HashMap<String, Vec<u8>>) -> Json {
    if let Some(tensor) = value.tensor() {
        let array = cut_out(tensor, &storages[&*tensor.storage.key]);
        let text = format!("{}{:?} {:.16}", tensor.dtype, tensor.shape.0, sha256(&array));
        return attributes(value)
            .map_or_else(|| json!(text), |with| json!(format!("{text} {}", canonical(with))));
    }
    let is_nested =
        |item: &Value| item.tensor().is_some() || item.items().is_some() || matches!(item, Value::List(_));
    let nested: Vec<Json> = match value {
        Value::List(items) if items.iter().any(is_nested) => {
            let items = items.iter().map(|item| tree(item, storages));
            std::iter::once(json!("list")).chain(items).collect()
        }
        _ if value.items().is_some() => {
            let items = value.items().unwrap().iter();
            let items = items.map(|(key, item)| json!([canonical(key), tree(item, storages)]));
            std::iter::once(json!("dict")).chain(items).collect()
        }
        _ => return json!(canonical(value)),
    };
    Json::Array(nested)
}

/// Python attributes that a tensor was pickled with.
fn attributes(value: &Value) -> Option<&Value> {
    let Value::Object(object) = value else { return None };
    let Object { callable: Value::Global(callable), args: Value::Tuple(args), .. } = &**object else {
        return None;
    };
    args.last().filter(|_| &*callable.name == "_rebuild_from_type_v2")
}

/// Where two trees differ first.
pub fn first_difference(found: &Json, wanted: &Json, path: &str) -> Option<String> {
    match (found, wanted) {
        (Json::Array(left), Json::Array(right)) if left.len() == right.len() => {
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(index, (left, right))| first_difference(left, right, &format!("{path}/{index}")))
        }
        _ if found == wanted => None,
        _ => Some(format!("at {path}: found {found:.300}, expected {wanted:.300}")),
    }
}
