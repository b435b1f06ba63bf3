//! Tests of the pool: what comes back and in which order, whatever the threads do.

use std::collections::BTreeSet;
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;

/// More than any machine has: no thread can be started with it.
const NO_STACK: usize = 1 << 60;

proptest! {
    #[test]
    fn results_come_in_the_order_of_the_items(items in prop::collection::vec(any::<u32>(), 0..200), threads in 0usize..9) {
        let doubled = Pool::new(threads).map(&items, |item| Ok::<_, ()>(u64::from(*item) * 2)).unwrap();
        prop_assert_eq!(doubled, items.iter().map(|item| u64::from(*item) * 2).collect::<Vec<_>>());
    }

    #[test]
    fn of_several_errors_that_of_the_first_item_counts(failing in prop::collection::btree_set(0usize..100, 1..20), threads in 1usize..9) {
        let items: Vec<usize> = (0..100).collect();
        let work = |item: &usize| if failing.contains(item) { Err(*item) } else { Ok(()) };
        let failed = Pool::new(threads).map(&items, work);
        prop_assert!(matches!(failed, Err(Failed::Work(item)) if Some(&item) == failing.first()));
    }
}

#[test]
fn items_are_worked_on_at_the_same_time() {
    // Each waits for the three others.
    let consistent = Barrier::new(4);
    let leaders = Pool::new(4).map(&[(); 4], |()| Ok::<_, ()>(consistent.wait().is_leader())).unwrap();
    assert_eq!(leaders.iter().filter(|is_leader| **is_leader).count(), 1);
}

#[test]
fn where_no_thread_can_be_had_the_calling_one_does_it_all() {
    let own = thread::current().id();
    let ids = Pool::new(8).with_stack(NO_STACK).map(&[(); 20], |()| Ok::<_, ()>(thread::current().id()));
    assert!(ids.unwrap().iter().all(|id| *id == own));
}

#[test]
fn nothing_is_begun_after_an_error() {
    let begun = AtomicUsize::new(0);
    let failed = Pool::new(1).map(&[1, 2, 3, 4], |item| {
        begun.fetch_add(1, Relaxed);
        if *item == 2 { Err("two") } else { Ok(()) }
    });
    assert!(matches!(failed, Err(Failed::Work("two"))));
    assert_eq!(begun.into_inner(), 2);
}

#[test]
fn who_stops_because_another_failed_does_not_speak_for_it() {
    // The first item is begun before the second fails, and ends only because of that.
    let begun = Barrier::new(2);
    let failed = Pool::new(2).map_with(
        &[0, 1],
        || (),
        |(), item, signal| {
            begun.wait();
            if *item == 1 {
                return Err("broken");
            }
            while !signal.says_stop() {
                thread::yield_now();
            }
            Err::<(), _>("stopped")
        },
    );
    assert!(matches!(failed, Err(Failed::Work("broken"))));
}

#[test]
fn a_stop_from_outside_leaves_the_rest_alone() {
    let stop = AtomicBool::new(false);
    let pool = Pool::new(1).stopped_by(&stop);
    let mut begun = BTreeSet::new();
    let seen = Mutex::new(&mut begun);
    let stopped = pool.map_with(
        &[0, 1, 2, 3],
        || (),
        |(), item, signal| {
            seen.lock().insert(*item);
            assert!(!signal.says_stop());
            stop.store(*item == 1, Relaxed);
            Ok::<_, ()>(())
        },
    );
    assert!(matches!(stopped, Err(Failed::Stopped)));
    assert_eq!(begun, BTreeSet::from([0, 1]));
    // Where all was done before, it is done.
    let all = Pool::new(1).map(&[0], |_| Ok::<_, ()>(7)).unwrap();
    assert_eq!(all, [7]);
    let none: [u8; 0] = [];
    assert_eq!(pool.map(&none, |_| Ok::<u8, ()>(0)).unwrap(), none);
}

#[test]
fn a_panic_is_an_error_wherever_it_comes_up() {
    for (threads, stack) in [(1, 1 << 20), (4, 1 << 20), (4, NO_STACK)] {
        let pool = Pool::new(threads).with_stack(stack);
        let failed =
            pool.map(&[0, 1, 2, 3], |item| if *item == 2 { panic!("a bug") } else { Ok::<_, ()>(()) });
        assert!(matches!(failed, Err(Failed::Panicked)));
        let failed = pool.map_with(&[0, 1], || panic!("a bug"), |(): &mut (), _, _| Ok::<_, ()>(()));
        assert!(matches!(failed, Err(Failed::Panicked)));
    }
}

#[test]
fn each_thread_keeps_what_it_made() {
    let made = AtomicUsize::new(0);
    let counts = Pool::new(3).map_with(
        &[(); 50],
        || (made.fetch_add(1, Relaxed), 0),
        |(thread, count), (), _| {
            *count += 1;
            Ok::<_, ()>((*thread, *count))
        },
    );
    let counts = counts.unwrap();
    let of_thread = |thread| counts.iter().filter(move |(by, _)| *by == thread).map(|(_, count)| *count);
    let threads = made.into_inner();
    assert!(threads <= 3);
    for thread in 0..threads {
        let counted: Vec<i32> = of_thread(thread).collect();
        assert_eq!(counted, (1..=counted.len() as i32).collect::<Vec<_>>());
    }
}
