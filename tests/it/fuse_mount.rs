//! A mounted tree as programs see it: through the kernel, with a tree in memory behind it.
//!
//! Needs `/dev/fuse`. Where there is none, the tests fail, unless `CKPT_FS_SKIP_FUSE=1` says that this is known.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; mapping a file is unsafe"
)]

mod fixture;
mod handles;
mod lifecycle;
mod reading;
mod refusing;
mod tree;
mod user;
