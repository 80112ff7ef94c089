//! How multishot receives end when the end or reset came before their results were delivered; and
//! which receive gets a buffer.

use super::op_harness::*;
use super::socket_pairs::*;
use super::util::*;
use crate::key::Key;
use crate::op::{Address, Op};
use crate::sys::staging;
use nix::poll::PollFlags;
use std::io::Write;
use std::net::TcpListener;

/// Counts of results, around what a kernel delivers in one batch.
const COUNTS: [usize; 12] = [1, 16, 17, 31, 32, 33, 34, 50, 84, 85, 100, 200];
const SIZE: usize = 16;

/// Closes the peer. On TCP, data it has not read makes this a reset.
fn close_peer(pair: SocketPair) {
    let SocketPair { local, peer, .. } = pair;
    drop(peer);
    while !has_ended(&*local) {
        std::thread::yield_now();
    }
}

/// Sends data that the peer does not read, so that its close is a reset.
fn leave_unread(pair: &SocketPair) {
    assert_eq!(nix::unistd::write(&*pair.local, b"unread"), Ok(6));
    wait_until_kernel(&pair.peer, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
}

pub(super) fn c8_end_follows_any_number_of_results(cx: &TestContext) {
    for (make, capacity) in STREAMS.into_iter().flat_map(|make| [(make, 8), (make, 512)]) {
        for (count, is_first) in COUNTS.into_iter().flat_map(|n| [(n, false), (n, true)]) {
            for is_reset in [false, true] {
                let pair = make();
                let why = format!("{}, {count} results, a reset: {is_reset}", pair.name);
                let pool = new_pool(SIZE, 1024);
                let mut ops = OpHarness::with_capacity(cx, capacity);
                let key = ops.add(pair.local.clone());
                let half = if is_first { count / 2 } else { 0 };
                if is_first {
                    ops.submit_multishot(Op::recv_multi(key, &pool), 1);
                    ops.wait(ZERO);
                    pair.send(&bytes_from(0, half * SIZE));
                    assert_eq!(collect_bytes(&mut ops, half * SIZE).len(), half * SIZE, "{why}");
                }
                if is_reset {
                    leave_unread(&pair);
                }
                pair.send(&bytes_from(half * SIZE, (count - half) * SIZE));
                close_peer(pair);
                if !is_first {
                    ops.submit_multishot(Op::recv_multi(key, &pool), 1);
                }
                let (pieces, last) = collect_until_last(&mut ops);
                let rest = bytes_from(half * SIZE, (count - half) * SIZE);
                assert!(pieces.concat() == rest, "{why}: each byte once, in order");
                if is_reset {
                    assert_eq!(errno(&last), libc::ECONNRESET, "{why}");
                } else {
                    expect_end(&last, &why);
                }
            }
        }
    }
}

/// The kernel reports a reset once.
pub(super) fn c2_reset_reaches_receive_after_failed_send(cx: &TestContext) {
    for how in ["send", "write", "send_to", "send_msg", "splice"] {
        let pair = SocketPair::tcp();
        let (pool, mut ops) = (new_pool(64, 4), OpHarness::new(cx));
        ops.label = how;
        let key = ops.add(pair.local.clone());
        let (reader, writer) = pipe();
        assert_eq!(nix::unistd::write(&writer, b"x"), Ok(1));
        let reader = ops.add(std::sync::Arc::new(reader));
        ops.submit_multishot(Op::recv_multi(key, &pool), 1);
        ops.expect_nothing_yet(how);
        leave_unread(&pair);
        pair.send(b"abc");
        close_peer(pair);
        let op = match how {
            "send" => Op::send(key, "x", ..),
            "write" => Op::write(key, "x", ..),
            "send_to" => {
                let anywhere: std::net::SocketAddr = ([127, 0, 0, 1], 9).into();
                Op::send_to(key, "x", .., anywhere)
            }
            "send_msg" => Op::send_msg(key, "x", .., crate::op::Message::new()),
            _ => Op::splice(reader, key, 1),
        };
        let writes = ops.submit(op, 2);
        let (mut received, mut last) = (Vec::<u8>::new(), None);
        for _ in 0..3 {
            let done = ops.next();
            if done.id == writes {
                let is_expected = [libc::EPIPE, libc::ECONNRESET].contains(&errno(&done));
                assert!(is_expected, "{how}: {done:?}");
            } else if done.more {
                received.extend(&*done.buf);
            } else {
                last = Some(done);
            }
        }
        assert_eq!(received, b"abc", "{how}");
        let last = last.unwrap_or_else(|| panic!("{how}: no last completion"));
        assert_eq!(errno(&last), libc::ECONNRESET, "{how}: a reset is not the end of the stream");
    }
}

/// Disconnects a socket, which can then connect again (connect(2), `AF_UNSPEC`).
fn disconnect(key: Key) -> Op {
    let mut address = (libc::AF_UNSPEC as libc::sa_family_t).to_ne_bytes().to_vec();
    address.resize(16, 0);
    Op::connect(key, Address::Other(address))
}

/// A socket may make several connections in turn. Here the receive of the first is cancelled before
/// it reports the reset that a send consumed.
pub(super) fn c2_reset_does_not_affect_next_connection(cx: &TestContext) {
    for (waits_for_buffer, is_multishot) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        let why = format!("no buffer: {waits_for_buffer}, multishot: {is_multishot}");
        let (pair, pool, mut ops) = (SocketPair::tcp(), new_pool(64, 4), OpHarness::new(cx));
        let key = ops.add(pair.local.clone());
        let held = if waits_for_buffer { take_all(&pool) } else { Vec::new() };
        let reads = if waits_for_buffer {
            ops.submit_multishot(Op::recv_multi(key, &pool), 1)
        } else {
            ops.submit(Op::recv(key, vec![], 9), 1)
        };
        ops.expect_nothing_yet(&why);
        leave_unread(&pair);
        close_peer(pair);
        let writes = ops.submit(Op::send(key, "x", ..), 2);
        if waits_for_buffer {
            let done = ops.next();
            assert_eq!(done.id, writes, "{why}: a receive without a buffer does not complete");
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&errno(&done)), "{why}: {done:?}");
        }
        ops.cancel(reads);
        for done in ops.collect(if waits_for_buffer { 1 } else { 2 }) {
            assert!(done.result.is_err(), "{why}: nothing was received: {done:?}");
        }
        drop(held);
        let listener = ok(TcpListener::bind("127.0.0.1:0"));
        assert_eq!(bytes(ops.run(disconnect(key))).0, 0, "{why}");
        let connects = Op::connect(key, ok(listener.local_addr()));
        assert_eq!(bytes(ops.run(connects)).0, 0, "{why}: the socket connects again");
        let (mut peer, _) = ok(listener.accept());
        ok(peer.write_all(b"whole"));
        drop(peer);
        if is_multishot {
            ops.submit_multishot(Op::recv_multi(key, &pool), 3);
            let (pieces, last) = collect_until_last(&mut ops);
            assert_eq!(pieces.concat(), b"whole", "{why}");
            expect_end(&last, &why);
        } else {
            let received = ops.run(Op::recv_exact(key, vec![], 5));
            assert_eq!(bytes(received), (5, b"whole".to_vec()), "{why}");
            assert_eq!(bytes(ops.run(Op::recv(key, vec![], 9))).0, 0, "{why}: end of stream");
        }
    }
}

pub(super) fn c8_late_receive_does_not_overtake_waiting_one(cx: &TestContext) {
    let [first, second] = [SocketPair::unix(), SocketPair::unix()];
    let (pool, mut ops) = (new_pool(SIZE, 1), OpHarness::new(cx));
    let held = pool.take();
    let [one, other] = [&first, &second].map(|pair| {
        pair.send(b"said");
        ops.add(pair.local.clone())
    });
    let waits = ops.submit_multishot(Op::recv_multi(one, &pool), 1);
    ops.expect_nothing_yet("the pool is empty");
    drop(held);
    let late = ops.submit_multishot(Op::recv_multi(other, &pool), 2);
    // Each buffer is returned before the next result.
    let mut next = || {
        let done = ops.next();
        (done.id, done.buf.to_vec())
    };
    let order = [next(), next()];
    assert_eq!(order, [(waits, b"said".to_vec()), (late, b"said".to_vec())]);
}

pub(super) fn p1_inherited_pool_is_refused_in_child(cx: &TestContext) {
    let pool = new_pool(SIZE, 4);
    let held = pool.take();
    let status = staging::in_forked_child(|| {
        let mut ops = OpHarness::new(cx);
        let key = ops.add(SocketPair::unix().local);
        let (_, error) = ops.rejected(Op::recv_multi(key, &pool));
        let is_refused = error.to_string().contains("fork") && pool.take().is_none();
        drop(pool.clone());
        i32::from(!is_refused)
    });
    let status = status.unwrap_or_else(|error| panic!("fork: {error}"));
    assert_eq!(status, 0, "the child must get an error without hanging");
    drop(held);
    assert_eq!((pool.allocated(), pool.available()), (1, 1), "the parent's pool is unchanged");
}
