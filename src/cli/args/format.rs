//! The arguments that choose a format and what it needs.

use clap::Args;

use crate::layout::Format;
use crate::view::{DcpLayout, DcpNames};

/// Which format. Options without a default here have it where it is used: only what was typed can be refused for doing nothing (`idle`).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Format")]
pub(crate) struct FormatArgs {
    /// Format of the view; by default the source's own
    #[arg(long = "as", value_name = "FORMAT", value_enum, ignore_case = true)]
    pub(crate) format: Option<Format>,

    /// hf, vllm, sglang: the architecture (model_type in config.json), where it is not to be inferred
    #[arg(long, value_name = "TYPE")]
    pub(crate) hf_model_type: Option<String>,

    /// hf, torch_dist, dcp: bytes of data in each file, e.g. 5GB or 2GiB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) shard_size: Option<u64>,

    /// megatron and torch_dist, of a Hugging Face model: names as Transformer Engine's layers have them (te), which runs on GPUs use, or as Megatron's own do
    /// (local; --transformer-impl) [default: te]
    #[arg(long, value_name = "SPEC", value_parser = ["te", "local"])]
    pub(crate) megatron_spec: Option<String>,

    /// megatron, torch_dist and safetensors, of a Hugging Face model: rows of the vocabulary are padded to a multiple of this and the
    /// tensor-parallel size; 128 unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) make_vocab_size_divisible_by: Option<u64>,

    /// dcp: directories as torch's own examples have them, or as accelerate and the Trainer do [default: plain]
    #[arg(long, value_name = "LAYOUT", value_enum)]
    pub(crate) dcp_layout: Option<DcpLayout>,

    /// dcp: names of tensors [default: hf]
    #[arg(long, value_name = "NAMES", value_enum)]
    pub(crate) dcp_names: Option<DcpNames>,

    /// vllm, sglang: version of the engine, whose names of tensors change; by default the newest that is known
    #[arg(long, value_name = "VERSION")]
    pub(crate) engine_version: Option<String>,
}

impl FormatArgs {
    /// Whether any of them was typed.
    pub(crate) fn is_given(&self) -> bool {
        let Self {
            format,
            hf_model_type,
            shard_size,
            megatron_spec,
            make_vocab_size_divisible_by,
            dcp_layout,
            dcp_names,
            engine_version,
        } = self;
        let texts = [hf_model_type, megatron_spec, engine_version];
        texts.into_iter().any(Option::is_some)
            || [shard_size, make_vocab_size_divisible_by].into_iter().any(Option::is_some)
            || format.is_some()
            || dcp_layout.is_some()
            || dcp_names.is_some()
    }
}

/// `HOST:PORT`, as it was typed: what the host is called is found out when it is listened at.
pub(super) fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    parts.map(|_| text.to_owned()).ok_or_else(|| {
        "expected HOST:PORT such as 127.0.0.1:9469, [::1]:9469 or localhost:0 (any port that is free)"
            .to_owned()
    })
}

/// `5GB` and `2GiB` as bytes.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 5GB, 512MB or 2GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit: f64 = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KIB" => 1024.0,
        "MIB" => 1024.0 * 1024.0,
        "GIB" => 1024.0 * 1024.0 * 1024.0,
        "TIB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = number * unit;
    // Sizes of files are far below what a float holds exactly.
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A size of a layout.
pub(super) fn count(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| "expected a whole number above 0, such as 4".to_owned())
}

/// `644` as permissions.
pub(super) fn mode(text: &str) -> Result<u16, String> {
    let mode = u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "expected three octal digits such as 644".to_owned())
}

/// As [`size`], also nothing.
pub(super) fn size_or_none(text: &str) -> Result<u64, String> {
    if text.trim() == "0" { Ok(0) } else { size(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("5GB"), Ok(5_000_000_000));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("1.5 MB"), Ok(1_500_000));
        assert_eq!(size("4096"), Ok(4096));
        for bad in ["", "GB", "5XB", "-1GB", "0", "1e30GB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!((count("8"), count("4096")), (Ok(8), Ok(4096)));
        assert!(["", "0", "-1", "four", "4.0", "99999999999"].iter().all(|bad| count(bad).is_err()));
        assert_eq!((mode("644"), mode("0750")), (Ok(0o644), Ok(0o750)));
        assert!(["", "888", "1000", "rw", "-1"].iter().all(|bad| mode(bad).is_err()));
        assert_eq!((size_or_none("0"), size_or_none("1GiB")), (Ok(0), Ok(1 << 30)));
        assert!(size_or_none("").is_err());
    }
}
