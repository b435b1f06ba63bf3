//! Limits that the kernel is told and that other parts follow.

/// Largest request in bytes: more gains nothing, and every thread keeps a buffer of this size.
pub(super) const MAX_REQUEST: u32 = 1 << 20;
