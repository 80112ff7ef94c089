//! Single cases: who holds a file and a buffer, for how long; and what a kernel says that nobody is
//! to hear of.

use super::super::kernel::{Dice, End, Kernel, World};
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, Outcome};
use crate::poller::{Poller, Source};
use crate::reactor::Reactor;
use crate::selector::Triggers;
use crate::testing::{is_alone, no_children};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
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
    fn new() -> Self {
        let (kernel, world) = Kernel::new(Triggers::EDGE, 1);
        let reactor = Reactor::new(Backend::Other("kernel"), kernel).expect("a page");
        Stage { reactor, world, events: Events::with_capacity(16) }
    }

    fn register(&mut self, source: Source) -> Key {
        let none = Interest::empty();
        self.reactor.register(source, Token(0), none, Mode::Edge).expect("it is fresh")
    }

    fn submit(&mut self, op: Op, token: usize) -> crate::op::OpId {
        self.reactor.submit(op, Token(token)).expect("all is in order")
    }

    fn look(&mut self) -> Vec<Completion> {
        self.reactor.wait(&mut self.events, Some(Duration::ZERO)).expect("nothing goes wrong");
        self.reactor.verify();
        self.events.completions().collect()
    }

    fn tokens(&mut self) -> Vec<usize> {
        self.look().iter().map(|its| its.token.0).collect()
    }

    fn land(&mut self, end: End) {
        assert!(self.world.borrow_mut().end(0, end), "it can end so");
    }
}

fn pair() -> (Arc<UnixStream>, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
    peer.set_nonblocking(true).expect("a socket");
    (Arc::new(ours), peer)
}

#[test]
fn the_peer_sees_the_end_when_the_kernel_is_done_and_not_before() {
    let _still = no_children();
    let (mut stage, (ours, mut peer)) = (Stage::new(), pair());
    stage.world.borrow_mut().stubborn = 100;
    let key = stage.register(ours.clone());
    stage.submit(Op::recv(key, vec![], 8), 1);
    stage.submit(Op::recv(key, vec![], 8), 2);
    stage.submit(Op::send(key, "data", ..), 3);
    stage.submit(Op::send(key, "more", ..), 4);
    stage.reactor.deregister(key).expect("it is registered");
    drop(ours);
    assert_eq!(stage.tokens(), [2, 4], "the kernel has the others");
    let is_open = |peer: &mut UnixStream| {
        peer.read(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert!(is_open(&mut peer));
    peer.write_all(b"late").expect("there is somebody");
    stage.land(End::Real(8));
    let landed = stage.look();
    let [Completion { transferred: 4, result: Ok(Outcome::Done), .. }] = &landed[..] else {
        panic!("its real result: {landed:?}")
    };
    assert!(is_open(&mut peer), "there is another");
    stage.land(End::Canceled);
    let landed = stage.look();
    assert!(landed.len() == 1 && landed[0].is_canceled());
    assert_eq!(peer.read(&mut [0; 8]).ok(), Some(0), "that was the last");
}

#[test]
fn what_a_kernel_gives_back_unfinished_goes_on() {
    for end in [End::WouldBlock, End::Interrupted, End::Canceled] {
        let (mut stage, (ours, mut peer)) = (Stage::new(), pair());
        let key = stage.register(ours);
        stage.submit(Op::recv_exact(key, b"> ".to_vec(), 8), 1);
        peer.write_all(b"abc").expect("room");
        stage.land(End::Real(2));
        assert!(stage.look().is_empty());
        stage.land(end);
        assert!(stage.look().is_empty(), "{end:?} is nobody's business");
        peer.write_all(b"defgh").expect("room");
        while !stage.world.borrow().taken.is_empty() {
            stage.land(End::Real(3));
            assert!(stage.events.is_empty());
            stage.reactor.wait(&mut stage.events, Some(Duration::ZERO)).expect("a wait");
        }
        let landed = stage.look();
        let [Completion { transferred: 8, buf, .. }] = &landed[..] else { panic!("{landed:?}") };
        assert_eq!(&buf[..], b"> abcdefgh", "{end:?}");
    }
}

#[test]
fn what_was_moved_counts_whatever_comes_after_it() {
    let (mut stage, (ours, mut peer)) = (Stage::new(), pair());
    let key = stage.register(ours);
    let ends = [End::WouldBlock, End::Interrupted, End::Canceled, End::Real(1)];
    for end in ends {
        stage.world.borrow_mut().stubborn = 100;
        let id = stage.submit(Op::recv_exact(key, vec![], 9), 1);
        peer.write_all(b"abcd").expect("room");
        stage.land(End::Real(3));
        assert!(stage.look().is_empty());
        stage.reactor.cancel(id).expect("it is under way");
        assert!(stage.look().is_empty(), "the kernel has the last word");
        stage.land(end);
        let landed = stage.look();
        let count = 3 + usize::from(end == End::Real(1));
        let [its] = &landed[..] else { panic!("{landed:?}") };
        assert!(its.is_canceled() && its.transferred == count, "{end:?}: {its:?}");
        assert_eq!(&its.buf[..], &b"abcd"[..count]);
        assert_eq!(stage.reactor.cancel(id).expect_err("it is over").kind(), ErrorKind::NotFound);
        while stage.world.borrow().taken.len() + stage.events.completed() > 0 {
            stage.look();
        }
        if count == 3 {
            let rest = stage.submit(Op::recv(key, vec![], 9), 2);
            stage.land(End::Real(9));
            assert_eq!(stage.look().first().map(|its| its.id), Some(rest), "it was left there");
        }
    }
}

/// A stop that comes second changes nothing.
#[test]
fn why_it_was_stopped_first_is_what_is_told() {
    let (mut stage, (ours, _peer)) = (Stage::new(), pair());
    stage.world.borrow_mut().stubborn = 100;
    let key = stage.register(ours);
    let first = stage.submit(Op::recv(key, vec![], 9).deadline(Duration::ZERO), 1);
    stage.submit(Op::recv(key, vec![], 9).deadline(Duration::ZERO), 2);
    let landed = stage.look();
    assert!(matches!(&landed[..], [its] if its.token == Token(2)));
    assert_eq!(stage.world.borrow().asked, [first.slot], "the other one it never had");
    stage.reactor.cancel(first).expect("it is under way");
    stage.land(End::Canceled);
    let landed = stage.look();
    let kinds: Vec<_> =
        landed.iter().map(|its| its.result.as_ref().map_err(|e| e.kind())).collect();
    assert!(matches!(kinds[..], [Err(ErrorKind::TimedOut)]), "{landed:?}");
}

#[test]
fn to_shut_down_reading_waits_for_nobody() {
    let (mut stage, (ours, _peer)) = (Stage::new(), pair());
    let key = stage.register(ours);
    stage.submit(Op::recv(key, vec![], 9), 1);
    stage.submit(Op::recv(key, vec![], 9), 2);
    stage.submit(Op::shutdown(key, Shutdown::Read), 3);
    assert_eq!(stage.tokens(), [3]);
    stage.land(End::Real(9));
    assert_eq!(stage.tokens(), [1], "it has come to its end");
    stage.land(End::Real(9));
    assert_eq!(stage.tokens(), [2]);
}

/// One whose peer is fast makes way for others now and then, and no edge will tell that it can go
/// on: a socket that keeps records gives one for each call.
#[test]
fn a_burst_goes_on_by_itself() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let pair = socketpair(AddressFamily::Unix, kind, None, flags).expect("a pair of sockets");
    let mut stage = Stage::new();
    stage.world.borrow_mut().emulated = 100;
    let key = stage.register(Arc::new(pair.0));
    for at in 0..100 {
        nix::unistd::write(&pair.1, &[at]).expect("room");
    }
    stage.submit(Op::recv_exact(key, vec![], 100), 1);
    let (mut landed, mut looks) = (vec![], 0);
    while landed.is_empty() {
        (landed, looks) = (stage.look(), looks + 1);
        assert!(looks < 20, "it has been forgotten");
    }
    assert!(looks > 3, "it has kept all others waiting");
    assert_eq!(&landed[0].buf[..], (0..100).collect::<Vec<u8>>());
}

#[test]
fn the_kernel_is_given_one_at_a_time() {
    let (mut stage, (ours, mut peer)) = (Stage::new(), pair());
    let key = stage.register(ours);
    for at in 0..5 {
        stage.submit(Op::recv(key, vec![], 1), at);
    }
    peer.write_all(b"01234").expect("room");
    for at in 0..5 {
        assert_eq!((stage.world.borrow().taken.len(), stage.world.borrow().starts), (1, at + 1));
        stage.land(End::Real(9));
        let landed = stage.look();
        assert_eq!((landed[0].token.0, &landed[0].buf[..]), (at, &[b'0' + at as u8][..]));
    }
}

/// Whether the memory at this place is there at all.
fn is_mapped(place: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is always there");
    maps.lines().any(|line| {
        let (range, _) = line.split_once(' ').expect("a range and more");
        let (start, end) = range.split_once('-').expect("two ends");
        let [start, end] = [start, end].map(|end| usize::from_str_radix(end, 16).expect("hex"));
        (start..end).contains(&place)
    })
}

#[test]
fn a_poller_that_goes_frees_all_but_what_the_kernel_has() {
    const TEST: &str = "a_poller_that_goes_frees_all_but_what_the_kernel_has";
    if !is_alone(&format!("reactor::tests::operations::by_hand::{TEST}")) {
        return;
    }
    // So much that the allocator gives it back to the system at once, and never touched.
    const MUCH: usize = 80 << 20;
    let (mut stage, (ours, _peer), mut places) = (Stage::new(), pair(), vec![]);
    let key = stage.register(ours.clone());
    for at in 0..4 {
        let bytes = Vec::with_capacity(MUCH);
        places.push(bytes.as_ptr() as usize);
        stage.submit(Op::recv(key, bytes, MUCH), at);
    }
    let id = stage.submit(Op::recv(key, Vec::with_capacity(MUCH), MUCH), 4);
    stage.reactor.cancel(id).expect("it waits for its turn");
    assert!(places.iter().all(|&place| is_mapped(place)));
    let Stage { reactor, world, events } = stage;
    drop(reactor);
    let left: Vec<_> = places.iter().map(|&place| is_mapped(place)).collect();
    assert_eq!(left, [true, false, false, false], "the first is the kernel's");
    assert_eq!(Arc::strong_count(&ours), 1);
    world.borrow_mut().taken.clear();
    assert!(!places.iter().any(|&place| is_mapped(place)));
    drop(events);
}

#[test]
fn dice_fall_on_all_sides() {
    let mut dice = Dice(7);
    let mut fallen = [0; 6];
    (0..600).for_each(|_| fallen[dice.throw(6) as usize] += 1);
    assert!(fallen.iter().all(|&times| times > 50), "{fallen:?}");
}
