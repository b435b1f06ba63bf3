//! Whether this process can mount, what a mount would be able to do, and what to do about the rest.
//!
//! Facts are gathered (`facts`, `file_system`, `trial`), and what they mean is worked out from them alone (`findings`). The trial decides: all else
//! explains. Not here: printing (`cli`).

mod facts;
mod findings;
mod file_system;
mod trial;

use serde::Serialize;

pub use facts::Facts;
pub use findings::{Finding, Mark, examine};
pub use file_system::FileSystem;
pub use trial::{PATIENCE, Trial, trial};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether a mount was made, read and taken away; of one that was not tried, whether nothing is in its way.
    pub mount_possible: bool,
    /// Whether it was tried.
    pub tried: bool,
    /// What was looked at, one by one.
    pub findings: Vec<Finding>,
}
