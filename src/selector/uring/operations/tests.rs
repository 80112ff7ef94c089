//! Operations on real rings of all sizes: when they are submitted, and that all of them end.

use super::super::{OpDriver, OpEvent, Report, Selector, Uring, WaitOutcome};
use super::*;
use crate::selector::Deadline;
use crate::sys::buf::Buf;
use crate::sys::io_call::{Call, CallBox, leaked_buffers};
use crate::sys::ring::{Size, TakeCompletions, TaskWork};
use crate::testing::is_alone;
use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Passes completions on to the operations.
struct ToOperations<'a>(&'a mut Operations);

impl TakeCompletions for ToOperations<'_> {
    fn on_request(&mut self, _user_data: u64, _result: i32, _more: bool) {}

    fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>) {
        self.0.on_end(tag, work, result);
    }

    fn on_partial(&mut self, tag: u64, result: CallResult, partial_results: u8) {
        self.0.on_result(tag, result, partial_results);
    }
}

/// Access to completed operations, which all are here.
impl OpEvent {
    fn parts(&self) -> (&CallBox, &io::Result<CallResult>) {
        match self {
            OpEvent::Completed { work: Work::Call(call), result, .. } => (call, result),
            one => panic!("not completed: {one:?}"),
        }
    }

    fn io_call(&self) -> &CallBox {
        self.parts().0
    }

    fn result(&self) -> &io::Result<CallResult> {
        self.parts().1
    }

    fn into_parts(self) -> (CallBox, io::Result<CallResult>) {
        match self {
            OpEvent::Completed { work, result, .. } => (work.into_call(), result),
            one => panic!("not completed: {one:?}"),
        }
    }
}

fn op(at: usize) -> OpSlot {
    OpSlot { index: at as u32, generation: 3 }
}

fn pair() -> (UnixStream, UnixStream) {
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    peer.set_nonblocking(true).expect("a socket");
    (local, peer)
}

fn recv(fd: &impl AsFd) -> CallBox {
    CallBox::new(fd.as_fd(), Call::Recv, vec![].into(), (0, 64), None).expect("memory")
}

fn send(fd: &impl AsFd, bytes: impl Into<Buf>) -> CallBox {
    let buf = bytes.into();
    let part = (0, buf.len());
    CallBox::new(fd.as_fd(), Call::Send, buf, part, None).expect("memory")
}

/// Fills the socket buffer.
fn fill(local: &UnixStream) {
    local.set_nonblocking(true).expect("a socket");
    while (&*local).write(&[0; 4096]).is_ok() {}
    local.set_nonblocking(false).expect("a socket");
}

fn rings() -> impl Iterator<Item = Uring> {
    let sizes = [256, 2].into_iter();
    let each = sizes.flat_map(|entries| TaskWork::LADDER.map(|work| (entries, work)));
    each.map(|(entries, work)| Uring::with(entries, work).expect("io_uring"))
}

impl Uring {
    fn submit_op(&mut self, at: usize, io_call: CallBox) {
        assert!(self.submit(op(at), io_call.into()).is_ok());
    }

    fn cancel_op(&mut self, op: OpSlot) {
        OpDriver::cancel(self, op);
    }

    /// Waits without blocking, and returns the events.
    fn events(&mut self) -> Vec<OpEvent> {
        self.events_by(Deadline::Now)
    }

    fn events_by(&mut self, deadline: Deadline) -> Vec<OpEvent> {
        let (mut report, mut events) = (vec![], vec![]);
        self.wait(deadline, &mut report).expect("a wait");
        assert_eq!(report, Vec::<Report>::new(), "no file is watched");
        self.drain_events(&mut events);
        events
    }

    /// Waits until there are `count` events.
    fn wait_for_events(&mut self, count: usize) -> Vec<OpEvent> {
        let (mut events, watchdog) = (vec![], Deadline::after(Some(Duration::from_secs(60))));
        while events.len() < count {
            assert!(!watchdog.has_passed(), "{} of {count} have completed", events.len());
            events.extend(self.events_by(watchdog));
        }
        events
    }
}

fn is_canceled(events: &OpEvent) -> bool {
    let error = events.result().as_ref().err();
    error.is_some_and(|error| error.raw_os_error() == Some(libc::ECANCELED))
}

fn moved(events: &OpEvent) -> usize {
    match events.result() {
        Ok(CallResult::Moved(count)) => *count,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn submit_enters_no_kernel_before_the_wait() {
    let (mut ring, (local, mut peer)) = (Uring::new().expect("io_uring"), pair());
    let enter_count = ring.polls.enter_count();
    ring.submit_op(0, send(&local, "data"));
    assert_eq!(ring.polls.enter_count(), enter_count);
    assert!(peer.read(&mut [0; 9]).is_err(), "no byte was sent");
    assert_eq!(ring.events().iter().map(moved).collect::<Vec<_>>(), [4]);
    assert_eq!(peer.read(&mut [0; 9]).ok(), Some(4));
}

/// Peers may answer while the sends of a batch are made.
#[test]
fn receives_are_submitted_behind_sends() {
    let (mut ring, (local, mut peer)) = (Uring::new().expect("io_uring"), pair());
    ring.submit_op(0, recv(&local));
    ring.submit_op(1, send(&local, "data"));
    assert_eq!(ring.polls.queued_receives(), 1, "the receive is queued behind the send");
    assert_eq!(ring.events().iter().map(moved).collect::<Vec<_>>(), [4]);
    assert_eq!(ring.polls.queued_receives(), 0, "the wait submits both");
    peer.write_all(b"hello").expect("buffer space");
    assert_eq!(ring.wait_for_events(1).iter().map(moved).collect::<Vec<_>>(), [5]);
}

#[test]
fn receive_cancelled_before_the_wait_is_not_submitted() {
    for mut ring in rings() {
        let (local, mut peer) = pair();
        peer.write_all(b"data").expect("buffer space");
        ring.submit_op(0, recv(&local));
        ring.cancel_op(op(0));
        assert!(!ring.polls.has_operation(op(0)), "the operation has ended");
        // A pending event ends the wait at once, whatever the deadline.
        let events = ring.events_by(Deadline::after(Some(Duration::from_secs(60))));
        assert!(matches!(&events[..], [one] if is_canceled(one) && one.io_call().moved() == 0));
        assert!(ring.events().is_empty(), "once");
        // The cancel of the first operation must not affect its successor at the same index.
        ring.submit_op(0, recv(&local));
        assert_eq!(ring.wait_for_events(1).iter().map(moved).collect::<Vec<_>>(), [4]);
    }
}

/// The send is in the SQ, for the next enter (X1).
#[test]
fn send_cancelled_before_the_wait_may_succeed() {
    for mut ring in rings() {
        let (local, mut peer) = pair();
        ring.submit_op(0, send(&local, "data"));
        ring.cancel_and_wait(&[op(0)]);
        assert!(!ring.polls.has_operation(op(0)), "the operation has ended");
        let mut events = vec![];
        ring.drain_events(&mut events);
        let [one] = &events[..] else { panic!("one event: {events:?}") };
        let sent = if is_canceled(one) { 0 } else { moved(one) };
        assert_eq!((one.io_call().moved(), peer.read(&mut [0; 9]).unwrap_or(0)), (sent, sent));
    }
}

#[test]
fn pending_events_keep_a_wait_from_sleeping() {
    let (mut ring, (local, _peer)) = (Uring::new().expect("io_uring"), pair());
    ring.submit_op(0, recv(&local));
    ring.cancel_op(op(0));
    let started = std::time::Instant::now();
    let watchdog = Deadline::after(Some(Duration::from_secs(60)));
    assert_eq!(ring.wait(watchdog, &mut vec![]).expect("a wait"), WaitOutcome::Events);
    assert!(!watchdog.has_passed(), "the wait slept for {:?}", started.elapsed());
    let mut events = vec![];
    ring.drain_events(&mut events);
    assert_eq!(events.len(), 1);
    assert_eq!(ring.wait(Deadline::Now, &mut vec![]).expect("a wait"), WaitOutcome::TimedOut);
}

#[test]
fn send_to_full_socket_is_returned() {
    for mut ring in rings() {
        let (local, mut peer) = pair();
        fill(&local);
        ring.submit_op(0, send(&local, "data"));
        let events = ring.wait_for_events(1);
        assert!(would_block(&events[0]) && events[0].io_call().moved() == 0, "{events:?}");
        assert_eq!(ring.polls.operations(), 0, "no operation is in flight");
        let mut bytes = Vec::new();
        assert!(peer.read_to_end(&mut bytes).is_err(), "the stream has not ended");
        assert!(ring.events().is_empty() && peer.read(&mut [0; 9]).is_err(), "no byte was sent");
        assert!(bytes.iter().all(|&byte| byte == 0));
    }
}

fn would_block(events: &OpEvent) -> bool {
    matches!(events.result(), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn cancel_with_enoent_is_retried_while_in_flight() {
    let size = Size { requests: 16, completions: 32 };
    let mut ring = Ring::open(size, &TaskWork::LADDER).expect("io_uring");
    let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
    let mut operations = Operations::default();
    let again = |operations: &mut Operations, ring: &Ring| {
        let mut requested = vec![];
        operations.retry_cancels(ring, |op| requested.push(op));
        requested
    };
    for (at, (local, _)) in pairs.iter().enumerate() {
        operations.insert(op(at), recv(local).into());
        assert!(operations.push(op(at), &mut ring));
    }
    assert!(operations.cancel(op(0), &mut ring) && operations.cancel(op(2), &mut ring));
    assert!(!operations.cancel(op(2), &mut ring), "once");
    operations.on_cancel_result(0, -libc::EALREADY, &ring);
    operations.on_cancel_result(0, 0, &ring);
    assert_eq!(again(&mut operations, &ring), [], "only ENOENT is retried");
    for index in [0, 1, 2, 9] {
        operations.on_cancel_result(index, -libc::ENOENT, &ring);
    }
    (&pairs[2].1).write_all(b"x").expect("buffer space");
    while ring.has_operation(op(2).to_bits()) {
        ring.enter(1, None).expect("an enter");
        ring.reap(ToOperations(&mut operations));
    }
    assert_eq!(again(&mut operations, &ring), [op(0)], "only operations in flight are retried");
    assert_eq!(again(&mut operations, &ring), [], "once for each CQE");
    while ring.operations() > 0 {
        for tag in ring.operation_tags().collect::<Vec<_>>() {
            assert!(ring.push(Request::CancelOp(tag), 1));
        }
        ring.enter(1, None).expect("an enter");
        ring.reap(ToOperations(&mut operations));
    }
}

#[test]
fn operations_beyond_the_ring_size_all_complete() {
    for mut ring in rings() {
        let pairs: Vec<_> = (0..150).map(|_| pair()).collect();
        for (at, (local, _)) in pairs.iter().enumerate() {
            ring.submit_op(at, recv(local));
        }
        assert!(ring.events().is_empty());
        for (at, (_, peer)) in pairs.iter().enumerate().rev() {
            (&*peer).write_all(&(at as u64).to_ne_bytes()).expect("buffer space");
        }
        let mut seen = HashSet::new();
        for events in ring.wait_for_events(pairs.len()) {
            assert_eq!(moved(&events), 8);
            let op = events.op();
            let bytes = events.into_parts().0.into_buf().into_vec();
            assert_eq!(
                bytes,
                (op.index() as u64).to_ne_bytes(),
                "each operation has its own bytes"
            );
            assert!(seen.insert(op));
        }
        assert_eq!(ring.polls.operations(), 0);
    }
}

#[test]
fn cancel_and_wait_ends_its_operations() {
    for mut ring in rings() {
        let pairs: Vec<_> = (0..40).map(|_| pair()).collect();
        for (at, (local, peer)) in pairs.iter().enumerate() {
            fill(local);
            let io_call = if at % 2 == 0 { recv(local) } else { send(local, "data") };
            ring.submit_op(at, io_call);
            // One of three has data; one of five is cancelled before it is submitted.
            if at % 3 == 0 {
                (&*peer).write_all(b"data").expect("buffer space");
            }
            if at % 5 == 4 {
                for one in ring.events() {
                    assert!(would_block(&one) || one.op().index() % 6 == 0, "{one:?}");
                }
            }
        }
        let left = |ring: &Uring| {
            let known = (0..40).filter(|&at| ring.polls.has_operation(op(at)));
            known.map(op).collect::<Vec<_>>()
        };
        let half: Vec<_> = left(&ring).into_iter().step_by(2).collect();
        let others: Vec<_> = left(&ring).into_iter().filter(|op| !half.contains(op)).collect();
        ring.cancel_and_wait(&half);
        assert!(half.iter().all(|&op| !ring.polls.has_operation(op)), "{ring:?}");
        let mut events = vec![];
        ring.drain_events(&mut events);
        let requested = events.iter().filter(|one| half.contains(&one.op()));
        for one in requested {
            let had_data = one.op().index() % 6 == 0;
            let has_ended = is_canceled(one) || would_block(one);
            assert!(has_ended || had_data && moved(one) == 4, "{one:?}");
        }
        ring.cancel_and_wait(&others);
        assert_eq!((left(&ring), ring.polls.operations()), (vec![], 0));
    }
}

/// All at once and on one file, which the reactor never does.
#[test]
fn ring_drops_with_thousands_in_flight() {
    let test = "selector::uring::operations::tests::ring_drops_with_thousands_in_flight";
    if !is_alone(test) {
        return;
    }
    for submits in [true, false] {
        for mut ring in rings() {
            let (local, peer) = pair();
            (0..3000).for_each(|at| ring.submit_op(at, recv(&local)));
            if submits {
                assert!(ring.events().is_empty());
            }
            drop(ring);
            drop(local);
            assert_eq!(
                (&peer).read(&mut [0; 9]).ok(),
                Some(0),
                "the kernel no longer holds the file"
            );
            assert_eq!(leaked_buffers(), 0);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Recv(usize),
    Send(usize, usize),
    Cancel(usize, bool),
    PeerSends(usize, usize),
    PeerReads(usize),
    CancelAndWait(usize),
    Wait,
}

const PAIRS: usize = 4;

fn any_step() -> impl Strategy<Value = Step> {
    let pair = || 0..PAIRS;
    prop_oneof![
        3 => pair().prop_map(Step::Recv),
        3 => (pair(), 1..4000_usize).prop_map(|(at, count)| Step::Send(at, count)),
        2 => (pair(), any::<bool>()).prop_map(|(at, reads)| Step::Cancel(at, reads)),
        2 => (pair(), 1..90_usize).prop_map(|(at, count)| Step::PeerSends(at, count)),
        2 => pair().prop_map(Step::PeerReads),
        1 => pair().prop_map(Step::CancelAndWait),
        4 => Just(Step::Wait),
    ]
}

/// Runs random steps. Each operation completes once, with the bytes that were moved.
struct Runner {
    ring: Uring,
    pairs: Vec<(UnixStream, UnixStream)>,
    /// By index: the operation in flight, and whether it was cancelled.
    in_flight: HashMap<usize, (OpSlot, bool)>,
    generation: u32,
    /// By index: the bytes that were sent or received.
    moved: [usize; 2 * PAIRS],
    peers: [usize; 2 * PAIRS],
}

impl Runner {
    fn begin(&mut self, index: usize, io_call: CallBox) {
        if self.in_flight.contains_key(&index) {
            return;
        }
        self.generation += 1;
        let op = OpSlot { index: index as u32, generation: self.generation };
        self.in_flight.insert(index, (op, false));
        assert!(self.ring.submit(op, io_call.into()).is_ok());
    }

    fn note(&mut self, events: Vec<OpEvent>) {
        for one in events {
            let index = one.op().index();
            let (op, is_cancelled) = self.in_flight.remove(&index).expect("an operation in flight");
            assert_eq!(op, one.op());
            assert!(is_cancelled || !is_canceled(&one), "no cancel was requested");
            let is_send = index % 2 == 1;
            let has_moved = || moved(&one) > 0;
            assert!(is_canceled(&one) || is_send && would_block(&one) || has_moved());
            self.moved[index] += one.io_call().moved();
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Recv(at) => self.begin(2 * at, recv(&self.pairs[at].0)),
            Step::Send(at, count) => {
                self.begin(2 * at + 1, send(&self.pairs[at].0, vec![7; count]));
            }
            Step::Cancel(at, reads) => {
                let index = 2 * at + usize::from(!reads);
                if let Some((op, is_cancelled)) = self.in_flight.get_mut(&index) {
                    *is_cancelled = true;
                    self.ring.cancel_op(*op);
                }
            }
            Step::PeerSends(at, count) => {
                self.peers[2 * at] += self.pairs[at].1.write(&vec![8; count]).unwrap_or(0);
            }
            Step::PeerReads(at) => {
                let mut bytes = vec![0; 1 << 16];
                self.peers[2 * at + 1] += self.pairs[at].1.read(&mut bytes).unwrap_or(0);
            }
            Step::CancelAndWait(at) => {
                let indices = [2 * at, 2 * at + 1];
                let mut ops = vec![];
                for index in indices {
                    if let Some((op, is_cancelled)) = self.in_flight.get_mut(&index) {
                        *is_cancelled = true;
                        ops.push(*op);
                    }
                }
                self.ring.cancel_and_wait(&ops);
                let mut events = vec![];
                self.ring.drain_events(&mut events);
                self.note(events);
                assert!(indices.iter().all(|index| !self.in_flight.contains_key(index)));
            }
            Step::Wait => {
                let events = self.ring.events();
                self.note(events);
            }
        }
    }
}

fn run(ring: Uring, steps: &[Step]) {
    let pairs: Vec<_> = (0..PAIRS).map(|_| pair()).collect();
    for (local, _) in &pairs {
        setsockopt(local, sockopt::SndBuf, &0).expect("the smallest buffer");
    }
    let (moved, peers) = ([0; 2 * PAIRS], [0; 2 * PAIRS]);
    let mut run = Runner { ring, pairs, in_flight: HashMap::new(), generation: 0, moved, peers };
    steps.iter().for_each(|step| run.step(step));
    (0..PAIRS).for_each(|at| run.step(&Step::CancelAndWait(at)));
    for at in 0..PAIRS {
        run.step(&Step::PeerReads(at));
        assert_eq!(
            run.moved[2 * at + 1],
            run.peers[2 * at + 1],
            "the peer has received all bytes sent"
        );
        let (local, _) = &run.pairs[at];
        local.set_nonblocking(true).expect("a socket");
        let rest = (&*local).read(&mut vec![0; 1 << 20]).unwrap_or(0);
        assert_eq!(run.moved[2 * at] + rest, run.peers[2 * at], "no received byte is lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn operations_complete_once_and_lose_no_byte(
        steps in prop::collection::vec(any_step(), 1..100),
    ) {
        for ring in rings() {
            run(ring, &steps);
        }
    }
}
