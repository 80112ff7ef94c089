//! Clauses X1 and X2: operations that are cancelled.

use super::op_harness::{OpHarness, bytes};
use super::util::*;
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};
use std::io::{self, Read};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Fails unless the operation was cancelled with no bytes moved.
fn expect_canceled(done: &Completion, id: OpId) {
    assert_eq!(done.id, id, "another operation completed: {done:?}");
    assert!(done.is_canceled() && done.transferred == 0, "{done:?}");
}

/// True if the kernel has the operation when it is cancelled.
const MOMENTS: [bool; 2] = [false, true];

pub(super) fn x1_queued_operation_is_cancelled_at_once(cx: &TestContext) {
    for is_in_flight in MOMENTS {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        let key = ops.add(local);
        let ids: Vec<_> =
            (0..6).map(|token| ops.submit(Op::recv(key, vec![9], 1), token)).collect();
        if is_in_flight {
            ops.expect_nothing_yet("nothing was sent");
        }
        for at in [4, 1, 5] {
            ops.cancel(ids[at]);
            ops.wait(ZERO);
            assert_eq!(ops.harness.events.completed(), 1, "the cancel completes in the next wait");
            let done = ops.next();
            expect_canceled(&done, ids[at]);
            assert_eq!(&*done.buf, [9], "the buffer is unchanged");
        }
        ops.expect_nothing_yet("the others still wait");
        put(&peer, b"abc");
        let rest = ops.collect(3);
        let received: Vec<_> = rest.iter().map(|done| (done.id, done.buf.to_vec())).collect();
        let expected = [(0, b'a'), (2, b'b'), (3, b'c')];
        assert_eq!(received, expected.map(|(at, byte)| (ids[at], vec![9, byte])), "in order");
        ops.expect_all_done("six operations");
    }
}

pub(super) fn x1_cancelled_queued_send_is_never_sent(cx: &TestContext) {
    for is_in_flight in MOMENTS {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        fill(&*local);
        let key = ops.add(local);
        let loads: [&[u8]; 4] = [b"first", b"second", b"third", b"fourth"];
        let ids = loads.map(|load| ops.submit(Op::send_all(key, load, ..), load.len()));
        if is_in_flight {
            ops.expect_nothing_yet("the send buffer is full");
        }
        ops.cancel(ids[1]);
        expect_canceled(&ops.next(), ids[1]);
        // The kernel may send the first as soon as there is room.
        let mut arrived = Vec::new();
        assert_eq!(expect_err_kind((&peer).read_to_end(&mut arrived)), io::ErrorKind::WouldBlock);
        let sent = ops.collect(3);
        assert_eq!(sent.iter().map(|done| done.id).collect::<Vec<_>>(), [ids[0], ids[2], ids[3]]);
        assert_eq!(expect_err_kind((&peer).read_to_end(&mut arrived)), io::ErrorKind::WouldBlock);
        assert!(arrived.ends_with(b"firstthirdfourth"), "{} bytes", arrived.len());
        ops.expect_all_done("four operations");
    }
}

/// The operation at the head of the queue is cancelled: it consumes nothing, and the next one
/// proceeds.
pub(super) fn x1_next_operation_proceeds_after_cancel(cx: &TestContext) {
    for is_in_flight in MOMENTS {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        let key = ops.add(local);
        let ids: Vec<_> =
            (0..4).map(|token| ops.submit(Op::recv(key, Vec::new(), 2), token)).collect();
        if is_in_flight {
            ops.expect_nothing_yet("nothing was sent");
        }
        ops.cancel(ids[0]);
        expect_canceled(&ops.next(), ids[0]);
        // Two at once: the second reaches the head while it is being cancelled.
        ops.cancel(ids[1]);
        ops.cancel(ids[2]);
        put(&peer, b"xy");
        loop {
            let done = ops.next();
            let (id, is_last) = (done.id, done.id == ids[3]);
            if done.is_canceled() {
                assert!(!is_last && done.transferred == 0, "{done:?}");
                continue;
            }
            assert_eq!(bytes(done), (2, b"xy".to_vec()), "one receive gets the bytes");
            if is_last {
                break;
            }
            // The second completed before its cancel, so the last receives the next bytes.
            assert_eq!(id, ids[1], "an operation not at the head must be cancelled");
            put(&peer, b"xy");
        }
        ops.expect_all_done("four operations");
    }
}

/// Waits until operations have drained the socket.
fn wait_until_consumed(ops: &mut OpHarness, local: &impl std::os::fd::AsFd) {
    while oracle(local, PollFlags::POLLIN).contains(PollFlags::POLLIN) {
        ops.wait(ZERO);
    }
}

pub(super) fn x1_bytes_received_before_cancel_are_kept(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local.clone());
    let id = ops.submit(Op::recv_exact(key, b"> ".to_vec(), 10), 1);
    let next = ops.submit(Op::recv(key, Vec::new(), 10), 2);
    for part in [&b"ab"[..], b"cd"] {
        put(&peer, part);
        wait_until_consumed(&mut ops, &local);
        ops.expect_nothing_yet("recv_exact needs more bytes");
    }
    ops.cancel(id);
    let done = ops.next();
    assert!(done.id == id && done.is_canceled(), "{done:?}");
    assert_eq!(
        (done.transferred, &*done.buf),
        (4, &b"> abcd"[..]),
        "bytes received before are kept"
    );
    put(&peer, b"ef");
    let done = ops.next();
    assert_eq!(done.id, next);
    assert_eq!(bytes(done), (2, b"ef".to_vec()), "later bytes go to the next receive");
    ops.expect_all_done("two operations");
}

pub(super) fn x1_bytes_sent_before_cancel_are_counted(cx: &TestContext) {
    for is_in_flight in MOMENTS {
        let mut ops = OpHarness::new(cx);
        let (local, mut peer) = stream();
        let key = ops.add(local);
        let load: Vec<u8> = (0..1 << 22).map(|at| (at % 251) as u8).collect();
        let id = ops.submit(Op::send_all(key, load.clone(), 1..), 1);
        if is_in_flight {
            ops.expect_nothing_yet("the send buffer is full");
        }
        ops.cancel(id);
        let done = ops.next();
        assert!(done.id == id && done.is_canceled() && *done.buf == load, "{done:?}");
        assert!(done.transferred > 0 || !is_in_flight, "some bytes were sent");
        let mut arrived = Vec::new();
        assert_eq!(expect_err_kind(peer.read_to_end(&mut arrived)), io::ErrorKind::WouldBlock);
        assert!(arrived == load[1..=done.transferred], "{} bytes arrived", arrived.len());
        assert_eq!(
            bytes(ops.run(Op::send(key, "!", ..))),
            (1, b"!".to_vec()),
            "the next send proceeds"
        );
        ops.expect_all_done("two operations");
    }
}

/// Returns a listener with a full backlog, so that connects wait, its address, and the client that
/// fills it.
pub(super) fn full_listener() -> (OwnedFd, SocketAddr, TcpStream) {
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let made = made.unwrap_or_else(|error| panic!("socket: {error}"));
    let any_port = SockaddrIn::new(127, 0, 0, 1, 0);
    bind(made.as_raw_fd(), &any_port).unwrap_or_else(|error| panic!("bind: {error}"));
    let backlog = Backlog::new(0).unwrap_or_else(|error| panic!("a backlog of 0: {error}"));
    listen(&made, backlog).unwrap_or_else(|error| panic!("listen: {error}"));
    let address: SockaddrIn =
        getsockname(made.as_raw_fd()).unwrap_or_else(|error| panic!("getsockname: {error}"));
    let address = SocketAddr::V4(SocketAddrV4::from(address));
    let filling = TcpStream::connect(address).unwrap_or_else(|error| panic!("connect: {error}"));
    (made, address, filling)
}

/// Returns a blocking, unconnected TCP socket.
pub(super) fn unconnected() -> Arc<OwnedFd> {
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    Arc::new(made.unwrap_or_else(|error| panic!("socket: {error}")))
}

pub(super) fn x1_pending_connect_is_cancelled(cx: &TestContext) {
    let (_listener, address, _filling) = full_listener();
    for is_in_flight in MOMENTS {
        let mut ops = OpHarness::new(cx);
        let source = unconnected();
        let key = ops.add(source.clone());
        let id = ops.submit(Op::connect(key, address), 1);
        let behind = ops.submit(Op::send(key, "x", ..), 2);
        if is_in_flight {
            ops.expect_nothing_yet("the connection is not established");
        }
        ops.cancel(behind);
        ops.cancel(id);
        let done = ops.collect(2);
        expect_canceled(&done[0], behind);
        expect_canceled(&done[1], id);
        ops.harness.deregister(key);
        assert_eq!(Arc::strong_count(&source), 1, "the poller still holds the source");
        ops.expect_all_done("two operations");
    }
}

pub(super) fn x1_timeouts_and_nops_can_be_cancelled(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let hour = Duration::from_secs(3600);
    let ids: Vec<_> = (0..3).map(|token| ops.submit(Op::timeout(hour), token)).collect();
    ops.expect_nothing_yet("an hour has not passed");
    ops.cancel(ids[1]);
    expect_canceled(&ops.next(), ids[1]);
    ops.expect_nothing_yet("the others still wait");
    ops.cancel(ids[2]);
    ops.cancel(ids[0]);
    expect_canceled(&ops.next(), ids[2]);
    expect_canceled(&ops.next(), ids[0]);
    let nop = ops.submit(Op::nop(), 4);
    ops.cancel(nop);
    let done = ops.next();
    assert!(done.id == nop && (done.is_canceled() || done.result.is_ok()), "{done:?}");
    ops.expect_all_done("four operations");
}

fn expect_unknown(ops: &mut OpHarness, id: OpId, why: &str) {
    let answer = ops.harness.poller.cancel(id);
    assert_eq!(expect_err_kind(answer), io::ErrorKind::NotFound, "{why}");
}

pub(super) fn x2_cancel_after_delivery_is_not_found(cx: &TestContext) {
    let mut ops = OpHarness::with_capacity(cx, 1);
    let (local, peer) = stream();
    let key = ops.add(local);
    let ids: Vec<_> = (0..3).map(|token| ops.submit(Op::recv(key, Vec::new(), 1), token)).collect();
    put(&peer, b"ab");
    // The capacity is one completion; the second operation is completed but not delivered.
    ops.wait(LONG);
    assert_eq!(ops.harness.events.completed(), 1);
    expect_unknown(&mut ops, ids[0], "it was delivered, though not taken");
    (0..3).for_each(|_| ops.cancel(ids[1]));
    (0..3).for_each(|_| ops.cancel(ids[2]));
    let mut done = ops.collect(3);
    done.sort_by_key(|done| done.token);
    assert!(done[0].result.is_ok() && done[2].is_canceled(), "{done:?}");
    let consumed: usize = done.iter().map(|done| done.transferred).sum();
    assert_eq!(consumed, usize::from(done[1].result.is_ok()) + 1, "{done:?}");
    for id in ids {
        expect_unknown(&mut ops, id, "it was delivered");
    }
    ops.harness.deregister(key);
    ops.expect_all_done("three operations");
}

pub(super) fn x2_cancel_after_deregister_is_ok_until_delivery(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, _peer) = stream();
    let key = ops.add(local);
    let ids: Vec<_> = (0..3).map(|token| ops.submit(Op::recv(key, Vec::new(), 1), token)).collect();
    ops.wait(ZERO);
    ops.harness.deregister(key);
    ids.iter().for_each(|&id| ops.cancel(id));
    for (done, id) in ops.collect(3).iter().zip(&ids) {
        expect_canceled(done, *id);
    }
    ids.into_iter().for_each(|id| expect_unknown(&mut ops, id, "it was delivered"));
}

pub(super) fn x2_cancel_of_foreign_operation_is_not_found(cx: &TestContext) {
    let (mut ops, mut other) = (OpHarness::new(cx), OpHarness::new(cx));
    let hour = Duration::from_secs(3600);
    let ids: Vec<_> = (0..4).map(|token| ops.submit(Op::timeout(hour), token)).collect();
    let others: Vec<_> = (0..4).map(|token| other.submit(Op::timeout(hour), token)).collect();
    for (&id, &theirs) in ids.iter().zip(&others) {
        assert_ne!(id, theirs);
        expect_unknown(&mut ops, theirs, "an operation of another poller");
        let message = ops.harness.poller.cancel(theirs).map_err(|error| error.to_string());
        assert!(message.as_ref().is_err_and(|text| text.contains("another poller")), "{message:?}");
        expect_unknown(&mut other, id, "an operation of another poller");
    }
    ops.expect_nothing_yet("no operation was cancelled");
    other.expect_nothing_yet("no operation was cancelled");
    drop(ops);
    expect_unknown(&mut other, ids[0], "its poller was dropped");
    others.into_iter().for_each(|id| other.cancel(id));
    assert_eq!(other.collect(4).len(), 4);
}

/// An operation that reuses a table entry has another id.
pub(super) fn x2_operation_ids_are_never_reused(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key: Key = ops.add(local);
    let mut old: Vec<OpId> = Vec::new();
    for round in 0..500usize {
        let id = ops.submit(Op::recv(key, Vec::new(), 1), round);
        assert!(!old.contains(&id), "{id:?} was the id of another operation");
        let latest = old.len().saturating_sub(20);
        for &old in &old[latest..] {
            expect_unknown(&mut ops, old, "it has completed");
        }
        put(&peer, &[round as u8]);
        let done = ops.next();
        assert!(matches!(done.result, Ok(Outcome::Done)), "cancelled by an old id: {done:?}");
        assert_eq!(bytes(done), (1, vec![round as u8]));
        old.push(id);
    }
    old.into_iter().for_each(|old| expect_unknown(&mut ops, old, "it has completed"));
    ops.expect_all_done("every receive has completed");
}
