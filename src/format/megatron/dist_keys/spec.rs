//! Of what layers a model is built, and whether keys stack them.

use crate::value::Value;

/// Of what layers a model is built, as far as names in rank files and keys show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Layers of Transformer Engine, which fuse norms into what follows them; otherwise Megatron's own.
    pub transformer_engine: bool,
    /// All experts of a rank in one module; otherwise each is one.
    pub grouped_experts: bool,
    /// Latent attention, whose norms keep their names.
    pub latent: bool,
    /// Versions that call the layer within a prediction's `mtp_model_layer` and no longer `transformer_layer`.
    pub mtp_model_layer: bool,
}

impl Spec {
    /// The spec of a model whose rank files have tensors of these names (templates, as families have them).
    #[must_use]
    pub fn of_names<'a>(latent: bool, names: impl Iterator<Item = &'a str>) -> Self {
        let mut spec =
            Self { transformer_engine: true, grouped_experts: true, latent, mtp_model_layer: false };
        for name in names {
            spec.transformer_engine &= !name.ends_with(".input_layernorm.weight");
            spec.grouped_experts &= !name.contains(".local_experts.");
            spec.mtp_model_layer |= name.contains(".mtp_model_layer.");
        }
        spec
    }

    /// Whether two norms have other names in keys.
    pub(super) fn renames_norms(self) -> bool {
        !self.transformer_engine && !self.latent
    }
}

/// Whether a run with these args gives every layer keys of its own because layers differ. It asks the args and not the layers: a list that
/// says the same of all of them is one too.
#[must_use]
pub fn layers_have_own_keys(args: &Value) -> bool {
    let differ = |field: &str| match args.attribute(field) {
        Some(Value::List(_) | Value::Tuple(_)) => true,
        Some(value) => value.as_int().is_some_and(|every| every > 1),
        None => false,
    };
    let is_set = |field: &str| args.attribute(field).is_some_and(Value::is_truthy);
    differ("moe_layer_freq") || differ("linear_attention_freq") || is_set("hetereogenous_dist_checkpoint")
}
