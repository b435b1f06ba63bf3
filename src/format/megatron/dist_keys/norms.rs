//! Norms that models of Megatron's own layers and of Transformer Engine's have under different keys.
//!
//! Where a norm is fused with the layer behind it, keys call it a part of that. Megatron's own layers, which fuse none, take those names too
//! where a dense model has both; with experts or latent attention they do not agree.
//!
//! Source: Megatron-LM's `gpt_layer_specs.py` (`sharded_state_dict_keys_map`).

use super::rank_names::{PRE_MLP_NORM, split_inner};
use super::{DistName, EXTRA_STATE};

/// The norms of latent attention: apart, and fused.
const LATENT: [(&str, &str); 2] = [
    ("self_attention.q_layernorm.", "self_attention.linear_q_up_proj.layer_norm_"),
    ("self_attention.kv_layernorm.", "self_attention.linear_kv_up_proj.layer_norm_"),
];

impl DistName {
    /// The key of the same norm in a model of the other kind of layers; `None` where both have one key, and for what is no norm. `latent` says
    /// whether attention is, `has_experts` whether the layer has any.
    #[must_use]
    pub fn other_norm(&self, latent: bool, has_experts: bool) -> Option<Self> {
        // In dense models both fuse it, with experts Megatron's own does, with latent attention Transformer Engine does.
        let before_mlp = (latent != has_experts).then_some(PRE_MLP_NORM);
        let of_latent = LATENT.into_iter().filter(|_| latent);
        let (inner, rest) = split_inner(self.of, &self.rest);
        let other = |(apart, fused): (&str, &str)| {
            let swapped = |from, to| Some(format!("{to}{}", rest.strip_prefix(from).filter(|end| *end != EXTRA_STATE)?));
            swapped(apart, fused).or_else(|| swapped(fused, apart))
        };
        let rest = before_mlp.into_iter().chain(of_latent).find_map(other)?;
        Some(Self { rest: format!("{inner}{rest}"), ..self.clone() })
    }

    /// Whether it is a norm that is a part of another layer in its key.
    #[must_use]
    pub fn is_fused_norm(&self) -> bool {
        self.rest.rsplit('.').next().is_some_and(|leaf| leaf.starts_with("layer_norm_"))
    }

    /// Whether Megatron's own layers ask for an extra state of this name: norms and attention itself have none there.
    #[must_use]
    pub fn is_state_of_linear(&self) -> bool {
        let module = self.rest.rsplit_once('.').map_or("", |(module, _)| module);
        let module = module.rsplit('.').next().unwrap_or_default();
        self.is_extra_state() && !module.ends_with("norm") && module != CORE_ATTENTION
    }
}

/// A module without parameters that has a state all the same.
pub const CORE_ATTENTION: &str = "core_attention";
