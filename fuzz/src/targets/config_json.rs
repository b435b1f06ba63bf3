//! `config.json`: args made of a config make a config of which the same args are made.

use crate::{FAMILIES, bounded};
use ckpt_fs::family::Family;
use ckpt_fs::family::config::{Config, MODEL_TYPE, text};
use ckpt_fs::format::hf::decode_object;
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use ckpt_fs::value::json::pretty;
use std::sync::Arc;

/// As many layers as are believed make a list of flags.
const FLAGS: usize = 128 << 20;

fn check(family: &Arc<Family>, config: &Config) {
    let Ok(from) = family.args_of(config) else { return };
    let args = Value::namespace(from.args.clone());
    let _ = family.model(&args, 0.0);
    // What a config says and args cannot is not among the args.
    if !from.inexpressible.is_empty() {
        return;
    }
    let Ok(written) = family.config_of(&args, 128, Dtype::Bfloat16) else { return };
    let again = family.args_of(&written).expect("what was written is read");
    let said = |args: &[(String, Value)]| {
        args.iter().map(|(field, value)| format!("{field} = {}", text(value))).collect::<Vec<_>>()
    };
    assert_eq!(said(&again.args), said(&from.args));
}

/// Holds one input against what must be so.
pub fn run(json: &[u8]) {
    let Ok(config) = decode_object(json) else { return };
    let text = pretty(&serde_json::Value::Object(config.clone()));
    assert_eq!(decode_object(text.as_bytes()).expect("what was written is read"), config);
    let stated = config.get(MODEL_TYPE).and_then(serde_json::Value::as_str);
    if let Some(family) = stated.and_then(|stated| FAMILIES.of_model_type(stated)) {
        bounded(json.len(), 1000, FLAGS, || check(family, &config));
    }
}
