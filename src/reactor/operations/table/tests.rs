//! The table against a model: its entries, their times, and the order of completions.

use super::*;
use crate::event::Token;
use crate::op::Kind;
use crate::sys::io_call::{Call, CallBox, Work};
use nix::sys::eventfd::EventFd;
use proptest::prelude::*;
use proptest::sample::Index;
use std::os::fd::AsFd;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    Insert,
    TakeWork(Index),
    ReturnWork(Index),
    Complete(Index),
    /// Adds a result of a multishot operation.
    PushResult(Index),
    PopCompleted,
    Due(Index, Option<u64>),
    Retry(Index, Option<u64>),
    Expire(u64),
    /// Reverses the last of the completed operations, and puts them behind their results.
    Reorder(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let time = || prop::option::of(0..5_u64);
    prop_oneof![
        4 => Just(Step::Insert),
        3 => index().prop_map(Step::TakeWork),
        3 => index().prop_map(Step::ReturnWork),
        2 => index().prop_map(Step::Complete),
        3 => index().prop_map(Step::PushResult),
        3 => Just(Step::PopCompleted),
        2 => (index(), time()).prop_map(|(at, due)| Step::Due(at, due)),
        2 => (index(), time()).prop_map(|(at, due)| Step::Retry(at, due)),
        1 => (0..5_u64).prop_map(Step::Expire),
        1 => (0..4_usize).prop_map(Step::Reorder),
    ]
}

#[derive(Debug)]
struct KnownOp {
    op: OpSlot,
    token: usize,
    /// The work taken out of the entry.
    io_call: Option<CallBox>,
    is_completed: bool,
    is_delivered: bool,
    due: Option<u64>,
    retry: Option<u64>,
    /// Counts results that were not delivered.
    undelivered: usize,
}

struct Runner {
    ops: OpTable,
    all: Vec<KnownOp>,
    /// The index of the operation, and the number of a result.
    completed: VecDeque<(usize, Option<usize>)>,
    results: usize,
    start: Instant,
    file: EventFd,
}

impl Runner {
    fn moment(&self, due: u64) -> Instant {
        self.start + Duration::from_nanos(due)
    }

    fn insert(&mut self) {
        let buf = Buf::Vec(vec![self.all.len() as u8]);
        let io_call = CallBox::new(self.file.as_fd(), Call::Write, buf, (0, 1), None);
        let token = self.all.len();
        let call = Some(io_call.expect("one byte"));
        let op = self.ops.insert(OpEntry::new(Token(token), Kind::Write, call.map(Work::Call)));
        let is_new = self.all.iter().all(|known| known.op != op);
        assert!(is_new, "ids are unique");
        let order = self.ops.get_mut(op).expect("a live operation").order;
        assert_eq!(order, token as u64 + 1, "submissions are counted");
        let (io_call, due, retry) = (None, None, None);
        let (is_completed, is_delivered, undelivered) = (false, false, 0);
        self.all.push(KnownOp {
            op,
            token,
            io_call,
            is_completed,
            is_delivered,
            due,
            retry,
            undelivered,
        });
    }

    fn take_work(&mut self, at: usize) {
        let known = &mut self.all[at];
        let taken =
            self.ops.get_mut(known.op).and_then(|entry| entry.work.take()).map(Work::into_call);
        let has_work = !known.is_delivered && !known.is_completed && known.io_call.is_none();
        assert_eq!(taken.is_some(), has_work, "{known:?}");
        if let Some(io_call) = taken {
            assert_eq!(io_call.to_send(), [known.token as u8], "the same call");
            known.io_call = Some(io_call);
        }
    }

    fn end(&mut self, at: usize) {
        let known = &mut self.all[at];
        if known.is_completed || known.is_delivered {
            return;
        }
        (known.is_completed, known.due, known.retry) = (true, None, None);
        let buf = known.io_call.take().map_or(Buf::None, CallBox::into_buf);
        let entry = self.ops.remove(known.op).expect("a live operation");
        self.ops.complete(known.op, entry.token, at, Ok(Outcome::Done), buf);
        self.completed.push_back((at, None));
    }

    fn push_result(&mut self, at: usize) {
        let known = &mut self.all[at];
        if known.is_completed || known.is_delivered {
            return;
        }
        known.undelivered += 1;
        self.results += 1;
        self.ops.push_result(known.op, 1000 + self.results, Outcome::Done, Buf::None);
        self.completed.push_back((at, Some(self.results)));
    }

    fn pop_completed(&mut self) {
        let mut events = Events::with_capacity(1);
        let count = self.ops.completed_len().min(1);
        if count > 0 {
            self.ops.note_delivered(0, &mut Vec::new());
        }
        self.ops.move_completed(count, &mut events);
        let popped = events.completions().next();
        let expected = self.completed.pop_front();
        assert_eq!(popped.is_some(), expected.is_some());
        if let (Some(popped), Some((at, one))) = (popped, expected) {
            let Completion { id, token, transferred, more, .. } = popped;
            let expected = one.map_or(at, |one| 1000 + one);
            assert_eq!((id.slot, token.0, transferred), (self.all[at].op, at, expected));
            assert_eq!(more, one.is_some(), "only the final completion has no more");
            match one {
                Some(_) => self.all[at].undelivered -= 1,
                None => self.all[at].is_delivered = true,
            }
        }
    }

    fn set(&mut self, at: usize, due: Option<u64>, is_retry: bool) {
        let moment = due.map(|due| self.moment(due));
        let known = &mut self.all[at];
        if known.is_completed {
            return;
        }
        if is_retry {
            self.ops.set_time(known.op, moment);
            let state = if due.is_some() { OpState::AwaitingTime } else { OpState::Queued };
            self.ops.get_mut(known.op).expect("a live operation").state = state;
            known.retry = due;
        } else {
            self.ops.set_deadline(known.op, moment);
            known.due = due;
        }
    }

    fn expire(&mut self, now: u64) {
        let moment = self.moment(now);
        while let Some(op) = self.ops.pop_deadline(moment) {
            let known = self.all.iter_mut().find(|known| known.op == op).expect("a live operation");
            assert!(known.due.take().is_some_and(|due| due <= now), "{known:?}");
            assert!(self.ops.get_mut(op).is_some());
        }
        while let Some(op) = self.ops.pop_time(moment) {
            self.ops.get_mut(op).expect("a live operation").state = OpState::Queued;
            let known = self.all.iter_mut().find(|known| known.op == op).expect("a live operation");
            assert!(known.retry.take().is_some_and(|due| due <= now), "{known:?}");
        }
        let is_late = |due: Option<u64>| due.is_some_and(|due| due <= now);
        assert!(!self.all.iter().any(|known| is_late(known.due) || is_late(known.retry)));
    }

    fn step(&mut self, step: &Step) {
        let count = self.all.len();
        let is_none = count == 0;
        match step {
            Step::Insert => self.insert(),
            Step::PopCompleted => self.pop_completed(),
            Step::Expire(now) => self.expire(*now),
            Step::Reorder(last) => {
                let at = self.ops.completed_len() - (*last).min(self.ops.completed_len());
                let (mut actual, mut expected) =
                    (self.ops.split_completed(at), self.completed.split_off(at));
                assert_eq!(actual.len(), expected.len());
                let (mut last, mut expected_last) = (Vec::new(), Vec::new());
                for (outgoing, (at, one)) in actual.drain(..).zip(expected.drain(..)) {
                    assert_eq!(outgoing.more, one.is_some());
                    if one.is_none() {
                        last.push(outgoing);
                        expected_last.push((at, one));
                    } else {
                        self.ops.requeue(outgoing);
                        self.completed.push_back((at, one));
                    }
                }
                last.into_iter().rev().for_each(|outgoing| self.ops.requeue(outgoing));
                self.completed.extend(expected_last.into_iter().rev());
            }
            _ if is_none => {}
            Step::TakeWork(at) => self.take_work(at.index(count)),
            Step::ReturnWork(at) => {
                let known = &mut self.all[at.index(count)];
                if let Some(call) = known.io_call.take() {
                    self.ops.get_mut(known.op).expect("a live operation").work =
                        Some(Work::Call(call));
                }
            }
            Step::Complete(at) => self.end(at.index(count)),
            Step::PushResult(at) => self.push_result(at.index(count)),
            Step::Due(at, due) => self.set(at.index(count), *due, false),
            Step::Retry(at, due) => self.set(at.index(count), *due, true),
        }
    }

    fn check(&mut self) {
        for known in &self.all {
            let undelivered =
                self.ops.get(known.op).map(|operation| operation.undelivered as usize);
            let expected = (!known.is_completed).then_some(known.undelivered);
            let is_pending = known.is_completed && !known.is_delivered;
            assert_eq!(self.ops.is_pending(known.op), is_pending, "{known:?}");
            assert_eq!(undelivered, expected, "{known:?}");
        }
        let next = self.all.iter().flat_map(|known| [known.due, known.retry]).flatten().min();
        assert_eq!(self.ops.next_time(), next.map(|due| self.moment(due)));
        assert_eq!(self.ops.has_completed(), !self.completed.is_empty());
        assert_eq!(self.ops.completed_len(), self.completed.len());
        if self.all.iter().all(|known| known.io_call.is_none()) {
            self.ops.verify();
        }
    }
}

proptest! {
    #[test]
    fn table_matches_model(steps in prop::collection::vec(any_step(), 1..120)) {
        let (ops, all, completed) = Default::default();
        let file = EventFd::new().expect("an eventfd");
        let mut runner = Runner { ops, all, completed, results: 0, start: Instant::now(), file };
        for step in &steps {
            runner.step(step);
            runner.check();
        }
    }
}

#[test]
fn entry_is_small() {
    // The slab adds a generation.
    let size = size_of::<OpEntry>() + size_of::<u64>();
    assert!(size <= 80, "{size} bytes");
}

const SOURCES: u32 = 3;

/// Changes of operations in one queue or, for a splice, in two.
#[derive(Clone, Debug)]
enum QueueStep {
    Enqueue { source: (u32, Queue), target: Option<(u32, Queue)> },
    Complete(Index),
}

fn any_place() -> impl Strategy<Value = (u32, Queue)> {
    (0..SOURCES, prop::sample::select(&Queue::ALL))
}

fn any_queue_step() -> impl Strategy<Value = QueueStep> {
    let target = prop::option::weighted(0.3, any_place());
    prop_oneof![
        3 => (any_place(), target).prop_map(|(source, target)| {
            // The two sources of a splice differ.
            QueueStep::Enqueue { source, target: target.filter(|(slot, _)| *slot != source.0) }
        }),
        2 => any::<Index>().prop_map(QueueStep::Complete),
    ]
}

proptest! {
    /// A queue keeps the order of submission, whichever operations leave it.
    #[test]
    fn queues_keep_submission_order(steps in prop::collection::vec(any_queue_step(), 1..120)) {
        let mut table = OpTable::default();
        let mut ends = [[Ends::default(); 3]; SOURCES as usize];
        let mut model: [[Vec<OpSlot>; 3]; SOURCES as usize] = Default::default();
        let mut live = Vec::new();
        for step in steps {
            match step {
                QueueStep::Enqueue { source, target } => {
                    let place = |(index, queue)| (Slot { index, generation: 7 }, queue);
                    let mut entry = OpEntry::new(Token(0), Kind::Nop, None);
                    entry.source = Some(place(source));
                    if let Some(target) = target {
                        entry.set_target(place(target));
                    }
                    let op = table.insert(entry);
                    for (slot, queue) in [Some(source), target].into_iter().flatten() {
                        let (slot_at, at) = (slot as usize, queue as usize);
                        let ends = &mut ends[slot_at][at];
                        let is_alone = table.enqueue(op, place((slot, queue)), ends);
                        prop_assert_eq!(is_alone, model[slot_at][at].is_empty());
                        model[slot_at][at].push(op);
                    }
                    live.push(op);
                }
                QueueStep::Complete(at) if !live.is_empty() => {
                    let op = live.swap_remove(at.index(live.len()));
                    let mut entry = table.remove(op).expect("live");
                    for (slot, queue) in entry.places() {
                        let (slot_at, at) = (slot.index(), queue as usize);
                        table.dequeue(op, &mut entry, (slot, queue), &mut ends[slot_at][at]);
                        // A second call does nothing.
                        table.dequeue(op, &mut entry, (slot, queue), &mut ends[slot_at][at]);
                        model[slot_at][at].retain(|queued| *queued != op);
                    }
                }
                QueueStep::Complete(_) => {}
            }
            for (index, (ends, model)) in ends.iter().zip(&model).enumerate() {
                for queue in Queue::ALL {
                    let place = (Slot { index: index as u32, generation: 7 }, queue);
                    let ends = ends[queue as usize];
                    let all: Vec<_> = table.queue(place, ends).map(|(op, _)| op).collect();
                    let expected = &model[queue as usize];
                    prop_assert_eq!(&all, expected);
                    prop_assert_eq!(ends.last, expected.last().and_then(|&op| link_to(op)));
                    prop_assert_eq!(ends.has_several(), expected.len() > 1);
                }
            }
        }
    }
}
