//! Clauses X1, X3, R5 and D1 for multishot operations: cancelling one loses no data.

use super::op_harness::*;
use super::scenarios::set_blocking;
use super::socket_pairs::*;
use super::util::*;
use crate::op::{Completion, Op};
use crate::sys::io_call::leaked_buffers;
use crate::sys::pool::{BufferPool, PoolBuf};
use nix::poll::PollFlags;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// States at the cancel: whether the kernel has the operation, and whether results have arrived.
const MOMENTS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

pub(super) fn x1_cancelled_recv_multi_loses_no_data(cx: &TestContext) {
    for make in ALL {
        for (is_in_flight, has_results) in MOMENTS {
            let pair = make();
            let (pool, mut ops) = (new_pool(64, 3), OpHarness::new(cx));
            ops.label = pair.name;
            let key = ops.add(pair.local.clone());
            let id = ops.submit_multishot(Op::recv_multi(key, &pool), 1);
            if is_in_flight {
                ops.expect_nothing_yet("nothing was sent");
            }
            ["a1", "b2", "c3"].iter().for_each(|packet| pair.send(packet.as_bytes()));
            if has_results {
                ops.wait(LONG);
            }
            ["d4", "e5"].iter().for_each(|packet| pair.send(packet.as_bytes()));
            ops.cancel(id);
            ops.cancel(id);
            let (pieces, last) = collect_until_last(&mut ops);
            assert!(last.is_canceled(), "{}: {last:?}", pair.name);
            let mut all = pieces.concat();
            all.extend(pair.read_rest(10 - all.len()));
            assert_eq!(all, b"a1b2c3d4e5", "{}, {is_in_flight}, {has_results}", pair.name);
            ops.expect_all_done("recv_multi was cancelled");
            let again = ops.harness.poller.cancel(id);
            assert_eq!(
                expect_err_kind(again),
                io::ErrorKind::NotFound,
                "the last completion was delivered (X2)"
            );
            let bits = oracle(&*pair.local, PollFlags::POLLIN);
            assert!(bits.is_empty(), "{}: no data is left", pair.name);
        }
    }
}

pub(super) fn x1_racing_cancel_of_recv_multi_loses_nothing(cx: &TestContext) {
    for make in STREAMS {
        let SocketPair { local, peer, name } = make();
        let (pool, mut ops) = (new_pool(64, 16), OpHarness::new(cx));
        ops.label = name;
        let key = ops.add(local.clone());
        set_blocking(&peer, true);
        let is_stopped = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let is_stopped = is_stopped.clone();
            move || {
                let mut sent = 0;
                while !is_stopped.load(Ordering::Relaxed) {
                    let bytes = bytes_from(sent, 1 + sent % 150);
                    sent += ok(nix::unistd::write(&peer, &bytes));
                }
                sent
            }
        });
        let (mut count, mut buffer) = (0, [0; 100]);
        let mut expect_next = |bytes: &[u8], round: usize| {
            assert!(bytes == bytes_from(count, bytes.len()), "{name}: {count} in round {round}");
            count += bytes.len();
        };
        for round in 0..1500 {
            let id = ops.submit_multishot(Op::recv_multi(key, &pool), round);
            (0..round % 3).for_each(|_| ops.wait(ZERO));
            (0..round * 7 % 400).for_each(|_| std::hint::spin_loop());
            ops.cancel(id);
            let (pieces, last) = collect_until_last(&mut ops);
            assert!(last.is_canceled(), "{name}: {last:?}");
            expect_next(&pieces.concat(), round);
            if round % 5 == 0 {
                let left = nix::unistd::read(&local, &mut buffer).unwrap_or_default();
                expect_next(&buffer[..left], round);
            }
        }
        is_stopped.store(true, Ordering::Relaxed);
        ops.submit_multishot(Op::recv_multi(key, &pool), 0);
        let (pieces, last) = collect_until_last(&mut ops);
        expect_end(&last, name);
        expect_next(&pieces.concat(), usize::MAX);
        let sent = writer.join().unwrap_or_else(|_| panic!("the writer failed"));
        assert_eq!(count, sent, "{name}: the count of bytes sent");
    }
}

pub(super) fn x3_recv_multi_ends_at_its_deadline(cx: &TestContext) {
    const TIME: Duration = Duration::from_millis(40);
    for make in ALL {
        for (has_data, waits_its_turn) in [(false, false), (true, false), (true, true)] {
            let pair = make();
            let (pool, mut ops) = (new_pool(64, 3), OpHarness::new(cx));
            ops.label = pair.name;
            let key = ops.add(pair.local.clone());
            let first = waits_its_turn.then(|| ops.submit(Op::recv(key, Vec::new(), 8), 0));
            let started = Instant::now();
            ops.submit_multishot(Op::recv_multi(key, &pool).deadline(TIME), 1);
            if has_data && first.is_none() {
                pair.send(b"ab");
            }
            let (pieces, last) = collect_until_last(&mut ops);
            assert!(started.elapsed() >= TIME, "{}: not before the deadline", pair.name);
            let kind = last.result.as_ref().err().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::TimedOut), "{}: {last:?}", pair.name);
            if first.is_some() {
                assert!(pieces.is_empty(), "a queued operation has no results");
                pair.send(b"ab");
                assert_eq!(*ops.next().buf, *b"ab", "the receive before it still waits");
            } else if has_data {
                let all = [pieces.concat(), pair.read_rest(2 - pieces.concat().len())].concat();
                assert_eq!(all, b"ab", "{}", pair.name);
            }
            ops.expect_all_done("the deadline has passed");
        }
    }
}

pub(super) fn r5_recv_multi_ends_with_deregister(cx: &TestContext) {
    for make in STREAMS {
        for (is_in_flight, has_results) in MOMENTS {
            let pair = make();
            let (pool, mut ops) = (new_pool(64, 3), OpHarness::new(cx));
            ops.label = pair.name;
            let key = ops.add(pair.local.clone());
            let ids = [
                ops.submit_multishot(Op::recv_multi(key, &pool), 1),
                ops.submit(Op::recv(key, Vec::new(), 8), 2),
                ops.submit_multishot(Op::recv_multi(key, &pool), 3),
            ];
            if is_in_flight {
                ops.expect_nothing_yet("nothing was sent");
            }
            pair.send(b"hello");
            if has_results {
                ops.wait(LONG);
            }
            ops.harness.deregister(key);
            let (pieces, last) = collect_until_last(&mut ops);
            let mut done = vec![last];
            done.extend(ops.collect(2));
            assert!(done.iter().map(|done| done.id).eq(ids), "{}: in order: {done:?}", pair.name);
            assert!(done.iter().all(Completion::is_canceled), "{}: {done:?}", pair.name);
            let mut all = pieces.concat();
            all.extend(pair.read_rest(5 - all.len()));
            assert_eq!(all, b"hello", "{}: nothing is lost", pair.name);
            ops.expect_all_done("the source was deregistered");
            let SocketPair { local, peer, .. } = pair;
            assert_eq!(Arc::strong_count(&local), 1, "the poller still holds the source");
            drop(local);
            assert!(has_ended(&peer), "the peer sees the close at once");
        }
    }
}

/// A thousand pollers, each dropped with hundreds of receives and accepts in flight.
pub(super) fn d1_thousand_drops_with_hundreds_of_multishots(cx: &TestContext) {
    const DROPS: usize = 1000;
    /// One round in this many checks all memory.
    const FULL_ROUND: usize = 50;
    drop(cx.poller());
    let before = open_fds();
    let pairs: Vec<SocketPair> = (0..100).map(|_| SocketPair::unix()).collect();
    let listener = |_| Arc::new(ok(TcpListener::bind("127.0.0.1:0")));
    let listeners: Vec<Arc<TcpListener>> = (0..10).map(listener).collect();
    let pools = [new_pool(96, 64), new_pool(96, 2), new_pool(4096, 1)];
    let with_files = open_fds();
    for round in cx.rounds(DROPS, 2 * FULL_ROUND) {
        let mut ops = OpHarness::new(cx);
        for (at, pair) in pairs.iter().enumerate() {
            let key = ops.add(pair.local.clone());
            ops.submit_multishot(Op::recv_multi(key, &pools[at % 3]), at);
            ops.submit_multishot(Op::recv_multi(key, &pools[0]), 100 + at);
        }
        for listener in &listeners {
            let key = ops.add(listener.clone());
            ops.submit_multishot(Op::accept_multi(key), 200);
        }
        if round % 4 > 0 {
            ops.expect_nothing_yet("nothing was sent");
        }
        if round % 4 > 1 {
            pairs[round % 7..].iter().step_by(7).for_each(|pair| pair.send(b"some"));
        }
        if round % 4 > 2 {
            ops.wait(ZERO);
        }
        let OpHarness { harness, .. } = ops;
        let ReadinessHarness { poller, events } = harness;
        drop(poller);
        drop(events);
        pools
            .iter()
            .for_each(|pool| assert_eq!(pool.available(), pool.allocated(), "round {round}"));
        pairs.iter().for_each(|pair| drain(&pair.local));
        if round % FULL_ROUND == 0 {
            expect_untouched(&pools, &pairs, round);
        }
    }
    assert_eq!(open_fds(), with_files, "no descriptor is left open");
    assert_eq!(leaked_buffers(), 0, "a buffer was leaked");
    for SocketPair { local, peer, .. } in pairs {
        assert_eq!(Arc::strong_count(&local), 1, "a poller still holds the source");
        drop(local);
        let ended = oracle(&peer, PollFlags::POLLIN).contains(PollFlags::POLLHUP);
        assert!(ended, "the kernel still holds the source");
    }
    drop(listeners);
    assert_eq!(open_fds(), before, "no descriptor is left open");
}

/// Fails if data sent now is received or written to a buffer.
fn expect_untouched(pools: &[BufferPool], pairs: &[SocketPair], round: usize) {
    const PATTERN: u8 = 0xa5;
    let mut all: Vec<PoolBuf> = pools.iter().flat_map(take_all).collect();
    for buf in &mut all {
        let pattern = vec![PATTERN; buf.capacity()];
        ok(buf.write_all(&pattern));
    }
    pairs.iter().for_each(|pair| pair.send(b"unheard"));
    for pair in pairs {
        assert_eq!(pair.read_rest(7), b"unheard", "received after drop {round}");
    }
    let is_whole = |buf: &PoolBuf| buf.iter().all(|&byte| byte == PATTERN);
    assert!(all.iter().all(is_whole), "a buffer was written after drop {round}");
}
