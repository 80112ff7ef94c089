//! The array and its index agree after any arming and disarming.

use super::super::testing::{Op, any_op, slot};
use super::*;
use crate::event::Interest;
use crate::poll_bits::PollBits;
use crate::testing::no_children;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use proptest::prelude::*;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const SOURCES: usize = 6;

fn eventfd(value: u32) -> EventFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd")
}

fn level(dirs: Interest) -> ArmRequest {
    ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Level }
}

/// Checks that every slot has its entry, and every entry its slot.
fn check_index(poll: &Poll, armed: &[Option<Interest>], files: &[EventFd]) {
    assert_eq!(poll.fds.len(), armed.iter().flatten().count());
    for (at, armed) in armed.iter().enumerate() {
        let due = armed.map(|dirs| (files[at].as_fd().as_raw_fd(), PollBits::asked(dirs)));
        assert_eq!(poll.fds.entry_of(slot(at)), due, "source {at}");
    }
}

/// Returns the expected reports, in the order of the slots.
fn due(armed: &[Option<Interest>], full: &[bool]) -> Vec<Report> {
    let of = |(at, (armed, &full)): (usize, (&Option<Interest>, &bool))| {
        let mut bits = PollBits::OUT;
        bits.set(PollBits::IN, full);
        let bits = bits & PollBits::asked((*armed)?);
        (!bits.is_empty()).then_some(Report::Fact(slot(at), bits))
    };
    armed.iter().zip(full).enumerate().filter_map(of).collect()
}

proptest! {
    #[test]
    fn entries_and_slots_agree(ops in proptest::collection::vec(any_op(SOURCES, R | W), 1..80)) {
        let mut poll = Poll::new().expect("an eventfd");
        let files: Vec<_> = (0..SOURCES).map(|_| eventfd(0)).collect();
        let (mut armed, mut full) = ([None; SOURCES], [false; SOURCES]);
        let mut notified = false;
        for op in ops {
            match op {
                Op::Arm(at, dirs) => {
                    let applied = poll.arm(slot(at), files[at].as_fd(), level(dirs));
                    let applied = applied.expect("an open file");
                    assert_eq!(applied, ArmOutcome::whole(Trigger::Level));
                    armed[at] = Some(dirs);
                }
                Op::Disarm(at) => {
                    poll.disarm(slot(at), files[at].as_fd());
                    armed[at] = None;
                }
                Op::Remove(at) => {
                    poll.remove(slot(at), files[at].as_fd());
                    armed[at] = None;
                }
                Op::Add(at) => {
                    files[at].write(1).expect("an eventfd that is not full");
                    full[at] = true;
                }
                Op::Take(at) => {
                    let _ = files[at].read();
                    full[at] = false;
                }
                Op::Notify => {
                    poll.wake_handle().notify();
                    notified = true;
                }
                Op::Wait => {
                    let (mut out, due) = (Vec::new(), due(&armed, &full));
                    let wake = poll.wait(Deadline::Now, &mut out).expect("few entries");
                    out.sort_by_key(|report| report.slot().index);
                    assert_eq!(out, due);
                    let is_quiet = !std::mem::take(&mut notified) && due.is_empty();
                    assert_eq!(wake == WaitOutcome::TimedOut, is_quiet);
                    assert!(is_quiet || wake == WaitOutcome::Events);
                }
            }
            check_index(&poll, &armed, &files);
        }
    }
}

#[test]
fn notification_is_no_report_and_comes_once() {
    let mut poll = Poll::new().expect("an eventfd");
    let (file, mut out) = (eventfd(1), Vec::new());
    poll.arm(slot(0), file.as_fd(), level(R)).expect("an open file");
    poll.wake_handle().notify();
    poll.wake_handle().notify();
    assert_eq!(poll.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, [Report::Fact(slot(0), PollBits::IN)], "the last entry is reported");
    poll.disarm(slot(0), file.as_fd());
    out.clear();
    assert_eq!(poll.wait(Deadline::Now, &mut out).expect("a wait"), WaitOutcome::TimedOut);
    poll.wake_handle().notify();
    assert_eq!(poll.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, []);
}

#[test]
fn reports_are_appended() {
    let mut poll = Poll::new().expect("an eventfd");
    let (file, before) = (eventfd(1), Report::Hint(slot(5)));
    poll.arm(slot(0), file.as_fd(), level(R | W)).expect("an open file");
    let mut out = vec![before];
    poll.wait(Deadline::Now, &mut out).expect("a wait");
    assert_eq!(out, [before, Report::Fact(slot(0), PollBits::IN | PollBits::OUT)]);
}

#[test]
fn refused_file_does_not_enter_the_array() {
    let mut poll = Poll::new().expect("an eventfd");
    let path = nix::fcntl::open("/dev/null", OFlag::O_PATH, nix::sys::stat::Mode::empty());
    let path = path.expect("/dev/null exists");
    let refused = poll.arm(slot(3), path.as_fd(), level(R)).expect_err("O_PATH is refused");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    check_index(&poll, &[None; 4], &[]);
    assert_eq!(poll.wait(Deadline::Now, &mut Vec::new()).expect("a wait"), WaitOutcome::TimedOut);
}

#[test]
fn disarmed_source_reports_no_hang_up() {
    let _files_are_ours = no_children();
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(writer);
    let (mut poll, mut out) = (Poll::new().expect("an eventfd"), Vec::new());
    poll.arm(slot(0), reader.as_fd(), level(R)).expect("an open file");
    poll.wait(Deadline::Now, &mut out).expect("a wait");
    assert_eq!(out, [Report::Fact(slot(0), PollBits::HUP)]);
    out.clear();
    poll.disarm(slot(0), reader.as_fd());
    assert_eq!(poll.wait(Deadline::Now, &mut out).expect("a wait"), WaitOutcome::TimedOut);
    assert_eq!(out, []);
}

#[test]
#[should_panic(expected = "a slot keeps its descriptor")]
fn slot_must_keep_its_descriptor() {
    let mut poll = Poll::new().expect("an eventfd");
    let (one, other) = (eventfd(0), eventfd(0));
    poll.arm(slot(0), one.as_fd(), level(R)).expect("an open file");
    let _ = poll.arm(slot(0), other.as_fd(), level(R));
}

#[test]
fn wait_lasts_until_its_deadline() {
    let mut poll = Poll::new().expect("an eventfd");
    let moment = Instant::now() + Duration::from_millis(2);
    let mut wake = WaitOutcome::Interrupted;
    while wake == WaitOutcome::Interrupted {
        wake = poll.wait(Deadline::At(moment), &mut Vec::new()).expect("a wait");
    }
    assert_eq!(wake, WaitOutcome::TimedOut);
    assert!(Instant::now() >= moment);
}
