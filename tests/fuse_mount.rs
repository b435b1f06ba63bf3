//! A mounted tree as programs see it: through the kernel, with a tree in memory behind it.
//!
//! Needs `/dev/fuse`. Where there is none, the tests fail, unless `CKPT_FS_SKIP_FUSE=1` says that this is known.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; mapping a file is unsafe"
)]

#[path = "fuse_mount/fixture.rs"]
mod fixture;
#[path = "fuse_mount/handles.rs"]
mod handles;
#[path = "fuse_mount/lifecycle.rs"]
mod lifecycle;
#[path = "fuse_mount/reading.rs"]
mod reading;
#[path = "fuse_mount/refusing.rs"]
mod refusing;
#[path = "fuse_mount/tree.rs"]
mod tree;
#[path = "fuse_mount/user.rs"]
mod user;
