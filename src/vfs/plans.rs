//! Plans that were made lately, within a bound of memory; others are made again when they are needed.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::Ino;
use crate::plan::FilePlan;

/// Bytes of plans kept. The plans of a 102B model in one layout take about 5 MB.
const BUDGET: usize = 32 << 20;

/// The plans kept.
#[derive(Debug)]
pub(super) struct Plans {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    plans: LruCache<Ino, Arc<FilePlan>>,
    bytes: usize,
}

impl Plans {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::new(Kept { plans: LruCache::unbounded(), bytes: 0 }) }
    }

    pub(super) fn get(&self, ino: Ino) -> Option<Arc<FilePlan>> {
        self.kept.lock().plans.get(&ino).cloned()
    }

    /// Keeps a plan; those not used for longest give way. The newest stays, whatever its size.
    pub(super) fn put(&self, ino: Ino, plan: Arc<FilePlan>) {
        let mut kept = self.kept.lock();
        kept.bytes += plan.memory();
        if let Some(before) = kept.plans.put(ino, plan) {
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
        for ino in 0..3 {
            plans.put(Ino(ino), plan(BUDGET / 2 - 1000));
            plans.get(Ino(0));
        }
        assert_eq!([0, 1, 2].map(|ino| plans.get(Ino(ino)).is_some()), [true, false, true]);
        plans.put(Ino(9), plan(2 * BUDGET));
        assert_eq!([0, 2, 9].map(|ino| plans.get(Ino(ino)).is_some()), [false, false, true]);
    }
}
