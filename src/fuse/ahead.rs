//! Reading ahead for those who read a file directly from front to back, as loaders do.
//!
//! The kernel asks for such a read a megabyte at a time and waits for each answer, and the reader then spends about as long on making its
//! memory ready for the next one. Meanwhile the thread that answered gathers what will be asked for next. A reader that is faster than that
//! leaves its question with the thread that has begun, and nobody waits.
//!
//! Not here: gathering, and whether the source changed since (`adapter`).

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::aligned::Aligned;

/// Answers held at a time, a megabyte each, with the memory of earlier ones that waits for the next.
pub(super) const MOST_ANSWERS: usize = 16;

/// As much is gathered ahead at a time, the most that the kernel asks for.
const PART: u32 = super::limits::MAX_REQUEST;

/// Requests from this size on are parts of larger reads. The first one of a read is smaller than the others where the reader's memory does
/// not begin with a page.
const LARGE: u32 = PART / 2;

/// Part of a file, as one open handle asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
}

/// What became of a question.
pub(super) enum Taken<R> {
    /// The answer: so many bytes of this buffer.
    Ready(Aligned, usize, R),
    /// Somebody is at it and will answer.
    HandedOver,
    /// Nothing is known of it.
    Nothing(R),
}

/// An answer to be gathered before it is asked for. It must be [`Ahead::finish`]ed.
pub(super) struct Task {
    pub(super) part: Part,
    pub(super) buffer: Aligned,
}

/// The answers that are ready or being gathered; `R` is what a question is answered with.
pub(super) struct Ahead<R> {
    state: Mutex<State<R>>,
}

struct State<R> {
    /// Where the last large read of each handle ended.
    ends: HashMap<u64, u64>,
    /// The oldest first.
    answers: Vec<Answer<R>>,
    spare: Vec<Aligned>,
}

struct Answer<R> {
    part: Part,
    progress: Progress<R>,
}

enum Progress<R> {
    /// Somebody may wait for the first so many bytes of it.
    UnderWay(Option<(u32, R)>),
    Ready(Aligned, usize),
}

impl<R> Default for Ahead<R> {
    fn default() -> Self {
        Self { state: Mutex::new(State { ends: HashMap::new(), answers: Vec::new(), spare: Vec::new() }) }
    }
}

impl<R> Ahead<R> {
    /// Looks for the answer to `part`, or leaves the question with whoever gathers it.
    #[expect(clippy::indexing_slicing, reason = "the index was just found, and nobody else has the lock")]
    pub(super) fn take(&self, part: Part, reply: R) -> Taken<R> {
        let mut state = self.state.lock();
        let is_it = |answer: &Answer<R>| {
            (answer.part.handle, answer.part.offset) == (part.handle, part.offset)
                && answer.part.size >= part.size
        };
        let Some(index) = state.answers.iter().position(is_it) else { return Taken::Nothing(reply) };
        match &mut state.answers[index].progress {
            Progress::UnderWay(waiting @ None) => {
                *waiting = Some((part.size, reply));
                Taken::HandedOver
            }
            // Two threads share the handle and ask for the same.
            Progress::UnderWay(Some(_)) => Taken::Nothing(reply),
            Progress::Ready(..) => match state.answers.remove(index).progress {
                Progress::Ready(buffer, got) => Taken::Ready(buffer, got.min(part.size as usize), reply),
                Progress::UnderWay(_) => Taken::Nothing(reply),
            },
        }
    }

    /// Notes that `part` was read and found whole; says what to gather next, if it looks as if that will be asked for. `end` is where the
    /// tensor ends that the next byte is in. Call it before answering, so that the next question finds that somebody is at it.
    pub(super) fn next(&self, part: Part, end: u64) -> Option<Task> {
        let mut state = self.state.lock();
        let from = part.offset + u64::from(part.size);
        let is_sequential = state.ends.insert(part.handle, from) == Some(part.offset);
        if !is_sequential || part.size < LARGE {
            return None;
        }
        // A loader reads a tensor at a time, and something else before the next one.
        let size = end.saturating_sub(from).min(PART.into()) as u32;
        let next = Part { offset: from, size, ..part };
        let is_known = |answer: &Answer<R>| (answer.part.handle, answer.part.offset) == (part.handle, from);
        if size == 0 || state.answers.iter().any(is_known) || !state.make_room() {
            return None;
        }
        state.answers.push(Answer { part: next, progress: Progress::UnderWay(None) });
        let buffer = match state.spare.pop() {
            Some(spare) => spare,
            None => Aligned::new(PART as usize),
        };
        Some(Task { part: next, buffer })
    }

    /// The answer to a task is there, `got` bytes of it, or cannot be had (`None`). Hands it out where it was asked for meanwhile, with how
    /// many bytes that is.
    #[expect(clippy::indexing_slicing, reason = "the index was just found, and nobody else has the lock")]
    pub(super) fn finish(&self, task: Task, got: Option<usize>) -> Option<(Aligned, usize, R)> {
        let mut state = self.state.lock();
        let Some(index) = state.answers.iter().position(|answer| answer.part == task.part) else {
            // Closed meanwhile.
            state.give_back(task.buffer);
            return None;
        };
        match (&mut state.answers[index].progress, got) {
            (Progress::UnderWay(None), Some(got)) => {
                state.answers[index].progress = Progress::Ready(task.buffer, got);
                None
            }
            (Progress::UnderWay(waiting), _) => {
                let waiting = waiting.take();
                state.answers.remove(index);
                match waiting {
                    Some((size, reply)) => {
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "of what cannot be had there is nothing"
                        )]
                        let got = got.unwrap_or(0).min(size as usize);
                        Some((task.buffer, got, reply))
                    }
                    None => {
                        state.give_back(task.buffer);
                        None
                    }
                }
            }
            (Progress::Ready(..), _) => None,
        }
    }

    /// A buffer is free again.
    pub(super) fn give_back(&self, buffer: Aligned) {
        self.state.lock().give_back(buffer);
    }

    /// A handle was closed: nothing more will be asked for through it.
    pub(super) fn closed(&self, handle: u64) {
        let mut state = self.state.lock();
        state.ends.remove(&handle);
        // One that is under way is given up too; whoever gathers it finds that out at the end.
        let (gone, kept) = std::mem::take(&mut state.answers)
            .into_iter()
            .partition(|answer| answer.part.handle == handle && !answer.is_awaited());
        state.answers = kept;
        let gone: Vec<Answer<R>> = gone;
        gone.into_iter().for_each(|answer| state.recycle(answer));
    }
}

impl<R> Answer<R> {
    fn is_ready(&self) -> bool {
        matches!(self.progress, Progress::Ready(..))
    }

    fn is_awaited(&self) -> bool {
        matches!(self.progress, Progress::UnderWay(Some(_)))
    }
}

impl<R> State<R> {
    /// Whether one more answer may be gathered; the oldest that nobody asked for gives way.
    fn make_room(&mut self) -> bool {
        if self.answers.len() < MOST_ANSWERS {
            return true;
        }
        let Some(index) = self.answers.iter().position(Answer::is_ready) else { return false };
        let oldest = self.answers.remove(index);
        self.recycle(oldest);
        true
    }

    fn recycle(&mut self, answer: Answer<R>) {
        if let Progress::Ready(buffer, _) = answer.progress {
            self.give_back(buffer);
        }
    }

    fn give_back(&mut self, buffer: Aligned) {
        if self.spare.len() + self.answers.len() < MOST_ANSWERS {
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = PART as u64;

    fn part(handle: u64, number: u64) -> Part {
        Part { handle, offset: number * SIZE, size: PART }
    }

    /// The end of a tensor that never ends.
    const FAR: u64 = 1 << 40;

    /// Reads parts in order until one is to be gathered ahead.
    fn task(ahead: &Ahead<u32>, handle: u64, from: u64) -> Task {
        assert!(ahead.next(part(handle, from), FAR).is_none());
        ahead.next(part(handle, from + 1), FAR).unwrap()
    }

    #[test]
    fn what_comes_next_is_ready_when_it_is_asked_for() {
        let ahead = Ahead::default();
        let task = task(&ahead, 1, 0);
        assert_eq!(task.part, part(1, 2));
        assert!(ahead.finish(task, Some(77)).is_none());
        assert!(matches!(ahead.take(part(1, 3), 5), Taken::Nothing(5)));
        assert!(matches!(ahead.take(part(2, 2), 5), Taken::Nothing(5)));
        let Taken::Ready(buffer, 77, 5) = ahead.take(part(1, 2), 5) else { panic!() };
        ahead.give_back(buffer);
        assert!(matches!(ahead.take(part(1, 2), 5), Taken::Nothing(5)));
    }

    #[test]
    fn who_asks_too_early_is_answered_by_the_one_at_it() {
        let ahead = Ahead::default();
        let first = task(&ahead, 1, 0);
        assert!(matches!(ahead.take(part(1, 2), 5), Taken::HandedOver));
        assert!(matches!(ahead.take(part(1, 2), 6), Taken::Nothing(6)));
        assert!(matches!(ahead.finish(first, Some(9)), Some((_, 9, 5))));
        let second = task(&ahead, 2, 0);
        assert!(matches!(ahead.take(part(2, 2), 7), Taken::HandedOver));
        // Also when it fails: the question must be answered.
        assert!(matches!(ahead.finish(second, None), Some((_, 0, 7))));
        assert!(matches!(ahead.take(part(2, 2), 7), Taken::Nothing(7)));
    }

    #[test]
    fn a_tensor_is_read_ahead_to_its_end() {
        let ahead = Ahead::default();
        // A small read that ends where the large one begins: what stands before a tensor.
        assert!(ahead.next(Part { handle: 1, offset: 0, size: 4096 }, FAR).is_none());
        let large = Part { handle: 1, offset: 4096, size: PART };
        let task = ahead.next(large, 4096 + SIZE + 500).unwrap();
        assert_eq!(task.part, Part { handle: 1, offset: 4096 + SIZE, size: 500 });
        ahead.finish(task, Some(500));
        // More than was gathered is another question, less is not.
        assert!(matches!(
            ahead.take(Part { handle: 1, offset: 4096 + SIZE, size: 501 }, 5),
            Taken::Nothing(5)
        ));
        let found = ahead.take(Part { handle: 1, offset: 4096 + SIZE, size: 400 }, 5);
        assert!(matches!(found, Taken::Ready(_, 400, 5)));
        // It ends with the part that was read: there is nothing to gather.
        let next = Part { handle: 1, offset: 4096 + SIZE, size: PART };
        assert!(ahead.next(next, 4096 + 2 * SIZE).is_none());
    }

    #[test]
    fn a_read_into_memory_off_a_page_is_read_ahead_from_its_first_request() {
        let ahead = Ahead::<u32>::default();
        ahead.next(Part { handle: 1, offset: 0, size: 4096 }, FAR);
        let short = PART - 64;
        let task = ahead.next(Part { handle: 1, offset: 4096, size: short }, FAR).unwrap();
        assert_eq!(task.part, Part { handle: 1, offset: 4096 + u64::from(short), size: PART });
    }

    #[test]
    fn only_large_reads_that_go_on_are_read_ahead() {
        let ahead = Ahead::<u32>::default();
        for offset in [0, 5 * SIZE, 7 * SIZE, 3] {
            assert!(ahead.next(Part { handle: 1, offset, size: PART }, FAR).is_none());
        }
        for number in 0..4 {
            assert!(ahead.next(Part { handle: 1, offset: number * 4096, size: 4096 }, FAR).is_none());
        }
        ahead.next(Part { handle: 1, offset: 3, size: PART }, FAR);
        assert!(ahead.next(Part { handle: 1, offset: 3 + SIZE, size: PART }, FAR).is_some());
        // What is being gathered is not gathered twice.
        ahead.next(Part { handle: 1, offset: 3, size: PART }, FAR);
        assert!(ahead.next(Part { handle: 1, offset: 3 + SIZE, size: PART }, FAR).is_none());
    }

    #[test]
    fn answers_are_bounded_and_the_oldest_give_way() {
        let ahead = Ahead::default();
        let most = MOST_ANSWERS as u64;
        for handle in 0..most {
            ahead.finish(task(&ahead, handle, 0), Some(1));
        }
        let last = task(&ahead, most, 0);
        assert!(matches!(ahead.take(part(0, 2), 1), Taken::Nothing(1)));
        assert!(matches!(ahead.take(part(1, 2), 1), Taken::Ready(..)));
        ahead.finish(last, Some(1));
        let under_way: Vec<Task> = (100..100 + most).map(|handle| task(&ahead, handle, 0)).collect();
        assert!(ahead.next(part(0, 1), FAR).is_none());
        for (number, task) in under_way.into_iter().enumerate() {
            ahead.finish(task, Some(number));
        }
        assert!(ahead.state.lock().answers.len() <= MOST_ANSWERS);
        assert!(ahead.state.lock().spare.len() <= MOST_ANSWERS);
    }

    #[test]
    fn closing_forgets() {
        let ahead = Ahead::default();
        ahead.finish(task(&ahead, 1, 0), Some(1));
        let late = task(&ahead, 2, 0);
        ahead.closed(1);
        ahead.closed(2);
        assert!(matches!(ahead.take(part(1, 2), 1), Taken::Nothing(1)));
        assert!(ahead.state.lock().answers.is_empty() && ahead.state.lock().ends.is_empty());
        assert!(ahead.finish(late, Some(1)).is_none());
        assert!(ahead.state.lock().answers.is_empty());
    }

    #[test]
    fn memory_stays_bounded_whoever_comes_and_goes() {
        let ahead = Ahead::default();
        for handle in 0..3 * MOST_ANSWERS as u64 {
            let task = task(&ahead, handle, 0);
            // Some are asked for, some are closed before, some after.
            match handle % 3 {
                0 => ahead.closed(handle),
                1 => assert!(matches!(ahead.take(part(handle, 2), 1), Taken::HandedOver)),
                _ => {}
            }
            if let Some((buffer, ..)) = ahead.finish(task, Some(1)) {
                ahead.give_back(buffer);
            }
            let state = ahead.state.lock();
            assert!(state.answers.len() + state.spare.len() <= MOST_ANSWERS);
        }
    }
}
