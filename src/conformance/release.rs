//! Clauses R5 and R6: deregistration and dropping the poller.

use super::kinds::{self, Kind};
use super::many_files::{self, Group};
use super::op_harness::*;
use super::util::*;
use crate::event::{Interest, Mode, Readiness};
use crate::key::Key;
use crate::op::{Op, Outcome};
use crate::poller::Source;
use crate::sys::staging;
use nix::poll::PollFlags;
use std::any::Any;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

pub(super) fn r5_deregistered_source_is_not_reported(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(8);
        let (local, peer) = stream();
        let (other, other_peer) = stream();
        let key = harness.register(local.clone(), 1, BOTH, mode);
        harness.register(other.clone(), 2, READ, mode);
        put(&peer, b"x");
        harness.deregister(key);
        harness.expect_silence("deregistered with a report queued in the kernel");
        put(&peer, b"y");
        drop(peer);
        put(&other_peer, b"z");
        harness.expect_now(&[(2, Readiness::READABLE)], "other sources are still reported");
    }
}

pub(super) fn r5_deregister_drops_events_beyond_capacity(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(1);
        let pairs: Vec<_> = (0..5).map(|_| stream()).collect();
        let mut keys = Vec::new();
        for (token, (local, peer)) in pairs.iter().enumerate() {
            put(peer, b"x");
            keys.push(harness.register(local.clone(), token, READ, mode));
        }
        let first = harness.ready_now();
        assert_eq!(first.len(), 1);
        for (token, key) in keys.into_iter().enumerate() {
            if token != first[0].0 {
                harness.deregister(key);
            }
        }
        for _ in 0..5 {
            let reported = harness.ready_now();
            assert!(reported.iter().all(|event| event.0 == first[0].0), "{mode:?}: {reported:?}");
        }
    }
}

pub(super) fn r5_peer_sees_eof_after_deregister_and_drop(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, mut peer) = stream();
        let key = harness.register(local.clone(), 1, BOTH, mode);
        harness.ready_now();
        drop(local);
        assert!(peer.read(&mut [0; 8]).is_err(), "the poller keeps the source open");
        harness.deregister(key);
        let read = peer.read(&mut [0; 8]);
        assert_eq!(read.unwrap_or_else(|error| panic!("no end of file: {error}")), 0);
    }
}

pub(super) fn r5_reused_fd_gets_no_event_of_old_file(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        // A duplicate keeps the old file description open and readable.
        let _duplicate = local.try_clone().unwrap_or_else(|error| panic!("dup: {error}"));
        let fd = local.as_raw_fd();
        let (reader, _writer) = pipe();
        let key = harness.register(local, 1, BOTH, mode);
        put(&peer, b"x");
        harness.deregister(key);
        let reader = staging::duplicate_onto(reader.as_fd(), fd);
        let reader = reader.unwrap_or_else(|error| panic!("dup3: {error}"));
        let key = harness.register(Arc::new(reader), 2, READ, mode);
        put(&peer, b"y");
        harness.expect_silence("only the old file is readable");
        drop(peer);
        harness.expect_silence("only the old file has hung up");
        harness.deregister(key);
    }
}

/// A source whose drop panics.
struct PanicOnDrop(UnixStream);

impl AsFd for PanicOnDrop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        panic!("a user's drop panics, as this case requires");
    }
}

pub(super) fn r5_poller_survives_panicking_source_drop(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = UnixStream::pair().unwrap_or_else(|error| panic!("{error}"));
        let (other, other_peer) = stream();
        let key = harness.register(Arc::new(PanicOnDrop(local)), 1, BOTH, mode);
        harness.register(other, 2, READ, mode);
        let drop = panic::catch_unwind(AssertUnwindSafe(|| harness.deregister(key)));
        assert!(drop.is_err(), "the panic must propagate");
        let again = harness.poller.deregister(key);
        assert_eq!(
            expect_err_kind(again),
            io::ErrorKind::NotFound,
            "the source was deregistered first"
        );
        put(&other_peer, b"x");
        harness.expect_now(&[(2, Readiness::READABLE)], "the poller still reports");
        let _ = (&peer).read(&mut [0; 8]);
    }
}

pub(super) fn r6_poller_drop_releases_sources_and_own_fds(cx: &TestContext) {
    let before = open_fds();
    for mode in MODES {
        let mut harness = cx.harness(4);
        let pairs: Vec<_> = (0..50).map(|_| stream()).collect();
        for (token, (local, peer)) in pairs.iter().enumerate() {
            harness.register(local.clone(), token, BOTH, mode);
            put(peer, b"x");
        }
        harness.ready_now();
        drop(harness);
        for (local, peer) in pairs {
            assert_eq!(Arc::strong_count(&local), 1, "the poller still holds the source");
            drop(local);
            let ended = oracle(&peer, PollFlags::POLLIN);
            assert!(ended.contains(PollFlags::POLLHUP), "the peer must see the close");
        }
    }
    for _ in 0..100 {
        drop(cx.poller());
    }
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

/// A source, its peer, and the poll(2) bits of the peer once the source is closed.
struct Link {
    name: &'static str,
    source: Source,
    peer: OwnedFd,
    end: PollFlags,
}

fn links() -> [Link; 4] {
    let link = |name, source, peer, end| Link { name, source, peer, end };
    let ((reader, to_reader), (from_writer, writer)) = (pipe(), pipe());
    let ((local, peer), (tcp_local, tcp_peer)) = (stream(), tcp());
    [
        link("pipe, reader", Arc::new(reader), to_reader, PollFlags::POLLERR),
        link("pipe, writer", Arc::new(writer), from_writer, PollFlags::POLLHUP),
        link("unix stream", local, peer.into(), PollFlags::POLLHUP),
        link("TCP", tcp_local, tcp_peer.into(), PollFlags::POLLIN),
    ]
}

/// Re-registers a source in every way, without a wait, and then restores the registration.
fn reregister(harness: &mut ReadinessHarness, key: Key, interest: Interest, mode: Mode) {
    for other in MODES {
        harness.modify(key, 2, Interest::all(), other);
        harness.rearm(key, READ);
        harness.drained(key, WRITE);
        harness.modify(key, 3, WRITE, other);
        harness.rearm(key, WRITE);
    }
    harness.modify(key, 1, interest, mode);
    harness.rearm(key, interest);
    harness.rearm(key, interest);
}

/// A use of a registration before it ends.
type Usage = fn(&mut ReadinessHarness, Key, Interest, Mode);

const USAGES: [(&str, Usage); 4] = [
    ("never waited for", |_, _, _, _| {}),
    ("waited for", |harness, _, _, _| harness.wait(Some(ZERO))),
    ("modified and rearmed", reregister),
    ("waited for, then modified and rearmed", |harness, key, interest, mode| {
        harness.wait(Some(ZERO));
        reregister(harness, key, interest, mode);
    }),
];

/// Registers one source of each kind, uses it, and ends the registration by `deregister` or by
/// dropping the poller.
fn check_release(cx: &TestContext, interest: Interest, mode: Mode, by_deregister: bool) {
    for (usage, apply) in USAGES {
        for Link { name, source, peer, end } in links() {
            let mut harness = cx.harness(4);
            let key = harness.register(source, 1, interest, mode);
            apply(&mut harness, key, interest, mode);
            let why = format!("{name}, {interest:?}, {mode:?}, {usage}");
            assert!(!oracle(&peer, end).contains(end), "the poller must keep it open: {why}");
            // A poller that stays must not wait again to release the source.
            let _stays = if by_deregister {
                harness.deregister(key);
                Some(harness)
            } else {
                drop(harness);
                None
            };
            if name == "TCP" {
                wait_until_kernel(&peer, end, |bits| bits.contains(end));
            }
            assert!(
                oracle(&peer, end).contains(end),
                "the peer does not see the close at once: {why}"
            );
        }
    }
}

pub(super) fn r5_deregister_releases_sources_of_all_kinds(cx: &TestContext) {
    for mode in MODES {
        for interest in (0..8).map(Interest::from_bits_truncate) {
            check_release(cx, interest, mode, true);
        }
    }
}

pub(super) fn r6_poller_drop_releases_sources_of_all_kinds(cx: &TestContext) {
    for mode in MODES {
        for interest in (0..8).map(Interest::from_bits_truncate) {
            check_release(cx, interest, mode, false);
        }
    }
}

pub(super) fn r5_repeated_registrations_leave_nothing_behind(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        put(&peer, b"x");
        let key = harness.register(local.clone(), 1, BOTH, mode);
        harness.wait(Some(ZERO));
        harness.deregister(key);
        let before = open_fds();
        for round in 0..10_000 {
            let key = harness.register(local.clone(), round, BOTH, mode);
            match round % 5 {
                1 => harness.modify(key, round, READ, mode),
                2 => harness.rearm(key, READ),
                // Data is pending when the registration ends, or arrives right after.
                3 => assert_eq!(take(&local, 1), 1),
                4 => put(&peer, b"x"),
                _ => {}
            }
            harness.deregister(key);
        }
        assert_eq!(open_fds(), before, "a descriptor was left open, {mode:?}");
        harness.expect_silence("no source is registered");
        put(&peer, b"y");
        harness.expect_silence("no source is registered and data arrived");
        let key = harness.register(local.clone(), 7, READ, mode);
        harness.expect_now(&[(7, Readiness::READABLE)], "one event for the last registration");
        harness.deregister(key);
        assert_eq!(Arc::strong_count(&local), 1, "the poller still holds the source");
        drop(local);
        let ended = oracle(&peer, PollFlags::POLLIN);
        assert!(ended.contains(PollFlags::POLLHUP), "the peer must see the close, {mode:?}");
    }
}

/// A descriptor number that nothing else uses.
const FIXED_FD: i32 = 700;

pub(super) fn r5_fd_is_reused_by_files_of_other_kinds(cx: &TestContext) {
    let count = kinds::readers().len();
    for (mode, last) in MODES.iter().flat_map(|&mode| (0..count).map(move |last| (mode, last))) {
        let mut harness = cx.harness(8);
        let mut kinds = kinds::readers();
        kinds.rotate_left(last);
        let Some(Kind { name, source, trigger, .. }) = kinds.pop() else {
            panic!("no kinds of files")
        };
        let at_fixed_fd = |file: BorrowedFd<'_>| {
            let file = staging::duplicate_onto(file, FIXED_FD);
            Arc::new(file.unwrap_or_else(|error| panic!("dup3: {error}")))
        };
        // The files stay open under their own descriptors and keep becoming ready.
        let mut kept: Vec<Box<dyn Any>> = Vec::new();
        for (token, Kind { source, trigger, .. }) in kinds.into_iter().enumerate() {
            let file = at_fixed_fd((*source).as_fd());
            let registered_before =
                (token % 3 == 0).then(|| harness.register(file.clone(), token, READ, mode));
            kept.push(trigger());
            let key =
                registered_before.unwrap_or_else(|| harness.register(file, token, READ, mode));
            harness.deregister(key);
            kept.push(Box::new(source));
        }
        let regular = std::env::current_exe().and_then(std::fs::File::open);
        let regular = regular.unwrap_or_else(|error| panic!("the test binary: {error}"));
        let key = harness.register(at_fixed_fd(regular.as_fd()), 100, READ, mode);
        harness.deregister(key);
        let key = harness.register(at_fixed_fd((*source).as_fd()), 101, READ, mode);
        harness
            .expect_silence(&format!("{name} is idle, and the others are deregistered; {mode:?}"));
        kept.push(trigger());
        let reported = harness.next(name);
        let is_last =
            matches!(reported[..], [(101, readiness)] if readiness.contains(Readiness::READABLE));
        assert!(is_last, "only {name} has this descriptor: {reported:?}, {mode:?}");
        harness.deregister(key);
        // A regular file is always ready, and must be reported after another kind too.
        let key = harness.register(at_fixed_fd(regular.as_fd()), 102, READ, mode);
        harness
            .expect_now(&[(102, Readiness::READABLE)], &format!("a file after {name}, {mode:?}"));
        harness.deregister(key);
    }
}

/// Count of sources released at once.
const MANY: usize = 1000;

pub(super) fn r6_poller_drop_releases_a_thousand_sources(cx: &TestContext) {
    let before = open_fds();
    let pairs = many_files::fd_budget(cx, 2 * MANY) / 2;
    for shift in 0..MODES.len() {
        let mut harness = cx.harness(7);
        let mut peers = Vec::new();
        for token in 0..pairs {
            let (mode, interest) = (MODES[(token + shift) % 3], Interest::from_bits_truncate);
            let (interest, (local, peer)) = (interest((token % 8) as u8), stream());
            let key = harness.register(local, token, interest, mode);
            if token % 5 == 0 {
                reregister(&mut harness, key, interest, mode);
            }
            peers.push(peer);
        }
        // Some were reported, some exceed the capacity, and some have unread reports in the kernel.
        harness.wait(Some(ZERO));
        peers.iter().step_by(2).for_each(|peer| put(peer, b"x"));
        drop(harness);
        let is_over =
            |peer: &UnixStream| oracle(peer, PollFlags::POLLIN).contains(PollFlags::POLLHUP);
        let late = peers.iter().filter(|peer| !is_over(peer)).count();
        assert_eq!(late, 0, "of {pairs} sources some are still held");
    }
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

pub(super) fn r6_nineteen_thousand_sources_are_released(cx: &TestContext) {
    let before = open_fds();
    let mut groups = many_files::groups(cx, 19_000);
    let mut harness = cx.harness(64);
    let keys = many_files::register_all(&mut harness, &groups);
    groups.iter_mut().for_each(|group| group.readers.clear());
    let without_readers =
        |groups: &[Group]| groups.iter().map(Group::has_no_reader).collect::<Vec<_>>();
    assert!(!without_readers(&groups).contains(&true), "the poller must keep them open");
    harness.expect_silence("every source is idle");
    let is_first = |group: usize| group < groups.len() / 2;
    for (token, key) in keys.into_iter().enumerate() {
        if is_first(token / many_files::GROUP) {
            harness.deregister(key);
        }
    }
    let expected: Vec<bool> = (0..groups.len()).map(is_first).collect();
    assert_eq!(without_readers(&groups), expected, "exactly the deregistered sources are closed");
    harness.expect_silence("no registered source is ready");
    drop(harness);
    assert!(!without_readers(&groups).contains(&false), "the poller still holds a source");
    drop(groups);
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

/// The use that a poller makes of a listener.
#[derive(Clone, Copy, Debug)]
enum Listening {
    Watched,
    Accepting,
    AcceptingMany,
}

/// Returns a server whose poller has a listener and a connection.
fn serve(cx: &TestContext, listening: Listening) -> (OpHarness, Key, SocketAddr) {
    // An address of this case alone, so that no other test takes its ports.
    let [_, .., high, low] = std::process::id().to_be_bytes();
    let listener = ok(TcpListener::bind((Ipv4Addr::new(127, 77, high, low), 0)));
    let address = ok(listener.local_addr());
    let mut ops = OpHarness::new(cx);
    let watched = ops.harness.register(Arc::new(ok(listener.try_clone())), 9, READ, Mode::Level);
    let key = match listening {
        Listening::Watched => {
            drop(listener);
            watched
        }
        Listening::Accepting | Listening::AcceptingMany => {
            ops.harness.deregister(watched);
            ops.add(Arc::new(listener))
        }
    };
    let _client = ok(TcpStream::connect(address));
    let accepted = match listening {
        Listening::Watched => None,
        Listening::Accepting => {
            let done = ops.run(Op::accept(key));
            ops.submit(Op::accept(key), 1);
            Some(done)
        }
        Listening::AcceptingMany => {
            ops.submit_multishot(Op::accept_multi(key), 1);
            Some(ops.next())
        }
    };
    if let Some(Ok(Outcome::Accepted { socket, .. })) = accepted.map(|done| done.result) {
        let connection = ops.add(Arc::new(socket));
        ops.submit(Op::recv(connection, vec![], 9), 2);
    }
    ops.wait(ZERO);
    (ops, key, address)
}

pub(super) fn r6_listener_port_is_free_after_release(cx: &TestContext) {
    for listening in [Listening::Watched, Listening::Accepting, Listening::AcceptingMany] {
        for round in 0..20 {
            let (mut ops, key, address) = serve(cx, listening);
            ops.harness.deregister(key);
            let again = TcpListener::bind(address);
            assert!(again.is_ok(), "deregistered, {listening:?}, round {round}: {again:?}");
            drop(again);
            let (ops, _, address) = serve(cx, listening);
            drop(ops);
            let again = TcpListener::bind(address);
            assert!(again.is_ok(), "dropped, {listening:?}, round {round}: {again:?}");
        }
    }
}
