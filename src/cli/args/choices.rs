//! The library's own choices as words of the command line, with what `--help` says of each.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::layout::Format;
use crate::reader::CrcMode;
use crate::source::TiedHead;
use crate::vfs::IoMode;
use crate::view::{DcpLayout, DcpNames, OptimizerChoice, RngChoice, VocabularyFill};

/// The words for a type's values, each with its help.
macro_rules! words {
    ($of:ty: $($value:ident = $word:literal, $help:literal;)+) => {
        impl ValueEnum for $of {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$value),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(match self {
                    $(Self::$value => PossibleValue::new($word).help($help),)+
                })
            }
        }
    };
}

words! { Format:
    Megatron = "megatron", "Legacy Megatron directory, for --load";
    Safetensors = "safetensors", "One safetensors file for each rank";
    Hf = "hf", "Hugging Face model directory, for from_pretrained";
    Vllm = "vllm", "Rank files for vLLM's --load-format sharded_state";
    Sglang = "sglang", "Rank files for SGLang's --load-format sharded_state";
    TorchDist = "torch_dist", "Megatron-core distributed checkpoint, for --load in any layout";
    Dcp = "dcp", "Distributed checkpoint for torch.distributed.checkpoint.load (FSDP)";
}

words! { OptimizerChoice:
    Keep = "keep", "As the source keeps it";
    Mixed = "mixed", "Mixed precision: masters and moments by parameter, in model_optim_rng.pt; in torch_dist what every version loads";
    Distributed = "distributed", "Distributed: flat buffers, in distrib_optim.pt; in torch_dist fully_reshardable";
    Nothing = "none", "Not at all, whatever it is, and without its learning-rate schedule (load with --no-load-optim)";
}

words! { DcpLayout:
    Plain = "plain", "One directory, of a dict with model and optim";
    Accelerate = "accelerate", "pytorch_model_fsdp_0 and optimizer_0";
}

words! { DcpNames:
    Hf = "hf", "As in transformers";
    Torchtitan = "torchtitan", "As torchtitan calls them, at the root of the checkpoint";
}

words! { TiedHead:
    Compare = "compare", "The two are read and compared when the source is opened; a head that differs is refused";
    Ignore = "ignore", "The head is left out, whatever it holds, as transformers 4 and vLLM do";
}

words! { RngChoice:
    Keep = "keep", "The state of the nearest source rank; the same state in the same layout";
    Omit = "omit", "Not at all (load with --no-load-rng)";
}

words! { VocabularyFill:
    Zero = "zero", "Zeros";
    LastRow = "last-row", "Copies of the last row, as Megatron's converter writes";
}

words! { CrcMode:
    Zero = "zero", "Zeros: nothing is read before it is asked for (torch does not check them)";
    Exact = "exact", "True sums: a mounted file equals the materialized one byte for byte";
}

words! { IoMode:
    Direct = "direct", "Every read comes to ckpt-fs: fastest for loaders that read";
    Cached = "cached", "The kernel keeps pages: for loaders that map files";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_has_one_name() {
        for format in Format::value_variants() {
            assert_eq!(format.to_possible_value().unwrap().get_name(), format.name());
        }
        assert_eq!(Format::value_variants(), Format::ALL);
    }
}
