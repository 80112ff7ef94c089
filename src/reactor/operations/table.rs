//! The table of operations from submission to completion, and the pending completions.

use super::entry::{OpEntry, OpState};
use super::queue::{Ends, Link, Links, Queue, link_to};
use super::timers::Timers;
use crate::event::{Events, Token};
use crate::key::{OpSlot, Slot};
use crate::op::{Completion, OpId, Outcome};
use crate::slab::Slab;
use crate::statistics::Statistics;
use crate::sys::buf::Buf;
use crate::sys::file::SourceFd;
#[cfg(any(test, feature = "spi"))]
use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::time::Instant;

/// The operations by slot, in the order of their completions, and by time.
#[derive(Debug, Default)]
pub(super) struct OpTable {
    slab: Slab<OpSlot, OpEntry>,
    /// The pending completions, in order.
    completed: VecDeque<Completion>,
    /// The poller's id, for operation ids.
    poller: u32,
    deadlines: Timers,
    times: Timers,
    /// Files kept open for the kernel after their registrations were removed.
    held: Vec<(OpSlot, SourceFd)>,
    /// Counts the inserted operations.
    submitted: u64,
    /// Counts the operations whose last completion was delivered.
    delivered: u64,
    /// Counts the operations that ended without a completion.
    silent: u64,
}

impl OpTable {
    /// Returns an empty table for the poller with this id.
    pub(super) fn of_poller(poller: u32) -> Self {
        OpTable { poller, ..OpTable::default() }
    }

    #[inline]
    pub(super) fn insert(&mut self, entry: OpEntry) -> OpSlot {
        self.submitted += 1;
        // An operation takes more memory than 32 bits can count.
        let (op, entry) = self.slab.insert(entry);
        entry.order = self.submitted;
        op
    }

    pub(super) fn get(&self, op: OpSlot) -> Option<&OpEntry> {
        self.slab.get(op)
    }

    pub(super) fn get_mut(&mut self, op: OpSlot) -> Option<&mut OpEntry> {
        self.slab.get_mut(op)
    }

    pub(super) fn awaits_buffer(&self, op: OpSlot) -> bool {
        self.get(op).is_some_and(|entry| matches!(entry.state, OpState::AwaitingBuffer))
    }

    /// Removes an operation that is about to complete.
    #[inline(always)]
    pub(super) fn remove(&mut self, op: OpSlot) -> Option<OpEntry> {
        let entry = self.slab.remove(op)?;
        if entry.deadline().is_some() || entry.time().is_some() {
            self.remove_timers(op, &entry);
        }
        Some(entry)
    }

    #[cold]
    fn remove_timers(&mut self, op: OpSlot, entry: &OpEntry) {
        self.deadlines.replace(op, entry.deadline(), None);
        self.times.replace(op, entry.time(), None);
    }

    /// Returns the id of an operation that has completed at once.
    pub(super) fn insert_completed(&mut self) -> OpSlot {
        self.submitted += 1;
        self.slab.take_key()
    }

    /// Queues the completion of an operation that was removed from the table.
    pub(super) fn complete(
        &mut self,
        op: OpSlot,
        token: Token,
        transferred: usize,
        result: io::Result<Outcome>,
        buf: Buf,
    ) {
        let id = OpId { poller: self.poller, slot: op };
        self.completed.push_back(Completion { token, id, transferred, result, buf, more: false });
    }

    /// Ends an operation that was removed from the table, without a completion.
    pub(super) fn end_silently(&mut self) {
        self.silent += 1;
    }

    pub(super) fn statistics(&self) -> Statistics {
        let (submitted, completed, silent) = (self.submitted, self.delivered, self.silent);
        let pending = submitted - completed - silent;
        Statistics { submitted, completed, silent, pending, ..Statistics::default() }
    }

    /// Queues a result of a multishot operation, and returns the operation.
    pub(super) fn push_result(
        &mut self,
        op: OpSlot,
        transferred: usize,
        outcome: Outcome,
        buf: Buf,
    ) -> Option<&mut OpEntry> {
        let entry = self.slab.get_mut(op)?;
        entry.undelivered += 1;
        let (id, token) = (OpId { poller: self.poller, slot: op }, entry.token);
        let result = Ok(outcome);
        self.completed.push_back(Completion { token, id, transferred, result, buf, more: true });
        Some(entry)
    }

    pub(super) fn has_unfinished(&self) -> bool {
        self.slab.len() > 0
    }

    pub(super) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    pub(super) fn completed_len(&self) -> usize {
        self.completed.len()
    }

    /// Returns true if the last completion of an operation is pending.
    pub(super) fn is_pending(&self, op: OpSlot) -> bool {
        self.completed.iter().any(|completion| completion.id.slot == op && !completion.more)
    }

    /// Appends an operation to one of its queues. Returns true if the queue was empty.
    pub(super) fn enqueue(&mut self, op: OpSlot, place: (Slot, Queue), ends: &mut Ends) -> bool {
        let previous = std::mem::replace(&mut ends.last, link_to(op));
        if previous.is_none() {
            ends.first = link_to(op);
            return true;
        }
        if let Some((_, entry)) = self.at_mut(previous) {
            entry.links(place).next = link_to(op);
        }
        if let Some(entry) = self.slab.get_mut(op) {
            entry.links(place).previous = previous;
        }
        false
    }

    /// Removes an operation from one of its queues. Returns true if it was queued there.
    pub(super) fn dequeue(
        &mut self,
        op: OpSlot,
        entry: &mut OpEntry,
        place: (Slot, Queue),
        ends: &mut Ends,
    ) -> bool {
        let Links { previous, next } = std::mem::take(entry.links(place));
        if previous.is_none() && ends.first != link_to(op) {
            return false;
        }
        match self.at_mut(previous) {
            Some((_, entry)) => entry.links(place).next = next,
            None => ends.first = next,
        }
        match self.at_mut(next) {
            Some((_, entry)) => entry.links(place).previous = previous,
            None => ends.last = previous,
        }
        true
    }

    /// Returns the operation of a link.
    pub(super) fn at(&self, link: Link) -> Option<(OpSlot, &OpEntry)> {
        self.slab.get_index(link?.get() - 1)
    }

    pub(super) fn at_mut(&mut self, link: Link) -> Option<(OpSlot, &mut OpEntry)> {
        self.slab.get_index_mut(link?.get() - 1)
    }

    /// Returns the operations of a queue, in the order of submission.
    pub(super) fn queue(
        &self,
        place: (Slot, Queue),
        ends: Ends,
    ) -> impl Iterator<Item = (OpSlot, &OpEntry)> {
        let first = self.at(ends.first);
        std::iter::successors(first, move |(_, entry)| self.at(entry.next_in(place)))
    }

    /// Returns the operation of a pending completion.
    pub(super) fn completed_op(&self, at: usize) -> OpSlot {
        self.completed[at].id.slot
    }

    /// Takes the pending completions from this position on.
    pub(super) fn split_completed(&mut self, at: usize) -> VecDeque<Completion> {
        self.completed.split_off(at)
    }

    /// Queues a pending completion again.
    pub(super) fn requeue(&mut self, completion: Completion) {
        self.completed.push_back(completion);
    }

    /// Notes the delivery of a pending completion, and adds files kept open until then to `drops`.
    /// Returns the operation if it continues.
    pub(super) fn note_delivered(
        &mut self,
        at: usize,
        drops: &mut Vec<SourceFd>,
    ) -> Option<&OpEntry> {
        let Completion { id, more, .. } = self.completed.get(at)?;
        let op = id.slot;
        if *more {
            let entry = self.slab.get_mut(op)?;
            entry.undelivered -= 1;
            return Some(entry);
        }
        self.delivered += 1;
        if !self.held.is_empty() {
            let all = std::mem::take(&mut self.held).into_iter();
            let (its, others) = all.partition::<Vec<_>, _>(|(its, _)| *its == op);
            self.held = others;
            drops.extend(its.into_iter().map(|(_, file)| file));
        }
        None
    }

    /// Moves the first pending completions to `events`.
    pub(super) fn move_completed(&mut self, count: usize, events: &mut Events) {
        events.complete(&mut self.completed, count);
    }

    /// Keeps a file open until the completion of an operation is delivered.
    pub(super) fn hold(&mut self, op: OpSlot, file: SourceFd) {
        if self.slab.get(op).is_some() {
            self.held.push((op, file));
        }
    }

    /// Sets or removes the deadline of an operation.
    pub(super) fn set_deadline(&mut self, op: OpSlot, deadline: Option<Instant>) {
        let Some(entry) = self.slab.get_mut(op) else { return };
        let before = entry.set_deadline(deadline);
        self.deadlines.replace(op, before, deadline);
    }

    /// Sets or removes the timer of an operation.
    pub(super) fn set_time(&mut self, op: OpSlot, time: Option<Instant>) {
        let Some(entry) = self.slab.get_mut(op) else { return };
        let before = entry.set_time(time);
        self.times.replace(op, before, time);
    }

    pub(super) fn next_time(&self) -> Option<Instant> {
        self.deadlines.next().into_iter().chain(self.times.next()).min()
    }

    /// Pops an operation whose deadline has passed.
    pub(super) fn pop_deadline(&mut self, now: Instant) -> Option<OpSlot> {
        let op = self.deadlines.pop_due(now)?;
        if let Some(entry) = self.get_mut(op) {
            entry.set_deadline(None);
        }
        Some(op)
    }

    /// Pops an operation whose timer has expired.
    pub(super) fn pop_time(&mut self, now: Instant) -> Option<OpSlot> {
        let op = self.times.pop_due(now)?;
        if let Some(entry) = self.get_mut(op) {
            entry.set_time(None);
        }
        Some(op)
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (OpSlot, &OpEntry)> {
        self.slab.iter()
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self) {
        let mut pending = HashMap::<OpSlot, (u32, usize)>::new();
        for completion in &self.completed {
            let (results, last) = pending.entry(completion.id.slot).or_default();
            assert!(*last == 0, "the last completion is the last: {completion:?}");
            if completion.more { *results += 1 } else { *last += 1 }
        }
        let [mut deadlines, mut times] = [0; 2];
        for (op, entry) in self.slab.iter() {
            let (results, last) = pending.remove(&op).unwrap_or_default();
            assert_eq!(last, 0, "a completed operation is removed: {entry:?}");
            assert_eq!(results, entry.undelivered, "a result is delivered: {entry:?}");
            if let Some(deadline) = entry.deadline() {
                assert!(self.deadlines.contains(deadline, op), "a deadline is set: {entry:?}");
                deadlines += 1;
            }
            let waits = matches!(entry.state, OpState::AwaitingTime);
            match entry.time() {
                Some(time) => {
                    assert!(self.times.contains(time, op), "a timer is set: {entry:?}");
                    assert!(waits, "only an operation awaiting a time has a timer: {entry:?}");
                    times += 1;
                }
                None => assert!(!waits, "a timer is set: {entry:?}"),
            }
        }
        let last = self.completed.iter().filter(|completion| !completion.more).count() as u64;
        let known = self.slab.len() as u64 + last + self.delivered + self.silent;
        assert_eq!(known, self.submitted, "each operation is live, pending, delivered or silent");
        let is_last = pending.values().all(|&(_, last)| last == 1);
        assert!(is_last, "each result has its operation or last completion: {pending:?}");
        assert_eq!(deadlines, self.deadlines.len(), "each deadline has its operation");
        assert_eq!(times, self.times.len(), "each timer has its operation");
    }
}

#[cfg(test)]
mod tests;
