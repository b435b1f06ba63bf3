//! Names in rank files to keys and back.

use super::{DistName, EXPERTS, EXTRA_STATE, Of, PREDICTIONS, Spec};

const LAYER: &str = "{layer}.";
const DEPTH: &str = "{depth}.";
const EXPERT: &str = "{expert}";

/// Experts that are modules of their own, in rank files.
const LOCAL_EXPERTS: &str = ".experts.local_experts.{expert}.";
/// All experts of a rank in one module, in rank files.
const GROUPED_EXPERTS: &str = ".experts.";

/// The layer within a prediction: its name in keys and older rank files, and that in later ones.
const INNER_LAYER: &str = "transformer_layer.";
const LATER_INNER_LAYER: &str = "mtp_model_layer.";

/// The norms that Megatron's own layers have apart, and what keys call them.
const NORMS: [(&str, &str); 2] = [("input_layernorm.", "self_attention.linear_qkv.layer_norm_"), PRE_MLP_NORM];
pub(super) const PRE_MLP_NORM: (&str, &str) = ("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_");

/// Not in keys: versions before it was there left no room for it.
const HEAD_STATE: &str = "output_layer._extra_state";

impl DistName {
    /// What keys call the tensor or extra state that rank files of such a model call `template`. `None` for one that is in no key: the extra
    /// state of the head, and names within nested dicts, which no model of megatron-core has.
    #[must_use]
    pub fn of_rank(template: &str, spec: Spec) -> Option<Self> {
        if template == HEAD_STATE || template.contains('/') {
            return None;
        }
        let (of, before, rest) = match (template.split_once(LAYER), template.split_once(DEPTH)) {
            (Some((before, rest)), None) => (Of::Layers, before, rest),
            (None, Some((before, rest))) => (Of::Predictions, before, rest),
            (None, None) => (Of::Model, "", template),
            (Some(_), Some(_)) => return None,
        };
        if (of == Of::Predictions) != before.starts_with(PREDICTIONS) {
            return None;
        }
        let (inner, rest) = split_inner(of, rest);
        let rest = if spec.renames_norms() { renamed(rest, &NORMS) } else { rest.to_owned() };
        let (rest, of_experts) = experts_in_key(&rest);
        let rest = format!("{inner}{rest}");
        let has_number = rest.contains(['{', '}']);
        (!has_number).then(|| Self { of, before: before.to_owned(), rest, of_experts })
    }

    /// What rank files of such a model call it: a template. `has_experts` says whether the layer is one with experts.
    #[must_use]
    pub fn rank_template(&self, spec: Spec, has_experts: bool) -> String {
        let (inner, rest) = split_inner(self.of, &self.rest);
        let back = |norms: &[(&str, &str)]| {
            let norms: Vec<_> = norms.iter().map(|(own, fused)| (*fused, *own)).collect();
            renamed(rest, &norms)
        };
        let rest = match spec {
            spec if spec.renames_norms() => back(&NORMS),
            // Nothing is fused with a norm that a router reads too.
            _ if has_experts => back(&[PRE_MLP_NORM]),
            _ => rest.to_owned(),
        };
        let rest = if self.of_experts { experts_in_rank(&rest, spec.grouped_experts) } else { rest };
        let inner = if inner.is_empty() || !spec.mtp_model_layer { inner } else { LATER_INNER_LAYER };
        let number = match self.of {
            Of::Model => "",
            Of::Layers => LAYER,
            Of::Predictions => DEPTH,
        };
        format!("{}{number}{inner}{rest}", self.before)
    }
}

/// The layer within a prediction as keys have it, where the name is of one, and the name within a layer.
pub(super) fn split_inner(of: Of, rest: &str) -> (&'static str, &str) {
    let within = [INNER_LAYER, LATER_INNER_LAYER].iter().find_map(|inner| rest.strip_prefix(inner));
    match within {
        Some(within) if of == Of::Predictions => (INNER_LAYER, within),
        _ => ("", rest),
    }
}

/// The name with the first of these beginnings replaced that it has. What a norm has beside its parameters is nobody else's.
fn renamed(rest: &str, beginnings: &[(&str, &str)]) -> String {
    let mut found = beginnings.iter().filter_map(|(from, to)| Some((to, rest.strip_prefix(from)?)));
    match found.next() {
        Some((to, end)) if end != EXTRA_STATE => format!("{to}{end}"),
        _ => rest.to_owned(),
    }
}

/// The name that all experts have in keys, where it is of an expert or of the module that holds all of a rank.
fn experts_in_key(rest: &str) -> (String, bool) {
    if let Some((module, inner)) = rest.split_once(LOCAL_EXPERTS) {
        return (format!("{module}{EXPERTS}{inner}"), true);
    }
    let Some((module, inner)) = rest.split_once(GROUPED_EXPERTS) else { return (rest.to_owned(), false) };
    let of_all = inner.strip_suffix(EXPERT).or_else(|| inner.ends_with(EXTRA_STATE).then_some(inner));
    match of_all {
        Some(inner) => (format!("{module}{EXPERTS}{inner}"), true),
        None => (rest.to_owned(), false),
    }
}

/// The name of an expert in rank files. In a module of all experts of a rank the number ends it, and they have one extra state together.
fn experts_in_rank(rest: &str, is_grouped: bool) -> String {
    let Some((module, inner)) = rest.split_once(EXPERTS) else { return rest.to_owned() };
    match is_grouped {
        false => format!("{module}{LOCAL_EXPERTS}{inner}"),
        true if inner.ends_with(EXTRA_STATE) => format!("{module}{GROUPED_EXPERTS}{inner}"),
        true => format!("{module}{GROUPED_EXPERTS}{inner}{EXPERT}"),
    }
}
