//! Operations on a real ring, however small: what is asked when, and that all of them end.

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

/// Takes what operations come to.
struct Noted<'a>(&'a mut Operations);

impl TakeCompletions for Noted<'_> {
    fn on_request(&mut self, _user_data: u64, _result: i32, _more: bool) {}

    fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>) {
        self.0.note_end(tag, work, result);
    }

    fn on_partial(&mut self, tag: u64, result: CallResult, partial_results: u8) {
        self.0.note_one(tag, result, partial_results);
    }
}

/// Of one that is over, as all are here.
impl OpEvent {
    fn parts(&self) -> (&CallBox, &io::Result<CallResult>) {
        match self {
            OpEvent::Completed { work: Work::Call(call), result, .. } => (call, result),
            one => panic!("it goes on: {one:?}"),
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
            one => panic!("it goes on: {one:?}"),
        }
    }
}

fn op(at: usize) -> OpSlot {
    OpSlot { index: at as u32, generation: 3 }
}

fn pair() -> (UnixStream, UnixStream) {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    there.set_nonblocking(true).expect("a socket");
    (here, there)
}

fn recv(fd: &impl AsFd) -> CallBox {
    CallBox::new(fd.as_fd(), Call::Recv, vec![].into(), (0, 64), None).expect("there is memory")
}

fn send(fd: &impl AsFd, bytes: impl Into<Buf>) -> CallBox {
    let buf = bytes.into();
    let part = (0, buf.len());
    CallBox::new(fd.as_fd(), Call::Send, buf, part, None).expect("all of it")
}

/// Leaves no room.
fn fill(here: &UnixStream) {
    here.set_nonblocking(true).expect("a socket");
    while (&*here).write(&[0; 4096]).is_ok() {}
    here.set_nonblocking(false).expect("a socket");
}

fn rings() -> impl Iterator<Item = Uring> {
    let sizes = [256, 2].into_iter();
    let each = sizes.flat_map(|entries| TaskWork::LADDER.map(|work| (entries, work)));
    each.map(|(entries, work)| Uring::with(entries, work).expect("this kernel has it"))
}

impl Uring {
    fn begin_op(&mut self, at: usize, io_call: CallBox) {
        assert!(self.submit(op(at), io_call.into()).is_ok());
    }

    fn stop_op(&mut self, op: OpSlot) {
        OpDriver::cancel(self, op);
    }

    /// A look, and what has landed by it.
    fn landed(&mut self) -> Vec<OpEvent> {
        self.landed_by(Deadline::Now)
    }

    fn landed_by(&mut self, deadline: Deadline) -> Vec<OpEvent> {
        let (mut raw, mut landed) = (vec![], vec![]);
        self.wait(deadline, &mut raw).expect("a wait");
        assert_eq!(raw, Vec::<Report>::new(), "nothing is watched");
        self.drain_events(&mut landed);
        landed
    }

    /// All that land until there are so many.
    fn land_all(&mut self, count: usize) -> Vec<OpEvent> {
        let (mut landed, watchdog) = (vec![], Deadline::after(Some(Duration::from_secs(60))));
        while landed.len() < count {
            assert!(!watchdog.has_passed(), "{} of {count} have landed", landed.len());
            landed.extend(self.landed_by(watchdog));
        }
        landed
    }
}

fn is_canceled(landed: &OpEvent) -> bool {
    let error = landed.result().as_ref().err();
    error.is_some_and(|error| error.raw_os_error() == Some(libc::ECANCELED))
}

fn moved(landed: &OpEvent) -> usize {
    match landed.result() {
        Ok(CallResult::Moved(count)) => *count,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_asked_before_the_wait() {
    let (mut ring, (here, mut there)) = (Uring::new().expect("this kernel has it"), pair());
    let turns = ring.polls.turns();
    ring.begin_op(0, send(&here, "data"));
    assert_eq!(ring.polls.turns(), turns);
    assert!(there.read(&mut [0; 9]).is_err(), "nothing has been sent");
    assert_eq!(ring.landed().iter().map(moved).collect::<Vec<_>>(), [4]);
    assert_eq!(there.read(&mut [0; 9]).ok(), Some(4));
}

/// Peers may answer while the sends of a batch are made.
#[test]
fn receives_are_submitted_behind_sends() {
    let (mut ring, (here, mut there)) = (Uring::new().expect("this kernel has it"), pair());
    ring.begin_op(0, recv(&here));
    ring.begin_op(1, send(&here, "data"));
    assert_eq!(ring.polls.waiting_receives(), 1, "it is not in the ring before the send");
    assert_eq!(ring.landed().iter().map(moved).collect::<Vec<_>>(), [4]);
    assert_eq!(ring.polls.waiting_receives(), 0, "it was submitted with it");
    there.write_all(b"hello").expect("room");
    assert_eq!(ring.land_all(1).iter().map(moved).collect::<Vec<_>>(), [5]);
}

#[test]
fn receive_that_is_stopped_before_the_wait_never_reaches_the_kernel() {
    for mut ring in rings() {
        let (here, mut there) = pair();
        there.write_all(b"data").expect("room");
        ring.begin_op(0, recv(&here));
        ring.stop_op(op(0));
        assert!(!ring.polls.has_operation(op(0)), "it has ended");
        // It is told of at once, whatever the deadline.
        let landed = ring.landed_by(Deadline::after(Some(Duration::from_secs(60))));
        assert!(matches!(&landed[..], [one] if is_canceled(one) && one.io_call().moved() == 0));
        assert!(ring.landed().is_empty(), "once");
        // What stands in the queue of the one before is not for its successor.
        ring.begin_op(0, recv(&here));
        assert_eq!(ring.land_all(1).iter().map(moved).collect::<Vec<_>>(), [4]);
    }
}

/// It is in the ring, for the next enter (X1).
#[test]
fn send_that_is_stopped_before_the_wait_may_be_made() {
    for mut ring in rings() {
        let (here, mut there) = pair();
        ring.begin_op(0, send(&here, "data"));
        ring.cancel_and_wait(&[op(0)]);
        assert!(!ring.polls.has_operation(op(0)), "it has ended");
        let mut landed = vec![];
        ring.drain_events(&mut landed);
        let [one] = &landed[..] else { panic!("it lands once: {landed:?}") };
        let sent = if is_canceled(one) { 0 } else { moved(one) };
        assert_eq!((one.io_call().moved(), there.read(&mut [0; 9]).unwrap_or(0)), (sent, sent));
    }
}

#[test]
fn what_has_landed_keeps_a_wait_from_sleeping() {
    let (mut ring, (here, _there)) = (Uring::new().expect("this kernel has it"), pair());
    ring.begin_op(0, recv(&here));
    ring.stop_op(op(0));
    let begun = std::time::Instant::now();
    let watchdog = Deadline::after(Some(Duration::from_secs(60)));
    assert_eq!(ring.wait(watchdog, &mut vec![]).expect("a wait"), WaitOutcome::Events);
    assert!(!watchdog.has_passed(), "it slept for {:?}", begun.elapsed());
    let mut landed = vec![];
    ring.drain_events(&mut landed);
    assert_eq!(landed.len(), 1);
    assert_eq!(ring.wait(Deadline::Now, &mut vec![]).expect("a wait"), WaitOutcome::TimedOut);
}

#[test]
fn a_send_without_room_is_given_back() {
    for mut ring in rings() {
        let (here, mut there) = pair();
        fill(&here);
        ring.begin_op(0, send(&here, "data"));
        let landed = ring.land_all(1);
        assert!(would_block(&landed[0]) && landed[0].io_call().moved() == 0, "{landed:?}");
        assert_eq!(ring.polls.operations(), 0, "nothing of it waits in the kernel");
        let mut bytes = Vec::new();
        assert!(there.read_to_end(&mut bytes).is_err(), "it is not at its end");
        assert!(ring.landed().is_empty() && there.read(&mut [0; 9]).is_err(), "nothing of it");
        assert!(bytes.iter().all(|&byte| byte == 0));
    }
}

fn would_block(landed: &OpEvent) -> bool {
    matches!(landed.result(), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn what_was_not_found_is_stopped_again_while_it_goes_on() {
    let size = Size { requests: 16, completions: 32 };
    let mut ring = Ring::open(size, &TaskWork::LADDER).expect("this kernel has it");
    let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
    let mut operations = Operations::default();
    let again = |operations: &mut Operations, ring: &Ring| {
        let mut asked = vec![];
        operations.stop_again(ring, |op| asked.push(op));
        asked
    };
    for (at, (here, _)) in pairs.iter().enumerate() {
        operations.insert(op(at), recv(here).into());
        assert!(operations.begin(op(at), &mut ring));
    }
    assert!(operations.stop(op(0), &mut ring) && operations.stop(op(2), &mut ring));
    assert!(!operations.stop(op(2), &mut ring), "once");
    operations.note_stop(0, -libc::EALREADY, &ring);
    operations.note_stop(0, 0, &ring);
    assert_eq!(again(&mut operations, &ring), [], "that has been done");
    for place in [0, 1, 2, 9] {
        operations.note_stop(place, -libc::ENOENT, &ring);
    }
    (&pairs[2].1).write_all(b"x").expect("room");
    while ring.has_operation(op(2).to_bits()) {
        ring.enter(1, None).expect("it goes on");
        ring.reap(Noted(&mut operations));
    }
    assert_eq!(again(&mut operations, &ring), [op(0)], "one is over, one is to go on");
    assert_eq!(again(&mut operations, &ring), [], "once for each answer");
    while ring.operations() > 0 {
        for tag in ring.operation_tags().collect::<Vec<_>>() {
            assert!(ring.push(Request::CancelOp(tag), 1));
        }
        ring.enter(1, None).expect("it goes on");
        ring.reap(Noted(&mut operations));
    }
}

#[test]
fn there_are_more_operations_than_room() {
    for mut ring in rings() {
        let pairs: Vec<_> = (0..150).map(|_| pair()).collect();
        for (at, (here, _)) in pairs.iter().enumerate() {
            ring.begin_op(at, recv(here));
        }
        assert!(ring.landed().is_empty());
        for (at, (_, there)) in pairs.iter().enumerate().rev() {
            (&*there).write_all(&(at as u64).to_ne_bytes()).expect("room");
        }
        let mut seen = HashSet::new();
        for landed in ring.land_all(pairs.len()) {
            assert_eq!(moved(&landed), 8);
            let op = landed.op();
            let bytes = landed.into_parts().0.into_buf().into_vec();
            assert_eq!(bytes, (op.index() as u64).to_ne_bytes(), "each has its own");
            assert!(seen.insert(op));
        }
        assert_eq!(ring.polls.operations(), 0);
    }
}

#[test]
fn what_is_settled_has_ended() {
    for mut ring in rings() {
        let pairs: Vec<_> = (0..40).map(|_| pair()).collect();
        for (at, (here, there)) in pairs.iter().enumerate() {
            fill(here);
            let io_call = if at % 2 == 0 { recv(here) } else { send(here, "data") };
            ring.begin_op(at, io_call);
            // One of three has something; one of five is not submitted before it is stopped.
            if at % 3 == 0 {
                (&*there).write_all(b"news").expect("room");
            }
            if at % 5 == 4 {
                for one in ring.landed() {
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
        let mut landed = vec![];
        ring.drain_events(&mut landed);
        let asked = landed.iter().filter(|one| half.contains(&one.op()));
        for one in asked {
            let had_news = one.op().index() % 6 == 0;
            let has_ended = is_canceled(one) || would_block(one);
            assert!(has_ended || had_news && moved(one) == 4, "{one:?}");
        }
        ring.cancel_and_wait(&others);
        assert_eq!((left(&ring), ring.polls.operations()), (vec![], 0));
    }
}

/// All at once, and on one file: nobody but us asks the kernel for that.
#[test]
fn a_ring_goes_with_thousands_in_flight() {
    let test = "selector::uring::operations::tests::a_ring_goes_with_thousands_in_flight";
    if !is_alone(test) {
        return;
    }
    for submits in [true, false] {
        for mut ring in rings() {
            let (here, there) = pair();
            (0..3000).for_each(|at| ring.begin_op(at, recv(&here)));
            if submits {
                assert!(ring.landed().is_empty());
            }
            drop(ring);
            drop(here);
            assert_eq!((&there).read(&mut [0; 9]).ok(), Some(0), "nobody holds the file");
            assert_eq!(leaked_buffers(), 0);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Recv(usize),
    Send(usize, usize),
    Stop(usize, bool),
    PeerSends(usize, usize),
    PeerReads(usize),
    Settle(usize),
    Look,
}

const PAIRS: usize = 4;

fn any_step() -> impl Strategy<Value = Step> {
    let pair = || 0..PAIRS;
    prop_oneof![
        3 => pair().prop_map(Step::Recv),
        3 => (pair(), 1..4000_usize).prop_map(|(at, count)| Step::Send(at, count)),
        2 => (pair(), any::<bool>()).prop_map(|(at, reads)| Step::Stop(at, reads)),
        2 => (pair(), 1..90_usize).prop_map(|(at, count)| Step::PeerSends(at, count)),
        2 => pair().prop_map(Step::PeerReads),
        1 => pair().prop_map(Step::Settle),
        4 => Just(Step::Look),
    ]
}

/// Anything, in any order: each lands once, and the bytes are those that were moved.
struct Play {
    ring: Uring,
    pairs: Vec<(UnixStream, UnixStream)>,
    /// By place: which operation is under way, and whether it was stopped.
    under_way: HashMap<usize, (OpSlot, bool)>,
    generation: u32,
    /// Bytes that were sent and received, by place.
    moved: [usize; 2 * PAIRS],
    peers: [usize; 2 * PAIRS],
}

impl Play {
    fn begin(&mut self, place: usize, io_call: CallBox) {
        if self.under_way.contains_key(&place) {
            return;
        }
        self.generation += 1;
        let op = OpSlot { index: place as u32, generation: self.generation };
        self.under_way.insert(place, (op, false));
        assert!(self.ring.submit(op, io_call.into()).is_ok());
    }

    fn note(&mut self, landed: Vec<OpEvent>) {
        for one in landed {
            let place = one.op().index();
            let (op, is_stopped) = self.under_way.remove(&place).expect("it lands once");
            assert_eq!(op, one.op());
            assert!(is_stopped || !is_canceled(&one), "nobody has asked for that");
            let is_send = place % 2 == 1;
            let has_moved = || moved(&one) > 0;
            assert!(is_canceled(&one) || is_send && would_block(&one) || has_moved());
            self.moved[place] += one.io_call().moved();
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Recv(at) => self.begin(2 * at, recv(&self.pairs[at].0)),
            Step::Send(at, count) => {
                self.begin(2 * at + 1, send(&self.pairs[at].0, vec![7; count]));
            }
            Step::Stop(at, reads) => {
                let place = 2 * at + usize::from(!reads);
                if let Some((op, is_stopped)) = self.under_way.get_mut(&place) {
                    *is_stopped = true;
                    self.ring.stop_op(*op);
                }
            }
            Step::PeerSends(at, count) => {
                self.peers[2 * at] += self.pairs[at].1.write(&vec![8; count]).unwrap_or(0);
            }
            Step::PeerReads(at) => {
                let mut bytes = vec![0; 1 << 16];
                self.peers[2 * at + 1] += self.pairs[at].1.read(&mut bytes).unwrap_or(0);
            }
            Step::Settle(at) => {
                let places = [2 * at, 2 * at + 1];
                let mut ops = vec![];
                for place in places {
                    if let Some((op, is_stopped)) = self.under_way.get_mut(&place) {
                        *is_stopped = true;
                        ops.push(*op);
                    }
                }
                self.ring.cancel_and_wait(&ops);
                let mut landed = vec![];
                self.ring.drain_events(&mut landed);
                self.note(landed);
                assert!(places.iter().all(|place| !self.under_way.contains_key(place)));
            }
            Step::Look => {
                let landed = self.ring.landed();
                self.note(landed);
            }
        }
    }
}

fn play(ring: Uring, steps: &[Step]) {
    let pairs: Vec<_> = (0..PAIRS).map(|_| pair()).collect();
    for (here, _) in &pairs {
        setsockopt(here, sockopt::SndBuf, &0).expect("the least there is");
    }
    let (moved, peers) = ([0; 2 * PAIRS], [0; 2 * PAIRS]);
    let mut play = Play { ring, pairs, under_way: HashMap::new(), generation: 0, moved, peers };
    steps.iter().for_each(|step| play.step(step));
    (0..PAIRS).for_each(|at| play.step(&Step::Settle(at)));
    for at in 0..PAIRS {
        play.step(&Step::PeerReads(at));
        assert_eq!(play.moved[2 * at + 1], play.peers[2 * at + 1], "what was sent has come");
        let (here, _) = &play.pairs[at];
        here.set_nonblocking(true).expect("a socket");
        let rest = (&*here).read(&mut vec![0; 1 << 20]).unwrap_or(0);
        assert_eq!(play.moved[2 * at] + rest, play.peers[2 * at], "nothing gets lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn each_lands_once_and_nothing_gets_lost(
        steps in prop::collection::vec(any_step(), 1..100),
    ) {
        for ring in rings() {
            play(ring, &steps);
        }
    }
}
