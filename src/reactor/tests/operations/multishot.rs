//! Single cases of multishot operations: the order of buffers, the limits of results, and the end.

use super::super::fake_kernel::{End, FakeKernel, KernelState};
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::{Poller, Source};
use crate::reactor::Reactor;
use crate::selector::Triggers;
use crate::sys::buf::Buf;
use crate::sys::pool::{BufferPool, PoolBuf};
use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

struct MultishotFixture {
    reactor: Reactor<FakeKernel>,
    state: Rc<RefCell<KernelState>>,
    events: Events,
}

impl MultishotFixture {
    /// Returns a fixture whose driver performs `native` percent of the operations.
    fn new(native: u64) -> Self {
        let (fake_kernel, state) = FakeKernel::new(Triggers::EDGE, 1);
        (state.borrow_mut().percent_emulated, state.borrow_mut().percent_last) = (100 - native, 0);
        let reactor = Reactor::new(Backend::Other("kernel"), fake_kernel).expect("a page");
        MultishotFixture { reactor, state, events: Events::with_capacity(64) }
    }

    fn register(&mut self, source: Source) -> Key {
        let none = Interest::empty();
        self.reactor.register(source, Token(0), none, Mode::Edge).expect("fresh")
    }

    /// Makes a socket pair and registers one end.
    fn connection(&mut self) -> (Key, UnixStream) {
        let (local, peer) = UnixStream::pair().expect("a socket pair");
        (self.register(Arc::new(local)), peer)
    }

    fn submit(&mut self, op: Op, token: usize) -> OpId {
        self.reactor.submit(op, Token(token)).expect("accepted")
    }

    fn poll_now(&mut self) -> Vec<Completion> {
        self.reactor.wait(&mut self.events, Some(Duration::ZERO)).expect("no errors");
        self.reactor.verify();
        self.events.completions().collect()
    }

    /// Returns the received buffers with their tokens.
    fn received(&mut self) -> Vec<(usize, PoolBuf)> {
        let of = |its: Completion| match its.buf {
            Buf::Pool(buf) if its.more => (its.token.0, buf),
            _ => panic!("{its:?}"),
        };
        self.poll_now().into_iter().map(of).collect()
    }

    fn is_waiting(&self, op: OpId) -> bool {
        self.reactor.operations.awaits_buffer(op.slot)
    }

    fn undelivered(&self, op: OpId) -> usize {
        self.reactor.operations.undelivered(op.slot) as usize
    }

    fn is_notified(&self) -> bool {
        self.reactor.parker.take_notifications()
    }
}

fn pool(size: usize, limit: usize) -> BufferPool {
    BufferPool::new(size, limit).expect("a pool")
}

fn write(peer: &mut UnixStream, bytes: &[u8]) {
    peer.write_all(bytes).expect("room");
}

#[test]
fn buffer_waiters_are_fifo_one_buffer_each() {
    let (mut cx, pool) = (MultishotFixture::new(0), pool(2, 1));
    let mut connections: Vec<_> = (0..4).map(|_| cx.connection()).collect();
    for (_, peer) in &mut connections {
        write(peer, b"aabbcc");
    }
    let held_buf = pool.take().expect("a new pool");
    let ops: Vec<_> =
        (0..4).map(|at| cx.submit(Op::recv_multi(connections[at].0, &pool), at)).collect();
    assert!(cx.poll_now().is_empty() && ops.iter().all(|&op| cx.is_waiting(op)));
    assert!(!cx.is_notified(), "no buffer was returned");
    drop(held_buf);
    for round in [b"aa", b"bb", b"cc"] {
        for (at, &op) in ops.iter().enumerate() {
            assert!(cx.is_waiting(op));
            let received = cx.received();
            let [(token, buf)] = &received[..] else { panic!("one buffer: {received:?}") };
            assert_eq!((*token, &buf[..]), (at, &round[..]), "in turn");
            assert!(cx.poll_now().is_empty(), "the program has the buffer");
            drop(received);
            assert!(cx.is_notified(), "the buffer was returned");
            cx.reactor.parts.notifier.wake_by_ref();
        }
    }
    assert!(cx.poll_now().is_empty());
    assert!(!ops.iter().any(|&op| cx.is_waiting(op)), "no data, so no buffer is needed");
    assert_eq!((pool.available(), cx.is_notified()), (1, false));
}

#[test]
fn pool_drops_wakers_of_pollers_not_waiting() {
    let pool = pool(2, 1);
    let _held_buf = pool.take();
    let waiting = |is_cancelled| {
        let mut cx = MultishotFixture::new(0);
        let (key, _peer) = cx.connection();
        let op = cx.submit(Op::recv_multi(key, &pool), 0);
        assert!(cx.poll_now().is_empty() && cx.is_waiting(op));
        let notifier = cx.reactor.parts.notifier.clone();
        assert!(pool.notifies(&notifier));
        if is_cancelled {
            cx.reactor.cancel(op).expect("it waits");
            assert_eq!(cx.poll_now().len(), 1);
            // The queue is removed when any pool is served.
            notifier.wake_by_ref();
            cx.poll_now();
            assert!(!pool.notifies(&notifier));
        }
        notifier
    };
    for is_cancelled in [false, true] {
        let notifier = waiting(is_cancelled);
        assert!(!pool.notifies(&notifier), "the poller was dropped: {is_cancelled}");
    }
}

/// A stream with more data requeues behind other waiters after each buffer.
#[test]
fn busy_stream_requeues_behind_other_waiters() {
    let (mut cx, pool) = (MultishotFixture::new(0), pool(1, 2));
    let mut connections: Vec<_> = (0..3).map(|_| cx.connection()).collect();
    write(&mut connections[0].1, &[b'x'; 60]);
    let ops: Vec<_> =
        (0..3).map(|at| cx.submit(Op::recv_multi(connections[at].0, &pool), at)).collect();
    let mut kept = cx.received();
    assert_eq!(kept.len(), 2);
    write(&mut connections[1].1, b"12");
    write(&mut connections[2].1, b"12");
    assert!(cx.poll_now().is_empty());
    assert!(ops.iter().all(|&op| cx.is_waiting(op)), "no buffer is left");
    let mut order = Vec::new();
    while order.len() < 12 {
        kept.clear();
        kept = cx.received();
        assert!(!kept.is_empty(), "buffers are free, and data are left");
        order.extend(kept.iter().map(|its| its.0));
    }
    assert_eq!(order[..6], [0, 1, 2, 0, 1, 2], "{order:?}");
    assert!(order[6..].iter().all(|&its| its == 0), "the rest is the busy stream's: {order:?}");
}

#[test]
fn cancelled_buffer_waiter_is_skipped() {
    let (mut cx, pool) = (MultishotFixture::new(0), pool(4, 1));
    let mut connections: Vec<_> = (0..3).map(|_| cx.connection()).collect();
    connections.iter_mut().for_each(|(_, peer)| write(peer, b"data"));
    let held_buf = pool.take();
    let ops: Vec<_> =
        (0..3).map(|at| cx.submit(Op::recv_multi(connections[at].0, &pool), at)).collect();
    assert!(cx.poll_now().is_empty());
    cx.reactor.cancel(ops[0]).expect("in flight");
    cx.reactor.deregister(connections[1].0).expect("registered");
    drop(held_buf);
    let completions = cx.poll_now();
    let of: Vec<_> =
        completions.iter().map(|its| (its.token.0, its.is_canceled(), its.more)).collect();
    assert_eq!(of, [(0, true, false), (1, true, false), (2, false, true)]);
    drop(completions);
    // The queue may become empty, and then get a new waiter.
    let held_buf = pool.take();
    let alone = cx.submit(Op::recv_multi(connections[0].0, &pool), 3);
    cx.poll_now();
    cx.reactor.cancel(alone).expect("in flight");
    let next = cx.submit(Op::recv_multi(connections[0].0, &pool), 4);
    cx.poll_now();
    assert!(cx.is_waiting(next));
    drop(held_buf);
    let received = cx.received();
    assert_eq!(received.iter().map(|its| its.0).collect::<Vec<_>>(), [4]);
}

/// Also for a pool that the reactor has not seen before.
#[test]
fn each_pool_has_its_own_waiters() {
    let (mut cx, pools) = (MultishotFixture::new(0), [pool(4, 1), pool(4, 1)]);
    let mut connections: Vec<_> = (0..4).map(|_| cx.connection()).collect();
    connections.iter_mut().for_each(|(_, peer)| write(peer, b"data"));
    let held_buf = pools[0].take();
    for (at, connection) in connections.iter().enumerate() {
        cx.submit(Op::recv_multi(connection.0, &pools[at % 2]), at);
    }
    let first = cx.received();
    assert_eq!(
        first.iter().map(|its| its.0).collect::<Vec<_>>(),
        [1],
        "the other pool has a buffer"
    );
    drop(first);
    assert_eq!(cx.received().iter().map(|its| its.0).collect::<Vec<_>>(), [3]);
    drop(held_buf);
    let first = cx.received();
    assert_eq!(first.iter().map(|its| its.0).collect::<Vec<_>>(), [0]);
    drop(first);
    assert_eq!(cx.received().iter().map(|its| its.0).collect::<Vec<_>>(), [2]);
}

/// If buffers are left after the first waiters were served, no other event would report them.
#[test]
fn free_buffers_with_waiters_are_notified() {
    let (mut cx, pool) = (MultishotFixture::new(0), pool(1, 3));
    let (flood, mut peer) = cx.connection();
    let (other, mut its) = cx.connection();
    let held_buf: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    write(&mut peer, &[b'x'; 40]);
    write(&mut its, &[b'y'; 40]);
    let ops =
        [Op::recv_multi(flood, &pool), Op::recv_multi(other, &pool)].map(|op| cx.submit(op, 0));
    assert!(cx.poll_now().is_empty());
    drop(held_buf);
    let mut total = 0;
    while total < 80 {
        let received = cx.received();
        assert!(!received.is_empty(), "buffers are free, and data are left");
        total += received.len();
        if pool.available() > 0 && ops.iter().any(|&op| cx.is_waiting(op)) {
            assert!(cx.is_notified(), "another buffer is free");
            cx.reactor.parts.notifier.wake_by_ref();
        }
    }
}

/// A multishot operation gets at most the results that fit into one wait, within bounds. A wait
/// filled by pending results requests none.
#[test]
fn multishot_turn_and_undelivered_results_are_limited() {
    for (capacity, expected) in [(1, 16), (100, 100), (1000, 256)] {
        let (mut cx, pool) = (MultishotFixture::new(0), pool(1, 2000));
        cx.events = Events::with_capacity(capacity);
        let (key, mut peer) = cx.connection();
        write(&mut peer, &[b'x'; 1500]);
        let op = cx.submit(Op::recv_multi(key, &pool), 0);
        assert_eq!(cx.undelivered(op), 16, "then it yields");
        let (mut total, mut max) = (0, 0);
        while total < 1500 {
            // A wait's completions are taken one by one; the rest stays.
            cx.reactor.wait(&mut cx.events, Some(Duration::ZERO)).expect("no errors");
            let undelivered = cx.undelivered(op);
            let taken = cx.events.completions().take(1).count();
            assert!(taken == 1 || total == 1500, "more data are left");
            total += taken;
            max = max.max(undelivered);
            assert!(undelivered <= expected, "{undelivered}: too many undelivered results");
            let in_use = pool.allocated() - pool.available();
            assert_eq!(
                in_use,
                undelivered + cx.events.completed(),
                "{capacity}: one buffer for each result"
            );
        }
        assert!(max >= 15, "{max}: a turn's results may be pending");
    }
}

#[test]
fn multishot_results_precede_final_completion() {
    for (end, native) in [("cancel", 100), ("cancel", 0), ("end", 100), ("end", 0)] {
        let _still = crate::testing::no_children();
        let (mut cx, pool) = (MultishotFixture::new(native), pool(1, 8));
        let (key, mut peer) = cx.connection();
        write(&mut peer, b"123");
        let op = cx.submit(Op::recv_multi(key, &pool), 0);
        let behind = cx.submit(Op::recv(key, vec![], 9), 1);
        let count = 3 * cx.state.borrow().in_flight.len();
        for _ in 0..count {
            cx.state.borrow_mut().end(0, End::Real(9));
        }
        if end == "cancel" {
            cx.reactor.cancel(op).expect("in flight");
            write(&mut peer, b"4");
        } else {
            drop(peer);
        }
        let mut completions = Vec::new();
        while !completions.iter().any(|its: &Completion| its.id == behind) {
            completions.extend(cx.poll_now());
            let mut state = cx.state.borrow_mut();
            if !state.in_flight.is_empty() {
                state.end(0, End::Real(9));
            }
        }
        let its: Vec<_> =
            completions.iter().map(|its| (its.token.0, its.more, its.transferred)).collect();
        // The last result may be a multishot one if data were there at the cancel.
        let is_before = its[..3] == [(0, true, 1); 3];
        let last =
            completions.iter().filter(|its| its.token.0 == 0 && !its.more).collect::<Vec<_>>();
        assert!(is_before && last.len() == 1, "{end} {native}: {completions:?}");
        match (end, &last[0].result) {
            ("end", Ok(Outcome::Done)) => {}
            ("cancel", Err(_)) => assert!(last[0].is_canceled()),
            other => panic!("{other:?}"),
        }
        let bytes: Vec<u8> = completions.iter().flat_map(|its| its.buf.to_vec()).collect();
        assert_eq!(bytes, if end == "cancel" { &b"1234"[..] } else { b"123" }, "no byte is lost");
    }
}

/// Accepts sockets one by one; at times a result ends the multishot operation.
#[test]
fn accepted_sockets_are_all_delivered_or_closed() {
    let mut cx = MultishotFixture::new(100);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let key = cx.register(Arc::new(listener));
    let op = cx.submit(Op::accept_multi(key), 0);
    let mut peers = Vec::new();
    for percent_last in [0, 100, 0, 100] {
        for _ in 0..3 {
            let (local, peer) = UnixStream::pair().expect("a socket pair");
            cx.state.borrow_mut().pending_accepts.push_back(local.into());
            peers.push(peer);
        }
        cx.state.borrow_mut().percent_last = percent_last;
        for _ in 0..3 {
            assert!(cx.state.borrow_mut().end(0, End::Real(0)), "a connection is pending");
            let completions = cx.poll_now();
            let [Completion { more: true, result: Ok(Outcome::Accepted { peer: None, .. }), .. }] =
                &completions[..]
            else {
                panic!("{completions:?}")
            };
            assert_eq!(cx.state.borrow().in_flight.len(), 1, "the operation is in flight");
        }
    }
    assert!(cx.state.borrow().starts > 6, "resubmitted after each end");
    // These are not taken, and are dropped with the poller.
    for _ in 0..2 {
        let (local, peer) = UnixStream::pair().expect("a socket pair");
        cx.state.borrow_mut().pending_accepts.push_back(local.into());
        peers.push(peer);
    }
    cx.state.borrow_mut().percent_last = 0;
    assert!(cx.state.borrow_mut().end(0, End::Real(0)));
    cx.reactor.cancel(op).expect("in flight");
    let _still = crate::testing::no_children();
    let MultishotFixture { reactor, state, events } = cx;
    drop((reactor, events));
    state.borrow_mut().clear();
    state.borrow_mut().pending_accepts.clear();
    for peer in &mut peers {
        peer.set_nonblocking(true).expect("a socket");
        let read = std::io::Read::read(peer, &mut [0; 9]);
        assert_eq!(read.ok(), Some(0), "the accepted socket is closed");
    }
}

/// A kernel without multishot operations is not visible to the user.
#[test]
fn unsupported_multishot_is_emulated() {
    let (mut cx, pool) = (MultishotFixture::new(100), pool(4, 2));
    let (key, mut peer) = cx.connection();
    cx.submit(Op::recv_multi(key, &pool), 0);
    assert!(cx.state.borrow_mut().end(0, End::Unknown));
    assert!(cx.poll_now().is_empty());
    assert_eq!(cx.state.borrow().in_flight.len(), 0, "the driver is not tried again");
    for _ in 0..3 {
        write(&mut peer, b"data");
        assert_eq!(cx.received().len(), 1);
    }
    assert_eq!(cx.state.borrow().starts, 1);
}
