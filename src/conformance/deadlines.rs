//! Clause X3: deadlines of operations, and timeouts.

use super::cancels::{full_listener, unconnected};
use super::op_harness::{OpHarness, bytes};
use super::util::*;
use crate::key::Key;
use crate::op::{Completion, Op, Outcome};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);

fn is_timed_out(done: &Completion) -> bool {
    matches!(&done.result, Err(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Returns the next completion, which must end a wait without timeout.
fn next_without_timeout(ops: &mut OpHarness) -> Completion {
    ops.harness.wait(None);
    assert_eq!(ops.harness.events.completed(), 1, "only a completion ends this wait");
    ops.next()
}

/// Fails unless the deadline ends an operation at the head of its queue, and a wait without
/// timeout.
fn expect_deadline(ops: &mut OpHarness, what: &str, op: Op) {
    let started = Instant::now();
    let id = ops.submit(op.deadline(SOON), 1);
    let done = next_without_timeout(ops);
    let elapsed = started.elapsed();
    assert!(done.id == id && is_timed_out(&done), "{what}: {done:?}");
    assert_eq!(done.transferred, 0, "{what}");
    assert!(elapsed >= SOON, "{what}: {elapsed:?} are less than {SOON:?}");
}

pub(super) fn x3_deadline_ends_every_waiting_operation(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let ((local, _peer), (reader, _writer)) = (stream(), pipe());
    let (_reader, writer) = pipe();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = Arc::new(listener.unwrap_or_else(|error| panic!("bind: {error}")));
    fill(&*local);
    fill(&writer);
    let key = ops.add(local);
    expect_deadline(&mut ops, "recv", Op::recv(key, Vec::new(), 8));
    expect_deadline(&mut ops, "recv_exact", Op::recv_exact(key, Vec::new(), 8));
    expect_deadline(&mut ops, "send", Op::send(key, "x", ..));
    expect_deadline(&mut ops, "send_all", Op::send_all(key, "x", ..));
    let key = ops.add(Arc::new(reader));
    expect_deadline(&mut ops, "read", Op::read(key, Vec::new(), 8));
    let key = ops.add(Arc::new(writer));
    expect_deadline(&mut ops, "write", Op::write(key, "x", ..));
    let key = ops.add(listener);
    expect_deadline(&mut ops, "accept", Op::accept(key));
    let (_listener, address, _filling) = full_listener();
    let key = ops.add(unconnected());
    expect_deadline(&mut ops, "connect", Op::connect(key, address));
    ops.harness.deregister(key);
    expect_deadline(&mut ops, "timeout", Op::timeout(HOUR));
    ops.expect_all_done("every operation has ended");
}

pub(super) fn x3_deadline_ends_queued_operation(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local);
    let first = ops.submit(Op::recv(key, Vec::new(), 2), 1);
    expect_deadline(&mut ops, "a queued receive", Op::recv(key, Vec::new(), 2));
    let last = ops.submit(Op::recv(key, Vec::new(), 2), 3);
    ops.expect_nothing_yet("these have no deadline");
    put(&peer, b"abcd");
    let done = ops.collect(2);
    assert_eq!((done[0].id, done[1].id), (first, last), "the others are unaffected");
    assert!(*done[0].buf == *b"ab" && *done[1].buf == *b"cd", "{done:?}");
    ops.expect_all_done("three operations");
}

pub(super) fn x3_next_operation_proceeds_after_deadline(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local.clone());
    let started = Instant::now();
    let exact = ops.submit(Op::recv_exact(key, b"> ".to_vec(), 10).deadline(SOON), 1);
    let next = ops.submit(Op::recv(key, Vec::new(), 10), 2);
    put(&peer, b"abc");
    let done = next_without_timeout(&mut ops);
    assert!(done.id == exact && is_timed_out(&done), "{done:?}");
    assert!(started.elapsed() >= SOON, "before the deadline");
    assert_eq!(
        (done.transferred, &*done.buf),
        (3, &b"> abc"[..]),
        "bytes received before are kept"
    );
    put(&peer, b"def");
    let done = ops.next();
    assert_eq!(done.id, next);
    assert_eq!(bytes(done), (3, b"def".to_vec()));
    // A send that times out.
    let load: Vec<u8> = (0..1 << 22).map(|at| (at % 251) as u8).collect();
    let all = ops.submit(Op::send_all(key, load.clone(), ..).deadline(SOON), 3);
    let next = ops.submit(Op::send(key, "!", ..), 4);
    let done = next_without_timeout(&mut ops);
    assert!(done.id == all && is_timed_out(&done) && *done.buf == load, "{done:?}");
    let sent = done.transferred;
    let mut arrived = Vec::new();
    assert_eq!(expect_err_kind((&peer).read_to_end(&mut arrived)), io::ErrorKind::WouldBlock);
    let done = ops.next();
    assert_eq!(done.id, next);
    assert_eq!(bytes(done), (1, b"!".to_vec()));
    let rest = (&peer).read_to_end(&mut arrived);
    assert!(rest.is_err() && arrived.pop() == Some(b'!'), "the byte of the next send comes last");
    assert!(arrived == load[..sent], "{} bytes arrived of {sent}", arrived.len());
    ops.expect_all_done("four operations");
}

pub(super) fn x3_zero_and_maximum_deadlines_work(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local);
    for round in 0..50usize {
        let id = ops.submit(Op::recv(key, Vec::new(), 8).deadline(ZERO), round);
        let done = next_without_timeout(&mut ops);
        assert!(done.id == id && is_timed_out(&done) && done.transferred == 0, "{done:?}");
    }
    put(&peer, b"a");
    let done = ops.run(Op::recv(key, Vec::new(), 8).deadline(ZERO));
    let is_real = done.result.is_ok();
    assert!(is_real || is_timed_out(&done), "{done:?}");
    assert_eq!(done.transferred, usize::from(is_real), "{done:?}");
    // The maximum duration, and one that overflows the clock when added to the present.
    let mut received = done.buf.into_vec();
    for time in [Duration::MAX, Duration::from_secs(u64::MAX >> 1), HOUR] {
        let id = ops.submit(Op::recv(key, Vec::new(), 1).deadline(time), 1);
        put(&peer, b"b");
        let done = ops.next();
        assert_eq!(done.id, id);
        received.extend(bytes(done).1);
    }
    assert!(b"abbb".starts_with(&received[..]), "bytes were lost: {received:?}");
    ops.expect_all_done("every receive has completed");
}

/// Permutes the numbers below 300.
fn shuffled() -> impl Iterator<Item = u64> {
    (0..300).map(|at| at * 119 % 300)
}

pub(super) fn x3_timeouts_complete_in_time_order(cx: &TestContext) {
    let mut ops = OpHarness::with_capacity(cx, 16);
    let step = Duration::from_micros(200);
    let mut started = vec![Instant::now(); 300];
    for at in shuffled() {
        // Measured before the submission, so that it is never later than the poller's time.
        started[at as usize] = Instant::now();
        ops.submit(Op::timeout(step * at as u32), at as usize);
    }
    // Timeouts submitted later may still be due earlier; `spread` bounds the difference.
    let spread = started.iter().max().zip(started.iter().min());
    let spread = spread.map_or(ZERO, |(last, first)| *last - *first);
    let mut latest = ZERO;
    for _ in 0..300 {
        let done = next_or_more(&mut ops);
        let (at, now) = (done.token.0, Instant::now());
        let time = step * at as u32;
        assert!(matches!(done.result, Ok(Outcome::Done)), "{done:?}");
        assert!(now - started[at] >= time, "{at} is early");
        assert!(time + spread >= latest, "{time:?} comes after {latest:?}");
        latest = latest.max(time);
    }
    ops.expect_all_done("all timeouts");
}

/// Returns the next completion; a wait without timeout may return several.
fn next_or_more(ops: &mut OpHarness) -> Completion {
    if ops.harness.events.completed() == 0 {
        ops.harness.wait(None);
        assert!(ops.harness.events.completed() > 0, "only completions end this wait");
    }
    ops.next()
}

pub(super) fn x3_hundreds_of_deadlines_end_their_operations(cx: &TestContext) {
    let mut ops = OpHarness::with_capacity(cx, 16);
    let pairs: Vec<_> = (0..10).map(|_| stream()).collect();
    let keys: Vec<Key> = pairs.iter().map(|(local, _)| ops.add(local.clone())).collect();
    let step = Duration::from_micros(200);
    let mut started = vec![Instant::now(); 300];
    for at in shuffled() {
        started[at as usize] = Instant::now();
        let op = Op::recv(keys[at as usize % 10], Vec::new(), 8).deadline(step * at as u32);
        ops.submit(op, at as usize);
    }
    for _ in 0..300 {
        let done = next_or_more(&mut ops);
        let at = done.token.0;
        assert!(is_timed_out(&done) && done.transferred == 0, "{done:?}");
        assert!(started[at].elapsed() >= step * at as u32, "{at} is early");
    }
    ops.expect_all_done("every receive has ended");
    put(&pairs[3].1, b"x");
    assert_eq!(bytes(ops.run(Op::recv(keys[3], Vec::new(), 8))), (1, b"x".to_vec()));
}

pub(super) fn x3_timeouts_of_any_length_complete(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let ages = ops.submit(Op::timeout(Duration::MAX), 1);
    let years = ops.submit(Op::timeout(Duration::from_secs(u64::MAX >> 1)), 2);
    for micros in [0, 1, 10, 999, 1000, 1001, 20_000] {
        let (started, time) = (Instant::now(), Duration::from_micros(micros));
        ops.submit(Op::timeout(time), 3);
        let done = next_without_timeout(&mut ops);
        assert!(started.elapsed() >= time, "{time:?} is early");
        assert!(matches!(done.result, Ok(Outcome::Done)) && done.token.0 == 3, "{done:?}");
    }
    let nothing = ops.submit(Op::timeout(Duration::from_nanos(1)), 4);
    assert_eq!(next_without_timeout(&mut ops).id, nothing);
    ops.cancel(ages);
    ops.cancel(years);
    assert!(ops.collect(2).iter().all(Completion::is_canceled));
    ops.expect_all_done("all timeouts");
}

/// The deadline passes as the bytes arrive: they are in the completion, or left in the socket.
pub(super) fn x3_deadline_racing_with_data_loses_no_byte(cx: &TestContext) {
    const ROUNDS: u32 = 400;
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local.clone());
    let (order, orders) = std::sync::mpsc::channel();
    let writer = thread::spawn(move || {
        for (round, at) in orders {
            let left = Instant::saturating_duration_since(&at, Instant::now());
            thread::sleep(left.saturating_sub(Duration::from_micros(60)));
            while Instant::now() < at {
                std::hint::spin_loop();
            }
            put(&peer, &[round as u8]);
        }
    });
    for round in 0..ROUNDS {
        let (started, time) = (Instant::now(), Duration::from_micros(300 + u64::from(round % 50)));
        let at = started + Duration::from_micros(240 + u64::from(round * 7 % 120));
        let sent = order.send((round, at));
        sent.unwrap_or_else(|_| panic!("the writer failed"));
        let id = ops.submit(Op::recv(key, Vec::new(), 8).deadline(time), 1);
        let done = ops.next();
        assert_eq!(done.id, id);
        if is_timed_out(&done) {
            assert!(started.elapsed() >= time && done.transferred == 0, "{done:?}");
            let done = ops.run(Op::recv(key, Vec::new(), 8));
            assert_eq!(bytes(done), (1, vec![round as u8]), "the byte stays in the socket");
        } else {
            assert_eq!(bytes(done), (1, vec![round as u8]), "the byte was received");
        }
    }
    drop(order);
    writer.join().unwrap_or_else(|_| panic!("the writer failed"));
    ops.expect_all_done("every receive has completed");
}

/// Deadlines of completed operations must not wake a wait.
pub(super) fn x3_deadlines_of_completed_operations_do_not_wake(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local);
    put(&peer, &[b'x'; 1000]);
    // So dense that some pass during the time in which the thread is observed.
    for at in 1..=1000 {
        let (time, between) = (Duration::from_millis(at), Duration::from_micros(500));
        ops.submit(Op::recv(key, Vec::new(), 1).deadline(time), at as usize);
        let id = ops.submit(Op::timeout(time + between), at as usize);
        ops.cancel(id);
    }
    assert_eq!(ops.collect(2000).len(), 2000, "received, late or cancelled");
    ops.expect_sleep("every operation has completed");
    ops.expect_all_done("every operation has completed");
}
