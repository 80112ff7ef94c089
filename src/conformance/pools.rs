//! Clause C8 with few buffers: receives share the buffers of a pool, wait for them, and return all
//! of them.

use super::op_harness::*;
use super::socket_pairs::*;
use super::util::*;
use crate::event::{Interest, Mode};
use crate::op::{Completion, Op, OpId};
use crate::poller::Source;
use crate::sys::buf::Buf;
use crate::sys::io_call::leaked_buffers;
use crate::sys::pool::BufferPool;
use crate::sys::staging;
use nix::errno::Errno;
use std::thread;

/// A peer that sends continuously: it fills the send buffer whenever there is room.
struct Sender {
    pair: SocketPair,
    sent: usize,
    received: usize,
}

impl Sender {
    fn new() -> Self {
        Sender { pair: SocketPair::unix(), sent: 0, received: 0 }
    }

    fn flood(&mut self) {
        loop {
            let bytes = bytes_from(self.sent, 2048);
            match nix::unistd::write(&self.pair.peer, &bytes) {
                Ok(count) => self.sent += count,
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("write: {error}"),
            }
        }
    }

    /// Fails unless these are the next bytes of the stream.
    fn expect_next(&mut self, bytes: &[u8], whose: usize) {
        let expected = bytes_from(self.received, bytes.len());
        assert!(*bytes == *expected, "stream {whose}: out of order after {}", self.received);
        self.received += bytes.len();
    }
}

/// Submits a `recv_multi` on each source, with tokens from 0.
fn receive_all<'a>(
    ops: &mut OpHarness,
    sources: impl Iterator<Item = &'a Source>,
    pool: &BufferPool,
) -> Vec<OpId> {
    let receive = |(token, source): (usize, &Source)| {
        let key = ops.add(source.clone());
        ops.submit_multishot(Op::recv_multi(key, pool), token)
    };
    sources.enumerate().map(receive).collect()
}

fn expect_all_returned(pool: &BufferPool, why: &str) {
    assert_eq!(pool.available(), pool.allocated(), "{why}: a buffer was not returned");
    assert_eq!(take_all(pool).len(), pool.limit(), "{why}: a buffer cannot be taken");
}

pub(super) fn c8_four_buffers_serve_sixty_four_senders(cx: &TestContext) {
    const SENDERS: usize = 64;
    const SIZE: usize = 512;
    // Count of results that the program keeps.
    for kept in [0, 1, 3] {
        let (pool, mut ops) = (new_pool(SIZE, 4), OpHarness::new(cx));
        let mut senders: Vec<Sender> = (0..SENDERS).map(|_| Sender::new()).collect();
        senders.iter_mut().for_each(Sender::flood);
        receive_all(&mut ops, senders.iter().map(|sender| &sender.pair.local), &pool);
        let mut keep = Vec::new();
        for _ in 0..SENDERS * 40 {
            let done = ops.next();
            assert!(done.more, "a last completion: {done:?}");
            let sender = &mut senders[done.token.0];
            sender.expect_next(&done.buf, done.token.0);
            sender.flood();
            keep.push(done);
            if keep.len() > kept {
                drop(keep.remove(0));
            }
        }
        drop(keep);
        let shares = senders.iter().map(|sender| sender.received);
        let (least, most) = (shares.clone().min(), shares.max());
        let is_fair = least.zip(most).is_some_and(|(least, most)| 0 < most && most <= 3 * least);
        assert!(is_fair, "{kept} kept: shares from {least:?} to {most:?}");
        finish(&mut ops, senders);
        drop(ops);
        expect_all_returned(&pool, "all streams have ended");
    }
}

/// Drops the senders and receives everything they have sent.
fn finish(ops: &mut OpHarness, senders: Vec<Sender>) {
    // Bytes sent and received, per sender.
    let mut counts = Vec::new();
    for Sender { sent, received, pair } in senders {
        counts.push((sent, received));
        drop(pair);
    }
    let mut left = counts.len();
    while left > 0 {
        let done = ops.next();
        let (token, (sent, received)) = (done.token.0, &mut counts[done.token.0]);
        assert!(*done.buf == bytes_from(*received, done.buf.len()), "stream {token}: out of order");
        *received += done.buf.len();
        if !done.more {
            expect_end(&done, "the sender was dropped");
            assert_eq!(received, sent, "stream {token}: the count of bytes sent");
            left -= 1;
        }
    }
    ops.expect_all_done("every sender was dropped");
}

/// Every peer sends while the pool is empty.
pub(super) fn c8_receives_without_buffer_sleep(cx: &TestContext) {
    for (limit, keeps_pool) in [(1, true), (1, false), (2, true), (7, false)] {
        let pool = new_pool(64, limit);
        let mut held = take_all(&pool);
        assert_eq!(held.len(), limit, "a new pool can be taken whole");
        let mut ops = OpHarness::new(cx);
        let pairs = [SocketPair::unix(), SocketPair::tcp(), SocketPair::unix()];
        pairs[0].send(b"early");
        receive_all(&mut ops, pairs.iter().map(|pair| &pair.local), &pool);
        let pool = keeps_pool.then_some(pool);
        ops.expect_nothing_yet("the pool is empty");
        ops.expect_sleep("data is pending and the pool is empty");
        pairs[1..].iter().for_each(|pair| pair.send(b"late!"));
        ops.expect_nothing_yet("the pool is empty");
        ops.expect_sleep("more data is pending and the pool is empty");
        // One buffer is returned, and serves each receive in turn.
        let waiter = staging::Thread::current().id();
        let first = held.pop();
        let other = thread::spawn(move || {
            wait_until_asleep(waiter);
            drop(first);
        });
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let done = ops.next();
            assert!(done.more && done.transferred == 5, "{done:?}");
            tokens.push(done.token.0);
            ops.expect_nothing_yet("its buffer is the only one of the pool");
            drop(done);
        }
        other.join().unwrap_or_else(|_| panic!("the other thread failed"));
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2], "one result for each stream");
        ops.expect_nothing_yet("no data is left");
        drop((held, pairs));
        for done in ops.collect(3) {
            expect_end(&done, "the peers have closed");
        }
        ops.expect_all_done("the peers have closed");
        drop(ops);
        pool.iter().for_each(|pool| expect_all_returned(pool, "at the end"));
    }
}

/// Data that arrives while the pool is empty must not wake a wait.
pub(super) fn c8_flood_without_buffer_does_not_wake(cx: &TestContext) {
    let pool = new_pool(64, 2);
    let held = take_all(&pool);
    let mut ops = OpHarness::new(cx);
    let SocketPair { local, peer, .. } = SocketPair::unix();
    let key = ops.add(local);
    ops.submit_multishot(Op::recv_multi(key, &pool), 1);
    ops.expect_nothing_yet("nothing was sent");
    let (stop, is_over) = std::sync::mpsc::channel::<()>();
    let pause = std::time::Duration::from_millis(1);
    let flood = thread::spawn(move || {
        let mut sent = 0;
        while is_over.recv_timeout(pause).is_err() {
            sent += ok(nix::unistd::write(&peer, &bytes_from(sent, 1)));
        }
        sent
    });
    // The first byte may be reported.
    ops.wait(std::time::Duration::from_millis(20));
    ops.expect_sleep("the pool is empty");
    ok(stop.send(()));
    let sent = flood.join().unwrap_or_else(|_| panic!("the flood failed"));
    drop(held);
    let (pieces, last) = collect_until_last(&mut ops);
    assert!(pieces.concat() == bytes_from(0, sent), "each byte once, in order");
    expect_end(&last, "the peer has closed");
}

pub(super) fn c8_receives_get_pool_buffers_in_fifo_order(cx: &TestContext) {
    const PAIRS: usize = 9;
    let pool = new_pool(1, 1);
    let held = pool.take();
    let mut ops = OpHarness::new(cx);
    let pairs: Vec<SocketPair> = (0..PAIRS).map(|_| SocketPair::unix()).collect();
    pairs.iter().for_each(|pair| pair.send(b"abc"));
    let (late, early) = pairs.split_last().unwrap_or_else(|| panic!("no pairs"));
    receive_all(&mut ops, early.iter().map(|pair| &pair.local), &pool);
    ops.expect_nothing_yet("the pool is empty");
    drop(held);
    // A buffer is free, but other receives have waited for it.
    let key = ops.add(late.local.clone());
    ops.submit_multishot(Op::recv_multi(key, &pool), PAIRS - 1);
    for turn in 0..3 {
        let tokens: Vec<usize> = (0..PAIRS).map(|_| ops.next().token.0).collect();
        assert!(tokens.iter().copied().eq(0..PAIRS), "one buffer each, in turn {turn}: {tokens:?}");
    }
    ops.expect_nothing_yet("no data is left");
}

pub(super) fn c8_buffer_returned_by_thread_wakes_receive(cx: &TestContext) {
    let (pool, mut ops) = (new_pool(8, 1), OpHarness::new(cx));
    let pair = SocketPair::unix();
    let (key, (give, is_given)) = (ops.add(pair.local.clone()), std::sync::mpsc::channel());
    ops.submit_multishot(Op::recv_multi(key, &pool), 1);
    // The other thread drops each buffer as soon as it receives it.
    let other = thread::spawn(move || is_given.iter().for_each(|buf: Buf| drop(buf)));
    for round in 0..2000 {
        pair.send(&[byte_at(round)]);
        let done = ops.next();
        assert!(done.more && *done.buf == [byte_at(round)], "round {round}: {done:?}");
        ok(give.send(done.buf).map_err(|_| "the other thread has failed"));
    }
    drop(give);
    other.join().unwrap_or_else(|_| panic!("the other thread failed"));
}

/// A report outside of a wait is not lost: a buffer is free, but not provided to the ring.
pub(super) fn c8_shortage_reported_outside_wait_is_handled(cx: &TestContext) {
    for by_modify in [true, false] {
        let (pool, mut ops) = (new_pool(4, 2), OpHarness::new(cx));
        let (pair, other) = (SocketPair::unix(), SocketPair::tcp());
        receive_all(&mut ops, [&pair.local].into_iter(), &pool);
        let key = ops.add(other.local.clone());
        ops.submit(Op::recv(key, Vec::new(), 8), 1);
        ops.expect_nothing_yet("nothing was sent");
        pair.send(b"kept");
        let kept = ops.next();
        ops.expect_nothing_yet("no data is left");
        pair.send(b"more");
        if by_modify {
            ops.harness.modify(key, 1, Interest::PRIORITY, Mode::Level)
        } else {
            ops.harness.deregister(key)
        }
        let mut done = ops.collect(if by_modify { 1 } else { 2 });
        // The cancelled receive may complete before or after it.
        done.retain(|done| !done.is_canceled());
        let done = done.remove(0);
        assert!(done.more && *done.buf == *b"more", "by modify: {by_modify}; {done:?}");
        drop(kept);
    }
}

pub(super) fn c8_buffers_outlive_the_poller(cx: &TestContext) {
    for limit in [1, 2, 5] {
        let (pool, mut ops) = (new_pool(64, limit), OpHarness::new(cx));
        let pairs = [SocketPair::unix(), SocketPair::tcp(), SocketPair::unix()];
        receive_all(&mut ops, pairs.iter().map(|pair| &pair.local), &pool);
        ops.expect_nothing_yet("nothing was sent");
        pairs[0].send(b"kept");
        let kept = ops.next();
        pairs.iter().for_each(|pair| pair.send(b"unread"));
        // Delivered and not taken, completed and not delivered, waiting, and provided.
        ops.wait(ZERO);
        let OpHarness { harness, .. } = ops;
        let ReadinessHarness { poller, events } = harness;
        drop(poller);
        pairs.iter().for_each(|pair| pair.send(b"later"));
        drop(events);
        assert_eq!(*kept.buf, *b"kept", "the buffer belongs to the program");
        assert_eq!(
            pool.allocated() - pool.available(),
            1,
            "{limit}: the other buffers were not returned"
        );
        let handle = pool.clone();
        drop(pool);
        let buf = thread::spawn(move || kept.buf.to_vec()).join();
        assert_eq!(buf.ok().as_deref(), Some(&b"kept"[..]), "the buffer can be sent to a thread");
        expect_all_returned(&handle, "at the end");
        assert_eq!(leaked_buffers(), 0, "a buffer was leaked");
    }
}

/// Returns the resident memory of this process in bytes.
fn resident() -> usize {
    let status = ok(std::fs::read_to_string("/proc/self/status"));
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    let kib: Option<usize> = kib.and_then(|kib| kib.trim().parse().ok());
    kib.unwrap_or_else(|| panic!("no VmRSS in {status:?}")) << 10
}

/// One poller uses many pools in turn, and must keep nothing of them.
pub(super) fn c8_hundreds_of_pools_leave_no_memory(cx: &TestContext) {
    const SIZE: usize = 64 << 10;
    const ROUNDS: usize = 400;
    let mut ops = OpHarness::with_capacity(cx, 8);
    let text = vec![7; SIZE];
    let mut before = 0;
    for round in 0..ROUNDS + 40 {
        if round == 40 {
            before = resident();
        }
        let (pool, pair) = (new_pool(SIZE, 2), SocketPair::unix());
        let key = ops.add(pair.local.clone());
        let id = ops.submit_multishot(Op::recv_multi(key, &pool), 1);
        // One byte needs a buffer as well, but only full ones use memory.
        let text = if round % 3 == 2 { &text[..1] } else { &text };
        pair.send(text);
        let mut results = Vec::new();
        while results.iter().map(|done: &Completion| done.transferred).sum::<usize>() < text.len() {
            results.push(ops.next());
        }
        if round % 7 > 4 {
            results.clear();
        }
        // In some rounds the poller holds the last reference to the pool.
        let pool = (round % 5 > 0).then_some(pool);
        match round % 4 {
            0 | 1 => ops.cancel(id),
            2 => ops.harness.deregister(key),
            _ => drop(pair),
        }
        drop(ops.next());
        if round % 4 != 2 {
            ops.harness.deregister(key);
        }
        ops.expect_all_done("recv_multi has ended");
        drop(results);
        let is_returned = pool.is_none_or(|pool| pool.available() == pool.allocated());
        assert!(is_returned, "round {round}: a buffer was not returned");
    }
    let more = resident().saturating_sub(before);
    assert!(more < ROUNDS * SIZE / 8, "{ROUNDS} pools have left {more} bytes");
}

pub(super) fn c8_two_pollers_share_a_pool(cx: &TestContext) {
    for limit in [1, 2, 3, 8] {
        let pool = new_pool(4, limit);
        let mut harnesses = [OpHarness::new(cx), OpHarness::new(cx)];
        let pairs = [SocketPair::unix(), SocketPair::unix()];
        for (ops, pair) in harnesses.iter_mut().zip(&pairs) {
            receive_all(ops, [&pair.local].into_iter(), &pool);
            ops.expect_nothing_yet("nothing was sent");
        }
        for round in 0..20 {
            let (one, other) = (round % 2, 1 - round % 2);
            // The first poller takes all the buffers it can get, and keeps them.
            pairs[one].send(&bytes_from(0, 4 * limit));
            let mut kept = harnesses[one].collect(1);
            while kept.len() < limit {
                harnesses[one].wait(ZERO);
                if harnesses[one].harness.events.completed() == 0 {
                    break;
                }
                kept.extend(harnesses[one].collect(1));
            }
            pairs[other].send(b"x");
            if kept.len() == limit {
                harnesses[other].expect_nothing_yet("the pool is empty");
            }
            kept.drain(..1);
            let done = harnesses[other].next();
            assert_eq!(*done.buf, *b"x", "limit {limit}, round {round}");
            drop(done);
            let count = kept.len() + 1;
            drop(kept);
            drop(harnesses[one].collect(limit - count));
            harnesses.iter_mut().for_each(|ops| ops.expect_nothing_yet("no data is left"));
        }
        drop(harnesses);
        expect_all_returned(&pool, "both pollers were dropped");
    }
}

pub(super) fn c8_program_can_take_pool_buffers(cx: &TestContext) {
    for limit in [1, 2, 5, 64] {
        let (pool, mut ops) = (new_pool(4, limit), OpHarness::new(cx));
        let pairs = [SocketPair::unix(), SocketPair::unix()];
        receive_all(&mut ops, pairs.iter().map(|pair| &pair.local), &pool);
        for round in 0..10 {
            pairs.iter().for_each(|pair| pair.send(&bytes_from(round, 10)));
            let (mut received, mut count) = ([Vec::<u8>::new(), Vec::new()], 0);
            while count < 20 {
                let done = ops.next();
                count += done.transferred;
                received[done.token.0].extend(&*done.buf);
            }
            assert_eq!(received, [bytes_from(round, 10), bytes_from(round, 10)]);
            ops.expect_nothing_yet("no data is left");
            let taken = take_all(&pool);
            assert!(taken.len() >= limit.div_ceil(2), "{} of {limit} can be taken", taken.len());
        }
    }
}

/// One peer floods; the others send one byte each, the next when all were received.
pub(super) fn c8_flood_does_not_starve_other_streams(cx: &TestContext) {
    const OTHERS: usize = 31;
    for (size, limit, turns) in [(64, 4096, 60), (64, 8, 20), (4096, 64, 20)] {
        let (pool, mut ops) = (new_pool(size, limit), OpHarness::with_capacity(cx, 16));
        let mut flood = Sender::new();
        let pairs: Vec<SocketPair> = (0..OTHERS).map(|_| SocketPair::unix()).collect();
        let sources = [&flood.pair.local].into_iter().chain(pairs.iter().map(|pair| &pair.local));
        receive_all(&mut ops, sources, &pool);
        for turn in 0..turns {
            pairs.iter().for_each(|pair| pair.send(&[turn]));
            let (mut received_count, mut waits) = (0, 0);
            while received_count < OTHERS {
                flood.flood();
                ops.wait(LONG);
                waits += 1;
                assert!(
                    waits <= 60,
                    "{limit}: {received_count} of {OTHERS} received in {waits} waits, turn {turn}"
                );
                for done in ops.collect(ops.harness.events.completed()) {
                    match done.token.0 {
                        0 => flood.expect_next(&done.buf, 0),
                        _ => {
                            assert_eq!(*done.buf, [turn], "{done:?}");
                            received_count += 1;
                        }
                    }
                }
            }
        }
        assert!(flood.received > 0, "the flood was starved");
    }
}

/// A backend may provide buffers to a stream that receives no data.
pub(super) fn c8_idle_streams_keep_no_buffer_from_others(cx: &TestContext) {
    for make in ALL {
        for limit in [2, 4] {
            let (silent, pair) = (SocketPair::unix(), make());
            let (pool, mut ops) = (new_pool(64, limit), OpHarness::new(cx));
            ops.label = pair.name;
            receive_all(&mut ops, [&silent.local].into_iter(), &pool);
            ops.expect_nothing_yet("nothing was sent");
            let kept: Vec<_> = (1..limit).map_while(|_| pool.take()).collect();
            let key = ops.add(pair.local.clone());
            ops.submit_multishot(Op::recv_multi(key, &pool), 1);
            let mut expect = |token: usize, record: &[u8]| {
                let done = ops.next();
                assert_eq!((done.token.0, &*done.buf), (token, record), "{}, {limit}", pair.name);
            };
            for record in [&b"one"[..], b"another", b"third"] {
                pair.send(record);
                expect(1, record);
                silent.send(b"s");
                expect(0, b"s");
            }
            drop(kept);
            pair.send(b"last");
            expect(1, b"last");
            drop(ops);
            expect_all_returned(&pool, pair.name);
        }
    }
}
