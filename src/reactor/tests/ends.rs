//! Clause E5 where edges are emulated: what the selector is asked for, when the reactor looks by
//! itself, and that it stops.

use super::fake::{Call, Stage, slot};
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
const LOOK: Call = Call::Wait(Deadline::Now);
const HUP: PollBits = PollBits::HUP;
const ENDS: PollBits = PollBits::HUP.union(PollBits::ERR);
const READ_END: Readiness = Readiness::READABLE.union(Readiness::READ_CLOSED);
const BROKEN: Readiness =
    Readiness::WRITABLE.union(Readiness::WRITE_CLOSED).union(Readiness::ERROR);

/// A pipe, reader first.
fn pipe() -> (Arc<OwnedFd>, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).expect("pipe");
    (Arc::new(reader), writer)
}

/// What the one event of a wait says; nothing if there is none.
fn readiness(stage: &mut Stage) -> Readiness {
    assert!(stage.look().len() <= 1);
    stage.events.iter().map(|event| event.readiness).collect()
}

/// What the one event of a wait says that reports these bits.
fn report(stage: &mut Stage, key: Key, bits: PollBits) -> Readiness {
    stage.script.borrow_mut().report(&[Report::Fact(slot(key), bits)]);
    readiness(stage)
}

#[test]
fn an_end_is_watched_for_until_it_is_told() {
    for trigger in [Trigger::Level, Trigger::OneShot] {
        let native = if trigger == Trigger::Level { Triggers::LEVEL } else { Triggers::ONESHOT };
        let mut stage = Stage::new(native, 4);
        let (reader, writer) = pipe();
        let writer = Arc::new(writer);
        let key = stage.reactor.register(writer, Token(0), W, Mode::Edge).expect("fresh");
        assert_eq!(stage.take_calls(), [Call::Arm(slot(key), W, trigger)]);
        assert_eq!(report(&mut stage, key, PollBits::OUT), Readiness::WRITABLE);
        stage.take_calls();
        stage.look();
        assert_eq!(stage.take_calls(), [Call::ArmWithEnds(slot(key), NONE, ENDS, trigger), LOOK]);
        stage.look();
        assert_eq!(stage.take_calls(), [LOOK], "told once");
        drop(reader);
        assert_eq!(report(&mut stage, key, PollBits::ERR), BROKEN);
        stage.take_calls();
        let disarmed = [Call::Disarm(slot(key)), LOOK];
        assert_eq!(readiness(&mut stage), Readiness::empty());
        let calls = stage.take_calls();
        // One that reports once is disarmed already.
        assert_eq!(calls, disarmed[usize::from(trigger == Trigger::OneShot)..]);
        for _ in 0..3 {
            stage.reactor.drained(key, W).expect("known");
            assert_eq!(readiness(&mut stage), Readiness::empty(), "its end is there still");
        }
        assert_eq!(stage.take_calls(), [LOOK; 3], "nothing is watched");
        stage.reactor.rearm(key, W).expect("known");
        assert_eq!(stage.take_calls(), [Call::Arm(slot(key), W, trigger)]);
    }
}

/// An end alone is reported, though there are data beside it. They are not new afterwards.
#[test]
fn what_is_beside_an_end_is_looked_at() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let (reader, writer) = pipe();
    let key = stage.reactor.register(reader.clone(), Token(0), R, Mode::Edge).expect("fresh");
    nix::unistd::write(&writer, b"x").expect("room");
    assert_eq!(report(&mut stage, key, PollBits::IN), Readiness::READABLE);
    drop(writer);
    assert_eq!(report(&mut stage, key, HUP), READ_END);
    for _ in 0..3 {
        assert_eq!(readiness(&mut stage), Readiness::empty());
    }
}

/// A named pipe whose writer has gone.
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
fn an_end_that_has_passed_arms_again() {
    let (path, reader) = fifo("ends");
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let key = stage.reactor.register(reader, Token(0), R, Mode::Edge).expect("fresh");
    assert_eq!(report(&mut stage, key, HUP), READ_END);
    stage.look();
    stage.take_calls();
    stage.look();
    assert_eq!(stage.take_calls(), [LOOK], "its end is there still");
    // In the next wait, or by `drained`.
    let writer = open(&path, OFlag::O_WRONLY);
    stage.look();
    assert_eq!(stage.take_calls(), [Call::Arm(slot(key), R, Trigger::Level), LOOK]);
    drop(writer);
    assert_eq!(report(&mut stage, key, HUP), READ_END);
    stage.look();
    stage.take_calls();
    let _writer = open(&path, OFlag::O_WRONLY);
    stage.reactor.drained(key, R).expect("known");
    assert_eq!(stage.take_calls(), [Call::Arm(slot(key), R, Trigger::Level)]);
    std::fs::remove_file(path).expect("it is there");
}

/// What was told of an end needs no report of the kernel to be found new.
#[test]
fn data_after_an_end_are_found_by_the_next_wait() {
    let (path, reader) = fifo("data");
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let key = stage.reactor.register(reader, Token(0), R, Mode::Edge).expect("fresh");
    assert_eq!(report(&mut stage, key, HUP), READ_END);
    for _ in 0..3 {
        let writer = open(&path, OFlag::O_WRONLY);
        nix::unistd::write(&writer, b"x").expect("room");
        drop(writer);
        assert_eq!(readiness(&mut stage), READ_END, "a writer came and went");
        assert_eq!(readiness(&mut stage), Readiness::empty());
        let reader = stage.reactor.parts.readiness.source(slot(key)).expect("known").0;
        assert_eq!(nix::unistd::read(reader.fd(), &mut [0; 8]), Ok(1));
        assert_eq!(readiness(&mut stage), Readiness::empty());
    }
    std::fs::remove_file(path).expect("it is there");
}

/// As select does: where a selector can't watch for ends alone, each wait looks.
#[test]
fn ends_that_can_not_be_watched_for_are_looked_at() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    stage.script.borrow_mut().blind = true;
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    stage.reactor.register(writer, Token(0), W, Mode::Edge).expect("fresh");
    assert_eq!(readiness(&mut stage), Readiness::WRITABLE);
    assert_eq!(readiness(&mut stage), Readiness::empty());
    drop(reader);
    assert_eq!(readiness(&mut stage), BROKEN);
    assert_eq!(readiness(&mut stage), Readiness::empty());
}

/// P5: what the selector refuses to watch is looked at.
#[test]
fn ends_that_are_refused_are_looked_at() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    let key = stage.reactor.register(writer, Token(0), W, Mode::Edge).expect("fresh");
    assert_eq!(report(&mut stage, key, PollBits::OUT), Readiness::WRITABLE);
    drop(reader);
    stage.script.borrow_mut().refuse();
    assert_eq!(readiness(&mut stage), BROKEN);
    assert_eq!(readiness(&mut stage), Readiness::empty());
}

/// Of a file with edges to read, the look at an end to write repeats none of these (E3).
#[test]
fn looks_at_ends_repeat_no_edges() {
    let mut stage = Stage::new(Triggers::EDGE, 4);
    stage.script.borrow_mut().level = W;
    let (here, there) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    drop(there);
    let key = stage.reactor.register(Arc::new(here), Token(0), R | W, Mode::Edge).expect("fresh");
    let end = READ_END | Readiness::WRITABLE | Readiness::WRITE_CLOSED;
    assert_eq!(report(&mut stage, key, HUP | PollBits::IN | PollBits::OUT), end);
    for _ in 0..3 {
        assert_eq!(readiness(&mut stage), Readiness::empty());
        stage.reactor.drained(key, W).expect("known");
    }
}

/// A look for one direction shows an end to the others too: what is beside it is not new later.
#[test]
fn looks_for_one_direction_show_all_that_is_told() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let (here, there) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    nix::unistd::write(&there, b"x").expect("room");
    let key = stage.reactor.register(Arc::new(here), Token(0), R | W, Mode::Edge).expect("fresh");
    let both = Readiness::READABLE | Readiness::WRITABLE;
    assert_eq!(report(&mut stage, key, PollBits::IN | PollBits::OUT), both);
    drop(there);
    stage.reactor.parts.readiness.recheck(slot(key), W);
    assert_eq!(readiness(&mut stage), READ_END | Readiness::WRITABLE | Readiness::WRITE_CLOSED);
    for _ in 0..3 {
        assert_eq!(readiness(&mut stage), Readiness::empty());
    }
}
