//! Plans that were made lately, within a bound of memory; others are made again when they are needed.
//!
//! Not here: how a plan is made (`view`), and by what number a file is known (`vfs`, `serve`).

use std::hash::Hash;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::plan::FilePlan;

/// Bytes of plans kept. The plans of a 102B model in one layout take about 5 MB.
const BUDGET: usize = 32 << 20;

/// The plans kept, each under what its file is known by.
#[derive(Debug)]
pub struct Plans<K: Hash + Eq> {
    kept: Mutex<Kept<K>>,
}

#[derive(Debug)]
struct Kept<K: Hash + Eq> {
    plans: LruCache<K, Arc<FilePlan>>,
    bytes: usize,
}

impl<K: Hash + Eq> Default for Plans<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq> Plans<K> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { kept: Mutex::new(Kept { plans: LruCache::unbounded(), bytes: 0 }) }
    }

    /// The plan of a file, if it is kept.
    pub fn get(&self, file: &K) -> Option<Arc<FilePlan>> {
        self.kept.lock().plans.get(file).cloned()
    }

    /// Keeps a plan; those not used for longest give way. The newest stays, whatever its size.
    pub fn put(&self, file: K, plan: Arc<FilePlan>) {
        let mut kept = self.kept.lock();
        kept.bytes += plan.memory();
        if let Some(before) = kept.plans.put(file, plan) {
            kept.bytes -= before.memory();
        }
        while kept.bytes > BUDGET && kept.plans.len() > 1 {
            let Some((_, oldest)) = kept.plans.pop_lru() else { return };
            kept.bytes -= oldest.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Builder;

    fn plan(bytes: usize) -> Arc<FilePlan> {
        let mut builder = Builder::new();
        builder.literal(vec![0; bytes]);
        Arc::new(builder.finish())
    }

    #[test]
    fn the_least_used_give_way() {
        let plans = Plans::new();
        for file in 0..3 {
            plans.put(file, plan(BUDGET / 2 - 1000));
            plans.get(&0);
        }
        assert_eq!([0, 1, 2].map(|file| plans.get(&file).is_some()), [true, false, true]);
        plans.put(9, plan(2 * BUDGET));
        assert_eq!([0, 2, 9].map(|file| plans.get(&file).is_some()), [false, false, true]);
    }
}
