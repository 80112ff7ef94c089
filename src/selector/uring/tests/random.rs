//! Anything, in any order: no report is missing, and none is made up.

use super::super::super::testing::{Op, any_op};
use super::*;
use proptest::prelude::*;

const SOURCES: usize = 6;

/// What is expected of one source. (An eventfd that is never full always has room.)
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    armed: Option<Interest>,
    full: bool,
    /// Directions that something has happened to since the last report.
    news: Interest,
    /// There may be a late report.
    was_armed: bool,
}

impl Expected {
    fn ready(self) -> Interest {
        if self.full { R | W } else { W }
    }

    fn must_be_told(self) -> bool {
        self.armed.is_some_and(|dirs| dirs.intersects(self.news & self.ready()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn reports_are_those_of_the_kernel(
        ops in proptest::collection::vec(any_op(SOURCES, R | W), 1..80),
    ) {
        for ring in rings() {
            play(ring, &ops);
        }
    }
}

fn play(mut ring: Uring, ops: &[Op]) {
    let files: Vec<_> = (0..SOURCES).map(|_| eventfd(0)).collect();
    let mut all = [Expected::default(); SOURCES];
    let mut notified = false;
    for op in ops {
        match *op {
            Op::Arm(at, dirs) => {
                let applied = ring.watch_for(at, &files[at], dirs);
                let is_old = all[at].armed == Some(dirs);
                assert_eq!(applied, if is_old { LOOK } else { WHOLE });
                if !is_old {
                    all[at].news = all[at].ready();
                }
                (all[at].armed, all[at].was_armed) = (Some(dirs), true);
            }
            Op::Disarm(at) => {
                ring.disarm(slot(at), files[at].as_fd());
                all[at].armed = None;
            }
            Op::Remove(at) => {
                ring.remove(slot(at), files[at].as_fd());
                all[at] = Expected { full: all[at].full, ..Expected::default() };
            }
            Op::Add(at) => {
                files[at].write(1).expect("it is never full");
                all[at].full = true;
                all[at].news |= R;
            }
            Op::Take(at) => {
                if files[at].read().is_ok() {
                    all[at].news |= W;
                }
                all[at].full = false;
            }
            Op::Notify => {
                ring.wake_handle().notify();
                notified = true;
            }
            Op::Wait => check(ring.look(), &mut all, std::mem::take(&mut notified)),
        }
    }
}

fn check((wake, told): (WaitOutcome, Vec<Report>), all: &mut [Expected], notified: bool) {
    let is_quiet = told.is_empty() && !notified;
    assert_eq!(wake, if is_quiet { WaitOutcome::TimedOut } else { WaitOutcome::Events });
    for (at, expected) in all.iter_mut().enumerate() {
        let times = told.iter().filter(|raw| raw.slot() == slot(at)).count();
        assert!(times <= 1, "source {at} is told once");
        assert!(times == 1 || !expected.must_be_told(), "source {at} is missing: {expected:?}");
        assert!(times == 0 || expected.was_armed, "source {at} is unknown: {expected:?}");
        if times == 1 && expected.news.is_empty() {
            panic!("nothing has happened to source {at}: {expected:?}");
        }
        if times == 1 || expected.armed.is_some() {
            expected.news = Interest::empty();
        }
    }
    assert!(told.iter().all(|raw| matches!(raw, Report::Hint(_))));
}
