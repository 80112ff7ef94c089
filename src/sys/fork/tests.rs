//! Children and grandchildren, which do nothing but look at stamps and locks, and end.

use super::{ForkGeneration, Lock};
use crate::testing::{is_alone, making_children};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Runs `child` in a forked process, and gives the number it ends with. What runs there must
/// neither allocate nor lock: other tests' threads may hold any lock at this moment.
fn in_child(child: impl FnOnce() -> u8) -> u8 {
    // SAFETY: the child makes only calls that are safe in a signal handler, and ends by _exit.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let status = i32::from(child());
            // SAFETY: _exit ends the process, and runs nothing of the parent's.
            unsafe { libc::_exit(status) }
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => status as u8,
            _ => 255,
        },
        Err(_) => 254,
    }
}

/// A number that names the first claim that does not hold; 0 if all do.
fn first_broken(claims: &[bool]) -> u8 {
    claims.iter().position(|&holds| !holds).map_or(0, |at| at as u8 + 1)
}

#[test]
fn a_stamp_is_at_home_where_it_was_made() {
    let (first, second) =
        (ForkGeneration::current().expect("a page"), ForkGeneration::current().expect("a page"));
    assert!(!first.is_forked_child() && !second.is_forked_child());
    assert_ne!(first.number, 0, "a wiped page holds 0");
    assert_eq!(first.number, second.number, "one number for one process");
}

/// Alone, because other tests' stamps are foreign as soon as the page is wiped.
#[test]
fn threads_that_name_their_process_at_once_agree() {
    if !is_alone("sys::fork::tests::threads_that_name_their_process_at_once_agree") {
        return;
    }
    const THREADS: usize = 2;
    let page = ForkGeneration::current().expect("a page").page;
    let (arrived, torn) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let meet = |meeting: usize| {
        arrived.fetch_add(1, Ordering::SeqCst);
        for spins in 1_usize.. {
            if arrived.load(Ordering::SeqCst) >= THREADS * meeting {
                return;
            }
            // There may be one processor only.
            if spins % 500 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    let race = || {
        for round in 0..2_000 {
            page.store(0, Ordering::SeqCst);
            meet(3 * round + 1);
            let generation = ForkGeneration::current();
            meet(3 * round + 2);
            let at_home = generation
                .is_ok_and(|generation| !generation.is_forked_child() && generation.number != 0);
            torn.fetch_add(usize::from(!at_home), Ordering::SeqCst);
            meet(3 * round + 3);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| _ = scope.spawn(race)));
    assert_eq!(torn.into_inner(), 0, "stamps that are foreign where they were made");
}

#[test]
fn a_child_knows_its_parents_stamps_and_makes_its_own() {
    let _making = making_children();
    let parents = ForkGeneration::current().expect("a page");
    let make = || {
        let foreign_at_once = parents.is_forked_child();
        let Ok(own) = ForkGeneration::current() else { return 100 };
        let at_home = !own.is_forked_child();
        first_broken(&[foreign_at_once, at_home, parents.is_forked_child(), own.number != 0])
    };
    assert_eq!(in_child(make), 0, "the first child");
    assert_eq!(in_child(make), 0, "its brother");
    assert!(!parents.is_forked_child(), "a child changes nothing for its parent");
    assert!(!ForkGeneration::current().expect("a page").is_forked_child());
}

#[test]
fn a_grandchild_knows_the_stamps_of_both() {
    let _making = making_children();
    let first = ForkGeneration::current().expect("a page");
    let broken = in_child(|| {
        let Ok(second) = ForkGeneration::current() else { return 100 };
        let broken = in_child(|| {
            let both = first.is_forked_child() && second.is_forked_child();
            let Ok(third) = ForkGeneration::current() else { return 100 };
            let still = first.is_forked_child() && second.is_forked_child();
            first_broken(&[both, still, !third.is_forked_child()])
        });
        if broken != 0 { 10 + broken } else { first_broken(&[!second.is_forked_child()]) }
    });
    assert_eq!(broken, 0);
}

/// A child that makes no stamp of its own leaves the page wiped for its children.
#[test]
fn a_grandchild_of_a_child_without_stamps_knows_them_too() {
    let _making = making_children();
    let first = ForkGeneration::current().expect("a page");
    let broken = in_child(|| {
        in_child(|| {
            let at_once = first.is_forked_child();
            let Ok(own) = ForkGeneration::current() else { return 100 };
            first_broken(&[at_once, !own.is_forked_child(), first.is_forked_child()])
        })
    });
    assert_eq!(broken, 0);
}

#[test]
fn one_thread_at_a_time_has_a_lock() {
    const THREADS: usize = 4;
    let (lock, generation) = (Lock::new(), ForkGeneration::current().expect("a page"));
    let (is_taken, intrusions) = (AtomicBool::new(false), AtomicUsize::new(0));
    let meeting = Barrier::new(THREADS);
    let race = || {
        meeting.wait();
        for _ in 0..500 {
            let answer = lock.with(&generation, || {
                let intrudes = is_taken.swap(true, Ordering::SeqCst);
                intrusions.fetch_add(usize::from(intrudes), Ordering::SeqCst);
                std::thread::yield_now();
                is_taken.store(false, Ordering::SeqCst);
                7
            });
            assert_eq!(answer, 7);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| _ = scope.spawn(race)));
    assert_eq!(intrusions.into_inner(), 0);
}

/// Whoever holds a lock in the parent is not there to release it.
#[test]
fn a_child_finds_no_lock_held() {
    let _making = making_children();
    let (lock, generation) = (Lock::new(), ForkGeneration::current().expect("a page"));
    let (held, done) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lock.with(&generation, || {
                held.wait();
                done.wait();
            });
        });
        held.wait();
        let take = || {
            // SAFETY: alarm touches no memory; it ends a child that would wait for ever.
            unsafe { libc::alarm(20) };
            let Ok(own) = ForkGeneration::current() else { return 100 };
            let mut times = 0;
            lock.with(&own, || times += 1);
            lock.with(&own, || times += 1);
            // So does its child, of a lock that it holds itself.
            let broken = lock.with(&own, || {
                in_child(|| {
                    // SAFETY: as above.
                    unsafe { libc::alarm(20) };
                    let Ok(own) = ForkGeneration::current() else { return 100 };
                    first_broken(&[lock.with(&own, || true)])
                })
            });
            if broken != 0 { 10 + broken } else { first_broken(&[times == 2]) }
        };
        let broken = in_child(take);
        let is_held = lock.0.load(Ordering::SeqCst) == generation.number;
        done.wait();
        assert_eq!(broken, 0);
        assert!(is_held, "a child releases nothing of its parent's");
    });
    assert!(lock.with(&generation, || true), "and it is free again");
}
