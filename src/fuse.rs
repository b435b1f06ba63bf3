//! The kernel's door: serves a [`Tree`](crate::vfs::Tree) through `/dev/fuse`, and mounts and unmounts it.
//!
//! A translation and nothing more: every decision about files and bytes is the tree's. Mounting is done here and not by
//! the protocol crate, whose unmounting goes by path alone and could hit a mount that took the place of ours.
//!
//! Not here: what the tree shows (`view`), backgrounding and signals (`sys`, `cli`).

#![deny(clippy::disallowed_methods)]

mod adapter;
mod ahead;
mod attr;
mod buffer;
mod control;
mod dispatch;
mod device;
mod errno;
mod error;
mod figures;
mod handed;
mod kept;
mod limits;
mod listing;
mod mount;
pub mod mounts;
mod options;
mod passthrough;
mod requests;

pub use attr::Modes;
pub use device::{DEVICE, helper_program};
pub use control::{ControlError, messages, status, warm};
pub use errno::Warn;
pub use error::{MountError, UnmountError};
pub use figures::Figures;
pub use handed::{Connection, number as descriptor_number};
pub use mount::{Mounted, Unmounter, mount, serve_handed};
pub use options::{Access, MountOptions};

/// File system type of our mounts, as `mount` and `/proc/self/mountinfo` show it.
pub const FILE_SYSTEM_TYPE: &str = "fuse.ckpt-fs";
