//! A family applied to the `args` of one checkpoint: which of its tensors this model has, how big its groups are, how its vocabulary is padded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::experts::Experts;
use super::file::{SizeFile, TensorFile};
use super::names::templates;
use super::predictions::{count as predictions, of_layer};
use super::settle::Copies;
use super::{ArgRole, Arrangement, CutBy, Family, LayerKind, ModelError, Numbers};
use crate::value::Value;

/// The pipeline stage a tensor is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The first.
    First,
    /// The last.
    Last,
    /// That of its layer.
    #[serde(skip)]
    Layer,
}

/// One tensor (or extra state) that a rank of this model may save.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name with `{layer}` and `{expert}`; `/` separates nested dicts.
    pub name: Arc<str>,
    /// The parameters it holds; empty for extra state.
    pub holds: Vec<Holding>,
    /// How it holds them.
    pub arrangement: Arrangement,
    /// The axis along which it is arranged; 0 where it is replicated.
    pub axis: usize,
    /// What cuts it.
    pub by: CutBy,
    /// Where it is.
    pub stage: Stage,
    /// The layers that have it.
    pub layers: LayerKind,
    /// Not trained: no optimizer has a state of it.
    pub buffer: bool,
    /// On the last stage too: a copy, if that is not the first.
    pub also_last: bool,
    /// Whether it is known if ranks hold parts of it or copies.
    pub copies: Copies,
    /// Saved only where there is more than one stage.
    pub only_if_pipelined: bool,
    /// Saved and never computed with. It is what this parameter is where the source has none.
    pub unused_like: Option<String>,
    /// Where its dict must be made anew: the dict it is like.
    pub container_like: Option<String>,
    /// The spelling it belongs to, where the same parameters have several.
    pub dialect: Option<Arc<str>>,
    /// Another tensor holds the same, and both are saved.
    pub copy: bool,
    /// It is this part of so many equal ones, on every rank.
    pub fixed_part: Option<(u64, u64)>,
    /// It holds the parameters of all experts of its rank, along an axis of their own that stands first.
    pub stacked: bool,
    /// Nothing but this number.
    pub constant: Option<f32>,
    /// Files may have it, and nobody needs it.
    pub ignored: bool,
}

/// One parameter in a tensor.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Canonical name with `{layer}` and `{expert}`.
    pub param: String,
    /// Its share of the tensor's rows.
    pub share: u64,
    /// Names of its dimensions.
    pub dimensions: Vec<String>,
    /// Most parts it is cut in: ranks beyond that hold copies.
    pub most_parts: Option<u64>,
}

impl Entry {
    /// Whether it is a copy: what it holds is what another tensor says.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.copy || (self.only_if_pipelined && self.unused_like.is_none())
    }
}

/// Name of the dimension that padding makes longer.
pub const VOCABULARY: &str = "vocabulary";

impl Holding {
    /// Whether axis `axis` of the parameter is the vocabulary, whose padding depends on the layout.
    #[must_use]
    pub fn is_vocabulary(&self, axis: usize) -> bool {
        self.dimensions.get(axis).is_some_and(|name| name == VOCABULARY)
    }
}

/// A family applied to the `args` of one checkpoint.
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) family: Arc<Family>,
    sizes: BTreeMap<String, u64>,
    stated: BTreeMap<String, u64>,
    pub(super) experts: Option<Experts>,
    pub(super) entries: Vec<Entry>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Family {
    /// Whether a checkpoint with these args and tensor names (with `{layer}`) is of this family.
    #[must_use]
    pub fn matches(&self, args: &Value, names: &dyn Fn(&str) -> bool) -> bool {
        let detect = &self.file.detect;
        let has = |field: &String| args.attribute(field).is_some();
        detect.args.iter().all(has)
            && !detect.without_args.iter().any(has)
            && detect.tensors.iter().any(|name| names(name))
    }

    /// This family for a checkpoint with these args.
    ///
    /// # Errors
    /// [`ModelError`] where args lack a size, or say something that cannot be resharded.
    pub fn model(self: &Arc<Self>, args: &Value, checkpoint_version: f64) -> Result<Model, ModelError> {
        if let Some(needed) =
            // What is no number is no version either.
            self.file.checkpoint_version_at_least.filter(|needed| {
                checkpoint_version.partial_cmp(needed).is_none_or(std::cmp::Ordering::is_lt)
            })
        {
            return Err(ModelError::Version { found: checkpoint_version, needed });
        }
        if let Some(field) = self.file.required_args.iter().find(|field| args.attribute(field).is_none()) {
            return Err(ModelError::MissingArg { what: field.clone(), fields: vec![field.clone()] });
        }
        for rule in &self.file.refuse {
            let value = args.attribute(&rule.arg);
            let refused = match (value, rule.above) {
                (Some(value), Some(above)) => value.as_int().is_some_and(|n| n > above),
                (Some(value), None) => value.is_truthy(),
                (None, _) => false,
            };
            if let (true, Some(value)) = (refused, value) {
                let (field, value) = (rule.arg.clone(), describe(value));
                return Err(ModelError::Refused { field, value, reason: rule.reason.clone() });
            }
        }
        let mut sizes = BTreeMap::new();
        for (name, ways) in &self.file.sizes {
            sizes.insert(name.clone(), size(name, ways, args)?);
        }
        let experts = self.file.experts.as_ref().map(|file| Experts::of(file, args)).transpose()?.flatten();
        sizes.extend(experts.as_ref().map(|experts| ("experts".to_owned(), experts.count)));
        sizes.extend(experts.as_ref().and_then(|experts| Some(("expert_ffn".to_owned(), experts.ffn?))));
        sizes.extend(self.file.predictions.as_ref().and_then(|file| predictions(file, args)));
        let (entries, by_name) = (Vec::new(), HashMap::new());
        let number = |field: &String| {
            args.attribute(field).and_then(Value::as_int).and_then(|n| u64::try_from(n).ok())
        };
        let product = |fields: &Vec<String>| {
            fields.iter().map(number).try_fold(1u64, |product, size| product.checked_mul(size?))
        };
        let stated =
            self.file.stated.iter().filter_map(|(name, fields)| Some((name.clone(), product(fields)?)));
        let stated = stated.collect();
        let mut model = Model { family: self.clone(), sizes, stated, experts, entries, by_name };
        let holds =
            |fields: &[String]| fields.iter().any(|f| args.attribute(f).is_some_and(Value::is_truthy));
        for (tensor, of_prediction) in self.tensors() {
            if tensor.layers == LayerKind::Expert && model.experts.is_none() {
                continue;
            }
            if (tensor.when.is_empty() || holds(&tensor.when)) && !holds(&tensor.unless) {
                let mut entry = model.entry(&tensor)?;
                entry.also_last = holds(&tensor.also_last_when);
                entry.copies = Copies::of(&tensor, args);
                if of_prediction {
                    entry.holds.iter_mut().for_each(|holding| holding.param = of_layer(&holding.param));
                }
                model.by_name.insert(entry.name.clone(), model.entries.len());
                model.entries.push(entry);
            }
        }
        Ok(model)
    }
}

impl Model {
    /// The family.
    #[must_use]
    pub fn family(&self) -> &Family {
        &self.family
    }

    /// Dimensions whose sizes args state.
    pub fn stated_dimensions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.stated.iter().map(|(name, size)| (name.as_str(), *size))
    }

    /// Whether numbers of layers and experts in names are those of the model on every rank, and not counted from 0 on each.
    #[must_use]
    pub fn global_layers(&self) -> bool {
        self.family.file.global_layers
    }

    /// A size that args state: `heads`, `groups`, `layers`.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        self.sizes.get(name).copied()
    }

    /// Whether ranks beyond the query groups each hold a copy of one.
    pub(super) fn copies_groups(&self) -> bool {
        self.family.file.copies_groups
    }

    /// Whether several ranks may share a query group.
    pub(super) fn groups_may_be_shared(&self) -> bool {
        self.family.file.groups_may_be_shared
    }

    /// Every tensor and extra state of the model, in the order in which a rank saves them.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry that a saved name is, and the numbers in it: of the layer on its stage, of the expert on its rank.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(&Entry, Numbers)> {
        if let Some(index) = self.by_name.get(name) {
            return Some((self.entries.get(*index)?, Numbers::default()));
        }
        templates(name).find_map(|(template, numbers)| {
            let index = self.by_name.get(template.as_str())?;
            Some((self.entries.get(*index)?, numbers))
        })
    }

    /// Fields of args that decide how files are read: all rank files must agree on them.
    pub fn deciding_args(&self) -> impl Iterator<Item = &str> {
        let file = &self.family.file;
        let sizes = file.sizes.values().flatten().flat_map(|way| way.when.iter().chain([&way.arg]));
        let conditions = file.tensor.iter().flat_map(|tensor| tensor.when.iter().chain(&tensor.unless));
        let refused = file.refuse.iter().map(|rule| &rule.arg);
        let vocabulary = file.vocabulary.true_size.iter().chain(&file.vocabulary.multiple);
        let layout =
            // How an optimizer keeps its state shows in the state itself.
            file.args.iter().filter(|(_, role)| !matches!(role, ArgRole::Rank | ArgRole::DistributedOptimizer)).map(|(field, _)| field);
        let experts = file.experts.iter().flat_map(|file| [&file.count, &file.layers, &file.ffn]);
        let predictions = file.predictions.iter().flat_map(|file| [&file.count, &file.one_if]);
        let copies = file.copies.iter().flat_map(|file| [&file.arg, &file.known_with]);
        sizes
            .chain(experts)
            .chain(predictions)
            .chain(copies)
            .chain(conditions)
            .chain(refused)
            .chain(vocabulary)
            .chain(layout)
            .map(String::as_str)
    }

    /// Fields of args that encode the layout.
    #[must_use]
    pub fn arg_role(&self, field: &str) -> Option<ArgRole> {
        self.family.file.args.get(field).copied()
    }

    /// The field of args that has this role.
    #[must_use]
    pub fn field_of(&self, role: ArgRole) -> Option<&str> {
        self.fields_of(role).next()
    }

    /// The fields of args that have this role.
    pub fn fields_of(&self, role: ArgRole) -> impl Iterator<Item = &str> {
        let all = self.family.file.args.iter();
        all.filter(move |(_, known)| **known == role).map(|(field, _)| field.as_str())
    }

    /// Whether virtual stages must all hold as many layers.
    #[must_use]
    pub fn even_virtual_stages(&self) -> bool {
        self.family.file.even_virtual_stages
    }

    /// The size that `by` must divide where it cuts the dimension, if it is what cuts it.
    #[must_use]
    pub fn cut(&self, dimension: &str, by: CutBy) -> Option<&str> {
        let (size, cut_by) = self.family.parameters.cut.get(dimension)?;
        (*cut_by == by).then_some(size)
    }

    /// Canonical names of the parameters whose rows are the padded vocabulary.
    pub fn padded_parameters(&self) -> impl Iterator<Item = &str> {
        let holds = self
            .entries
            .iter()
            .flat_map(|entry| entry.holds.iter().map(move |holding| (entry.axis, holding)));
        holds
            .filter(|(axis, holding)| holding.is_vocabulary(*axis))
            .map(|(_, holding)| holding.param.as_str())
    }

    fn entry(&self, tensor: &TensorFile) -> Result<Entry, ModelError> {
        let wrong = |what: String| ModelError::Family { family: self.family.name.clone(), what };
        let mut holds = Vec::with_capacity(tensor.holds.len());
        let mut cuts = Vec::with_capacity(tensor.holds.len());
        for (index, param) in tensor.holds.iter().enumerate() {
            let share = tensor.shares.get(index).map_or(Ok(1), |text| self.quotient(text).map_err(wrong))?;
            let dimensions = self.family.parameters.dimensions.get(param).cloned().unwrap_or_default();
            cuts.push(self.family.parameters.cut_of(param));
            let of_groups = |dimension: &String| {
                self.family.parameters.cut.get(dimension).is_some_and(|(size, _)| size == "groups")
            };
            let copied = self.family.file.copies_groups && dimensions.iter().any(of_groups);
            let most_parts = if copied { self.size("groups") } else { None };
            holds.push(Holding { param: param.clone(), share, dimensions, most_parts });
        }
        let cut = cuts.first().copied().flatten();
        if cuts.iter().any(|other| *other != cut) {
            return Err(wrong(format!(
                "'{}' holds parameters that are cut along different axes",
                tensor.name
            )));
        }
        let axis = cut.map(|(axis, _)| axis);
        let arrangement = match (axis, &tensor.interleave) {
            (None, _) => Arrangement::Replicated,
            (Some(_), None) => Arrangement::Concatenated,
            (Some(_), Some(groups)) => {
                Arrangement::Interleaved { groups: self.quotient(groups).map_err(wrong)? }
            }
        };
        Ok(Entry {
            name: tensor.name.as_str().into(),
            holds,
            arrangement,
            axis: axis.unwrap_or(0),
            by: cut.map_or(CutBy::Tp, |(_, by)| by),
            stage: tensor.stage.unwrap_or(Stage::Layer),
            layers: tensor.layers,
            buffer: tensor.buffer,
            also_last: false,
            copies: Copies::Settled,
            only_if_pipelined: tensor.only_if_pipelined,
            unused_like: tensor.unused_like.clone(),
            container_like: tensor.container_like.clone(),
            dialect: tensor.dialect.as_deref().map(Arc::from),
            copy: tensor.copy,
            fixed_part: tensor.part,
            stacked: tensor.stacked,
            constant: tensor.constant,
            ignored: tensor.ignored,
        })
    }

    /// `A` or `A/B`, each a number or a size.
    fn quotient(&self, text: &str) -> Result<u64, String> {
        let term = |text: &str| {
            text.trim()
                .parse()
                .ok()
                .or_else(|| self.size(text.trim()))
                .ok_or_else(|| format!("there is no size '{text}'"))
        };
        let (numerator, denominator) = match text.split_once('/') {
            Some((a, b)) => (term(a)?, term(b)?),
            None => (term(text)?, 1),
        };
        if denominator == 0 || numerator == 0 || numerator % denominator != 0 {
            return Err(format!("{text} is {numerator}/{denominator}, which is not a whole number above 0"));
        }
        Ok(numerator / denominator)
    }
}

/// No model has as many of anything; a larger number is damaged or hostile.
const LARGEST: u64 = 1 << 20;

fn size(name: &str, ways: &[SizeFile], args: &Value) -> Result<u64, ModelError> {
    for way in ways {
        let applies = |field: &String| args.attribute(field).is_some_and(Value::is_truthy);
        if way.when.as_ref().is_some_and(|field| !applies(field)) {
            continue;
        }
        let number = args.attribute(&way.arg).and_then(Value::as_int).and_then(|n| u64::try_from(n).ok());
        match number.filter(|size| (1..=LARGEST).contains(size)) {
            Some(size) => return Ok(size),
            // Where args say that this is the field, no other stands in for it.
            None if way.when.is_some() => break,
            None => {}
        }
    }
    Err(ModelError::MissingArg {
        what: format!("number of {name}"),
        fields: ways.iter().map(|way| way.arg.clone()).collect(),
    })
}

fn describe(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Bool(true) => "True".into(),
        Value::Str(text) => format!("'{text}'"),
        _ => "set".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Construct, Object};

    fn args(fields: &[(&str, Value)]) -> Value {
        let state = fields.iter().map(|(k, v)| (Value::str(k), v.clone())).collect();
        Value::Object(Arc::new(Object {
            construct: Construct::New,
            callable: Value::None,
            args: Value::Tuple(Arc::new([])),
            appended: vec![],
            items: vec![],
            state: Some(Value::Dict(state)),
        }))
    }

    fn core() -> Arc<Family> {
        Arc::new(Family::embedded().unwrap().remove(1))
    }

    fn gqa() -> Vec<(&'static str, Value)> {
        vec![
            ("num_layers", Value::Int(2)),
            ("num_attention_heads", Value::Int(8)),
            ("num_query_groups", Value::Int(2)),
            ("group_query_attention", Value::Bool(true)),
            ("untie_embeddings_and_output_weights", Value::Bool(true)),
        ]
    }

    #[test]
    fn args_decide_groups_and_gates() {
        let plain = core().model(&args(&gqa()), 3.0).unwrap();
        let (qkv, layer) = plain.find("decoder.layers.1.self_attention.linear_qkv.weight").unwrap();
        assert_eq!((qkv.arrangement, layer.layer), (Arrangement::Interleaved { groups: 2 }, Some(1)));
        assert_eq!(qkv.holds.iter().map(|h| h.share).collect::<Vec<_>>(), [4, 1, 1]);
        assert_eq!(plain.find("decoder.layers.0.mlp.linear_fc1.weight").unwrap().0.holds.len(), 1);
        let mut fields = gqa();
        fields.push(("swiglu", Value::Bool(true)));
        fields[3].1 = Value::Bool(false);
        let gated = core().model(&args(&fields), 3.0).unwrap();
        assert_eq!(gated.find("decoder.layers.0.mlp.linear_fc1.weight").unwrap().0.holds.len(), 2);
        assert_eq!(gated.size("groups"), Some(8));
    }

    #[test]
    fn what_a_family_cannot_describe_is_refused() {
        let error =
            |fields: &[(&str, Value)], version| core().model(&args(fields), version).unwrap_err().to_string();
        assert!(error(&[], 3.0).contains("untie_embeddings_and_output_weights"));
        assert!(error(&gqa()[1..], 3.0).contains("number of layers (looked for: num_layers)"));
        let mut huge = gqa();
        huge[1].1 = Value::Int(1 << 62);
        assert!(error(&huge, 3.0).contains("num_attention_heads"));
        assert!(error(&gqa(), 1.0).contains("another order"));
        let mut fields = gqa();
        fields.push(("moe_mlp_glu_interleave_size", Value::Int(32)));
        assert!(error(&fields, 3.0).contains("moe_mlp_glu_interleave_size is 32"));
    }
}
