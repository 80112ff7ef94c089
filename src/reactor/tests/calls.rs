//! The selector calls of each of the user's calls, and the order of side effects.

use super::fake::{Call, FakeReactor, TestEventFd, slot};
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

/// A source that counts its borrows and notifies the test of its drop.
struct UserSource<F: Fn()> {
    file: std::fs::File,
    borrowed: AtomicUsize,
    may_borrow: bool,
    on_drop: F,
}

impl<F: Fn()> UserSource<F> {
    fn new(may_borrow: bool, on_drop: F) -> Arc<Self> {
        let file = std::fs::File::open("/dev/null").expect("every Linux has it");
        Arc::new(UserSource { file, borrowed: AtomicUsize::new(0), may_borrow, on_drop })
    }
}

impl<F: Fn()> AsFd for UserSource<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.borrowed.fetch_add(1, Ordering::Relaxed);
        assert!(self.may_borrow, "the user's as_fd");
        self.file.as_fd()
    }
}

impl<F: Fn()> Drop for UserSource<F> {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

fn no_op() {}

fn panic_on_drop() {
    panic!("the user's drop");
}

#[test]
fn source_fd_is_borrowed_once() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let source = UserSource::new(true, no_op);
    let key = cx.reactor.register(source.clone(), Token(0), R, Mode::Edge).expect("fresh");
    cx.reactor.modify(key, Token(1), R | W, Mode::Level).expect("known");
    cx.reactor.rearm(key, R).expect("known");
    cx.reactor.drained(key, R).expect("known");
    cx.poll_now();
    cx.reactor.deregister(key).expect("known");
    assert_eq!(source.borrowed.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&source), 1, "deregister releases the source");
}

#[test]
fn panic_in_as_fd_changes_nothing() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let source = UserSource::new(false, no_op);
    let register = || cx.reactor.register(source.clone(), Token(0), R, Mode::Level);
    catch_unwind(AssertUnwindSafe(register)).expect_err("the panic propagates");
    assert_eq!(cx.take_calls(), [], "no selector call");
    assert_eq!(Arc::strong_count(&source), 1);
    let other = TestEventFd::new();
    cx.reactor.register(other.source(), Token(1), R, Mode::Level).expect("fresh");
    cx.poll_now();
}

#[test]
fn panic_in_source_drop_keeps_poller_consistent() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let source = UserSource::new(true, panic_on_drop);
    let key = cx.reactor.register(source, Token(0), R, Mode::Level).expect("fresh");
    cx.take_calls();
    let deregister = || cx.reactor.deregister(key);
    catch_unwind(AssertUnwindSafe(deregister)).expect_err("the panic propagates");
    assert_eq!(cx.take_calls(), [Call::Remove(slot(key))], "removed before the panic");
    cx.reactor.verify();
    let unknown = cx.reactor.deregister(key).expect_err("removed");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    let other = TestEventFd::new();
    let next = cx.reactor.register(other.source(), Token(1), R, Mode::Level).expect("fresh");
    assert_ne!(next, key);
    assert_eq!(slot(next).index, slot(key).index, "the slot is reused");
    cx.poll_now();
}

#[test]
fn panic_in_refused_source_drop_keeps_poller_consistent() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    cx.script.borrow_mut().refuse();
    let source = UserSource::new(true, panic_on_drop);
    let register = || cx.reactor.register(source, Token(0), R, Mode::Level);
    catch_unwind(AssertUnwindSafe(register)).expect_err("the panic propagates");
    cx.poll_now();
    assert_eq!(cx.reactor.parts.readiness.slots(), []);
}

#[test]
fn sources_drop_after_selector_despite_panics() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let is_dropped = cx.selector_is_dropped();
    let panicking = UserSource::new(true, move || {
        assert!(is_dropped.load(Ordering::Relaxed), "a source is dropped before the selector");
        panic_on_drop();
    });
    let other = TestEventFd::new();
    cx.reactor.register(panicking, Token(0), R, Mode::Level).expect("fresh");
    cx.reactor.register(other.source(), Token(1), R, Mode::Level).expect("fresh");
    let panic = catch_unwind(AssertUnwindSafe(|| drop(cx))).expect_err("the panic propagates");
    assert_eq!(panic.downcast_ref(), Some(&"the user's drop"));
    assert_eq!(other.handles(), 1, "every other source is dropped");
}

#[test]
fn panic_in_passed_file_drop_loses_nothing() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let (local, _peer) = UnixStream::pair().expect("a socket pair");
    let none = Interest::empty();
    let key = cx.reactor.register(Arc::new(local), Token(0), none, Mode::Level).expect("fresh");
    let other = TestEventFd::new();
    // Files drop in reverse order, so the panic precedes the other file.
    let message = Message::new().file(other.source()).file(UserSource::new(true, panic_on_drop));
    cx.reactor.submit(Op::send_msg(key, "some", .., message), Token(1)).expect("in order");
    cx.reactor.submit(Op::send(key, "more", ..), Token(2)).expect("in order");
    let wait = || cx.reactor.wait(&mut cx.events, Some(Duration::ZERO));
    catch_unwind(AssertUnwindSafe(wait)).expect_err("the panic propagates");
    let completed: Vec<_> = cx.events.completions().map(|completion| completion.token).collect();
    assert_eq!(completed, [Token(1), Token(2)], "each operation has completed");
    cx.poll_now();
    assert_eq!(other.handles(), 1, "the other file is dropped");
}

#[test]
fn registered_fd_is_refused_without_selector_call() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let eventfd = TestEventFd::new();
    let key = cx.reactor.register(eventfd.source(), Token(0), R, Mode::Level).expect("fresh");
    cx.take_calls();
    let error = cx.reactor.register(eventfd.source(), Token(1), W, Mode::Edge).expect_err("twice");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!((cx.take_calls(), eventfd.handles()), (vec![], 2));
    cx.reactor.deregister(key).expect("known");
    cx.reactor.register(eventfd.source(), Token(1), W, Mode::Edge).expect("free again");
}

#[test]
fn foreign_and_stale_keys_are_not_found() {
    let (mut cx, mut other) =
        (FakeReactor::new(Triggers::LEVEL, 4), FakeReactor::new(Triggers::LEVEL, 4));
    let (own_source, other_source) = (TestEventFd::new(), TestEventFd::new());
    let key = cx.reactor.register(own_source.source(), Token(0), R, Mode::Level).expect("fresh");
    let foreign =
        other.reactor.register(other_source.source(), Token(0), R, Mode::Level).expect("fresh");
    assert_eq!(slot(key), slot(foreign), "only the poller id differs");
    cx.take_calls();
    check_unknown(&mut cx, foreign);
    cx.reactor.deregister(key).expect("known");
    let next = cx.reactor.register(own_source.source(), Token(0), R, Mode::Level).expect("fresh");
    cx.take_calls();
    check_unknown(&mut cx, key);
    cx.reactor.deregister(next).expect("untouched");
}

fn check_unknown(cx: &mut FakeReactor, key: Key) {
    let errors = [
        cx.reactor.modify(key, Token(1), W, Mode::Edge).expect_err("unknown"),
        cx.reactor.rearm(key, R).expect_err("unknown"),
        cx.reactor.rearm(key, W).expect_err("unknown, checked before the interest"),
        cx.reactor.drained(key, R).expect_err("unknown"),
        cx.reactor.deregister(key).expect_err("unknown"),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::NotFound), "{errors:?}");
    assert_eq!(cx.take_calls(), []);
}

#[test]
fn directions_outside_the_interest_are_refused() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let eventfd = TestEventFd::new();
    for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
        let key = cx.reactor.register(eventfd.source(), Token(0), R | W, mode).expect("fresh");
        cx.take_calls();
        for dirs in [P, R | P, Interest::all()] {
            let rearm = cx.reactor.rearm(key, dirs).expect_err("more than the interest");
            let drained = cx.reactor.drained(key, dirs).expect_err("more than the interest");
            let kinds = [rearm.kind(), drained.kind()];
            assert_eq!(kinds, [ErrorKind::InvalidInput; 2]);
        }
        assert_eq!(cx.take_calls(), []);
        for dirs in [Interest::empty(), R, W, R | W] {
            cx.reactor.rearm(key, dirs).expect("within the interest");
            cx.reactor.drained(key, dirs).expect("within the interest");
        }
        cx.reactor.deregister(key).expect("known");
    }
}

#[test]
fn unknown_direction_bits_are_refused() {
    let mut cx = FakeReactor::new(Triggers::all(), 4);
    let (eventfd, other) = (TestEventFd::new(), TestEventFd::new());
    let key = cx.reactor.register(eventfd.source(), Token(0), R, Mode::Level).expect("fresh");
    cx.take_calls();
    for bits in [1 << 3, 1 << 7, 1 << 7 | 1] {
        let unknown = Interest::from_bits_retain(bits);
        let refused = [
            cx.reactor.register(other.source(), Token(1), unknown, Mode::Edge).map(drop),
            cx.reactor.modify(key, Token(1), unknown, Mode::Edge),
            cx.reactor.rearm(key, unknown),
            cx.reactor.drained(key, unknown),
        ];
        let kinds = refused.map(|result| result.expect_err("no direction").kind());
        assert_eq!(kinds, [ErrorKind::InvalidInput; 4]);
    }
    assert_eq!((cx.take_calls(), other.handles()), (vec![], 1));
    cx.reactor.rearm(key, R).expect("known");
}

#[test]
fn empty_interest_is_disarmed_but_file_is_checked() {
    let mut cx = FakeReactor::new(Triggers::all(), 4);
    let (none, eventfd) = (Interest::empty(), TestEventFd::new());
    let key = cx.reactor.register(eventfd.source(), Token(0), none, Mode::Level).expect("legal");
    assert_eq!(cx.take_calls(), [Call::Disarm(slot(key))]);
    cx.reactor.modify(key, Token(0), R, Mode::Level).expect("known");
    cx.reactor.modify(key, Token(0), none, Mode::Level).expect("legal");
    let armed = Call::Arm(slot(key), R, Trigger::Level);
    assert_eq!(cx.take_calls(), [armed, Call::Disarm(slot(key))]);

    let path = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let path = nix::fcntl::open("/dev/null", path, nix::sys::stat::Mode::empty());
    let path = Arc::new(path.expect("every Linux has it"));
    let refused = cx.reactor.register(path, Token(1), none, Mode::Level);
    assert_eq!(refused.expect_err("an O_PATH descriptor").raw_os_error(), Some(libc::EBADF));
    assert_eq!(cx.take_calls(), []);
    cx.reactor.verify();
}

#[test]
fn mode_requests_its_preferred_trigger() {
    let mut cx = FakeReactor::new(Triggers::all(), 4);
    let eventfd = TestEventFd::new();
    let key = cx.reactor.register(eventfd.source(), Token(0), R, Mode::Level).expect("fresh");
    cx.reactor.modify(key, Token(0), W, Mode::Edge).expect("known");
    cx.reactor.modify(key, Token(0), R | W, Mode::OneShot).expect("known");
    let calls = [
        Call::Arm(slot(key), R, Trigger::Level),
        Call::Arm(slot(key), W, Trigger::Edge),
        Call::Arm(slot(key), R | W, Trigger::OneShot),
    ];
    assert_eq!(cx.take_calls(), calls);
}

#[test]
fn file_keeps_its_granted_trigger() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 4);
    cx.script.borrow_mut().granted_trigger = Some(Trigger::Level);
    let eventfd = TestEventFd::new();
    let key = cx.reactor.register(eventfd.source(), Token(0), R | W, Mode::Edge).expect("fresh");
    cx.reactor.rearm(key, R).expect("known");
    let asked = |trigger| Call::Arm(slot(key), R | W, trigger);
    assert_eq!(cx.take_calls(), [asked(Trigger::Edge), asked(Trigger::Level)]);
    cx.reactor.modify(key, Token(0), R | W, Mode::Edge).expect("known");
    cx.reactor.rearm(key, R).expect("known");
    assert_eq!(cx.take_calls(), [asked(Trigger::Edge), asked(Trigger::Level)], "anew");
}

#[test]
fn capabilities_are_the_native_triggers() {
    for bits in 1..8 {
        let native = Triggers::from_bits_truncate(bits);
        let cx = FakeReactor::new(native, 1);
        let capabilities = cx.reactor.capabilities();
        let pairs = [
            (Triggers::LEVEL, Capabilities::NATIVE_LEVEL),
            (Triggers::EDGE, Capabilities::NATIVE_EDGE),
            (Triggers::EDGE, Capabilities::NATIVE_READ_EDGE),
            (Triggers::ONESHOT, Capabilities::NATIVE_ONESHOT),
        ];
        for (trigger, capability) in pairs {
            assert_eq!(capabilities.contains(capability), native.contains(trigger));
        }
        assert_eq!(cx.reactor.backend(), Backend::Other("fake"));
    }
}

#[test]
fn poller_debug_output_names_its_parts() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let eventfd = TestEventFd::new();
    cx.reactor.register(eventfd.source(), Token(77), R, Mode::Level).expect("fresh");
    let text = format!("{:?}", cx.reactor);
    for part in ["Reactor", "fake", "Token(77)", &format!("raw_fd: {}", eventfd.fd())] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
