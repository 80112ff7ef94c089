//! Clauses T and W with operations under way, and very many operations at once.

use super::bench::Bench;
use super::crowd;
use super::kit::*;
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

pub(super) fn w1_a_wake_ends_a_wait_for_completions(stage: &Stage) {
    let mut bench = Bench::new(stage);
    let (here, there) = stream();
    let key = bench.add(here);
    let id = bench.submit(Op::recv(key, Vec::new(), 8), 1);
    bench.submit(Op::timeout(HOUR), 2);
    for _ in 0..20 {
        let (waker, waiter) = (bench.desk.poller.waker(), staging::Thread::current());
        let thread = thread::spawn(move || {
            until_asleep(waiter.id());
            waker.wake();
        });
        bench.desk.wait(None);
        assert!(bench.desk.events.woken(), "a wake ends it");
        assert_eq!(bench.desk.events.completed(), 0, "nothing has completed");
        thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
    }
    // A wake comes beside a completion, and neither hides the other.
    put(&there, b"x");
    fence_done(&mut bench);
    let done = bench.one();
    assert!(done.id == id && *done.buf == *b"x", "{done:?}");
    bench.desk.poller.waker().wake();
    let nop = bench.submit(Op::nop(), 3);
    bench.desk.wait(None);
    assert!(bench.desk.events.woken() && bench.desk.events.completed() == 1);
    assert_eq!(bench.one().id, nop);
    bench.desk.expect_silence("both were taken");
}

/// Waits until something has completed.
fn fence_done(bench: &mut Bench) {
    while bench.desk.events.completed() == 0 {
        bench.wait(LONG);
    }
}

pub(super) fn t1_readiness_and_completions_come_together(stage: &Stage) {
    for mode in MODES {
        let mut bench = Bench::new(stage);
        let pairs: Vec<_> = (0..20).map(|_| stream()).collect();
        for (token, (here, _)) in pairs.iter().enumerate() {
            if token % 2 == 0 {
                bench.desk.register(here.clone(), token, READ, mode);
            } else {
                let key = bench.add(here.clone());
                bench.submit(Op::recv(key, Vec::new(), 8), token);
            }
        }
        bench.expect_nothing_yet("nothing has come");
        assert!(bench.desk.events.is_empty(), "nothing has come");
        pairs.iter().for_each(|(_, there)| put(there, b"x"));
        bench.wait(ZERO);
        let ready: Said = (0..20).step_by(2).map(|token| (token, Readiness::READABLE)).collect();
        assert_eq!(bench.desk.said(), ready, "{mode:?}");
        assert_eq!(bench.desk.events.completed(), 10, "in the same wait, {mode:?}");
        let mut tokens: Vec<_> = bench.collect(10).iter().map(|done| done.token.0).collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq((1..20).step_by(2)), "each once");
    }
}

/// One direction is watched, and the other operated.
pub(super) fn t1_two_directions_of_one_source(stage: &Stage) {
    for mode in MODES {
        let mut bench = Bench::new(stage);
        let (here, there) = stream();
        fill(&*here);
        let key = bench.desk.register(here.clone(), 1, READ, mode);
        let id = bench.submit(Op::send(key, "x", ..), 2);
        bench.expect_nothing_yet("there is no room");
        put(&there, b"y");
        assert_eq!(bench.desk.next("a byte"), [(1, Readiness::READABLE)], "{mode:?}");
        assert_eq!(bench.desk.events.completed(), 0, "there is no room");
        drain(&there);
        let done = bench.one();
        assert!(done.id == id && done.result.is_ok(), "{done:?}");
        bench.expect_all_done("one send");
    }
}

/// A ring gets an operation when the one before it in its queue has completed.
pub(super) fn t1_zero_completes_successors(stage: &Stage) {
    let mut bench = Bench::new(stage);
    let (here, there) = stream();
    let key = bench.add(here);
    put(&there, b"abcde");
    for token in 0..5 {
        bench.submit(Op::recv(key, Vec::new(), 1), token);
    }
    bench.wait(ZERO);
    assert_eq!(bench.desk.events.completed(), 5, "all that is ready completes in one wait");
    let done = bench.collect(5);
    assert!(done.iter().enumerate().all(|(token, its)| its.token.0 == token), "{done:?}");
    bench.expect_all_done("five receives");
}

pub(super) fn t2_operations_that_wait_let_the_thread_sleep(stage: &Stage) {
    let mut bench = Bench::new(stage);
    let ((idle, _idle_there), (reader, _writer), (_reader, writer)) = (stream(), pipe(), pipe());
    let key = bench.add(idle);
    bench.submit(Op::recv(key, Vec::new(), 8), 1);
    bench.submit(Op::recv_exact(key, Vec::new(), 8), 2);
    let key = bench.add(Arc::new(reader));
    bench.submit(Op::read(key, Vec::new(), 8), 3);
    fill(&writer);
    let key = bench.add(Arc::new(writer));
    bench.submit(Op::write(key, "x", ..), 4);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let key = bench.add(Arc::new(listener.unwrap_or_else(|error| panic!("bind: {error}"))));
    bench.submit(Op::accept(key), 5);
    // Unread data, and the end of the stream behind it, while there is no room to write.
    let (full, full_there) = stream();
    fill(&*full);
    put(&full_there, b"for nobody");
    full_there.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("shutdown: {error}"));
    let key = bench.add(full);
    bench.submit(Op::send(key, "x", ..), 6);
    // Room to write, while nothing comes.
    let (roomy, _roomy_there) = tcp();
    let key = bench.add(roomy);
    bench.submit(Op::recv(key, Vec::new(), 8).deadline(HOUR), 7);
    bench.expect_nothing_yet("all wait");
    bench.expect_sleep("all operations wait");
    // What came once and is over leaves nothing behind that would keep a wait awake.
    let (done, done_there) = stream();
    let key = bench.add(done);
    for _ in 0..3 {
        let id = bench.submit(Op::recv(key, Vec::new(), 8), 8);
        // Only one that had to wait is watched for.
        bench.expect_nothing_yet("nothing has come");
        put(&done_there, b"y");
        assert_eq!(bench.one().id, id);
    }
    put(&done_there, b"for nobody");
    bench.expect_nothing_yet("nobody receives it");
    bench.expect_sleep("nobody asks for what is there");
}

/// A peer that never stops sending, while only a send waits.
pub(super) fn t2_a_flood_completes_nothing_of_the_other_direction(stage: &Stage) {
    let mut bench = Bench::new(stage);
    let (here, there) = stream();
    fill(&*here);
    let key = bench.add(here.clone());
    let id = bench.submit(Op::send(key, "!", ..), 1);
    let over = Arc::new(AtomicBool::new(false));
    let flood = thread::spawn({
        let (over, here) = (over.clone(), here.clone());
        move || {
            while !over.load(Ordering::Relaxed) {
                put(&there, b"flood");
                assert_eq!(take(&here, 5), 5, "the program reads it itself");
                thread::sleep(Duration::from_micros(100));
            }
            there
        }
    });
    for _ in 0..20 {
        bench.wait(Duration::from_millis(5));
        assert!(bench.desk.events.is_empty() && bench.desk.events.completed() == 0);
    }
    expect_woken(&mut bench);
    over.store(true, Ordering::Relaxed);
    let there = flood.join().unwrap_or_else(|_| panic!("the flood failed"));
    drain(&there);
    assert_eq!(bench.one().id, id, "now there is room");
    bench.expect_all_done("one send");
}

/// A wait under the flood is ended by a wake, and by nothing else.
fn expect_woken(bench: &mut Bench) {
    let waker = bench.desk.poller.waker();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        waker.wake();
    });
    bench.desk.wait(None);
    assert!(bench.desk.events.woken() && bench.desk.events.completed() == 0);
    thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
}

/// Ten times what a ring has room for.
const MANY: usize = 2600;

/// As many operations, each of them on a source of its own; and the sources' other ends.
struct Crowd {
    desk: Desk,
    streams: Vec<Arc<UnixStream>>,
    keys: Vec<Key>,
    under_way: HashMap<OpId, usize>,
}

impl Crowd {
    fn new(stage: &Stage, room: usize) -> Self {
        let mut desk = stage.desk(room);
        let mut streams = Vec::new();
        for _ in 0..crowd::room_for(stage, MANY) / 2 {
            let (here, there) = stream();
            streams.extend([here, Arc::new(there)]);
        }
        let mut add =
            |one: &Arc<UnixStream>| desk.register(one.clone(), 0, Interest::empty(), Mode::Edge);
        let keys = streams.iter().map(&mut add).collect();
        Crowd { desk, streams, keys, under_way: HashMap::new() }
    }

    fn submit_all(&mut self, make: impl Fn(Key, usize) -> Op) -> Vec<OpId> {
        let mut ids = Vec::new();
        for (at, &key) in self.keys.iter().enumerate() {
            let submitted = self.desk.poller.submit(make(key, at), Token(at));
            let id = submitted.unwrap_or_else(|rejected| panic!("submit {at}: {rejected}"));
            assert_eq!(self.under_way.insert(id, at), None, "a name used twice");
            ids.push(id);
        }
        ids
    }

    /// Waits until all have completed, each once.
    fn collect(&mut self, check: impl Fn(usize, &Completion)) {
        while !self.under_way.is_empty() {
            self.desk.wait(Some(LONG));
            let left = self.under_way.len();
            assert!(self.desk.events.completed() > 0, "{left} of {MANY} never complete");
            for done in self.desk.events.completions() {
                assert_eq!(self.under_way.remove(&done.id), Some(done.token.0), "{done:?}");
                check(done.token.0, &done);
            }
        }
        let mut events = Events::with_capacity(4);
        let waited = self.desk.poller.wait(&mut events, Some(ZERO));
        waited.unwrap_or_else(|error| panic!("wait: {error}"));
        assert_eq!(events.completed(), 0, "each completes once");
    }
}

pub(super) fn c1_ten_times_what_a_ring_holds(stage: &Stage) {
    for (room, moment) in [(64, false), (MANY, false), (64, true)] {
        let mut crowd = Crowd::new(stage, room);
        crowd.submit_all(|key, at| Op::recv_exact(key, at.to_ne_bytes().to_vec(), 8));
        if moment {
            crowd.desk.expect_silence("nothing has come");
        }
        for (at, one) in crowd.streams.iter().enumerate() {
            // What is written to one comes out of its other end.
            put(one, &(at ^ 1).to_ne_bytes());
        }
        crowd.collect(|at, done| {
            assert!(done.result.is_ok() && done.transferred == 8, "{done:?}");
            assert_eq!(*done.buf, at.to_ne_bytes().repeat(2), "its own buffer and bytes");
        });
        crowd.submit_all(|key, _| Op::send_all(key, "sent", ..));
        crowd.collect(|_, done| assert!(done.result.is_ok() && done.transferred == 4, "{done:?}"));
        for one in &crowd.streams {
            assert_eq!(take(one, 8), 4, "each was sent once");
            assert!(!oracle(one, PollFlags::POLLIN).contains(PollFlags::POLLIN));
        }
        crowd.submit_all(|_, _| Op::nop());
        crowd.collect(|_, done| assert!(done.result.is_ok(), "{done:?}"));
    }
}

pub(super) fn x1_ten_times_what_a_ring_holds_is_cancelled(stage: &Stage) {
    for is_under_way in [false, true] {
        let mut crowd = Crowd::new(stage, 64);
        for round in 0..2 {
            let mut ids = crowd.submit_all(|key, at| Op::recv(key, vec![at as u8], 8));
            if is_under_way {
                crowd.desk.expect_silence("nothing has come");
            }
            if round == 1 {
                ids.reverse();
            }
            for id in ids {
                crowd.desk.poller.cancel(id).unwrap_or_else(|error| panic!("cancel: {error}"));
            }
            crowd.collect(|at, done| {
                assert!(done.is_canceled() && done.transferred == 0, "{done:?}");
                assert_eq!(*done.buf, [at as u8], "its own buffer, as it was");
            });
        }
        // Each direction of each source is free again.
        crowd.streams.iter().for_each(|one| put(one, b"x"));
        crowd.submit_all(|key, _| Op::recv(key, Vec::new(), 8));
        crowd.collect(|_, done| assert!(done.result.is_ok() && done.transferred == 1, "{done:?}"));
    }
}
