//! Children and grandchildren, which do nothing but look at stamps and end.

use super::Stamp;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

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
    let (first, second) = (Stamp::here().expect("a page"), Stamp::here().expect("a page"));
    assert!(!first.is_foreign() && !second.is_foreign());
    assert_ne!(first.number, 0, "a wiped page holds 0");
    assert_eq!(first.number, second.number, "one number for one process");
}

#[test]
fn threads_are_one_process() {
    let numbers: Vec<_> = std::thread::scope(|scope| {
        let stamp = || scope.spawn(|| Stamp::here().expect("a page"));
        let threads: Vec<_> = std::iter::repeat_with(stamp).take(8).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(numbers.iter().all(|stamp| !stamp.is_foreign() && stamp.number == numbers[0].number));
}

#[test]
fn a_child_knows_its_parents_stamps_and_makes_its_own() {
    let parents = Stamp::here().expect("a page");
    let make = || {
        let foreign_at_once = parents.is_foreign();
        let Ok(own) = Stamp::here() else { return 100 };
        let at_home = !own.is_foreign();
        first_broken(&[foreign_at_once, at_home, parents.is_foreign(), own.number != 0])
    };
    assert_eq!(in_child(make), 0, "the first child");
    assert_eq!(in_child(make), 0, "its brother");
    assert!(!parents.is_foreign(), "a child changes nothing for its parent");
    assert!(!Stamp::here().expect("a page").is_foreign());
}

#[test]
fn a_grandchild_knows_the_stamps_of_both() {
    let first = Stamp::here().expect("a page");
    let broken = in_child(|| {
        let Ok(second) = Stamp::here() else { return 100 };
        let broken = in_child(|| {
            let both = first.is_foreign() && second.is_foreign();
            let Ok(third) = Stamp::here() else { return 100 };
            let still = first.is_foreign() && second.is_foreign();
            first_broken(&[both, still, !third.is_foreign()])
        });
        if broken != 0 { 10 + broken } else { first_broken(&[!second.is_foreign()]) }
    });
    assert_eq!(broken, 0);
}

/// A child that makes no stamp of its own leaves the page wiped for its children.
#[test]
fn a_grandchild_of_a_child_without_stamps_knows_them_too() {
    let first = Stamp::here().expect("a page");
    let broken = in_child(|| {
        in_child(|| {
            let at_once = first.is_foreign();
            let Ok(own) = Stamp::here() else { return 100 };
            first_broken(&[at_once, !own.is_foreign(), first.is_foreign()])
        })
    });
    assert_eq!(broken, 0);
}
