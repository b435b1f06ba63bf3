//! Figures of mounts for those who collect them: as Prometheus reads them, and over HTTP where that is asked for.
//!
//! Not here: what is counted (`vfs`, `fuse`), which mounts there are (`cli`).

mod exposition;
mod families;
mod http;
mod samples;

pub use exposition::text;
pub use http::{Exporter, bind};
pub use samples::Mount;
