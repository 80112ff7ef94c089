//! Clause C8 with few buffers: receives share the buffers of a pool, wait for them, and return all
//! of them.

use super::lines::*;
use super::op_harness::*;
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
    line: Line,
    sent: usize,
    received: usize,
}

impl Sender {
    fn new() -> Self {
        Sender { line: Line::unix(), sent: 0, received: 0 }
    }

    fn flood(&mut self) {
        loop {
            let bytes = bytes_from(self.sent, 2048);
            match nix::unistd::write(&self.line.there, &bytes) {
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
        ops.submit_stream(Op::recv_multi(key, pool), token)
    };
    sources.enumerate().map(receive).collect()
}

fn expect_home(pool: &BufferPool, why: &str) {
    assert_eq!(pool.idle(), pool.made(), "{why}: a buffer was not returned");
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
        receive_all(&mut ops, senders.iter().map(|sender| &sender.line.here), &pool);
        let mut keep = Vec::new();
        for _ in 0..SENDERS * 40 {
            let done = ops.one();
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
        expect_home(&pool, "all streams have ended");
    }
}

/// Drops the senders and receives everything they have sent.
fn finish(ops: &mut OpHarness, senders: Vec<Sender>) {
    // Bytes sent and received, per sender.
    let mut counts = Vec::new();
    for Sender { sent, received, line } in senders {
        counts.push((sent, received));
        drop(line);
    }
    let mut left = counts.len();
    while left > 0 {
        let done = ops.one();
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
pub(super) fn c8_without_a_buffer_they_sleep(cx: &TestContext) {
    for (limit, keeps_pool) in [(1, true), (1, false), (2, true), (7, false)] {
        let pool = new_pool(64, limit);
        let mut held = take_all(&pool);
        assert_eq!(held.len(), limit, "a new pool can be taken whole");
        let mut ops = OpHarness::new(cx);
        let lines = [Line::unix(), Line::tcp(), Line::unix()];
        lines[0].say(b"early");
        receive_all(&mut ops, lines.iter().map(|line| &line.here), &pool);
        let pool = keeps_pool.then_some(pool);
        ops.expect_nothing_yet("the pool is empty");
        ops.expect_sleep("data is pending and the pool is empty");
        lines[1..].iter().for_each(|line| line.say(b"late!"));
        ops.expect_nothing_yet("the pool is empty");
        ops.expect_sleep("more data is pending and the pool is empty");
        // One buffer is returned, and serves each receive in turn.
        let waiter = staging::Thread::current().id();
        let first = held.pop();
        let other = thread::spawn(move || {
            until_asleep(waiter);
            drop(first);
        });
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let done = ops.one();
            assert!(done.more && done.transferred == 5, "{done:?}");
            tokens.push(done.token.0);
            ops.expect_nothing_yet("its buffer is the only one of the pool");
            drop(done);
        }
        other.join().unwrap_or_else(|_| panic!("the other thread failed"));
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2], "one result for each stream");
        ops.expect_nothing_yet("no data is left");
        drop((held, lines));
        for done in ops.collect(3) {
            expect_end(&done, "the peers have closed");
        }
        ops.expect_all_done("the peers have closed");
        drop(ops);
        pool.iter().for_each(|pool| expect_home(pool, "at the end"));
    }
}

/// Data that arrives while the pool is empty must not wake a wait.
pub(super) fn c8_a_flood_for_which_there_is_no_buffer_wakes_nobody(cx: &TestContext) {
    let pool = new_pool(64, 2);
    let held = take_all(&pool);
    let mut ops = OpHarness::new(cx);
    let Line { here, there, .. } = Line::unix();
    let key = ops.add(here);
    ops.submit_stream(Op::recv_multi(key, &pool), 1);
    ops.expect_nothing_yet("nothing was sent");
    let (stop, is_over) = std::sync::mpsc::channel::<()>();
    let pause = std::time::Duration::from_millis(1);
    let flood = thread::spawn(move || {
        let mut sent = 0;
        while is_over.recv_timeout(pause).is_err() {
            sent += ok(nix::unistd::write(&there, &bytes_from(sent, 1)));
        }
        sent
    });
    // The first byte may be reported.
    ops.wait(std::time::Duration::from_millis(20));
    ops.expect_sleep("the pool is empty");
    ok(stop.send(()));
    let sent = flood.join().unwrap_or_else(|_| panic!("the flood failed"));
    drop(held);
    let (pieces, last) = until_last(&mut ops);
    assert!(pieces.concat() == bytes_from(0, sent), "each byte once, in order");
    expect_end(&last, "the peer has closed");
}

pub(super) fn c8_who_waited_longest_comes_first(cx: &TestContext) {
    const LINES: usize = 9;
    let pool = new_pool(1, 1);
    let held = pool.take();
    let mut ops = OpHarness::new(cx);
    let lines: Vec<Line> = (0..LINES).map(|_| Line::unix()).collect();
    lines.iter().for_each(|line| line.say(b"abc"));
    let (late, early) = lines.split_last().unwrap_or_else(|| panic!("no pairs"));
    receive_all(&mut ops, early.iter().map(|line| &line.here), &pool);
    ops.expect_nothing_yet("the pool is empty");
    drop(held);
    // A buffer is free, but other receives have waited for it.
    let key = ops.add(late.here.clone());
    ops.submit_stream(Op::recv_multi(key, &pool), LINES - 1);
    for turn in 0..3 {
        let tokens: Vec<usize> = (0..LINES).map(|_| ops.one().token.0).collect();
        assert!(tokens.iter().copied().eq(0..LINES), "one buffer each, in turn {turn}: {tokens:?}");
    }
    ops.expect_nothing_yet("no data is left");
}

pub(super) fn c8_a_buffer_that_comes_home_is_never_overlooked(cx: &TestContext) {
    let (pool, mut ops) = (new_pool(8, 1), OpHarness::new(cx));
    let line = Line::unix();
    let (key, (give, is_given)) = (ops.add(line.here.clone()), std::sync::mpsc::channel());
    ops.submit_stream(Op::recv_multi(key, &pool), 1);
    // The other thread drops each buffer as soon as it receives it.
    let other = thread::spawn(move || is_given.iter().for_each(|buf: Buf| drop(buf)));
    for round in 0..2000 {
        line.say(&[byte_at(round)]);
        let done = ops.one();
        assert!(done.more && *done.buf == [byte_at(round)], "round {round}: {done:?}");
        ok(give.send(done.buf).map_err(|_| "the other thread has failed"));
    }
    drop(give);
    other.join().unwrap_or_else(|_| panic!("the other thread failed"));
}

/// A report outside of a wait is not lost: a buffer is free, but not provided to the ring.
pub(super) fn c8_a_shortage_that_shows_outside_of_a_wait(cx: &TestContext) {
    for by_modify in [true, false] {
        let (pool, mut ops) = (new_pool(4, 2), OpHarness::new(cx));
        let (line, other) = (Line::unix(), Line::tcp());
        receive_all(&mut ops, [&line.here].into_iter(), &pool);
        let key = ops.add(other.here.clone());
        ops.submit(Op::recv(key, Vec::new(), 8), 1);
        ops.expect_nothing_yet("nothing was sent");
        line.say(b"kept");
        let kept = ops.one();
        ops.expect_nothing_yet("no data is left");
        line.say(b"more");
        match by_modify {
            true => ops.harness.modify(key, 1, Interest::PRIORITY, Mode::Level),
            false => ops.harness.deregister(key),
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
        let lines = [Line::unix(), Line::tcp(), Line::unix()];
        receive_all(&mut ops, lines.iter().map(|line| &line.here), &pool);
        ops.expect_nothing_yet("nothing was sent");
        lines[0].say(b"kept");
        let kept = ops.one();
        lines.iter().for_each(|line| line.say(b"unread"));
        // Delivered and not taken, completed and not delivered, waiting, and provided.
        ops.wait(ZERO);
        let OpHarness { harness, .. } = ops;
        let ReadinessHarness { poller, events } = harness;
        drop(poller);
        lines.iter().for_each(|line| line.say(b"later"));
        drop(events);
        assert_eq!(*kept.buf, *b"kept", "the buffer belongs to the program");
        assert_eq!(pool.made() - pool.idle(), 1, "{limit}: the other buffers were not returned");
        let handle = pool.clone();
        drop(pool);
        let buf = thread::spawn(move || kept.buf.to_vec()).join();
        assert_eq!(buf.ok().as_deref(), Some(&b"kept"[..]), "the buffer can be sent to a thread");
        expect_home(&handle, "at the end");
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
pub(super) fn c8_hundreds_of_pools_leave_nothing(cx: &TestContext) {
    const SIZE: usize = 64 << 10;
    const ROUNDS: usize = 400;
    let mut ops = OpHarness::with_room(cx, 8);
    let text = vec![7; SIZE];
    let mut before = 0;
    for round in 0..ROUNDS + 40 {
        if round == 40 {
            before = resident();
        }
        let (pool, line) = (new_pool(SIZE, 2), Line::unix());
        let key = ops.add(line.here.clone());
        let id = ops.submit_stream(Op::recv_multi(key, &pool), 1);
        // One byte needs a buffer as well, but only full ones use memory.
        let text = if round % 3 == 2 { &text[..1] } else { &text };
        line.say(text);
        let mut results = Vec::new();
        while results.iter().map(|done: &Completion| done.transferred).sum::<usize>() < text.len() {
            results.push(ops.one());
        }
        if round % 7 > 4 {
            results.clear();
        }
        // In some rounds the poller holds the last reference to the pool.
        let pool = (round % 5 > 0).then_some(pool);
        match round % 4 {
            0 | 1 => ops.cancel(id),
            2 => ops.harness.deregister(key),
            _ => drop(line),
        }
        drop(ops.one());
        if round % 4 != 2 {
            ops.harness.deregister(key);
        }
        ops.expect_all_done("recv_multi has ended");
        drop(results);
        let is_home = pool.is_none_or(|pool| pool.idle() == pool.made());
        assert!(is_home, "round {round}: a buffer was not returned");
    }
    let more = resident().saturating_sub(before);
    assert!(more < ROUNDS * SIZE / 8, "{ROUNDS} pools have left {more} bytes");
}

pub(super) fn c8_two_pollers_share_a_pool(cx: &TestContext) {
    for limit in [1, 2, 3, 8] {
        let pool = new_pool(4, limit);
        let mut benches = [OpHarness::new(cx), OpHarness::new(cx)];
        let lines = [Line::unix(), Line::unix()];
        for (ops, line) in benches.iter_mut().zip(&lines) {
            receive_all(ops, [&line.here].into_iter(), &pool);
            ops.expect_nothing_yet("nothing was sent");
        }
        for round in 0..20 {
            let (one, other) = (round % 2, 1 - round % 2);
            // The first poller takes all the buffers it can get, and keeps them.
            lines[one].say(&bytes_from(0, 4 * limit));
            let mut kept = benches[one].collect(1);
            while kept.len() < limit {
                benches[one].wait(ZERO);
                if benches[one].harness.events.completed() == 0 {
                    break;
                }
                kept.extend(benches[one].collect(1));
            }
            lines[other].say(b"x");
            if kept.len() == limit {
                benches[other].expect_nothing_yet("the pool is empty");
            }
            kept.drain(..1);
            let done = benches[other].one();
            assert_eq!(*done.buf, *b"x", "limit {limit}, round {round}");
            drop(done);
            let count = kept.len() + 1;
            drop(kept);
            drop(benches[one].collect(limit - count));
            benches.iter_mut().for_each(|ops| ops.expect_nothing_yet("no data is left"));
        }
        drop(benches);
        expect_home(&pool, "both pollers were dropped");
    }
}

pub(super) fn c8_a_program_takes_buffers_too(cx: &TestContext) {
    for limit in [1, 2, 5, 64] {
        let (pool, mut ops) = (new_pool(4, limit), OpHarness::new(cx));
        let lines = [Line::unix(), Line::unix()];
        receive_all(&mut ops, lines.iter().map(|line| &line.here), &pool);
        for round in 0..10 {
            lines.iter().for_each(|line| line.say(&bytes_from(round, 10)));
            let (mut received, mut count) = ([Vec::<u8>::new(), Vec::new()], 0);
            while count < 20 {
                let done = ops.one();
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
pub(super) fn c8_a_flood_starves_nobody(cx: &TestContext) {
    const OTHERS: usize = 31;
    for (size, limit, turns) in [(64, 4096, 60), (64, 8, 20), (4096, 64, 20)] {
        let (pool, mut ops) = (new_pool(size, limit), OpHarness::with_room(cx, 16));
        let mut flood = Sender::new();
        let lines: Vec<Line> = (0..OTHERS).map(|_| Line::unix()).collect();
        let sources = [&flood.line.here].into_iter().chain(lines.iter().map(|line| &line.here));
        receive_all(&mut ops, sources, &pool);
        for turn in 0..turns {
            lines.iter().for_each(|line| line.say(&[turn]));
            let (mut heard, mut waits) = (0, 0);
            while heard < OTHERS {
                flood.flood();
                ops.wait(LONG);
                waits += 1;
                assert!(
                    waits <= 60,
                    "{limit}: {heard} of {OTHERS} received in {waits} waits, turn {turn}"
                );
                for done in ops.collect(ops.harness.events.completed()) {
                    match done.token.0 {
                        0 => flood.expect_next(&done.buf, 0),
                        _ => {
                            assert_eq!(*done.buf, [turn], "{done:?}");
                            heard += 1;
                        }
                    }
                }
            }
        }
        assert!(flood.received > 0, "the flood was starved");
    }
}

/// A backend may provide buffers to a stream that receives no data.
pub(super) fn c8_silent_streams_keep_no_buffer_from_others(cx: &TestContext) {
    for make in ALL {
        for limit in [2, 4] {
            let (silent, line) = (Line::unix(), make());
            let (pool, mut ops) = (new_pool(64, limit), OpHarness::new(cx));
            ops.about = line.name;
            receive_all(&mut ops, [&silent.here].into_iter(), &pool);
            ops.expect_nothing_yet("nothing was sent");
            let kept: Vec<_> = (1..limit).map_while(|_| pool.take()).collect();
            let key = ops.add(line.here.clone());
            ops.submit_stream(Op::recv_multi(key, &pool), 1);
            let mut expect = |token: usize, record: &[u8]| {
                let done = ops.one();
                assert_eq!((done.token.0, &*done.buf), (token, record), "{}, {limit}", line.name);
            };
            for record in [&b"one"[..], b"another", b"third"] {
                line.say(record);
                expect(1, record);
                silent.say(b"s");
                expect(0, b"s");
            }
            drop(kept);
            line.say(b"last");
            expect(1, b"last");
            drop(ops);
            expect_home(&pool, line.name);
        }
    }
}
