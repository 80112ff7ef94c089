//! Children and grandchildren, which only check generations and locks.

use super::{ForkGeneration, Lock};
use crate::testing::{is_alone, making_children};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Runs `child` in a forked process, and returns its exit status. The child must neither allocate
/// nor lock: threads of other tests may hold any lock.
fn in_child(child: impl FnOnce() -> u8) -> u8 {
    // SAFETY: the child makes only async-signal-safe calls, and ends by _exit.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let status = i32::from(child());
            // SAFETY: _exit ends the process without running the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => status as u8,
            _ => 255,
        },
        Err(_) => 254,
    }
}

/// Returns the number of the first claim that does not hold; 0 if all do.
fn first_broken(claims: &[bool]) -> u8 {
    claims.iter().position(|&holds| !holds).map_or(0, |at| at as u8 + 1)
}

#[test]
fn generation_is_current_in_its_process() {
    let (first, second) =
        (ForkGeneration::current().expect("a page"), ForkGeneration::current().expect("a page"));
    assert!(!first.is_forked_child() && !second.is_forked_child());
    assert_ne!(first.number, 0, "a wiped page holds 0");
    assert_eq!(first.number, second.number, "one number for each process");
}

/// Alone, because wiping the page makes the generations of other tests foreign.
#[test]
fn racing_threads_agree_on_the_generation() {
    if !is_alone("sys::fork::tests::racing_threads_agree_on_the_generation") {
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
            let is_current = generation
                .is_ok_and(|generation| !generation.is_forked_child() && generation.number != 0);
            torn.fetch_add(usize::from(!is_current), Ordering::SeqCst);
            meet(3 * round + 3);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| _ = scope.spawn(race)));
    assert_eq!(torn.into_inner(), 0, "generations that are foreign to their own process");
}

#[test]
fn child_detects_fork_and_has_own_generation() {
    let _making = making_children();
    let parents = ForkGeneration::current().expect("a page");
    let make = || {
        let is_foreign = parents.is_forked_child();
        let Ok(own) = ForkGeneration::current() else { return 100 };
        let is_current = !own.is_forked_child();
        first_broken(&[is_foreign, is_current, parents.is_forked_child(), own.number != 0])
    };
    assert_eq!(in_child(make), 0, "the first child");
    assert_eq!(in_child(make), 0, "the second child");
    assert!(!parents.is_forked_child(), "a child changes nothing for its parent");
    assert!(!ForkGeneration::current().expect("a page").is_forked_child());
}

#[test]
fn grandchild_detects_both_forks() {
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

/// A child that makes no generation leaves the page wiped for its own children.
#[test]
fn grandchild_detects_fork_without_childs_generation() {
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
fn lock_excludes_other_threads() {
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

/// The thread that holds the lock in the parent does not exist in the child.
#[test]
fn lock_is_free_in_child() {
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
            // SAFETY: alarm touches no memory; it ends a child that waits without limit.
            unsafe { libc::alarm(20) };
            let Ok(own) = ForkGeneration::current() else { return 100 };
            let mut times = 0;
            lock.with(&own, || times += 1);
            lock.with(&own, || times += 1);
            // The child's own child finds the lock free, although the child holds it.
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
        assert!(is_held, "a child does not release its parent's lock");
    });
    assert!(lock.with(&generation, || true), "the lock is free again");
}
