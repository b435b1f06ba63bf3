//! Keys of a rank file's dict, and of the dicts that optimizers save in it and beside it. Nothing else in the crate spells them.
//!
//! Source: Megatron-LM's `checkpointing.py` (`generate_state_dict`) and its optimizers' `state_dict`. Not here: what an entry is taken
//! for (`source`).

/// Arguments of training.
pub const ARGS: &str = "args";
/// Version of the order of rows.
pub const CHECKPOINT_VERSION: &str = "checkpoint_version";
/// Steps taken.
pub const ITERATION: &str = "iteration";
/// The model, or with a number behind it a part of it: see [`model_entry`].
const MODEL: &str = "model";
/// Work done so far.
pub const OPERATIONS: &str = "num_floating_point_operations_so_far";
/// The optimizer's state; also what torch's own optimizer saved, within what wraps it.
pub const OPTIMIZER: &str = "optimizer";
/// What sets the learning rate: megatron-core's, and that of older versions.
pub const SCHEDULES: &[&str] = &["opt_param_scheduler", "lr_scheduler"];
/// Random-number state.
pub const RNG_STATE: &str = "rng_state";
/// State of the machine that runs steps again to find faults.
pub const RERUN_STATE: &str = "rerun_state_machine";

/// Parameter groups of torch's own optimizer.
pub const PARAM_GROUPS: &str = "param_groups";
/// Its state by number.
pub const STATE: &str = "state";
/// Numbers of the parameters in a group.
pub const PARAMS: &str = "params";
/// Steps taken, with a parameter or with a group.
pub const STEP: &str = "step";
/// The 32-bit masters of each group, beside torch's own optimizer: megatron-core's name, and that of older versions.
pub const MASTERS: [&str; 2] = ["fp32_from_fp16_params", "fp32_from_fp16"];

/// The masters among the rows of a flat buffer.
pub const BUFFER_MASTERS: &str = "param";
/// Notes that each flat buffer is one row.
pub const COALESCED: &str = "buckets_coalesced";
/// Elements of such a row.
pub const ROW_LENGTH: &str = "numel_unpadded";

/// The entry of a rank file that holds part `chunk` of the model, of `chunks`: `model`, or `model0` and so on.
#[must_use]
pub fn model_entry(chunk: u32, chunks: u32) -> String {
    if chunks > 1 { format!("{MODEL}{chunk}") } else { MODEL.to_owned() }
}

/// The part of the model that a rank file keeps under `key`.
#[must_use]
pub fn parse_model_entry(key: &str) -> Option<u32> {
    match key.strip_prefix(MODEL)? {
        "" => Some(0),
        number if number == "0" || !number.starts_with('0') => super::digits(number),
        _ => None,
    }
}

/// What stands before the names of tensors of part `chunk` of the model, of `chunks`, where those of all parts are in one list: nothing
/// where there is one part, `model1/` where there are several.
#[must_use]
pub fn part_prefix(chunk: u32, chunks: u32) -> String {
    if chunks > 1 { format!("{}/", model_entry(chunk, chunks)) } else { String::new() }
}

/// The entry that holds the part of the model which a tensor with such a prefix is of, and the tensor's name there.
#[must_use]
pub fn split_part(name: &str) -> (&str, &str) {
    let is_numbered = |part: &str| part != MODEL && parse_model_entry(part).is_some();
    name.split_once('/').filter(|(part, _)| is_numbered(part)).unwrap_or((MODEL, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_model_are_numbered_where_there_are_several() {
        assert_eq!((model_entry(0, 1), model_entry(1, 2)), ("model".into(), "model1".into()));
        assert_eq!(parse_model_entry("model"), Some(0));
        assert_eq!(parse_model_entry("model10"), Some(10));
        assert_eq!((parse_model_entry("model01"), parse_model_entry("model_ema")), (None, None));
    }

    #[test]
    fn names_of_tensors_say_their_part_where_there_are_several() {
        assert_eq!((part_prefix(0, 1), part_prefix(1, 2)), (String::new(), "model1/".into()));
        assert_eq!(split_part("model1/decoder.x"), ("model1", "decoder.x"));
        for whole in ["decoder.x", "model/decoder.x", "language_model/embedding/x"] {
            assert_eq!(split_part(whole), ("model", whole));
        }
    }
}
