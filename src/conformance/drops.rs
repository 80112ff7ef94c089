//! Clauses D1 and D2, and R5 and P1 with operations in flight: deregistration, drop and fork.

use super::op_harness::OpHarness;
use super::util::*;
use crate::event::{Events, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId};
use crate::sys::staging;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Fills a stream and queues operations in both directions, one in flight and several behind it.
fn stream_with_operations(ops: &mut OpHarness) -> (Arc<UnixStream>, UnixStream, Key, Vec<OpId>) {
    let (local, peer) = stream();
    fill(&*local);
    let key = ops.add(local.clone());
    let mut ids = Vec::new();
    for token in 0..4 {
        ids.push(ops.submit(Op::recv_exact(key, vec![token as u8], 3), token));
        ids.push(ops.submit(Op::send_all(key, vec![token as u8; 9], 1..), 10 + token));
        ids.push(ops.submit(Op::recv(key, vec![token as u8], 3), 20 + token));
    }
    (local, peer, key, ids)
}

fn ids_of(done: &[Completion]) -> Vec<OpId> {
    done.iter().map(|done| done.id).collect()
}

pub(super) fn r5_cancelled_operations_complete_in_submission_order(cx: &TestContext) {
    for is_in_flight in [false, true] {
        for (received, what) in [(0, "nothing"), (2, "a part"), (3, "one"), (7, "some")] {
            let mut ops = OpHarness::new(cx);
            let (_local, peer, key, ids) = stream_with_operations(&mut ops);
            let others = ops.submit(Op::timeout(Duration::from_secs(3600)), 99);
            if is_in_flight {
                ops.expect_nothing_yet("nothing was sent and the send buffer is full");
            }
            put(&peer, &[b'x'; 7][..received]);
            ops.harness.deregister(key);
            let again = ops.harness.poller.submit(Op::recv(key, vec![1, 2], 3), Token(0));
            let refused = again.err().unwrap_or_else(|| panic!("the key is stale"));
            assert_eq!(refused.kind(), io::ErrorKind::NotFound);
            assert_eq!(&*refused.into_parts().0.into_buf(), [1, 2], "the buffer must be returned");
            let done = ops.collect(12);
            assert_eq!(ids_of(&done), ids, "received {what}, submitted: {is_in_flight}");
            let mut consumed = 0;
            for done in &done {
                let is_whole = done.result.is_ok();
                assert!(done.is_canceled() || is_whole, "{done:?}");
                let (token, sends) = (done.token.0 % 10, (10..20).contains(&done.token.0));
                if sends {
                    assert_eq!(*done.buf, [token as u8; 9], "the send buffer was full: {done:?}");
                    assert!(
                        !is_whole && done.transferred == 0,
                        "the send buffer was full: {done:?}"
                    );
                } else {
                    assert_eq!((done.buf[0], done.buf.len()), (token as u8, 1 + done.transferred));
                    consumed += done.transferred;
                }
            }
            assert!(consumed <= received, "{consumed} of {received}");
            ops.cancel(others);
            assert!(ops.next().is_canceled(), "a timeout needs no source");
            ops.expect_all_done("every operation has completed");
        }
    }
}

pub(super) fn r5_peer_sees_eof_despite_pending_operations(cx: &TestContext) {
    for is_in_flight in [false, true] {
        for by_deregister in [false, true] {
            let mut ops = OpHarness::new(cx);
            let (local, peer, key, _) = stream_with_operations(&mut ops);
            if is_in_flight {
                ops.expect_nothing_yet("nothing was sent and the send buffer is full");
            }
            let stays = if by_deregister {
                ops.harness.deregister(key);
                Some(ops)
            } else {
                drop(ops);
                None
            };
            assert_eq!(Arc::strong_count(&local), 1, "the poller still holds the source");
            drop(local);
            let bits = oracle(&peer, PollFlags::POLLIN);
            assert!(bits.contains(PollFlags::POLLHUP), "by deregister: {by_deregister}; {bits:?}");
            drop(stays);
        }
    }
}

pub(super) fn r5_operations_on_reused_fd_use_new_file(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    // A duplicate keeps the old file description open and readable.
    let duplicate = local.try_clone().unwrap_or_else(|error| panic!("dup: {error}"));
    let fd = local.as_raw_fd();
    let (new, new_peer) = stream();
    let key = ops.add(local);
    let old: Vec<_> = (0..3).map(|token| ops.submit(Op::recv(key, Vec::new(), 8), token)).collect();
    ops.expect_nothing_yet("nothing was sent");
    ops.harness.deregister(key);
    let new = staging::duplicate_onto(new.as_fd(), fd);
    let key = ops.add(Arc::new(new.unwrap_or_else(|error| panic!("dup3: {error}"))));
    let id = ops.submit(Op::recv(key, Vec::new(), 8), 3);
    let done = ops.collect(3);
    assert!(ids_of(&done) == old && done.iter().all(Completion::is_canceled), "{done:?}");
    put(&peer, b"old");
    ops.expect_nothing_yet("only the old file has data");
    put(&new_peer, b"new");
    let done = ops.next();
    assert!(done.id == id && *done.buf == *b"new", "{done:?}");
    assert_eq!(take(&duplicate, 8), 3, "data of the old file was consumed");
    ops.expect_all_done("every receive has completed");
}

/// Connects `count` clients to a listener with room in its backlog.
fn clients(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let address = listener.local_addr().unwrap_or_else(|error| panic!("getsockname: {error}"));
    let connect = |_| {
        let made = TcpStream::connect(address).unwrap_or_else(|e| panic!("connect: {e}"));
        made.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
        made
    };
    (0..count).map(connect).collect()
}

/// Fails unless the server has closed each connection.
fn expect_closed(clients: &[TcpStream], why: &str) {
    for mut client in clients {
        wait_until_kernel(client, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        assert_eq!(client.read(&mut [0; 8]).ok(), Some(0), "{why}");
    }
}

fn listener() -> Arc<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    Arc::new(listener.unwrap_or_else(|error| panic!("bind: {error}")))
}

pub(super) fn d2_untaken_accepted_sockets_are_closed(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    let all = listener();
    let mut ops = OpHarness::with_capacity(cx, 4);
    let key = ops.add(all.clone());
    let accept = |ops: &mut OpHarness, count| {
        for token in 0..count {
            ops.submit(Op::accept(key), token);
        }
    };
    // Dropped with the completion.
    accept(&mut ops, 2);
    let peers = clients(&all, 2);
    let done = ops.collect(2);
    assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
    drop(done);
    expect_closed(&peers, "closed with the completion");
    drop(peers);
    // Dropped with `Events`.
    accept(&mut ops, 3);
    let peers = clients(&all, 3);
    let mut taken = 0;
    while taken < 3 {
        let mut events = Events::with_capacity(4);
        let waited = ops.harness.poller.wait(&mut events, Some(LONG));
        waited.unwrap_or_else(|error| panic!("wait: {error}"));
        assert!(events.completed() > 0, "some connections were accepted");
        taken += events.completed();
    }
    expect_closed(&peers, "closed with the events");
    drop(peers);
    // Dropped with the poller: delivered and not taken, completed and not delivered, and in flight.
    accept(&mut ops, 9);
    let peers = clients(&all, 7);
    while ops.harness.events.completed() < 4 {
        ops.wait(LONG);
    }
    let OpHarness { harness, .. } = ops;
    let ReadinessHarness { poller, events } = harness;
    drop(poller);
    assert_eq!(events.completed(), 4, "delivered completions stay in `Events`");
    drop(events);
    // Connections that the poller has not accepted are still queued.
    all.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    while let Ok(accepted) = all.accept() {
        drop(accepted);
    }
    expect_closed(&peers, "closed with the poller");
    drop((all, peers));
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

pub(super) fn d2_sockets_accepted_during_drop_are_closed(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    let all = listener();
    all.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    for round in 0..200 {
        let mut ops = OpHarness::new(cx);
        let key = ops.add(all.clone());
        ops.submit(Op::accept(key), 1);
        ops.submit(Op::accept(key), 2);
        if round % 2 == 0 {
            ops.wait(ZERO);
        }
        let peers = clients(&all, 2);
        if round % 4 < 2 {
            ops.harness.deregister(key);
        }
        drop(ops);
        while let Ok(accepted) = all.accept() {
            drop(accepted);
        }
        expect_closed(&peers, "every connection is closed");
    }
    drop(all);
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

/// Returns true if the error names fork.
fn names_fork(error: &io::Error) -> bool {
    error.to_string().contains("fork")
}

pub(super) fn p1_child_cannot_affect_parents_operations(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let ((local, peer), all) = (stream(), listener());
    let (key, listener) = (ops.add(local.clone()), ops.add(all.clone()));
    let ids = [
        ops.submit(Op::recv_exact(key, b"> ".to_vec(), 4), 1),
        ops.submit(Op::recv(key, Vec::new(), 4), 2),
        ops.submit(Op::accept(listener), 3),
        ops.submit(Op::timeout(Duration::from_secs(3600)), 4),
        ops.submit(Op::recv(key, Vec::new(), 4).deadline(Duration::from_secs(3600)), 5),
    ];
    put(&peer, b"ab");
    ops.expect_nothing_yet("half of the bytes");
    let flags = || fcntl(&*all, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    let (before, mut inherited) = (flags(), Some(ops));
    let status = staging::in_forked_child(|| {
        let Some(OpHarness { harness, .. }) = inherited.take() else { return 1 };
        let ReadinessHarness { mut poller, mut events } = harness;
        let refused = poller.submit(Op::send(key, b"load".to_vec(), ..), Token(6));
        let is_refused = refused.err().is_some_and(|refused| {
            names_fork(refused.error()) && *refused.into_parts().0.into_buf() == *b"load"
        });
        let nop = poller.submit(Op::nop(), Token(7)).err();
        let is_refused = is_refused
            && nop.is_some_and(|refused| names_fork(refused.error()))
            && ids.iter().all(|&id| poller.cancel(id).is_err_and(|error| names_fork(&error)))
            && poller.deregister(key).is_err_and(|error| names_fork(&error))
            && poller.wait(&mut events, Some(ZERO)).is_err_and(|error| names_fork(&error))
            && events.completed() == 0;
        drop((poller, events));
        i32::from(!is_refused)
    });
    let status = status.unwrap_or_else(|error| panic!("fork: {error}"));
    assert_eq!(status, 0, "a call in the child must fail with an error that names fork");
    let Some(mut ops) = inherited else { panic!("the parent has lost its poller") };
    assert_eq!(flags(), before, "the child changed file status flags");
    ops.expect_nothing_yet("the child must not end operations");
    put(&peer, b"cdefgh");
    let done = ops.collect(2);
    assert_eq!(ids_of(&done), ids[..2]);
    assert!(*done[0].buf == *b"> abcd" && *done[1].buf == *b"efgh", "{done:?}");
    let _peers = clients(&all, 1);
    let done = ops.next();
    assert!(done.id == ids[2] && done.result.is_ok(), "{done:?}");
    ids[3..].iter().for_each(|&id| ops.cancel(id));
    assert!(ops.collect(2).iter().all(Completion::is_canceled));
    ops.expect_all_done("every operation has completed");
}
