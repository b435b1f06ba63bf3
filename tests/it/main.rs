//! Everything that can run beside other tests in one process: one binary links the crate once, which is most of what a test costs.
//!
//! Not here: `hostile`, which counts what the whole process allocates, and `process`, which forks.

#[macro_use]
mod common;

mod architecture;
mod args;
mod aux_files;
mod bad_input;
mod bad_model;
mod bad_optimizer;
mod cli;
mod configs;
mod copies;
mod dcp_metadata;
mod dcp_pieces;
mod dcp_sources;
mod dcp_view;
mod dcp_write;
mod dist_keys;
mod extra_state;
mod families;
mod faults;
mod fixtures;
mod formats;
mod fuse_mount;
mod idle_options;
mod known_kinds;
mod latent;
mod map;
mod optimizer;
mod other_kinds;
mod package;
mod partial;
mod pickle;
mod plan_model;
mod regressions;
mod serve;
mod torch_dist;
mod torch_dist_view;
mod torch_files;
