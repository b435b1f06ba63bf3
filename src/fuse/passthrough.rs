//! Files that the kernel reads by itself: which, and under what numbers it knows them.
//!
//! Every handle of a file must name the same number as long as one of them is open. Only root may hand files to the kernel (Linux 6.9).
//!
//! Not here: what is in the files (`vfs`).

#![expect(
    clippy::disallowed_methods,
    reason = "nothing here is on the way of a read; what is not said has a default"
)]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fuser::{BackingId, InitFlags, KernelConfig, ReplyOpen};
use parking_lot::Mutex;

use crate::sys::memory_file::MemoryFile;
use crate::vfs::Ino;

/// Whether the kernel would take files from this process. Root of a user namespace, as in a container without root, may mount and not do that:
/// files would be assembled for nothing.
fn is_root_of_the_machine() -> bool {
    rustix::process::geteuid().is_root()
        && fs::read_to_string("/proc/self/uid_map").map_or(true, |map| maps_all_users(&map))
}

/// Whether a user namespace is that of the machine: every user has the same number in it and outside.
fn maps_all_users(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The files handed to the kernel.
#[derive(Default)]
pub(super) struct Passthrough {
    is_possible: AtomicBool,
    /// Number and open handles of each.
    registered: Mutex<HashMap<Ino, (Arc<BackingId>, u64)>>,
}

impl Passthrough {
    /// Asks the kernel for it. The files it is handed are on no file system that stands on another, and this one may still be under one.
    pub(super) fn ask_for(&self, config: &mut KernelConfig) {
        let is_granted = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        self.is_possible.store(is_granted && is_root_of_the_machine(), Relaxed);
    }

    pub(super) fn is_possible(&self) -> bool {
        self.is_possible.load(Relaxed)
    }

    /// As if the kernel had granted it.
    #[cfg(test)]
    pub(super) fn pretend(&self) {
        self.is_possible.store(true, Relaxed);
    }

    /// The number of `file`, which takes the place of node `ino` for one more handle.
    ///
    /// # Errors
    /// The kernel refuses; then it is not asked again.
    pub(super) fn register(
        &self,
        ino: Ino,
        file: &MemoryFile,
        reply: &ReplyOpen,
    ) -> io::Result<Arc<BackingId>> {
        let mut registered = self.registered.lock();
        if let Some((id, count)) = registered.get_mut(&ino) {
            *count += 1;
            return Ok(Arc::clone(id));
        }
        let id = reply.open_backing(file).inspect_err(|_| self.is_possible.store(false, Relaxed))?;
        let id = Arc::new(id);
        registered.insert(ino, (Arc::clone(&id), 1));
        Ok(id)
    }

    /// One handle fewer.
    pub(super) fn release(&self, ino: Ino) {
        let mut registered = self.registered.lock();
        if let Some((_, count)) = registered.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                registered.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_users_are_told_from_that_of_the_machine() {
        assert!(maps_all_users("         0          0 4294967295\n"));
        for inner in [
            "         0       1000          1\n",
            "0 0 1\n",
            "0 1000 1\n1 100000 65536\n",
            "0 100000 65536\n",
            "",
        ] {
            assert!(!maps_all_users(inner), "{inner}");
        }
    }
}
