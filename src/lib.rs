//! `ckpt-fs`: a training checkpoint in any parallel layout, without rewriting it.
//!
//! Data flows one way: `store` -> `format` -> `source` (with a `family`) -> `catalog` -> `view` -> `plan` -> `reader` -> `fuse`,
//! `materialize`, `verify`, `digest`. `docs/architecture.md` draws it on one page; `tests/it/architecture.rs` fails on any other edge.
//!
//! The program is what this crate is for, so its command line is all that others see: whatever it does not use is dead, and the compiler
//! says so. The feature `internals` opens every module to this repository's own tests, benchmarks and fuzz targets; it promises nothing.

#![deny(clippy::indexing_slicing)]
// These two look at what others can see, which is everything or next to nothing.
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub, unused_imports))]

/// Modules of the program, open to its own tests alone.
macro_rules! internal {
    ($($module:ident)+) => {
        $(
            #[cfg(feature = "internals")]
            pub mod $module;
            #[cfg(not(feature = "internals"))]
            pub(crate) mod $module;
        )+
    };
}

pub mod cli;

internal! {
    aligned
    cache
    catalog
    digest
    doctor
    extent
    family
    format
    fuse
    inspect
    layout
    materialize
    metrics
    parallel
    picture
    plan
    reader
    serve
    source
    store
    sys
    tensor
    value
    verify
    vfs
    view
    weights
}
