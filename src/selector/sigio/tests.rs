//! Who signals and who stands in the side set, what files are told, and what signals come to.

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
/// The answers to arming: a file that signals, and one in the side set.
const LOUD: ArmOutcome = ArmOutcome { trigger: Trigger::Edge, level: W, look: true, blind: false };
const MUTE: ArmOutcome =
    ArmOutcome { trigger: Trigger::Level, level: Interest::empty(), look: false, blind: false };

fn eventfd(value: u32) -> OwnedFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd").into()
}

fn stream() -> (OwnedFd, OwnedFd) {
    let (here, there) = UnixStream::pair().expect("a pair");
    here.set_nonblocking(true).expect("a socket");
    (here.into(), there.into())
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

/// Without the bands that some files set beside IN and OUT.
fn plain(raw: Report) -> Report {
    let bands = PollBits::READ_BANDS | PollBits::WRITE_BANDS;
    match raw {
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

/// For waits that must end sooner by themselves.
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

/// All that arming may change of a file.
fn state(fd: &OwnedFd) -> (Owner, i32, OFlag) {
    let number = fd.as_raw_fd();
    let owner = Owner::of(number).expect("an open file");
    (owner, owner::signal_of(number).expect("an open file"), flags_of(fd))
}

/// The signals that this thread blocks.
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
        out.iter_mut().for_each(|raw| *raw = plain(*raw));
        out.sort_by_key(|raw| (raw.slot().index, !matches!(raw, Report::Hint(_))));
        (wake, out)
    }

    fn look(&mut self) -> (WaitOutcome, Vec<Report>) {
        self.wait_until(Deadline::Now)
    }

    /// What a file is told that signals this selector.
    fn told(&self, before: (Owner, i32, OFlag)) -> (Owner, i32, OFlag) {
        (Owner::this_thread(), self.signals.signal(), before.2 | OFlag::O_ASYNC)
    }
}

#[test]
fn arming_switches_on_and_disarming_off() {
    let (mut sigio, (here, there)) = (sigio(), stream());
    let before = state(&here);
    put(&there);
    assert_eq!(sigio.watch(0, &here, R), LOUD);
    assert_eq!(state(&here), sigio.told(before));
    assert_eq!(sigio.look(), quiet(), "what is there already sends no signal (a)");
    put(&there);
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(0)]));
    sigio.disarm(slot(0), here.as_fd());
    let silent = (sigio.told(before).0, sigio.told(before).1, before.2);
    assert_eq!(state(&here), silent);
    put(&there);
    assert_eq!(sigio.look(), quiet());
    assert_eq!(sigio.watch(0, &here, R | P), LOUD);
    assert_eq!(state(&here), sigio.told(before));
    put(&there);
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(0)]));
    sigio.remove(slot(0), here.as_fd());
    assert_eq!(state(&here), before);
    put(&there);
    assert_eq!(sigio.look(), quiet());
}

#[test]
fn whatever_a_file_was_told_before_it_is_told_again() {
    for by_drop in [false, true] {
        let ((one, _one), (other, _other), mut sigio) = (stream(), pipe(), sigio());
        owner::set_signal(one.as_raw_fd(), libc::SIGURG).expect("a signal");
        set_flags(&one, OFlag::O_NONBLOCK);
        let before = [state(&one), state(&other)];
        assert_eq!((sigio.watch(0, &one, R), sigio.watch(1, &other, R)), (LOUD, LOUD));
        assert_eq!(state(&one), sigio.told(before[0]));
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
fn a_duplicate_of_what_signals_already_is_looked_at() {
    let (mut sigio, (here, there)) = (sigio(), stream());
    let (twin, before) = (dup(&here).expect("a copy"), state(&here));
    assert_eq!(sigio.watch(0, &here, R), LOUD);
    let told = state(&here);
    assert_eq!(sigio.watch(1, &twin, R), MUTE);
    let entry = |at| sigio.side.entry_of(slot(at)).is_some();
    assert_eq!([0, 1].map(entry), [false, true]);
    put(&there);
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(0), readable(1)]));
    sigio.disarm(slot(1), twin.as_fd());
    assert_eq!(state(&here), told, "it is not its to switch off");
    assert_eq!(sigio.watch(1, &twin, R), MUTE);
    sigio.remove(slot(0), here.as_fd());
    assert_eq!(state(&here), before);
    assert_eq!(sigio.watch(1, &twin, R), MUTE, "until it is registered again");
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![readable(1)]));
    sigio.remove(slot(1), twin.as_fd());
    assert_eq!(sigio.look(), quiet());
    assert_eq!(sigio.watch(1, &twin, R), LOUD);
}

/// Note i.
#[test]
fn a_silenced_file_is_switched_on_again() {
    let (mut sigio, (here, there)) = (sigio(), stream());
    let before = state(&here);
    sigio.watch(0, &here, R);
    set_flags(&here, OFlag::O_NONBLOCK);
    put(&there);
    assert_eq!(sigio.look(), quiet());
    assert_eq!(sigio.watch(0, &here, R), LOUD);
    assert_eq!(state(&here), sigio.told(before));
    put(&there);
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(0)]));
}

/// Note g.
#[test]
fn late_signals_name_nobody_or_who_has_the_number_now() {
    let (mut sigio, (mut here, there)) = (sigio(), stream());
    sigio.watch(0, &here, R);
    put(&there);
    sigio.remove(slot(0), here.as_fd());
    assert_eq!(sigio.look(), quiet());
    // The index is used again, by another file under another number.
    sigio.watch(0, &here, R);
    put(&there);
    sigio.remove(slot(0), here.as_fd());
    let ((elsewhere, peer), next) = (stream(), Slot { generation: 8, ..slot(0) });
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Edge };
    assert_eq!(sigio.arm(next, elsewhere.as_fd(), arm).expect("an open file"), LOUD);
    assert_eq!(sigio.look(), quiet());
    put(&peer);
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![Report::Hint(next)]));
    // The number is used again.
    sigio.watch(1, &here, R);
    put(&there);
    sigio.remove(slot(1), here.as_fd());
    let (other, _other) = stream();
    let _old = dup(&here).expect("a copy");
    dup2(&other, &mut here).expect("two open files");
    assert_eq!(sigio.watch(2, &here, R), LOUD);
    let out = sigio.look().1;
    assert!(out.is_empty() || out == [hint(2)], "{out:?}");
    put(&there);
    assert_eq!(sigio.look(), quiet(), "the old file is silent");
}

#[test]
fn many_signals_are_one_hint_in_each_wait() {
    let (mut sigio, streams) = (sigio(), [stream(), stream(), stream()]);
    for (at, (here, _)) in streams.iter().enumerate() {
        assert_eq!(sigio.watch(at, here, R), LOUD);
    }
    for round in 0..3 {
        (0..200).for_each(|_| put(&streams[1].1));
        put(&streams[2].1);
        let deadline = if round == 1 { late() } else { Deadline::Now };
        let found = sigio.wait_until(deadline);
        assert_eq!(found, (WaitOutcome::Events, vec![hint(1), hint(2)]));
        assert_eq!(sigio.look(), quiet());
        streams.iter().for_each(|(here, _)| empty(here));
    }
}

#[test]
fn signals_and_the_side_set_are_reported_together() {
    let (mut sigio, (here, there), side) = (sigio(), stream(), eventfd(1));
    assert_eq!((sigio.watch(0, &here, R), sigio.watch(1, &side, R)), (LOUD, MUTE));
    for deadline in [Deadline::Now, late()] {
        put(&there);
        assert_eq!(sigio.wait_until(deadline), (WaitOutcome::Events, vec![hint(0), readable(1)]));
        assert_eq!(sigio.wait_until(deadline), (WaitOutcome::Events, vec![readable(1)]));
    }
    empty(&side);
    put(&there);
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(0)]), "the side set has nothing");
    let mut out = vec![hint(5)];
    put(&there);
    put(&side);
    sigio.wait(Deadline::Never, &mut out).expect("a wait");
    assert_eq!(out, [hint(5), readable(1), hint(0)], "appended");
}

#[test]
fn a_signal_ends_a_wait_that_has_begun() {
    let (mut sigio, (here, there), (mine, its)) = (sigio(), stream(), stream());
    sigio.watch(0, &here, R);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut fds = [nix::poll::PollFd::new(its.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).expect("one entry");
            put(&there);
        });
        put(&mine);
        assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![hint(0)]));
    });
}

#[test]
fn a_notification_is_no_report_and_comes_once() {
    let (mut sigio, (here, there), side) = (sigio(), stream(), eventfd(0));
    for is_side in [false, true] {
        sigio.wake_handle().notify();
        sigio.wake_handle().notify();
        assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![]));
        assert_eq!(sigio.look(), quiet());
        let mut wake = [nix::poll::PollFd::new(sigio.wake.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut wake, nix::poll::PollTimeout::ZERO), Ok(0), "{is_side}");
        sigio.watch(0, &here, R);
        put(&there);
        sigio.wake_handle().notify();
        assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![hint(0)]));
        sigio.wait_until(Deadline::after(Some(Duration::from_nanos(1))));
        sigio.watch(1, &side, R);
    }
}

#[test]
fn a_wait_lasts_until_its_deadline() {
    let (mut sigio, (here, _there), side) = (sigio(), stream(), eventfd(0));
    for round in 0..3 {
        let moment = Instant::now() + Duration::from_millis(2);
        let mut found = (WaitOutcome::Interrupted, vec![]);
        while found.0 == WaitOutcome::Interrupted {
            found = sigio.wait_until(Deadline::At(moment));
        }
        assert_eq!(found, quiet(), "{round}");
        assert!(Instant::now() >= moment, "{round}");
        assert_eq!(sigio.look(), quiet());
        let next = if round == 0 { &here } else { &side };
        sigio.watch(round.min(1), next, R);
    }
}

#[test]
fn a_plain_sigio_is_an_overflow_for_every_selector_of_the_thread() {
    let (mut one, mut other, (here, _there)) = (sigio(), sigio(), stream());
    one.watch(0, &here, R);
    for deadline in [Deadline::Now, late()] {
        raise(Signal::SIGIO).expect("it is blocked");
        assert_eq!(one.wait_until(deadline), (WaitOutcome::Overflow, vec![]));
        assert_eq!(one.look(), quiet(), "once");
        assert_eq!(
            other.wait_until(deadline),
            (WaitOutcome::Overflow, vec![]),
            "whoever has read it"
        );
        assert_eq!(other.look(), quiet());
    }
    let mut late = sigio();
    assert_eq!(late.look(), quiet());
}

/// Note f. Alone, because of the limit.
#[test]
fn a_full_queue_is_an_overflow() {
    if !is_alone("selector::sigio::tests::a_full_queue_is_an_overflow") {
        return;
    }
    let (mut one, mut other, (here, there)) = (sigio(), sigio(), stream());
    let side = eventfd(1);
    assert_eq!((one.watch(0, &here, R), one.watch(1, &side, R)), (LOUD, MUTE));
    let (soft, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("a limit");
    setrlimit(Resource::RLIMIT_SIGPENDING, 0, hard).expect("less is allowed");
    put(&there);
    put(&there);
    assert_eq!(one.look(), (WaitOutcome::Overflow, vec![readable(1)]));
    assert_eq!(one.look(), (WaitOutcome::Events, vec![readable(1)]), "once");
    assert_eq!(other.wait_until(late()), (WaitOutcome::Overflow, vec![]));
    assert_eq!(other.look(), quiet());
    setrlimit(Resource::RLIMIT_SIGPENDING, soft, hard).expect("it was so before");
    put(&there);
    assert_eq!(one.look(), (WaitOutcome::Events, vec![hint(0), readable(1)]));
}

/// Alone, because it ends the process if it fails.
#[test]
fn signals_that_are_queued_go_with_the_selector() {
    if !is_alone("selector::sigio::tests::signals_that_are_queued_go_with_the_selector") {
        return;
    }
    let (before, (here, there)) = (blocked(), stream());
    let mut sigio = sigio();
    sigio.watch(0, &here, R);
    put(&there);
    raise(Signal::SIGIO).expect("it is blocked");
    drop(sigio);
    put(&there);
    assert_eq!(blocked(), before, "and here we are");
}

#[test]
fn a_refused_file_enters_nothing() {
    let (mut sigio, path) = (sigio(), OFlag::O_PATH);
    let path = nix::fcntl::open("/dev/null", path, nix::sys::stat::Mode::empty());
    let path = path.expect("every Linux has it");
    for dirs in [R, W, P] {
        let refused = sigio.try_watch(3, &path, dirs).expect_err("for naming only");
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    }
    assert!(sigio.files.len() == 0 && sigio.side.is_empty());
    sigio.remove(slot(3), path.as_fd());
    assert_eq!(sigio.look(), quiet());
}

/// The array's memory of whose file was checked.
#[test]
fn the_array_knows_whom_it_has_had() {
    let (own, file) = (eventfd(0), eventfd(1));
    let mut array = Array::new(&[own.as_fd()]);
    assert!(!array.knows(slot(2)));
    array.forget(slot(2));
    array.take_out(slot(2));
    assert!(!array.knows(slot(2)) && array.is_empty());
    array.put(slot(2), file.as_fd(), PollBits::asked(R));
    assert!(array.knows(slot(2)) && !array.knows(slot(1)) && !array.is_empty());
    array.take_out(slot(2));
    array.take_out(slot(2));
    assert!(array.knows(slot(2)) && array.is_empty(), "it is out, and known");
    array.put(slot(2), file.as_fd(), PollBits::asked(R | W));
    array.put(slot(0), own.as_fd(), PollBits::asked(R));
    array.forget(slot(2));
    assert!(!array.knows(slot(2)) && array.entry_of(slot(2)).is_none());
    assert_eq!(array.entry_of(slot(0)), Some((own.as_raw_fd(), PollBits::asked(R))));
    array.put(slot(2), own.as_fd(), PollBits::asked(R));
    assert_eq!(array.len(), 2, "forgotten, it may have another file");
}
