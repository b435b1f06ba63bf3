//! Checkpoints of other kinds, which people have and this version does not read: each is told by one name in its directory.
//!
//! Not here: directories that lie above or below the one that is meant (`below`).

use super::SourceError;
use crate::format::megatron::TRACKER;
use std::path::Path;

/// A kind of checkpoint.
#[derive(Debug)]
struct Kind {
    /// Names in its directory, any of which tells it: `*` stands for anything, `#` for digits.
    signs: &'static [&'static str],
    /// A name that must be there too.
    with: Option<&'static str>,
    /// What it is.
    name: &'static str,
    /// The way on.
    advice: &'static str,
    /// Its signs lie in other directories too: what lies below this one is looked at first.
    weak: bool,
}

const PLAIN: Kind = Kind { signs: &[], with: None, name: "", advice: "", weak: false };

const SAVE_AGAIN: &str = "save it as safetensors (from_pretrained, then save_pretrained)";

/// Those that this version knows by name. The first that fits counts.
const KINDS: &[Kind] = &[
    Kind {
        signs: &["global_step#", "global_step#_universal"],
        with: Some(TRACKER),
        name: "a Megatron-DeepSpeed checkpoint",
        advice: "convert it with the scripts in its tools/convert_checkpoint",
        ..PLAIN
    },
    Kind {
        signs: &[
            "global_step#",
            "global_step#_universal",
            "latest_universal",
            "zero_pp_rank_*",
            "bf16_zero_pp_rank_*",
            "mp_rank_#_model_states.pt",
            "layer_#-model_#-model_states.pt",
            "zero_to_fp32.py",
        ],
        name: "a DeepSpeed checkpoint",
        advice: "its zero_to_fp32.py makes safetensors files of it (--safe_serialization)",
        ..PLAIN
    },
    Kind {
        signs: &["model_world_size_#_rank_#.pt"],
        name: "a model sharded by FSDP ranks",
        advice: "merge them into a Hugging Face model (python -m verl.model_merger merge --backend fsdp)",
        ..PLAIN
    },
    Kind {
        signs: &["pytorch_model_fsdp*.bin"],
        name: "an FSDP checkpoint of accelerate in pickles",
        advice: SAVE_AGAIN,
        ..PLAIN
    },
    Kind {
        signs: &["*.nemo", "model_weights", "model_weights.ckpt", "model_config.yaml", "tp_rank_#_pp_rank_#"],
        name: "a NeMo checkpoint",
        advice: "export it as a Hugging Face model (NeMo's scripts/checkpoint_converters)",
        ..PLAIN
    },
    Kind {
        signs: &["context"],
        with: Some("weights"),
        name: "a NeMo 2 checkpoint",
        advice: "export it as a Hugging Face model (nemo llm export)",
        ..PLAIN
    },
    Kind {
        signs: &[".metadata", "*.distcp"],
        name: "a distributed checkpoint of torch_dist or torch DCP",
        advice: "save it with --ckpt-format torch, or as a Hugging Face model",
        ..PLAIN
    },
    Kind {
        signs: &["metadata.json", ".zarray", ".zgroup", ".zmetadata"],
        name: "a distributed checkpoint of zarr, or of torch_dist without its .metadata",
        advice: "save it with --ckpt-format torch, or as a Hugging Face model",
        ..PLAIN
    },
    Kind {
        signs: &["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"],
        name: "an adapter (LoRA) without the model that it is for",
        advice: "merge it into that model (peft: merge_and_unload, then save_pretrained)",
        ..PLAIN
    },
    Kind {
        signs: &["*.gguf", "*.ggml"],
        name: "a GGUF model",
        advice: "pass the Hugging Face model that it was made of",
        ..PLAIN
    },
    Kind {
        signs: &["consolidated.#.pth", "consolidated*.safetensors", "consolidated.safetensors.index.json"],
        name: "a model in the form of Meta or Mistral",
        advice: "pass its Hugging Face form (config.json with model.safetensors)",
        ..PLAIN
    },
    Kind {
        signs: &["pytorch_model*.bin", "pytorch_model.bin.index.json"],
        name: "a Hugging Face model in pickles",
        advice: SAVE_AGAIN,
        ..PLAIN
    },
    Kind {
        signs: &["model-rank-*", "model-pp-*"],
        name: "a model as an inference engine saves it",
        advice: "pass the model that it was made of",
        ..PLAIN
    },
    Kind {
        signs: &["tf_model*.h5", "flax_model*.msgpack", "*.onnx", "weights*.npz"],
        name: "a model for TensorFlow, Flax, ONNX or MLX",
        advice: SAVE_AGAIN,
        ..PLAIN
    },
    Kind {
        signs: &["model_index.json"],
        name: "a diffusers pipeline of several models",
        advice: "pass one of the models in it",
        ..PLAIN
    },
    Kind {
        signs: &["trainer_state.json", "training_args.bin"],
        name: "a directory of a Trainer without its model",
        advice: "save the model as safetensors beside it (save_pretrained)",
        weak: true,
        ..PLAIN
    },
    Kind {
        signs: &["*.ckpt", "*.pth", "*.pt"],
        name: "a directory of single torch files",
        advice: "save the model as safetensors (save_pretrained)",
        weak: true,
        ..PLAIN
    },
];

/// The kind that a directory with these names is of, and the name that tells it.
fn of(names: &[String], weak: bool) -> Option<(&'static Kind, &str)> {
    let mut kinds = KINDS.iter().filter(|kind| kind.weak == weak);
    kinds.find_map(|kind| {
        let with = kind.with.is_none_or(|with| names.iter().any(|name| name == with));
        let sign = || names.iter().find(|name| kind.signs.iter().any(|sign| fits(sign, name)));
        with.then(sign).flatten().map(|sign| (kind, sign.as_str()))
    })
}

/// Why `path`, a directory with these names in it, is not read, where it is of another kind.
pub(super) fn refusal(path: &Path, names: &[String], weak: bool) -> Option<SourceError> {
    of(names, weak).map(|(kind, sign)| kind.refusal(path, sign))
}

impl Kind {
    /// Why `path` is not read, which is of this kind by the name `sign`.
    fn refusal(&self, path: &Path, sign: &str) -> SourceError {
        let Self { name, advice, .. } = self;
        let is_file = path.file_name().is_some_and(|name| name == sign);
        let seen = if is_file { String::new() } else { format!(" (it has {sign})") };
        let what = format!("this is {name}{seen}, which this version does not read; {advice}");
        SourceError::Unsupported { path: path.display().to_string(), what }
    }
}

/// Whether a name fits a sign.
fn fits(sign: &str, name: &str) -> bool {
    let digits = |name: &str| name.bytes().take_while(u8::is_ascii_digit).count();
    let Some(place) = sign.find(['*', '#']) else { return sign == name };
    let (Some(start), Some(rest)) = (sign.get(..place), sign.get(place + 1..)) else { return false };
    let Some(name) = name.strip_prefix(start) else { return false };
    if sign.as_bytes().get(place) == Some(&b'#') {
        // Nothing that follows a number begins with a digit.
        let count = digits(name);
        return count > 0 && name.get(count..).is_some_and(|name| fits(rest, name));
    }
    name.char_indices()
        .map(|(at, _)| at)
        .chain([name.len()])
        .any(|at| name.get(at..).is_some_and(|name| fits(rest, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_whole_names() {
        for (sign, name) in [
            ("global_step#", "global_step100"),
            ("mp_rank_#_model_states.pt", "mp_rank_00_model_states.pt"),
            ("layer_#-model_#-model_states.pt", "layer_01-model_00-model_states.pt"),
            ("*.gguf", "model-q4_0.gguf"),
            ("pytorch_model*.bin", "pytorch_model-00001-of-00002.bin"),
            ("zero_pp_rank_*", "zero_pp_rank_10_mp_rank_00_optim_states.pt"),
        ] {
            assert!(fits(sign, name), "{sign} {name}");
        }
        for (sign, name) in [
            ("global_step#", "global_step_100"),
            ("global_step#", "global_step100_universal"),
            ("*.gguf", "model.gguf.txt"),
            ("consolidated.#.pth", "consolidated.pth"),
            ("context", "contexts"),
        ] {
            assert!(!fits(sign, name), "{sign} {name}");
        }
    }

    #[test]
    fn every_kind_says_what_it_is_and_the_way_on() {
        for kind in KINDS {
            assert!(!kind.signs.is_empty() && !kind.name.is_empty() && !kind.advice.is_empty(), "{kind:?}");
            let text = kind.refusal(Path::new("dir"), "x.y").to_string();
            assert!(text.len() < 260 && !text.contains(". "), "{text}");
        }
    }
}
