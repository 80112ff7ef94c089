//! Single cases of operations with many results: who gets a buffer when, how much one may bring at
//! a time, and what ends it.

use super::super::kernel::{End, Kernel, World};
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

struct Stage {
    reactor: Reactor<Kernel>,
    world: Rc<RefCell<World>>,
    events: Events,
}

impl Stage {
    /// One whose mechanism does so many of a hundred operations.
    fn new(native: u64) -> Self {
        let (kernel, world) = Kernel::new(Triggers::EDGE, 1);
        (world.borrow_mut().emulated, world.borrow_mut().cut) = (100 - native, 0);
        let reactor = Reactor::new(Backend::Other("kernel"), kernel).expect("a page");
        Stage { reactor, world, events: Events::with_capacity(64) }
    }

    fn register(&mut self, source: Source) -> Key {
        let none = Interest::empty();
        self.reactor.register(source, Token(0), none, Mode::Edge).expect("it is fresh")
    }

    /// A pair of sockets of which one is the poller's.
    fn link(&mut self) -> (Key, UnixStream) {
        let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
        (self.register(Arc::new(ours)), peer)
    }

    fn submit(&mut self, op: Op, token: usize) -> OpId {
        self.reactor.submit(op, Token(token)).expect("all is in order")
    }

    fn look(&mut self) -> Vec<Completion> {
        self.reactor.wait(&mut self.events, Some(Duration::ZERO)).expect("nothing goes wrong");
        self.reactor.verify();
        self.events.completions().collect()
    }

    /// Those that have brought something, with their buffers.
    fn brought(&mut self) -> Vec<(usize, PoolBuf)> {
        let of = |its: Completion| match its.buf {
            Buf::Pool(buf) if its.more => (its.token.0, buf),
            _ => panic!("{its:?}"),
        };
        self.look().into_iter().map(of).collect()
    }

    fn is_waiting(&self, op: OpId) -> bool {
        self.reactor.operations.awaits_buffer(op.slot)
    }

    fn untaken(&self, op: OpId) -> usize {
        self.reactor.operations.undelivered(op.slot) as usize
    }

    fn has_rung(&self) -> bool {
        self.reactor.parker.take_notifications()
    }
}

fn pool(size: usize, limit: usize) -> BufferPool {
    BufferPool::new(size, limit).expect("there is something in it")
}

fn write(peer: &mut UnixStream, bytes: &[u8]) {
    peer.write_all(bytes).expect("room");
}

#[test]
fn who_has_waited_longest_is_served_first_and_one_buffer_at_a_time() {
    let (mut stage, pool) = (Stage::new(0), pool(2, 1));
    let mut links: Vec<_> = (0..4).map(|_| stage.link()).collect();
    for (_, peer) in &mut links {
        write(peer, b"aabbcc");
    }
    let mine = pool.take().expect("it is new");
    let ops: Vec<_> =
        (0..4).map(|at| stage.submit(Op::recv_multi(links[at].0, &pool), at)).collect();
    assert!(stage.look().is_empty() && ops.iter().all(|&op| stage.is_waiting(op)));
    assert!(!stage.has_rung(), "nothing has come home");
    drop(mine);
    for round in [b"aa", b"bb", b"cc"] {
        for (at, &op) in ops.iter().enumerate() {
            assert!(stage.is_waiting(op));
            let brought = stage.brought();
            let [(token, buf)] = &brought[..] else { panic!("one buffer: {brought:?}") };
            assert_eq!((*token, &buf[..]), (at, &round[..]), "in turn");
            assert!(stage.look().is_empty(), "it is with the program");
            drop(brought);
            assert!(stage.has_rung(), "it has come home");
            stage.reactor.parts.notifier.wake_by_ref();
        }
    }
    assert!(stage.look().is_empty());
    assert!(!ops.iter().any(|&op| stage.is_waiting(op)), "nobody needs one before something comes");
    assert_eq!((pool.idle(), stage.has_rung()), (1, false));
}

#[test]
fn pool_forgets_pollers_that_wait_no_more() {
    let pool = pool(2, 1);
    let _mine = pool.take();
    let waiting = |is_cancelled| {
        let mut stage = Stage::new(0);
        let (key, _peer) = stage.link();
        let op = stage.submit(Op::recv_multi(key, &pool), 0);
        assert!(stage.look().is_empty() && stage.is_waiting(op));
        let notifier = stage.reactor.parts.notifier.clone();
        assert!(pool.notifies(&notifier));
        if is_cancelled {
            stage.reactor.cancel(op).expect("it waits");
            assert_eq!(stage.look().len(), 1);
            // The queue is removed when any pool is served.
            notifier.wake_by_ref();
            stage.look();
            assert!(!pool.notifies(&notifier));
        }
        notifier
    };
    for is_cancelled in [false, true] {
        let notifier = waiting(is_cancelled);
        assert!(!pool.notifies(&notifier), "the poller was dropped: {is_cancelled}");
    }
}

/// He who floods goes to the end of the line with each buffer, and others get one first.
#[test]
fn who_has_more_to_come_goes_behind_the_others() {
    let (mut stage, pool) = (Stage::new(0), pool(1, 2));
    let mut links: Vec<_> = (0..3).map(|_| stage.link()).collect();
    write(&mut links[0].1, &[b'x'; 60]);
    let ops: Vec<_> =
        (0..3).map(|at| stage.submit(Op::recv_multi(links[at].0, &pool), at)).collect();
    let mut kept = stage.brought();
    assert_eq!(kept.len(), 2);
    write(&mut links[1].1, b"12");
    write(&mut links[2].1, b"12");
    assert!(stage.look().is_empty());
    assert!(ops.iter().all(|&op| stage.is_waiting(op)), "there is none left");
    let mut order = Vec::new();
    while order.len() < 12 {
        kept.clear();
        kept = stage.brought();
        assert!(!kept.is_empty(), "they are at home, and there is more");
        order.extend(kept.iter().map(|its| its.0));
    }
    assert_eq!(order[..6], [0, 1, 2, 0, 1, 2], "{order:?}");
    assert!(order[6..].iter().all(|&its| its == 0), "the rest is his: {order:?}");
}

#[test]
fn one_that_is_stopped_in_the_line_is_passed_over() {
    let (mut stage, pool) = (Stage::new(0), pool(4, 1));
    let mut links: Vec<_> = (0..3).map(|_| stage.link()).collect();
    links.iter_mut().for_each(|(_, peer)| write(peer, b"data"));
    let mine = pool.take();
    let ops: Vec<_> =
        (0..3).map(|at| stage.submit(Op::recv_multi(links[at].0, &pool), at)).collect();
    assert!(stage.look().is_empty());
    stage.reactor.cancel(ops[0]).expect("it is under way");
    stage.reactor.deregister(links[1].0).expect("it is registered");
    drop(mine);
    let landed = stage.look();
    let of: Vec<_> = landed.iter().map(|its| (its.token.0, its.is_canceled(), its.more)).collect();
    assert_eq!(of, [(0, true, false), (1, true, false), (2, false, true)]);
    drop(landed);
    // It may have stood there alone, and then another comes.
    let mine = pool.take();
    let alone = stage.submit(Op::recv_multi(links[0].0, &pool), 3);
    stage.look();
    stage.reactor.cancel(alone).expect("it is under way");
    let next = stage.submit(Op::recv_multi(links[0].0, &pool), 4);
    stage.look();
    assert!(stage.is_waiting(next));
    drop(mine);
    let brought = stage.brought();
    assert_eq!(brought.iter().map(|its| its.0).collect::<Vec<_>>(), [4]);
}

/// A pool that nobody has told the poller of is waited for as any.
#[test]
fn each_pool_has_a_line_of_its_own() {
    let (mut stage, pools) = (Stage::new(0), [pool(4, 1), pool(4, 1)]);
    let mut links: Vec<_> = (0..4).map(|_| stage.link()).collect();
    links.iter_mut().for_each(|(_, peer)| write(peer, b"data"));
    let mine = pools[0].take();
    for (at, link) in links.iter().enumerate() {
        stage.submit(Op::recv_multi(link.0, &pools[at % 2]), at);
    }
    let first = stage.brought();
    assert_eq!(first.iter().map(|its| its.0).collect::<Vec<_>>(), [1], "the other one has some");
    drop(first);
    assert_eq!(stage.brought().iter().map(|its| its.0).collect::<Vec<_>>(), [3]);
    drop(mine);
    let first = stage.brought();
    assert_eq!(first.iter().map(|its| its.0).collect::<Vec<_>>(), [0]);
    drop(first);
    assert_eq!(stage.brought().iter().map(|its| its.0).collect::<Vec<_>>(), [2]);
}

/// Where there are more buffers than one, and the first in the line have been served, nobody else
/// will tell that there are.
#[test]
fn the_bell_rings_for_buffers_that_are_left() {
    let (mut stage, pool) = (Stage::new(0), pool(1, 3));
    let (flood, mut peer) = stage.link();
    let (other, mut its) = stage.link();
    let mine: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    write(&mut peer, &[b'x'; 40]);
    write(&mut its, &[b'y'; 40]);
    let ops =
        [Op::recv_multi(flood, &pool), Op::recv_multi(other, &pool)].map(|op| stage.submit(op, 0));
    assert!(stage.look().is_empty());
    drop(mine);
    let mut total = 0;
    while total < 80 {
        let brought = stage.brought();
        assert!(!brought.is_empty(), "some are at home, and there is more");
        total += brought.len();
        if pool.idle() > 0 && ops.iter().any(|&op| stage.is_waiting(op)) {
            assert!(stage.has_rung(), "there is another");
            stage.reactor.parts.notifier.wake_by_ref();
        }
    }
}

/// It asks for no more than one wait has room for, within bounds. A wait whose room is filled by
/// what waits already asks for nothing.
#[test]
fn a_turn_is_so_many_calls_and_so_many_results_wait() {
    for (capacity, expected) in [(1, 16), (100, 100), (1000, 256)] {
        let (mut stage, pool) = (Stage::new(0), pool(1, 2000));
        stage.events = Events::with_capacity(capacity);
        let (key, mut peer) = stage.link();
        write(&mut peer, &[b'x'; 1500]);
        let op = stage.submit(Op::recv_multi(key, &pool), 0);
        assert_eq!(stage.untaken(op), 16, "others want their turn");
        let (mut total, mut most) = (0, 0);
        while total < 1500 {
            // Those of one wait are taken out of it one by one, and the rest stays.
            stage.reactor.wait(&mut stage.events, Some(Duration::ZERO)).expect("all is well");
            let untaken = stage.untaken(op);
            let came = stage.events.completions().take(1).count();
            assert!(came == 1 || total == 1500, "there is more");
            total += came;
            most = most.max(untaken);
            assert!(untaken <= expected, "{untaken}: the program does not take them");
            let lent = pool.made() - pool.idle();
            assert_eq!(lent, untaken + stage.events.completed(), "{capacity}: one for each");
        }
        assert!(most >= 15, "{most}: but those of a turn may be there");
    }
}

#[test]
fn results_come_before_the_end_whatever_ends_it() {
    for (end, native) in [("cancel", 100), ("cancel", 0), ("end", 100), ("end", 0)] {
        let _still = crate::testing::no_children();
        let (mut stage, pool) = (Stage::new(native), pool(1, 8));
        let (key, mut peer) = stage.link();
        write(&mut peer, b"123");
        let op = stage.submit(Op::recv_multi(key, &pool), 0);
        let behind = stage.submit(Op::recv(key, vec![], 9), 1);
        let count = 3 * stage.world.borrow().taken.len();
        for _ in 0..count {
            stage.world.borrow_mut().end(0, End::Real(9));
        }
        if end == "cancel" {
            stage.reactor.cancel(op).expect("it is under way");
            write(&mut peer, b"4");
        } else {
            drop(peer);
        }
        let mut landed = Vec::new();
        while !landed.iter().any(|its: &Completion| its.id == behind) {
            landed.extend(stage.look());
            let mut world = stage.world.borrow_mut();
            if !world.taken.is_empty() {
                world.end(0, End::Real(9));
            }
        }
        let its: Vec<_> =
            landed.iter().map(|its| (its.token.0, its.more, its.transferred)).collect();
        // What comes last may be one of many, if it was there when the kernel was told.
        let is_before = its[..3] == [(0, true, 1); 3];
        let last = landed.iter().filter(|its| its.token.0 == 0 && !its.more).collect::<Vec<_>>();
        assert!(is_before && last.len() == 1, "{end} {native}: {landed:?}");
        match (end, &last[0].result) {
            ("end", Ok(Outcome::Done)) => {}
            ("cancel", Err(_)) => assert!(last[0].is_canceled()),
            other => panic!("{other:?}"),
        }
        let bytes: Vec<u8> = landed.iter().flat_map(|its| its.buf.to_vec()).collect();
        assert_eq!(bytes, if end == "cancel" { &b"1234"[..] } else { b"123" }, "none is lost");
    }
}

/// Accepted sockets that come one by one, of which one says that it is the last for want of room.
#[test]
fn all_who_are_accepted_are_told_of_and_owned() {
    let mut stage = Stage::new(100);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let key = stage.register(Arc::new(listener));
    let op = stage.submit(Op::accept_multi(key), 0);
    let mut peers = Vec::new();
    for cut in [0, 100, 0, 100] {
        for _ in 0..3 {
            let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
            stage.world.borrow_mut().arrived.push_back(ours.into());
            peers.push(peer);
        }
        stage.world.borrow_mut().cut = cut;
        for _ in 0..3 {
            assert!(stage.world.borrow_mut().end(0, End::Real(0)), "somebody has come");
            let landed = stage.look();
            let [Completion { more: true, result: Ok(Outcome::Accepted { peer: None, .. }), .. }] =
                &landed[..]
            else {
                panic!("{landed:?}")
            };
            assert_eq!(stage.world.borrow().taken.len(), 1, "it goes on");
        }
    }
    assert!(stage.world.borrow().starts > 6, "after a last one it is begun anew");
    // Nobody takes these: they go with the poller.
    for _ in 0..2 {
        let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
        stage.world.borrow_mut().arrived.push_back(ours.into());
        peers.push(peer);
    }
    stage.world.borrow_mut().cut = 0;
    assert!(stage.world.borrow_mut().end(0, End::Real(0)));
    stage.reactor.cancel(op).expect("it is under way");
    let _still = crate::testing::no_children();
    let Stage { reactor, world, events } = stage;
    drop((reactor, events));
    world.borrow_mut().forget();
    world.borrow_mut().arrived.clear();
    for peer in &mut peers {
        peer.set_nonblocking(true).expect("a socket");
        let read = std::io::Read::read(peer, &mut [0; 9]);
        assert_eq!(read.ok(), Some(0), "its other end was closed");
    }
}

/// Of a kernel that does not know how, and says so, nobody hears.
#[test]
fn a_kernel_that_does_not_know_it_is_made_up_for() {
    let (mut stage, pool) = (Stage::new(100), pool(4, 2));
    let (key, mut peer) = stage.link();
    stage.submit(Op::recv_multi(key, &pool), 0);
    assert!(stage.world.borrow_mut().end(0, End::Unknown));
    assert!(stage.look().is_empty());
    assert_eq!(stage.world.borrow().taken.len(), 0, "it is not asked again");
    for _ in 0..3 {
        write(&mut peer, b"data");
        assert_eq!(stage.brought().len(), 1);
    }
    assert_eq!(stage.world.borrow().starts, 1);
}
