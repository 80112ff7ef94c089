//! Signalling files and the fallback set, the state of claimed files, and the handling of signals.

mod owners;
mod scripts;
#[cfg(feature = "conformance")]
mod staged;

use super::*;
use crate::poll_bits::PollBits;
use crate::testing::{is_alone, no_children};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, raise};
use nix::unistd::{dup, dup2, pipe2, read, write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;
/// The outcomes of arming: a file that signals, and one in the fallback set.
const SIGNALS: ArmOutcome = ArmOutcome {
    trigger: Trigger::Edge,
    level: W,
    needs_initial_poll: true,
    needs_poll_each_wait: false,
};
const FALLBACK: ArmOutcome = ArmOutcome {
    trigger: Trigger::Level,
    level: Interest::empty(),
    needs_initial_poll: false,
    needs_poll_each_wait: false,
};

fn eventfd(value: u32) -> OwnedFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd").into()
}

fn stream() -> (OwnedFd, OwnedFd) {
    let (local, peer) = UnixStream::pair().expect("a pair");
    local.set_nonblocking(true).expect("a socket");
    (local.into(), peer.into())
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).expect("a pipe")
}

fn put(fd: &OwnedFd) {
    assert_eq!(write(fd, &1_u64.to_ne_bytes()), Ok(8));
}

fn empty(fd: &OwnedFd) {
    while read(fd, &mut [0; 4096]).is_ok_and(|length| length > 0) {}
}

fn fill(fd: &OwnedFd) {
    while write(fd, &[0; 4096]).is_ok() {}
}

fn slot(index: usize) -> Slot {
    Slot { index: index as u32, generation: 7 }
}

fn hint(at: usize) -> Report {
    Report::Hint(slot(at))
}

/// Removes the bands that some files set together with IN and OUT.
fn plain(report: Report) -> Report {
    let bands = PollBits::READ_BANDS | PollBits::WRITE_BANDS;
    match report {
        Report::Fact(slot, bits) => Report::Fact(slot, bits - bands),
        Report::Partial(slot, bits) => Report::Partial(slot, bits - bands),
        Report::Hint(slot) => Report::Hint(slot),
    }
}

fn readable(at: usize) -> Report {
    Report::Fact(slot(at), PollBits::IN)
}

fn quiet() -> (WaitOutcome, Vec<Report>) {
    (WaitOutcome::TimedOut, vec![])
}

/// The deadline of waits that must end before it.
fn late() -> Deadline {
    Deadline::after(Some(Duration::from_secs(60)))
}

fn sigio() -> Sigio {
    Sigio::new().expect("a free signal")
}

fn flags_of(fd: &OwnedFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("an open file"))
}

fn set_flags(fd: &OwnedFd, flags: OFlag) {
    fcntl(fd, FcntlArg::F_SETFL(flags)).expect("an open file");
}

/// Returns the state of a file that arming may change.
fn state(fd: &OwnedFd) -> (Owner, i32, OFlag) {
    let raw_fd = fd.as_raw_fd();
    let owner = Owner::of(raw_fd).expect("an open file");
    (owner, owner::signal_of(raw_fd).expect("an open file"), flags_of(fd))
}

/// Returns the signal mask of this thread.
fn blocked() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("a mounted /proc");
    status.lines().find(|line| line.starts_with("SigBlk")).expect("a line for it").to_owned()
}

impl Sigio {
    fn try_watch(&mut self, at: usize, fd: &OwnedFd, dirs: Interest) -> io::Result<ArmOutcome> {
        self.arm(
            slot(at),
            fd.as_fd(),
            ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Edge },
        )
    }

    fn watch(&mut self, at: usize, fd: &OwnedFd, dirs: Interest) -> ArmOutcome {
        self.try_watch(at, fd, dirs).expect("an open file")
    }

    fn wait_until(&mut self, deadline: Deadline) -> (WaitOutcome, Vec<Report>) {
        let mut out = Vec::new();
        let wake = self.wait(deadline, &mut out).expect("few entries");
        out.iter_mut().for_each(|report| *report = plain(*report));
        out.sort_by_key(|report| (report.slot().index, !matches!(report, Report::Hint(_))));
        (wake, out)
    }

    fn poll_now(&mut self) -> (WaitOutcome, Vec<Report>) {
        self.wait_until(Deadline::Now)
    }

    /// Returns the state of a file that this selector has claimed.
    fn claimed(&self, before: (Owner, i32, OFlag)) -> (Owner, i32, OFlag) {
        (Owner::this_thread(), self.signals.signal(), before.2 | OFlag::O_ASYNC)
    }
}

#[test]
fn arm_and_disarm_switch_o_async() {
    let (mut sigio, (local, peer)) = (sigio(), stream());
    let before = state(&local);
    put(&peer);
    assert_eq!(sigio.watch(0, &local, R), SIGNALS);
    assert_eq!(state(&local), sigio.claimed(before));
    assert_eq!(sigio.poll_now(), quiet(), "present data sends no signal (a)");
    put(&peer);
    assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![hint(0)]));
    sigio.disarm(slot(0), local.as_fd());
    let silent = (sigio.claimed(before).0, sigio.claimed(before).1, before.2);
    assert_eq!(state(&local), silent);
    put(&peer);
    assert_eq!(sigio.poll_now(), quiet());
    assert_eq!(sigio.watch(0, &local, R | P), SIGNALS);
    assert_eq!(state(&local), sigio.claimed(before));
    put(&peer);
    assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![hint(0)]));
    sigio.remove(slot(0), local.as_fd());
    assert_eq!(state(&local), before);
    put(&peer);
    assert_eq!(sigio.poll_now(), quiet());
}

#[test]
fn remove_and_drop_restore_file_state() {
    for by_drop in [false, true] {
        let ((one, _one), (other, _other), mut sigio) = (stream(), pipe(), sigio());
        owner::set_signal(one.as_raw_fd(), libc::SIGURG).expect("a signal");
        set_flags(&one, OFlag::O_NONBLOCK);
        let before = [state(&one), state(&other)];
        assert_eq!((sigio.watch(0, &one, R), sigio.watch(1, &other, R)), (SIGNALS, SIGNALS));
        assert_eq!(state(&one), sigio.claimed(before[0]));
        sigio.disarm(slot(1), other.as_fd());
        if !by_drop {
            sigio.remove(slot(0), one.as_fd());
            sigio.remove(slot(1), other.as_fd());
        } else {
            drop(sigio);
        }
        assert_eq!([state(&one), state(&other)], before, "{by_drop}");
    }
}

#[test]
fn duplicate_of_signalling_file_is_polled() {
    let (mut sigio, (local, peer)) = (sigio(), stream());
    let (duplicate, before) = (dup(&local).expect("a copy"), state(&local));
    assert_eq!(sigio.watch(0, &local, R), SIGNALS);
    let claimed = state(&local);
    assert_eq!(sigio.watch(1, &duplicate, R), FALLBACK);
    let entry = |at| sigio.fallback.entry_of(slot(at)).is_some();
    assert_eq!([0, 1].map(entry), [false, true]);
    put(&peer);
    assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![hint(0), readable(1)]));
    sigio.disarm(slot(1), duplicate.as_fd());
    assert_eq!(state(&local), claimed, "a duplicate does not clear O_ASYNC");
    assert_eq!(sigio.watch(1, &duplicate, R), FALLBACK);
    sigio.remove(slot(0), local.as_fd());
    assert_eq!(state(&local), before);
    assert_eq!(sigio.watch(1, &duplicate, R), FALLBACK, "until it is registered again");
    assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![readable(1)]));
    sigio.remove(slot(1), duplicate.as_fd());
    assert_eq!(sigio.poll_now(), quiet());
    assert_eq!(sigio.watch(1, &duplicate, R), SIGNALS);
}

/// Note i.
#[test]
fn arm_reenables_a_silenced_file() {
    let (mut sigio, (local, peer)) = (sigio(), stream());
    let before = state(&local);
    sigio.watch(0, &local, R);
    set_flags(&local, OFlag::O_NONBLOCK);
    put(&peer);
    assert_eq!(sigio.poll_now(), quiet());
    assert_eq!(sigio.watch(0, &local, R), SIGNALS);
    assert_eq!(state(&local), sigio.claimed(before));
    put(&peer);
    assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![hint(0)]));
}

/// Note g.
#[test]
fn late_signals_match_only_current_descriptors() {
    let (mut sigio, (mut local, peer)) = (sigio(), stream());
    sigio.watch(0, &local, R);
    put(&peer);
    sigio.remove(slot(0), local.as_fd());
    assert_eq!(sigio.poll_now(), quiet());
    // The index is reused, by another file under another descriptor.
    sigio.watch(0, &local, R);
    put(&peer);
    sigio.remove(slot(0), local.as_fd());
    let ((elsewhere, elsewhere_peer), next) = (stream(), Slot { generation: 8, ..slot(0) });
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Edge };
    assert_eq!(sigio.arm(next, elsewhere.as_fd(), arm).expect("an open file"), SIGNALS);
    assert_eq!(sigio.poll_now(), quiet());
    put(&elsewhere_peer);
    assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![Report::Hint(next)]));
    // The descriptor is reused.
    sigio.watch(1, &local, R);
    put(&peer);
    sigio.remove(slot(1), local.as_fd());
    let (other, _other) = stream();
    let _old = dup(&local).expect("a copy");
    dup2(&other, &mut local).expect("two open files");
    assert_eq!(sigio.watch(2, &local, R), SIGNALS);
    let out = sigio.poll_now().1;
    assert!(out.is_empty() || out == [hint(2)], "{out:?}");
    put(&peer);
    assert_eq!(sigio.poll_now(), quiet(), "the old file sends no signal");
}

#[test]
fn signals_coalesce_into_one_hint_each_wait() {
    let (mut sigio, streams) = (sigio(), [stream(), stream(), stream()]);
    for (at, (local, _)) in streams.iter().enumerate() {
        assert_eq!(sigio.watch(at, local, R), SIGNALS);
    }
    for round in 0..3 {
        (0..200).for_each(|_| put(&streams[1].1));
        put(&streams[2].1);
        let deadline = if round == 1 { late() } else { Deadline::Now };
        let found = sigio.wait_until(deadline);
        assert_eq!(found, (WaitOutcome::Events, vec![hint(1), hint(2)]));
        assert_eq!(sigio.poll_now(), quiet());
        streams.iter().for_each(|(local, _)| empty(local));
    }
}

#[test]
fn signals_and_fallback_set_are_reported_together() {
    let (mut sigio, (local, peer), fallback) = (sigio(), stream(), eventfd(1));
    assert_eq!((sigio.watch(0, &local, R), sigio.watch(1, &fallback, R)), (SIGNALS, FALLBACK));
    for deadline in [Deadline::Now, late()] {
        put(&peer);
        assert_eq!(sigio.wait_until(deadline), (WaitOutcome::Events, vec![hint(0), readable(1)]));
        assert_eq!(sigio.wait_until(deadline), (WaitOutcome::Events, vec![readable(1)]));
    }
    empty(&fallback);
    put(&peer);
    assert_eq!(
        sigio.poll_now(),
        (WaitOutcome::Events, vec![hint(0)]),
        "the fallback set has no report"
    );
    let mut out = vec![hint(5)];
    put(&peer);
    put(&fallback);
    sigio.wait(Deadline::Never, &mut out).expect("a wait");
    assert_eq!(out, [hint(5), readable(1), hint(0)], "appended");
}

#[test]
fn signal_ends_a_sleeping_wait() {
    let (mut sigio, (local, peer), (signal_start, started)) = (sigio(), stream(), stream());
    sigio.watch(0, &local, R);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut fds = [nix::poll::PollFd::new(started.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).expect("one entry");
            put(&peer);
        });
        put(&signal_start);
        assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![hint(0)]));
    });
}

#[test]
fn notification_is_no_report_and_comes_once() {
    let (mut sigio, (local, peer), fallback) = (sigio(), stream(), eventfd(0));
    for is_side in [false, true] {
        sigio.wake_handle().notify();
        sigio.wake_handle().notify();
        assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![]));
        assert_eq!(sigio.poll_now(), quiet());
        let mut wake = [nix::poll::PollFd::new(sigio.wake.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut wake, nix::poll::PollTimeout::ZERO), Ok(0), "{is_side}");
        sigio.watch(0, &local, R);
        put(&peer);
        sigio.wake_handle().notify();
        assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![hint(0)]));
        sigio.wait_until(Deadline::after(Some(Duration::from_nanos(1))));
        sigio.watch(1, &fallback, R);
    }
}

#[test]
fn wait_lasts_until_its_deadline() {
    let (mut sigio, (local, _peer), fallback) = (sigio(), stream(), eventfd(0));
    for round in 0..3 {
        let moment = Instant::now() + Duration::from_millis(2);
        let mut found = (WaitOutcome::Interrupted, vec![]);
        while found.0 == WaitOutcome::Interrupted {
            found = sigio.wait_until(Deadline::At(moment));
        }
        assert_eq!(found, quiet(), "{round}");
        assert!(Instant::now() >= moment, "{round}");
        assert_eq!(sigio.poll_now(), quiet());
        let next = if round == 0 { &local } else { &fallback };
        sigio.watch(round.min(1), next, R);
    }
}

#[test]
fn plain_sigio_is_overflow_for_all_selectors() {
    let (mut one, mut other, (local, _peer)) = (sigio(), sigio(), stream());
    one.watch(0, &local, R);
    for deadline in [Deadline::Now, late()] {
        raise(Signal::SIGIO).expect("a blocked signal");
        assert_eq!(one.wait_until(deadline), (WaitOutcome::Overflow, vec![]));
        assert_eq!(one.poll_now(), quiet(), "once");
        assert_eq!(
            other.wait_until(deadline),
            (WaitOutcome::Overflow, vec![]),
            "the overflow reaches each selector"
        );
        assert_eq!(other.poll_now(), quiet());
    }
    let mut late = sigio();
    assert_eq!(late.poll_now(), quiet());
}

/// Note f. Alone, because of the limit.
#[test]
fn full_signal_queue_is_an_overflow() {
    if !is_alone("selector::sigio::tests::full_signal_queue_is_an_overflow") {
        return;
    }
    let (mut one, mut other, (local, peer)) = (sigio(), sigio(), stream());
    let fallback = eventfd(1);
    assert_eq!((one.watch(0, &local, R), one.watch(1, &fallback, R)), (SIGNALS, FALLBACK));
    let (soft, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("a limit");
    setrlimit(Resource::RLIMIT_SIGPENDING, 0, hard).expect("a lower limit");
    put(&peer);
    put(&peer);
    assert_eq!(one.poll_now(), (WaitOutcome::Overflow, vec![readable(1)]));
    assert_eq!(one.poll_now(), (WaitOutcome::Events, vec![readable(1)]), "once");
    assert_eq!(other.wait_until(late()), (WaitOutcome::Overflow, vec![]));
    assert_eq!(other.poll_now(), quiet());
    setrlimit(Resource::RLIMIT_SIGPENDING, soft, hard).expect("the previous limit");
    put(&peer);
    assert_eq!(one.poll_now(), (WaitOutcome::Events, vec![hint(0), readable(1)]));
}

/// Alone, because it ends the process if it fails.
#[test]
fn drop_discards_queued_signals() {
    if !is_alone("selector::sigio::tests::drop_discards_queued_signals") {
        return;
    }
    let (before, (local, peer)) = (blocked(), stream());
    let mut sigio = sigio();
    sigio.watch(0, &local, R);
    put(&peer);
    raise(Signal::SIGIO).expect("a blocked signal");
    drop(sigio);
    put(&peer);
    assert_eq!(blocked(), before, "the mask is restored");
}

#[test]
fn refused_file_leaves_no_state() {
    let (mut sigio, path) = (sigio(), OFlag::O_PATH);
    let path = nix::fcntl::open("/dev/null", path, nix::sys::stat::Mode::empty());
    let path = path.expect("/dev/null exists");
    for dirs in [R, W, P] {
        let refused = sigio.try_watch(3, &path, dirs).expect_err("O_PATH is refused");
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    }
    assert!(sigio.files.len() == 0 && sigio.fallback.is_empty());
    sigio.remove(slot(3), path.as_fd());
    assert_eq!(sigio.poll_now(), quiet());
}

/// The array remembers which files were checked.
#[test]
fn poll_fds_remember_excluded_slots() {
    let (own, file) = (eventfd(0), eventfd(1));
    let mut array = PollFds::new(&[own.as_fd()]);
    assert!(!array.is_known(slot(2)));
    array.remove(slot(2));
    array.exclude(slot(2));
    assert!(!array.is_known(slot(2)) && array.is_empty());
    array.put(slot(2), file.as_fd(), PollBits::asked(R));
    assert!(array.is_known(slot(2)) && !array.is_known(slot(1)) && !array.is_empty());
    array.exclude(slot(2));
    array.exclude(slot(2));
    assert!(array.is_known(slot(2)) && array.is_empty(), "the slot is excluded, and known");
    array.put(slot(2), file.as_fd(), PollBits::asked(R | W));
    array.put(slot(0), own.as_fd(), PollBits::asked(R));
    array.remove(slot(2));
    assert!(!array.is_known(slot(2)) && array.entry_of(slot(2)).is_none());
    assert_eq!(array.entry_of(slot(0)), Some((own.as_raw_fd(), PollBits::asked(R))));
    array.put(slot(2), own.as_fd(), PollBits::asked(R));
    assert_eq!(array.len(), 2, "a removed slot may have another file");
}
