//! The formats of checkpoints: what a source is found to be, what a view is asked for, and what the files of a family are.

use std::fmt;

use super::Layout;

/// A format of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A legacy Megatron directory.
    #[default]
    Megatron,
    /// One safetensors file for each rank, with the names of whatever family the model is of.
    Safetensors,
    /// A Hugging Face model directory.
    Hf,
    /// Rank files as vLLM's `sharded_state` loader takes them.
    Vllm,
    /// Rank files as SGLang's does.
    Sglang,
    /// A distributed checkpoint of Megatron-core: torch DCP with Megatron's keys.
    #[serde(rename = "torch_dist")]
    TorchDist,
    /// A distributed checkpoint of torch (`torch.distributed.checkpoint`), with the names of whatever model it is of.
    Dcp,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Megatron, Self::Safetensors, Self::Hf, Self::Vllm, Self::Sglang, Self::TorchDist, Self::Dcp];

    /// Its name, as flags and directories of a mount have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Megatron => "megatron",
            Self::Safetensors => "safetensors",
            Self::Hf => "hf",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::TorchDist => "torch_dist",
            Self::Dcp => "dcp",
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Megatron => "legacy Megatron directory (torch .pt)",
            Self::Safetensors => "one safetensors file per rank",
            Self::Hf => "Hugging Face model directory (safetensors)",
            Self::Vllm => "vLLM rank files (sharded_state)",
            Self::Sglang => "SGLang rank files (sharded_state)",
            Self::TorchDist => "Megatron-core distributed checkpoint (torch_dist)",
            Self::Dcp => "torch distributed checkpoint (DCP)",
        }
    }

    /// What a layout is called in this format: engines know nothing of pipelines and experts beyond what must be said.
    #[must_use]
    pub fn layout_name(self, layout: &Layout) -> String {
        match self {
            Self::Vllm | Self::Sglang if layout.pp() == 1 => format!("tp{}", layout.tp),
            Self::Vllm | Self::Sglang => Layout { experts: None, ..layout.clone() }.to_string(),
            Self::Megatron | Self::Safetensors | Self::Hf | Self::TorchDist | Self::Dcp => layout.to_string(),
        }
    }

    /// Whether there is one layout only: everything whole, for one reader.
    #[must_use]
    pub fn is_single(self) -> bool {
        matches!(self, Self::Hf | Self::TorchDist | Self::Dcp)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Experts, Stages};
    use super::*;

    #[test]
    fn formats_are_told_by_their_names() {
        let names = Format::ALL.map(|format| format.to_string());
        assert_eq!(names, ["megatron", "safetensors", "hf", "vllm", "sglang", "torch_dist", "dcp"]);
        let words = ["Megatron", "per rank", "Hugging Face", "vLLM", "SGLang", "torch_dist", "DCP"];
        for (format, word) in Format::ALL.iter().zip(words) {
            assert!(format.title().contains(word), "{format}: {}", format.title());
        }
        assert_eq!(Format::ALL.map(Format::is_single), [false, false, true, false, false, true, true]);
    }

    #[test]
    fn engines_are_told_no_more_of_a_layout_than_they_know() {
        let names = |stages| {
            let experts = Some(Experts { ep: 2, etp: 4 });
            let layout = Layout { experts, ..Layout::dense(4, Stages::nearly_even(4, stages)) };
            Format::ALL.map(|format| format.layout_name(&layout))
        };
        assert_eq!(names(1), ["tp4pp1ep2", "tp4pp1ep2", "tp4pp1ep2", "tp4", "tp4", "tp4pp1ep2", "tp4pp1ep2"]);
        assert_eq!(names(2), ["tp4pp2ep2", "tp4pp2ep2", "tp4pp2ep2", "tp4pp2", "tp4pp2", "tp4pp2ep2", "tp4pp2ep2"]);
    }
}
