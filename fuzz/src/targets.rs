//! What is fuzzed: one target for each decoder, and for plans. An input is any bytes.
//!
//! Not here: what they share (the modules beside this one), what calls them (`fuzz_targets`, `seeds`).

pub mod checkpoint;
pub mod config_json;
pub mod dcp_metadata;
pub mod dcp_pieces;
pub mod family_file;
pub mod index_json;
pub mod layout_name;
pub mod model_directory;
pub mod pickle;
pub mod plan_resolve;
pub mod safetensors_header;
pub mod torch_file;
pub mod zip_directory;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by the names that `scripts/fuzz` knows.
pub const ALL: &[(&str, Target)] = &[
    ("checkpoint", checkpoint::run),
    ("config_json", config_json::run),
    ("dcp_metadata", dcp_metadata::run),
    ("dcp_pieces", dcp_pieces::run),
    ("family_file", family_file::run),
    ("index_json", index_json::run),
    ("layout_name", layout_name::run),
    ("model_directory", model_directory::run),
    ("pickle", pickle::run),
    ("plan_resolve", plan_resolve::run),
    ("safetensors_header", safetensors_header::run),
    ("torch_file", torch_file::run),
    ("zip_directory", zip_directory::run),
];
