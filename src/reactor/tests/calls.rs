//! What each call of the user's asks of the selector, and in which order things happen.

use super::fake::{Bell, Call, Stage, slot};
use crate::backend::Backend;
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Message, Op};
use crate::poller::{Capabilities, Poller};
use crate::selector::{Trigger, Triggers};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;

/// A source that lets the test know when it is borrowed and dropped.
struct Touchy<F: Fn()> {
    file: std::fs::File,
    borrowed: AtomicUsize,
    may_borrow: bool,
    on_drop: F,
}

impl<F: Fn()> Touchy<F> {
    fn new(may_borrow: bool, on_drop: F) -> Arc<Self> {
        let file = std::fs::File::open("/dev/null").expect("every Linux has it");
        Arc::new(Touchy { file, borrowed: AtomicUsize::new(0), may_borrow, on_drop })
    }
}

impl<F: Fn()> AsFd for Touchy<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.borrowed.fetch_add(1, Ordering::Relaxed);
        assert!(self.may_borrow, "as_fd of the user's");
        self.file.as_fd()
    }
}

impl<F: Fn()> Drop for Touchy<F> {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

fn nothing() {}

fn explode() {
    panic!("drop of the user's");
}

#[test]
fn a_source_is_asked_for_its_file_once() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let source = Touchy::new(true, nothing);
    let key = stage.reactor.register(source.clone(), Token(0), R, Mode::Edge).expect("fresh");
    stage.reactor.modify(key, Token(1), R | W, Mode::Level).expect("known");
    stage.reactor.rearm(key, R).expect("known");
    stage.reactor.drained(key, R).expect("known");
    stage.look();
    stage.reactor.deregister(key).expect("known");
    assert_eq!(source.borrowed.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&source), 1, "deregister lets go of it");
}

#[test]
fn a_source_that_panics_when_asked_changes_nothing() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let source = Touchy::new(false, nothing);
    let register = || stage.reactor.register(source.clone(), Token(0), R, Mode::Level);
    catch_unwind(AssertUnwindSafe(register)).expect_err("its panic goes through");
    assert_eq!(stage.take_calls(), [], "the selector heard nothing");
    assert_eq!(Arc::strong_count(&source), 1);
    let calm = Bell::new();
    stage.reactor.register(calm.source(), Token(1), R, Mode::Level).expect("fresh");
    stage.look();
}

#[test]
fn a_source_that_panics_when_dropped_leaves_everything_in_order() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let source = Touchy::new(true, explode);
    let key = stage.reactor.register(source, Token(0), R, Mode::Level).expect("fresh");
    stage.take_calls();
    let deregister = || stage.reactor.deregister(key);
    catch_unwind(AssertUnwindSafe(deregister)).expect_err("its panic goes through");
    assert_eq!(stage.take_calls(), [Call::Remove(slot(key))], "it was gone before the panic");
    stage.reactor.verify();
    let unknown = stage.reactor.deregister(key).expect_err("it is gone");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    let calm = Bell::new();
    let next = stage.reactor.register(calm.source(), Token(1), R, Mode::Level).expect("fresh");
    assert_ne!(next, key);
    assert_eq!(slot(next).index, slot(key).index, "its place is free again");
    stage.look();
}

#[test]
fn a_refused_source_that_panics_when_dropped_leaves_everything_in_order() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    stage.script.borrow_mut().refuse();
    let source = Touchy::new(true, explode);
    let register = || stage.reactor.register(source, Token(0), R, Mode::Level);
    catch_unwind(AssertUnwindSafe(register)).expect_err("its panic goes through");
    stage.look();
    assert_eq!(stage.reactor.parts.readiness.slots(), []);
}

#[test]
fn sources_go_after_the_selector_and_no_panic_keeps_one() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let gone = stage.selector_is_gone();
    let angry = Touchy::new(true, move || {
        assert!(gone.load(Ordering::Relaxed), "a source goes before the selector");
        explode();
    });
    let calm = Bell::new();
    stage.reactor.register(angry, Token(0), R, Mode::Level).expect("fresh");
    stage.reactor.register(calm.source(), Token(1), R, Mode::Level).expect("fresh");
    let panic = catch_unwind(AssertUnwindSafe(|| drop(stage))).expect_err("it goes through");
    assert_eq!(panic.downcast_ref(), Some(&"drop of the user's"));
    assert_eq!(calm.handles(), 1, "every other source is dropped all the same");
}

#[test]
fn passed_file_that_panics_loses_nothing() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let (ours, _peer) = UnixStream::pair().expect("a pair of sockets");
    let none = Interest::empty();
    let key = stage.reactor.register(Arc::new(ours), Token(0), none, Mode::Level).expect("fresh");
    let calm = Bell::new();
    // Dropped in the reverse order, and the one that panics before the other.
    let message = Message::new().file(calm.source()).file(Touchy::new(true, explode));
    stage.reactor.submit(Op::send_msg(key, "some", .., message), Token(1)).expect("in order");
    stage.reactor.submit(Op::send(key, "more", ..), Token(2)).expect("in order");
    let wait = || stage.reactor.wait(&mut stage.events, Some(Duration::ZERO));
    catch_unwind(AssertUnwindSafe(wait)).expect_err("its panic goes through");
    let completed: Vec<_> = stage.events.completions().map(|its| its.token).collect();
    assert_eq!(completed, [Token(1), Token(2)], "each operation has completed");
    stage.look();
    assert_eq!(calm.handles(), 1, "the other file is dropped all the same");
}

#[test]
fn a_number_that_is_registered_is_refused_before_the_selector_hears_of_it() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let bell = Bell::new();
    let key = stage.reactor.register(bell.source(), Token(0), R, Mode::Level).expect("fresh");
    stage.take_calls();
    let error = stage.reactor.register(bell.source(), Token(1), W, Mode::Edge).expect_err("twice");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!((stage.take_calls(), bell.handles()), (vec![], 2));
    stage.reactor.deregister(key).expect("known");
    stage.reactor.register(bell.source(), Token(1), W, Mode::Edge).expect("free again");
}

#[test]
fn keys_of_others_and_of_the_past_are_not_found() {
    let (mut stage, mut other) = (Stage::new(Triggers::LEVEL, 4), Stage::new(Triggers::LEVEL, 4));
    let (here, there) = (Bell::new(), Bell::new());
    let key = stage.reactor.register(here.source(), Token(0), R, Mode::Level).expect("fresh");
    let alien = other.reactor.register(there.source(), Token(0), R, Mode::Level).expect("fresh");
    assert_eq!(slot(key), slot(alien), "only the poller's number tells them apart");
    stage.take_calls();
    check_unknown(&mut stage, alien);
    stage.reactor.deregister(key).expect("it was not the alien's");
    let next = stage.reactor.register(here.source(), Token(0), R, Mode::Level).expect("fresh");
    stage.take_calls();
    check_unknown(&mut stage, key);
    stage.reactor.deregister(next).expect("untouched");
}

fn check_unknown(stage: &mut Stage, key: Key) {
    let errors = [
        stage.reactor.modify(key, Token(1), W, Mode::Edge).expect_err("unknown"),
        stage.reactor.rearm(key, R).expect_err("unknown"),
        stage.reactor.rearm(key, W).expect_err("unknown, which comes before its interest"),
        stage.reactor.drained(key, R).expect_err("unknown"),
        stage.reactor.deregister(key).expect_err("unknown"),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::NotFound), "{errors:?}");
    assert_eq!(stage.take_calls(), []);
}

#[test]
fn directions_outside_the_interest_are_refused() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let bell = Bell::new();
    for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
        let key = stage.reactor.register(bell.source(), Token(0), R | W, mode).expect("fresh");
        stage.take_calls();
        for dirs in [P, R | P, Interest::all()] {
            let rearm = stage.reactor.rearm(key, dirs).expect_err("more than the interest");
            let drained = stage.reactor.drained(key, dirs).expect_err("more than the interest");
            let kinds = [rearm.kind(), drained.kind()];
            assert_eq!(kinds, [ErrorKind::InvalidInput; 2]);
        }
        assert_eq!(stage.take_calls(), []);
        for dirs in [Interest::empty(), R, W, R | W] {
            stage.reactor.rearm(key, dirs).expect("a part of the interest");
            stage.reactor.drained(key, dirs).expect("a part of the interest");
        }
        stage.reactor.deregister(key).expect("known");
    }
}

#[test]
fn bits_that_are_no_direction_are_refused() {
    let mut stage = Stage::new(Triggers::all(), 4);
    let (bell, other) = (Bell::new(), Bell::new());
    let key = stage.reactor.register(bell.source(), Token(0), R, Mode::Level).expect("fresh");
    stage.take_calls();
    for bits in [1 << 3, 1 << 7, 1 << 7 | 1] {
        let unknown = Interest::from_bits_retain(bits);
        let refused = [
            stage.reactor.register(other.source(), Token(1), unknown, Mode::Edge).map(drop),
            stage.reactor.modify(key, Token(1), unknown, Mode::Edge),
            stage.reactor.rearm(key, unknown),
            stage.reactor.drained(key, unknown),
        ];
        let kinds = refused.map(|result| result.expect_err("no direction").kind());
        assert_eq!(kinds, [ErrorKind::InvalidInput; 4]);
    }
    assert_eq!((stage.take_calls(), other.handles()), (vec![], 1));
    stage.reactor.rearm(key, R).expect("as it was");
}

#[test]
fn an_empty_interest_is_disarmed_but_its_file_is_checked() {
    let mut stage = Stage::new(Triggers::all(), 4);
    let (none, bell) = (Interest::empty(), Bell::new());
    let key = stage.reactor.register(bell.source(), Token(0), none, Mode::Level).expect("legal");
    assert_eq!(stage.take_calls(), [Call::Disarm(slot(key))]);
    stage.reactor.modify(key, Token(0), R, Mode::Level).expect("known");
    stage.reactor.modify(key, Token(0), none, Mode::Level).expect("legal");
    let armed = Call::Arm(slot(key), R, Trigger::Level);
    assert_eq!(stage.take_calls(), [armed, Call::Disarm(slot(key))]);

    let path = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let path = nix::fcntl::open("/dev/null", path, nix::sys::stat::Mode::empty());
    let path = Arc::new(path.expect("every Linux has it"));
    let refused = stage.reactor.register(path, Token(1), none, Mode::Level);
    assert_eq!(refused.expect_err("for naming only").raw_os_error(), Some(libc::EBADF));
    assert_eq!(stage.take_calls(), []);
    stage.reactor.verify();
}

#[test]
fn each_mode_asks_for_the_trigger_it_likes_best() {
    let mut stage = Stage::new(Triggers::all(), 4);
    let bell = Bell::new();
    let key = stage.reactor.register(bell.source(), Token(0), R, Mode::Level).expect("fresh");
    stage.reactor.modify(key, Token(0), W, Mode::Edge).expect("known");
    stage.reactor.modify(key, Token(0), R | W, Mode::OneShot).expect("known");
    let calls = [
        Call::Arm(slot(key), R, Trigger::Level),
        Call::Arm(slot(key), W, Trigger::Edge),
        Call::Arm(slot(key), R | W, Trigger::OneShot),
    ];
    assert_eq!(stage.take_calls(), calls);
}

#[test]
fn a_file_keeps_the_trigger_that_it_got() {
    let mut stage = Stage::new(Triggers::EDGE, 4);
    stage.script.borrow_mut().side_trigger = Some(Trigger::Level);
    let bell = Bell::new();
    let key = stage.reactor.register(bell.source(), Token(0), R | W, Mode::Edge).expect("fresh");
    stage.reactor.rearm(key, R).expect("known");
    let asked = |trigger| Call::Arm(slot(key), R | W, trigger);
    assert_eq!(stage.take_calls(), [asked(Trigger::Edge), asked(Trigger::Level)]);
    stage.reactor.modify(key, Token(0), R | W, Mode::Edge).expect("known");
    stage.reactor.rearm(key, R).expect("known");
    assert_eq!(stage.take_calls(), [asked(Trigger::Edge), asked(Trigger::Level)], "anew");
}

#[test]
fn capabilities_are_the_native_triggers() {
    for bits in 1..8 {
        let native = Triggers::from_bits_truncate(bits);
        let stage = Stage::new(native, 1);
        let capabilities = stage.reactor.capabilities();
        let pairs = [
            (Triggers::LEVEL, Capabilities::NATIVE_LEVEL),
            (Triggers::EDGE, Capabilities::NATIVE_EDGE),
            (Triggers::EDGE, Capabilities::NATIVE_READ_EDGE),
            (Triggers::ONESHOT, Capabilities::NATIVE_ONESHOT),
        ];
        for (trigger, capability) in pairs {
            assert_eq!(capabilities.contains(capability), native.contains(trigger));
        }
        assert_eq!(stage.reactor.backend(), Backend::Other("fake"));
    }
}

#[test]
fn a_poller_says_who_it_is() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let bell = Bell::new();
    stage.reactor.register(bell.source(), Token(77), R, Mode::Level).expect("fresh");
    let said = format!("{:?}", stage.reactor);
    for part in ["Reactor", "fake", "Token(77)", &format!("number: {}", bell.number())] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
