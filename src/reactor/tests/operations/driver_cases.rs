//! Single cases: the lifetime of files and buffers, and driver results that are not delivered.

use super::super::fake_kernel::{End, FakeKernel, KernelState, Rng};
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

struct DriverFixture {
    reactor: Reactor<FakeKernel>,
    state: Rc<RefCell<KernelState>>,
    events: Events,
}

impl DriverFixture {
    fn new() -> Self {
        let (fake_kernel, state) = FakeKernel::new(Triggers::EDGE, 1);
        let reactor = Reactor::new(Backend::Other("kernel"), fake_kernel).expect("a page");
        DriverFixture { reactor, state, events: Events::with_capacity(16) }
    }

    fn register(&mut self, source: Source) -> Key {
        let none = Interest::empty();
        self.reactor.register(source, Token(0), none, Mode::Edge).expect("fresh")
    }

    fn submit(&mut self, op: Op, token: usize) -> crate::op::OpId {
        self.reactor.submit(op, Token(token)).expect("accepted")
    }

    fn poll_now(&mut self) -> Vec<Completion> {
        self.reactor.wait(&mut self.events, Some(Duration::ZERO)).expect("no errors");
        self.reactor.verify();
        self.events.completions().collect()
    }

    fn tokens(&mut self) -> Vec<usize> {
        self.poll_now().iter().map(|completion| completion.token.0).collect()
    }

    fn end_op(&mut self, end: End) {
        assert!(self.state.borrow_mut().end(0, end), "the operation can end so");
    }
}

fn pair() -> (Arc<UnixStream>, UnixStream) {
    let (local, peer) = UnixStream::pair().expect("a socket pair");
    peer.set_nonblocking(true).expect("a socket");
    (Arc::new(local), peer)
}

#[test]
fn source_closes_after_last_kernel_operation() {
    let _still = no_children();
    let (mut cx, (local, mut peer)) = (DriverFixture::new(), pair());
    cx.state.borrow_mut().percent_uninterruptible = 100;
    let key = cx.register(local.clone());
    cx.submit(Op::recv(key, vec![], 8), 1);
    cx.submit(Op::recv(key, vec![], 8), 2);
    cx.submit(Op::send(key, "data", ..), 3);
    cx.submit(Op::send(key, "more", ..), 4);
    cx.reactor.deregister(key).expect("registered");
    drop(local);
    assert_eq!(cx.tokens(), [2, 4], "the kernel has the others");
    let is_open = |peer: &mut UnixStream| {
        peer.read(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert!(is_open(&mut peer));
    peer.write_all(b"late").expect("the peer is open");
    cx.end_op(End::Real(8));
    let completions = cx.poll_now();
    let [Completion { transferred: 4, result: Ok(Outcome::Done), .. }] = &completions[..] else {
        panic!("a real result: {completions:?}")
    };
    assert!(is_open(&mut peer), "another operation holds it");
    cx.end_op(End::Canceled);
    let completions = cx.poll_now();
    assert!(completions.len() == 1 && completions[0].is_canceled());
    assert_eq!(peer.read(&mut [0; 8]).ok(), Some(0), "the last operation ended");
}

#[test]
fn unfinished_driver_operation_is_resubmitted() {
    for end in [End::WouldBlock, End::Interrupted, End::Canceled] {
        let (mut cx, (local, mut peer)) = (DriverFixture::new(), pair());
        let key = cx.register(local);
        cx.submit(Op::recv_exact(key, b"> ".to_vec(), 8), 1);
        peer.write_all(b"abc").expect("room");
        cx.end_op(End::Real(2));
        assert!(cx.poll_now().is_empty());
        cx.end_op(end);
        assert!(cx.poll_now().is_empty(), "{end:?} is not delivered");
        peer.write_all(b"defgh").expect("room");
        while !cx.state.borrow().in_flight.is_empty() {
            cx.end_op(End::Real(3));
            assert!(cx.events.is_empty());
            cx.reactor.wait(&mut cx.events, Some(Duration::ZERO)).expect("a wait");
        }
        let completions = cx.poll_now();
        let [Completion { transferred: 8, buf, .. }] = &completions[..] else {
            panic!("{completions:?}")
        };
        assert_eq!(&buf[..], b"> abcdefgh", "{end:?}");
    }
}

#[test]
fn moved_bytes_count_after_cancel() {
    let (mut cx, (local, mut peer)) = (DriverFixture::new(), pair());
    let key = cx.register(local);
    let ends = [End::WouldBlock, End::Interrupted, End::Canceled, End::Real(1)];
    for end in ends {
        cx.state.borrow_mut().percent_uninterruptible = 100;
        let id = cx.submit(Op::recv_exact(key, vec![], 9), 1);
        peer.write_all(b"abcd").expect("room");
        cx.end_op(End::Real(3));
        assert!(cx.poll_now().is_empty());
        cx.reactor.cancel(id).expect("in flight");
        assert!(cx.poll_now().is_empty(), "the kernel has the operation");
        cx.end_op(end);
        let completions = cx.poll_now();
        let count = 3 + usize::from(end == End::Real(1));
        let [completion] = &completions[..] else { panic!("{completions:?}") };
        assert!(
            completion.is_canceled() && completion.transferred == count,
            "{end:?}: {completion:?}"
        );
        assert_eq!(&completion.buf[..], &b"abcd"[..count]);
        assert_eq!(cx.reactor.cancel(id).expect_err("completed").kind(), ErrorKind::NotFound);
        while cx.state.borrow().in_flight.len() + cx.events.completed() > 0 {
            cx.poll_now();
        }
        if count == 3 {
            let rest = cx.submit(Op::recv(key, vec![], 9), 2);
            cx.end_op(End::Real(9));
            assert_eq!(
                cx.poll_now().first().map(|completion| completion.id),
                Some(rest),
                "the byte was not consumed"
            );
        }
    }
}

/// A second cancel changes nothing.
#[test]
fn first_cancel_reason_is_reported() {
    let (mut cx, (local, _peer)) = (DriverFixture::new(), pair());
    cx.state.borrow_mut().percent_uninterruptible = 100;
    let key = cx.register(local);
    let first = cx.submit(Op::recv(key, vec![], 9).deadline(Duration::ZERO), 1);
    cx.submit(Op::recv(key, vec![], 9).deadline(Duration::ZERO), 2);
    let completions = cx.poll_now();
    assert!(matches!(&completions[..], [completion] if completion.token == Token(2)));
    assert_eq!(cx.state.borrow().cancelled, [first.slot], "the kernel never had the other");
    cx.reactor.cancel(first).expect("in flight");
    cx.end_op(End::Canceled);
    let completions = cx.poll_now();
    let kinds: Vec<_> = completions
        .iter()
        .map(|completion| completion.result.as_ref().map_err(|e| e.kind()))
        .collect();
    assert!(matches!(kinds[..], [Err(ErrorKind::TimedOut)]), "{completions:?}");
}

#[test]
fn shutdown_read_does_not_wait_for_receives() {
    let (mut cx, (local, _peer)) = (DriverFixture::new(), pair());
    let key = cx.register(local);
    cx.submit(Op::recv(key, vec![], 9), 1);
    cx.submit(Op::recv(key, vec![], 9), 2);
    cx.submit(Op::shutdown(key, Shutdown::Read), 3);
    assert_eq!(cx.tokens(), [3]);
    cx.end_op(End::Real(9));
    assert_eq!(cx.tokens(), [1], "end of stream");
    cx.end_op(End::Real(9));
    assert_eq!(cx.tokens(), [2]);
}

/// A receive from a fast peer yields to others, and no edge resumes it: a socket with records
/// returns one for each call.
#[test]
fn burst_continues_without_further_edges() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let pair = socketpair(AddressFamily::Unix, kind, None, flags).expect("a socket pair");
    let mut cx = DriverFixture::new();
    cx.state.borrow_mut().percent_emulated = 100;
    let key = cx.register(Arc::new(pair.0));
    for at in 0..100 {
        nix::unistd::write(&pair.1, &[at]).expect("room");
    }
    cx.submit(Op::recv_exact(key, vec![], 100), 1);
    let (mut completions, mut polls) = (vec![], 0);
    while completions.is_empty() {
        (completions, polls) = (cx.poll_now(), polls + 1);
        assert!(polls < 20, "the operation stalled");
    }
    assert!(polls > 3, "the operation did not yield");
    assert_eq!(&completions[0].buf[..], (0..100).collect::<Vec<u8>>());
}

#[test]
fn driver_gets_one_operation_per_queue() {
    let (mut cx, (local, mut peer)) = (DriverFixture::new(), pair());
    let key = cx.register(local);
    for at in 0..5 {
        cx.submit(Op::recv(key, vec![], 1), at);
    }
    peer.write_all(b"01234").expect("room");
    for at in 0..5 {
        assert_eq!((cx.state.borrow().in_flight.len(), cx.state.borrow().starts), (1, at + 1));
        cx.end_op(End::Real(9));
        let completions = cx.poll_now();
        assert_eq!((completions[0].token.0, &completions[0].buf[..]), (at, &[b'0' + at as u8][..]));
    }
}

/// Returns true if memory is mapped at this address.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is always there");
    maps.lines().any(|line| {
        let (range, _) = line.split_once(' ').expect("a range and more");
        let (start, end) = range.split_once('-').expect("two ends");
        let [start, end] = [start, end].map(|end| usize::from_str_radix(end, 16).expect("hex"));
        (start..end).contains(&address)
    })
}

#[test]
fn poller_drop_frees_all_but_in_flight_buffers() {
    const TEST: &str = "poller_drop_frees_all_but_in_flight_buffers";
    if !is_alone(&format!("reactor::tests::operations::driver_cases::{TEST}")) {
        return;
    }
    // So large that the allocator returns it to the system at once; it is never touched.
    const SIZE: usize = 80 << 20;
    let (mut cx, (local, _peer), mut addresses) = (DriverFixture::new(), pair(), vec![]);
    let key = cx.register(local.clone());
    for at in 0..4 {
        let bytes = Vec::with_capacity(SIZE);
        addresses.push(bytes.as_ptr() as usize);
        cx.submit(Op::recv(key, bytes, SIZE), at);
    }
    let id = cx.submit(Op::recv(key, Vec::with_capacity(SIZE), SIZE), 4);
    cx.reactor.cancel(id).expect("queued");
    assert!(addresses.iter().all(|&address| is_mapped(address)));
    let DriverFixture { reactor, state, events } = cx;
    drop(reactor);
    let left: Vec<_> = addresses.iter().map(|&address| is_mapped(address)).collect();
    assert_eq!(left, [true, false, false, false], "the kernel has the first");
    assert_eq!(Arc::strong_count(&local), 1);
    state.borrow_mut().in_flight.clear();
    assert!(!addresses.iter().any(|&address| is_mapped(address)));
    drop(events);
}

#[test]
fn rng_returns_every_value() {
    let mut rng = Rng(7);
    let mut counts = [0; 6];
    (0..600).for_each(|_| counts[rng.below(6) as usize] += 1);
    assert!(counts.iter().all(|&times| times > 50), "{counts:?}");
}
