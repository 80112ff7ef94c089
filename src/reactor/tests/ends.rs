//! Clause E5 with emulated edges: the ends the selector is asked for, and the reactor's own polls.

use super::fake::{Call, FakeReactor, slot};
use crate::event::{Interest, Mode, Readiness, Token};
use crate::key::Key;
use crate::poll_bits::PollBits;
use crate::poller::Poller;
use crate::selector::{Deadline, Report, Trigger, Triggers};
use nix::fcntl::OFlag;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const NONE: Interest = Interest::empty();
const POLL: Call = Call::Wait(Deadline::Now);
const HUP: PollBits = PollBits::HUP;
const ENDS: PollBits = PollBits::HUP.union(PollBits::ERR);
const READ_END: Readiness = Readiness::READABLE.union(Readiness::READ_CLOSED);
const BROKEN: Readiness =
    Readiness::WRITABLE.union(Readiness::WRITE_CLOSED).union(Readiness::ERROR);

/// Makes a pipe, reader first.
fn pipe() -> (Arc<OwnedFd>, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).expect("pipe");
    (Arc::new(reader), writer)
}

/// Returns the readiness of a wait's only event; empty without an event.
fn readiness(cx: &mut FakeReactor) -> Readiness {
    assert!(cx.poll_now().len() <= 1);
    cx.events.iter().map(|event| event.readiness).collect()
}

/// Returns the readiness of a wait in which the selector reports these bits.
fn report(cx: &mut FakeReactor, key: Key, bits: PollBits) -> Readiness {
    cx.script.borrow_mut().report(&[Report::Fact(slot(key), bits)]);
    readiness(cx)
}

#[test]
fn end_is_watched_until_reported() {
    for trigger in [Trigger::Level, Trigger::OneShot] {
        let native = if trigger == Trigger::Level { Triggers::LEVEL } else { Triggers::ONESHOT };
        let mut cx = FakeReactor::new(native, 4);
        let (reader, writer) = pipe();
        let writer = Arc::new(writer);
        let key = cx.reactor.register(writer, Token(0), W, Mode::Edge).expect("fresh");
        assert_eq!(cx.take_calls(), [Call::Arm(slot(key), W, trigger)]);
        assert_eq!(report(&mut cx, key, PollBits::OUT), Readiness::WRITABLE);
        cx.take_calls();
        cx.poll_now();
        assert_eq!(cx.take_calls(), [Call::ArmWithEnds(slot(key), NONE, ENDS, trigger), POLL]);
        cx.poll_now();
        assert_eq!(cx.take_calls(), [POLL], "armed once");
        drop(reader);
        assert_eq!(report(&mut cx, key, PollBits::ERR), BROKEN);
        cx.take_calls();
        let disarmed = [Call::Disarm(slot(key)), POLL];
        assert_eq!(readiness(&mut cx), Readiness::empty());
        let calls = cx.take_calls();
        // A one-shot trigger is disarmed already.
        assert_eq!(calls, disarmed[usize::from(trigger == Trigger::OneShot)..]);
        for _ in 0..3 {
            cx.reactor.drained(key, W).expect("known");
            assert_eq!(readiness(&mut cx), Readiness::empty(), "the end is still there");
        }
        assert_eq!(cx.take_calls(), [POLL; 3], "nothing is watched");
        cx.reactor.rearm(key, W).expect("known");
        assert_eq!(cx.take_calls(), [Call::Arm(slot(key), W, trigger)]);
    }
}

/// An end is reported alone while there are data. The data are not new afterwards.
#[test]
fn data_with_end_are_polled() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let (reader, writer) = pipe();
    let key = cx.reactor.register(reader.clone(), Token(0), R, Mode::Edge).expect("fresh");
    nix::unistd::write(&writer, b"x").expect("room");
    assert_eq!(report(&mut cx, key, PollBits::IN), Readiness::READABLE);
    drop(writer);
    assert_eq!(report(&mut cx, key, HUP), READ_END);
    for _ in 0..3 {
        assert_eq!(readiness(&mut cx), Readiness::empty());
    }
}

/// Makes a FIFO whose writer has closed.
fn fifo(name: &str) -> (std::path::PathBuf, Arc<OwnedFd>) {
    let name = format!("quintpoll-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a new name");
    let reader = Arc::new(open(&path, OFlag::O_RDONLY));
    drop(open(&path, OFlag::O_WRONLY));
    (path, reader)
}

fn open(path: &std::path::Path, flags: OFlag) -> OwnedFd {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).expect("a FIFO")
}

#[test]
fn passed_end_rearms_direction() {
    let (path, reader) = fifo("ends");
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let key = cx.reactor.register(reader, Token(0), R, Mode::Edge).expect("fresh");
    assert_eq!(report(&mut cx, key, HUP), READ_END);
    cx.poll_now();
    cx.take_calls();
    cx.poll_now();
    assert_eq!(cx.take_calls(), [POLL], "the end is still there");
    // Rearmed by the next wait, then by `drained`.
    let writer = open(&path, OFlag::O_WRONLY);
    cx.poll_now();
    assert_eq!(cx.take_calls(), [Call::Arm(slot(key), R, Trigger::Level), POLL]);
    drop(writer);
    assert_eq!(report(&mut cx, key, HUP), READ_END);
    cx.poll_now();
    cx.take_calls();
    let _writer = open(&path, OFlag::O_WRONLY);
    cx.reactor.drained(key, R).expect("known");
    assert_eq!(cx.take_calls(), [Call::Arm(slot(key), R, Trigger::Level)]);
    std::fs::remove_file(path).expect("it is there");
}

/// A source with a reported end is found ready without a report of the kernel.
#[test]
fn data_after_end_are_found_by_next_wait() {
    let (path, reader) = fifo("data");
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let key = cx.reactor.register(reader, Token(0), R, Mode::Edge).expect("fresh");
    assert_eq!(report(&mut cx, key, HUP), READ_END);
    for _ in 0..3 {
        let writer = open(&path, OFlag::O_WRONLY);
        nix::unistd::write(&writer, b"x").expect("room");
        drop(writer);
        assert_eq!(readiness(&mut cx), READ_END, "a writer wrote and closed");
        assert_eq!(readiness(&mut cx), Readiness::empty());
        let reader = cx.reactor.parts.readiness.source(slot(key)).expect("known").0;
        assert_eq!(nix::unistd::read(reader.fd(), &mut [0; 8]), Ok(1));
        assert_eq!(readiness(&mut cx), Readiness::empty());
    }
    std::fs::remove_file(path).expect("it is there");
}

/// A selector like select that cannot watch for ends alone: each wait polls.
#[test]
fn unwatchable_ends_are_polled() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    cx.script.borrow_mut().needs_poll_each_wait = true;
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    cx.reactor.register(writer, Token(0), W, Mode::Edge).expect("fresh");
    assert_eq!(readiness(&mut cx), Readiness::WRITABLE);
    assert_eq!(readiness(&mut cx), Readiness::empty());
    drop(reader);
    assert_eq!(readiness(&mut cx), BROKEN);
    assert_eq!(readiness(&mut cx), Readiness::empty());
}

/// Clause P5: ends that the selector refuses to watch are polled.
#[test]
fn refused_ends_are_polled() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    let key = cx.reactor.register(writer, Token(0), W, Mode::Edge).expect("fresh");
    assert_eq!(report(&mut cx, key, PollBits::OUT), Readiness::WRITABLE);
    drop(reader);
    cx.script.borrow_mut().refuse();
    assert_eq!(readiness(&mut cx), BROKEN);
    assert_eq!(readiness(&mut cx), Readiness::empty());
}

/// Polling the end of one direction does not repeat the edges of another (E3).
#[test]
fn polling_ends_repeats_no_edges() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 4);
    cx.script.borrow_mut().level = W;
    let (local, peer) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    drop(peer);
    let key = cx.reactor.register(Arc::new(local), Token(0), R | W, Mode::Edge).expect("fresh");
    let end = READ_END | Readiness::WRITABLE | Readiness::WRITE_CLOSED;
    assert_eq!(report(&mut cx, key, HUP | PollBits::IN | PollBits::OUT), end);
    for _ in 0..3 {
        assert_eq!(readiness(&mut cx), Readiness::empty());
        cx.reactor.drained(key, W).expect("known");
    }
}

/// Polling one direction also reports an end to others: data with that end are not new later.
#[test]
fn poll_of_one_direction_covers_reported_directions() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let (local, peer) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    nix::unistd::write(&peer, b"x").expect("room");
    let key = cx.reactor.register(Arc::new(local), Token(0), R | W, Mode::Edge).expect("fresh");
    let both = Readiness::READABLE | Readiness::WRITABLE;
    assert_eq!(report(&mut cx, key, PollBits::IN | PollBits::OUT), both);
    drop(peer);
    cx.reactor.parts.readiness.recheck(slot(key), W);
    assert_eq!(readiness(&mut cx), READ_END | Readiness::WRITABLE | Readiness::WRITE_CLOSED);
    for _ in 0..3 {
        assert_eq!(readiness(&mut cx), Readiness::empty());
    }
}
