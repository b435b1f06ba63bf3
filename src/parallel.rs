//! Work on many items by several threads at once: the one pool that there is.
//!
//! Not here: what is done with an item, and how many threads are good for it.

#![deny(clippy::disallowed_methods)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use parking_lot::Mutex;

/// So many threads, the calling one among them. Where the system gives fewer, those that there are do all of it.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'stop> {
    threads: usize,
    stack: Option<usize>,
    stop: Option<&'stop AtomicBool>,
}

/// Why there is no result for every item.
#[derive(Debug)]
pub enum Failed<E> {
    /// Work on an item failed. Of several, this is the first item's; what failed only because it was told to stop does not count.
    Work(E),
    /// It was stopped from outside.
    Stopped,
    /// Work on an item panicked, which has been said.
    Panicked,
}

/// Tells the work on an item whether there is still a reason for it.
#[derive(Debug)]
pub struct Signal<'pool> {
    failed: &'pool AtomicBool,
    stop: Option<&'pool AtomicBool>,
    was_told: AtomicBool,
}

impl Signal<'_> {
    /// Whether to stop: other work failed, or it is so from outside.
    #[must_use]
    pub fn says_stop(&self) -> bool {
        let stops = self.failed.load(Relaxed) || self.stop.is_some_and(|stop| stop.load(Relaxed));
        self.was_told.fetch_or(stops, Relaxed);
        stops
    }
}

impl<'stop> Pool<'stop> {
    /// A pool of so many threads, at least one.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads, stack: None, stop: None }
    }

    /// The same with so many bytes of stack for each thread that is started.
    #[must_use]
    pub fn with_stack(self, bytes: usize) -> Self {
        Self { stack: Some(bytes), ..self }
    }

    /// The same, stopped when `stop` is set: items that are not begun are left alone.
    #[must_use]
    pub fn stopped_by(self, stop: &'stop AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// Does `work` for every item and returns the results in the order of the items. They are begun in that order too, and none is begun
    /// after one has failed.
    ///
    /// # Errors
    /// [`Failed`]
    pub fn map<T: Sync, R: Send, E: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, Failed<E>> {
        self.map_with(items, || (), |(), item, _| work(item))
    }

    /// As [`Pool::map`], with something that each thread makes for itself and keeps from item to item, and told when to stop.
    ///
    /// # Errors
    /// [`Failed`]
    pub fn map_with<T: Sync, S, R: Send, E: Send>(
        &self,
        items: &[T],
        start: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &T, &Signal<'_>) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, Failed<E>> {
        let shared = Shared::new(self.stop);
        let run = || match catch_unwind(AssertUnwindSafe(&start)) {
            Ok(mut state) => shared.run(items, |item, signal| work(&mut state, item, signal)),
            Err(panic) => shared.panicked(panic),
        };
        thread::scope(|scope| {
            for _ in 1..self.threads.min(items.len()) {
                let builder =
                    self.stack.into_iter().fold(thread::Builder::new(), thread::Builder::stack_size);
                if builder.spawn_scoped(scope, run).is_err() {
                    break;
                }
            }
            run();
        });
        shared.finish(items.len())
    }
}

/// What the threads of one call share.
struct Shared<'stop, R, E> {
    next: AtomicUsize,
    failed: AtomicBool,
    stop: Option<&'stop AtomicBool>,
    outcome: Mutex<Outcome<R, E>>,
}

struct Outcome<R, E> {
    results: Vec<(usize, R)>,
    error: Option<(usize, E)>,
    is_panicked: bool,
}

impl<'stop, R, E> Shared<'stop, R, E> {
    fn new(stop: Option<&'stop AtomicBool>) -> Self {
        let outcome = Outcome { results: Vec::new(), error: None, is_panicked: false };
        Self { next: AtomicUsize::new(0), failed: AtomicBool::new(false), stop, outcome: Mutex::new(outcome) }
    }

    /// Takes items until there are no more, or no reason to go on.
    fn run<T>(&self, items: &[T], mut work: impl FnMut(&T, &Signal<'_>) -> Result<R, E>) {
        loop {
            let signal = Signal { failed: &self.failed, stop: self.stop, was_told: AtomicBool::new(false) };
            if signal.says_stop() {
                return;
            }
            let index = self.next.fetch_add(1, Relaxed);
            let Some(item) = items.get(index) else { return };
            match catch_unwind(AssertUnwindSafe(|| work(item, &signal))) {
                Ok(Ok(result)) => self.outcome.lock().results.push((index, result)),
                Ok(Err(error)) => self.failed(index, error, signal.was_told.into_inner()),
                Err(panic) => self.panicked(panic),
            }
        }
    }

    fn failed(&self, index: usize, error: E, was_told: bool) {
        let mut outcome = self.outcome.lock();
        let counts = match &outcome.error {
            Some((first, _)) => index < *first && !was_told,
            None => true,
        };
        if counts {
            outcome.error = Some((index, error));
        }
        // Noted before the others are told, whose own error would be that they were stopped.
        self.failed.store(true, Relaxed);
    }

    /// The panic's own words were said when it came up.
    fn panicked(&self, _: Box<dyn Any + Send>) {
        self.outcome.lock().is_panicked = true;
        self.failed.store(true, Relaxed);
    }

    fn finish(self, items: usize) -> Result<Vec<R>, Failed<E>> {
        let Outcome { mut results, error, is_panicked } = self.outcome.into_inner();
        if is_panicked {
            return Err(Failed::Panicked);
        }
        if let Some((_, error)) = error {
            return Err(Failed::Work(error));
        }
        if results.len() != items {
            return Err(Failed::Stopped);
        }
        results.sort_by_key(|(index, _)| *index);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

#[cfg(test)]
mod tests;
