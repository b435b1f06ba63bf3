//! A family and the `args` of one checkpoint make its model: the sizes that args state, and the tensors that such a model has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::experts::Experts;
use super::file::{SizeFile, TensorFile};
use super::mtp::{count as predictions, of_layer};
use super::{Arrangement, Copies, CutBy, Entry, Family, Holding, LayerKind, Model, ModelError, Stage};
use crate::value::Value;

impl Family {
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
        let mut model = Model { family: self.clone(), sizes, stated, of_config: false, experts, entries, by_name };
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
        let arrangement = match (axis, &tensor.interleave, &tensor.pairs) {
            (None, _, _) => Arrangement::Replicated,
            (Some(_), None, None) => Arrangement::Concatenated,
            (Some(_), Some(groups), _) => {
                Arrangement::Interleaved { groups: self.quotient(groups).map_err(wrong)? }
            }
            (Some(_), None, Some(head)) => Arrangement::Paired { head: self.quotient(head).map_err(wrong)? },
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
            why_ignored: tensor.why.clone(),
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
    use crate::family::Families;
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
        Families::default().named("megatron-core").unwrap().clone()
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
