//! Random operations: no report is missing, and none is false.

use super::super::super::testing::{Op, any_op};
use super::*;
use proptest::prelude::*;

const SOURCES: usize = 6;

/// The expected reports of one source. (An eventfd that is never full is always writable.)
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    armed: Option<Interest>,
    full: bool,
    /// Directions with activity since the last report.
    pending_bits: Interest,
    /// A late report is possible.
    was_armed: bool,
}

impl Expected {
    fn ready(self) -> Interest {
        if self.full { R | W } else { W }
    }

    fn must_be_reported(self) -> bool {
        self.armed.is_some_and(|dirs| dirs.intersects(self.pending_bits & self.ready()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn reports_match_the_kernel(
        ops in proptest::collection::vec(any_op(SOURCES, R | W), 1..80),
    ) {
        for ring in rings() {
            run(ring, &ops);
        }
    }
}

fn run(mut ring: Uring, ops: &[Op]) {
    let files: Vec<_> = (0..SOURCES).map(|_| eventfd(0)).collect();
    let mut all = [Expected::default(); SOURCES];
    let mut notified = false;
    for op in ops {
        match *op {
            Op::Arm(at, dirs) => {
                let applied = ring.watch_for(at, &files[at], dirs);
                let is_old = all[at].armed == Some(dirs);
                assert_eq!(applied, if is_old { NEEDS_POLL } else { WHOLE });
                if !is_old {
                    all[at].pending_bits = all[at].ready();
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
                files[at].write(1).expect("an eventfd that is not full");
                all[at].full = true;
                all[at].pending_bits |= R;
            }
            Op::Take(at) => {
                if files[at].read().is_ok() {
                    all[at].pending_bits |= W;
                }
                all[at].full = false;
            }
            Op::Notify => {
                ring.wake_handle().notify();
                notified = true;
            }
            Op::Wait => check(ring.poll_now(), &mut all, std::mem::take(&mut notified)),
        }
    }
}

fn check((wake, events): (WaitOutcome, Vec<Report>), all: &mut [Expected], notified: bool) {
    let is_quiet = events.is_empty() && !notified;
    assert_eq!(wake, if is_quiet { WaitOutcome::TimedOut } else { WaitOutcome::Events });
    for (at, expected) in all.iter_mut().enumerate() {
        let times = events.iter().filter(|report| report.slot() == slot(at)).count();
        assert!(times <= 1, "source {at} is reported once");
        assert!(times == 1 || !expected.must_be_reported(), "source {at} is missing: {expected:?}");
        assert!(times == 0 || expected.was_armed, "source {at} is unknown: {expected:?}");
        if times == 1 && expected.pending_bits.is_empty() {
            panic!("source {at} had no activity: {expected:?}");
        }
        if times == 1 || expected.armed.is_some() {
            expected.pending_bits = Interest::empty();
        }
    }
    assert!(events.iter().all(|report| matches!(report, Report::Hint(_))));
}
