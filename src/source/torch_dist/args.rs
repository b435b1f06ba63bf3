//! What the arguments of the run say of how it saved, and the same arguments as those of a run of one rank.

use crate::family::{ArgRole, Model};
use crate::format::megatron::dist_keys::Spec;
use crate::value::Value;

/// The layers that the model is built of: what args say, or else the user.
pub(super) fn spec(args: &Value, asked: Option<&str>) -> Spec {
    let is = |field: &str| args.attribute(field).is_some_and(Value::is_truthy);
    let implementation = args.attribute("transformer_impl").and_then(Value::as_str);
    let transformer_engine = match implementation {
        Some("local") => false,
        Some(_) => true,
        // Transformer Engine is what runs on GPUs use.
        None => asked != Some("local"),
    };
    Spec {
        transformer_engine,
        grouped_experts: match args.attribute("moe_grouped_gemm") {
            Some(grouped) => grouped.is_truthy(),
            None => transformer_engine,
        },
        latent: is("multi_latent_attention"),
        mtp_model_layer: false,
    }
}

/// The size that args give for a role: 1 where they say none.
pub(super) fn size(args: &Value, model: &Model, role: ArgRole) -> u32 {
    let fields = model.fields_of(role).filter_map(|field| args.attribute(field)?.as_int());
    let sizes = fields.filter_map(|size| u32::try_from(size).ok()).filter(|size| *size > 0);
    sizes.max().map_or(1, |size| size)
}

/// How the run saves: rank files are what `torch` means.
const CKPT_FORMAT: &str = "ckpt_format";

/// The args as a run of one rank with everything would have them. What is not of the layout stays.
pub(super) fn undivided(args: &Value, model: &Model) -> Value {
    let Some(fields) = args.fields() else { return args.clone() };
    let fields = fields.iter().map(|(key, value)| {
        if key.as_str() == Some(CKPT_FORMAT) {
            return (key.clone(), Value::str("torch"));
        }
        let role = key.as_str().and_then(|name| model.arg_role(name));
        let value = match role {
            _ if matches!(value, Value::None) => value.clone(),
            Some(ArgRole::Tp | ArgRole::Pp | ArgRole::Ep | ArgRole::Etp | ArgRole::PpWithLayers) => Value::Int(1),
            Some(
                ArgRole::Vpp
                | ArgRole::VirtualStages
                | ArgRole::LayersPerVirtualStage
                | ArgRole::StagesLayout
                | ArgRole::FirstStage
                | ArgRole::LastStage,
            ) => Value::None,
            Some(ArgRole::FalseIfRecut) => Value::Bool(false),
            _ => value.clone(),
        };
        (key.clone(), value)
    });
    args.with_fields(fields.collect()).unwrap_or_else(|| args.clone())
}
