//! Clauses T and W with operations in flight, and thousands of operations at once.

use super::many_files;
use super::op_harness::OpHarness;
use super::util::*;
use crate::event::{Events, Interest, Mode, Readiness, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId};
use crate::sys::staging;
use nix::poll::PollFlags;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn w1_wake_ends_wait_with_operations_pending(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local);
    let id = ops.submit(Op::recv(key, Vec::new(), 8), 1);
    ops.submit(Op::timeout(HOUR), 2);
    for _ in 0..20 {
        let (waker, waiter) = (ops.harness.poller.waker(), staging::Thread::current());
        let thread = thread::spawn(move || {
            wait_until_asleep(waiter.id());
            waker.wake();
        });
        ops.harness.wait(None);
        assert!(ops.harness.events.woken(), "the wake must end the wait");
        assert_eq!(ops.harness.events.completed(), 0, "nothing has completed");
        thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
    }
    // A wake and a completion are both reported by one wait.
    put(&peer, b"x");
    wait_for_completion(&mut ops);
    let done = ops.next();
    assert!(done.id == id && *done.buf == *b"x", "{done:?}");
    ops.harness.poller.waker().wake();
    let nop = ops.submit(Op::nop(), 3);
    ops.harness.wait(None);
    assert!(ops.harness.events.woken() && ops.harness.events.completed() == 1);
    assert_eq!(ops.next().id, nop);
    ops.harness.expect_silence("no wake and no completion is left");
}

/// Waits until an operation completes.
fn wait_for_completion(ops: &mut OpHarness) {
    while ops.harness.events.completed() == 0 {
        ops.wait(LONG);
    }
}

pub(super) fn t1_readiness_and_completions_share_one_wait(cx: &TestContext) {
    for mode in MODES {
        let mut ops = OpHarness::new(cx);
        let pairs: Vec<_> = (0..20).map(|_| stream()).collect();
        for (token, (local, _)) in pairs.iter().enumerate() {
            if token % 2 == 0 {
                ops.harness.register(local.clone(), token, READ, mode);
            } else {
                let key = ops.add(local.clone());
                ops.submit(Op::recv(key, Vec::new(), 8), token);
            }
        }
        ops.expect_nothing_yet("nothing was sent");
        assert!(ops.harness.events.is_empty(), "nothing was sent");
        pairs.iter().for_each(|(_, peer)| put(peer, b"x"));
        ops.wait(ZERO);
        let ready: Reported =
            (0..20).step_by(2).map(|token| (token, Readiness::READABLE)).collect();
        assert_eq!(ops.harness.reported(), ready, "{mode:?}");
        assert_eq!(ops.harness.events.completed(), 10, "in the same wait, {mode:?}");
        let mut tokens: Vec<_> = ops.collect(10).iter().map(|done| done.token.0).collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq((1..20).step_by(2)), "each once");
    }
}

/// One direction is watched, and the other has an operation.
pub(super) fn t1_watched_and_operated_directions_work_together(cx: &TestContext) {
    for mode in MODES {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        fill(&*local);
        let key = ops.harness.register(local.clone(), 1, READ, mode);
        let id = ops.submit(Op::send(key, "x", ..), 2);
        ops.expect_nothing_yet("the send buffer is full");
        put(&peer, b"y");
        assert_eq!(ops.harness.next("a byte"), [(1, Readiness::READABLE)], "{mode:?}");
        assert_eq!(ops.harness.events.completed(), 0, "the send buffer is full");
        drain(&peer);
        let done = ops.next();
        assert!(done.id == id && done.result.is_ok(), "{done:?}");
        ops.expect_all_done("one send");
    }
}

/// A ring receives an operation only when its predecessor in the queue has completed.
pub(super) fn t1_zero_timeout_completes_queued_operations(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local);
    put(&peer, b"abcde");
    for token in 0..5 {
        ops.submit(Op::recv(key, Vec::new(), 1), token);
    }
    ops.wait(ZERO);
    assert_eq!(ops.harness.events.completed(), 5, "all that is ready completes in one wait");
    let done = ops.collect(5);
    assert!(done.iter().enumerate().all(|(token, done)| done.token.0 == token), "{done:?}");
    ops.expect_all_done("five receives");
}

pub(super) fn t2_waiting_operations_let_the_thread_sleep(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let ((idle, _idle_peer), (reader, _writer), (_reader, writer)) = (stream(), pipe(), pipe());
    let key = ops.add(idle);
    ops.submit(Op::recv(key, Vec::new(), 8), 1);
    ops.submit(Op::recv_exact(key, Vec::new(), 8), 2);
    let key = ops.add(Arc::new(reader));
    ops.submit(Op::read(key, Vec::new(), 8), 3);
    fill(&writer);
    let key = ops.add(Arc::new(writer));
    ops.submit(Op::write(key, "x", ..), 4);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let key = ops.add(Arc::new(listener.unwrap_or_else(|error| panic!("bind: {error}"))));
    ops.submit(Op::accept(key), 5);
    // Unread data followed by end of stream, while the send buffer is full.
    let (full, full_peer) = stream();
    fill(&*full);
    put(&full_peer, b"unread");
    full_peer.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("shutdown: {error}"));
    let key = ops.add(full);
    ops.submit(Op::send(key, "x", ..), 6);
    // Writable, while no data arrives.
    let (with_spare_capacity, _writable_peer) = tcp();
    let key = ops.add(with_spare_capacity);
    ops.submit(Op::recv(key, Vec::new(), 8).deadline(HOUR), 7);
    ops.expect_nothing_yet("every operation waits");
    ops.expect_sleep("every operation waits");
    // A completed operation leaves nothing behind that would wake a later wait.
    let (done, done_peer) = stream();
    let key = ops.add(done);
    for _ in 0..3 {
        let id = ops.submit(Op::recv(key, Vec::new(), 8), 8);
        // Only an operation that had to wait is polled for.
        ops.expect_nothing_yet("nothing was sent");
        put(&done_peer, b"y");
        assert_eq!(ops.next().id, id);
    }
    put(&done_peer, b"unread");
    ops.expect_nothing_yet("no receive is queued");
    ops.expect_sleep("no receive is queued for the data");
}

/// A peer sends continuously while only a send waits.
pub(super) fn t2_flood_does_not_complete_waiting_send(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    fill(&*local);
    let key = ops.add(local.clone());
    let id = ops.submit(Op::send(key, "!", ..), 1);
    let stop = Arc::new(AtomicBool::new(false));
    let flood = thread::spawn({
        let (stop, local) = (stop.clone(), local.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                put(&peer, b"flood");
                assert_eq!(take(&local, 5), 5, "the program reads the data itself");
                thread::sleep(Duration::from_micros(100));
            }
            peer
        }
    });
    for _ in 0..20 {
        ops.wait(Duration::from_millis(5));
        assert!(ops.harness.events.is_empty() && ops.harness.events.completed() == 0);
    }
    expect_woken(&mut ops);
    stop.store(true, Ordering::Relaxed);
    let peer = flood.join().unwrap_or_else(|_| panic!("the flood failed"));
    drain(&peer);
    assert_eq!(ops.next().id, id, "the send buffer has room");
    ops.expect_all_done("one send");
}

/// Fails unless a wait during the flood is ended by a wake alone.
fn expect_woken(ops: &mut OpHarness) {
    let waker = ops.harness.poller.waker();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        waker.wake();
    });
    ops.harness.wait(None);
    assert!(ops.harness.events.woken() && ops.harness.events.completed() == 0);
    thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
}

/// Ten times the entries of a ring.
const MANY: usize = 2600;

/// One operation on each of `MANY` sources; the sources are connected in pairs.
struct ManyOps {
    harness: ReadinessHarness,
    streams: Vec<Arc<UnixStream>>,
    keys: Vec<Key>,
    in_flight: HashMap<OpId, usize>,
}

impl ManyOps {
    fn new(cx: &TestContext, capacity: usize) -> Self {
        let mut harness = cx.harness(capacity);
        let mut streams = Vec::new();
        for _ in 0..many_files::fd_budget(cx, MANY) / 2 {
            let (local, peer) = stream();
            streams.extend([local, Arc::new(peer)]);
        }
        let mut add =
            |one: &Arc<UnixStream>| harness.register(one.clone(), 0, Interest::empty(), Mode::Edge);
        let keys = streams.iter().map(&mut add).collect();
        ManyOps { harness, streams, keys, in_flight: HashMap::new() }
    }

    fn submit_all(&mut self, make: impl Fn(Key, usize) -> Op) -> Vec<OpId> {
        let mut ids = Vec::new();
        for (at, &key) in self.keys.iter().enumerate() {
            let submitted = self.harness.poller.submit(make(key, at), Token(at));
            let id = submitted.unwrap_or_else(|rejected| panic!("submit {at}: {rejected}"));
            assert_eq!(self.in_flight.insert(id, at), None, "an id was reused");
            ids.push(id);
        }
        ids
    }

    /// Waits until every operation has completed, once.
    fn collect(&mut self, check: impl Fn(usize, &Completion)) {
        while !self.in_flight.is_empty() {
            self.harness.wait(Some(LONG));
            let left = self.in_flight.len();
            assert!(
                self.harness.events.completed() > 0,
                "{left} of {MANY} operations do not complete"
            );
            for done in self.harness.events.completions() {
                assert_eq!(self.in_flight.remove(&done.id), Some(done.token.0), "{done:?}");
                check(done.token.0, &done);
            }
        }
        let mut events = Events::with_capacity(4);
        let waited = self.harness.poller.wait(&mut events, Some(ZERO));
        waited.unwrap_or_else(|error| panic!("wait: {error}"));
        assert_eq!(events.completed(), 0, "an operation completed twice");
    }
}

pub(super) fn c1_operations_beyond_ring_size_complete(cx: &TestContext) {
    for (capacity, moment) in [(64, false), (MANY, false), (64, true)] {
        let mut many = ManyOps::new(cx, capacity);
        many.submit_all(|key, at| Op::recv_exact(key, at.to_ne_bytes().to_vec(), 8));
        if moment {
            many.harness.expect_silence("nothing was sent");
        }
        for (at, one) in many.streams.iter().enumerate() {
            // Data written to one source arrives at its peer.
            put(one, &(at ^ 1).to_ne_bytes());
        }
        many.collect(|at, done| {
            assert!(done.result.is_ok() && done.transferred == 8, "{done:?}");
            assert_eq!(*done.buf, at.to_ne_bytes().repeat(2), "buffer and data of this operation");
        });
        many.submit_all(|key, _| Op::send_all(key, "sent", ..));
        many.collect(|_, done| assert!(done.result.is_ok() && done.transferred == 4, "{done:?}"));
        for one in &many.streams {
            assert_eq!(take(one, 8), 4, "each send must be made once");
            assert!(!oracle(one, PollFlags::POLLIN).contains(PollFlags::POLLIN));
        }
        many.submit_all(|_, _| Op::nop());
        many.collect(|_, done| assert!(done.result.is_ok(), "{done:?}"));
    }
}

pub(super) fn x1_operations_beyond_ring_size_are_cancelled(cx: &TestContext) {
    for is_in_flight in [false, true] {
        let mut many = ManyOps::new(cx, 64);
        for round in 0..2 {
            let mut ids = many.submit_all(|key, at| Op::recv(key, vec![at as u8], 8));
            if is_in_flight {
                many.harness.expect_silence("nothing was sent");
            }
            if round == 1 {
                ids.reverse();
            }
            for id in ids {
                many.harness.poller.cancel(id).unwrap_or_else(|error| panic!("cancel: {error}"));
            }
            many.collect(|at, done| {
                assert!(done.is_canceled() && done.transferred == 0, "{done:?}");
                assert_eq!(*done.buf, [at as u8], "the buffer of this operation, unchanged");
            });
        }
        // Each direction of each source can be used again.
        many.streams.iter().for_each(|one| put(one, b"x"));
        many.submit_all(|key, _| Op::recv(key, Vec::new(), 8));
        many.collect(|_, done| assert!(done.result.is_ok() && done.transferred == 1, "{done:?}"));
    }
}
