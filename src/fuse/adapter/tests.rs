//! Every call of the protocol without a kernel: the adapter in a real session, whose other end is a socket of the test.
//!
//! Not here: what programs see through a real kernel (`tests/it/fuse_mount`).

mod control;
mod kernel;
mod listing;
mod opening;
mod operations;
mod reading;
mod tree;
