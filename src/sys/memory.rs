//! Giving memory back.
//!
//! Not here: how much of it anything takes.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "tells the allocator of the C library to return what is free")
)]

/// Returns free memory to the system, where the C library can.
///
/// Opening a checkpoint of a hundred thousand tensors takes more memory than what is kept of it, and a mount lives for days. The allocator
/// alone would keep it all.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes any number, touches only what is free, and locks what it touches.
    unsafe {
        libc::malloc_trim(0);
    }
}
