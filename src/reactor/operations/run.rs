//! The events that make operations runnable, and the loop that runs them.

use super::attempt::Attempt;
use super::entry::{CancelReason, Cause, OpState};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::op::{Kind, Outcome};
use crate::sys::pool::PoolBuf;

impl Operations {
    /// Runs all runnable operations.
    pub(in crate::reactor) fn run(&mut self, io: &mut impl Io) {
        while let Some(op) = self.run_queue.pop_front() {
            let Some(entry) = self.table.get(op) else { continue };
            let OpState::Runnable(cause) = entry.state else { continue };
            self.run_one(op, entry.kind, cause, io);
        }
    }

    /// Advances a runnable operation, which need not be in the run queue.
    #[inline]
    pub(super) fn run_one(&mut self, op: OpSlot, kind: Kind, cause: Cause, io: &mut impl Io) {
        match kind {
            Kind::Shutdown(how) => self.shut_down(op, how, io),
            Kind::Splice => self.advance_splice(op, cause, io),
            Kind::Open => self.open(op, io),
            _ => self.advance(op, cause, io),
        }
    }

    /// Opens a file at once if that cannot wait, and else on a thread.
    fn open(&mut self, op: OpSlot, io: &mut impl Io) {
        let call = self.table.get(op).and_then(|entry| entry.call());
        match call.and_then(|call| io.open_now(call)) {
            Some(opened) => {
                let outcome = opened.map(|file| Outcome::Opened { file });
                self.complete(op, outcome, io);
            }
            None => self.spawn(op, Vec::new(), io),
        }
    }

    /// Runs the operations that await these directions of a source.
    pub(in crate::reactor) fn on_ready(&mut self, slot: Slot, ready: Interest, io: &mut impl Io) {
        // Writes first: a pending connect must receive the socket error, not a read.
        for queue in [Queue::Write, Queue::Read] {
            let Some(source) = self.sources.get(slot) else { return };
            if !ready.contains(queue.dir()) {
                continue;
            }
            let Some((op, entry)) = self.table.at_mut(source.queue(queue).first) else { continue };
            if entry.awaits(slot, queue) {
                let kind = entry.kind;
                entry.state = OpState::Runnable(Cause::Ready);
                io.stop_awaiting(slot, queue.dir());
                self.run_one(op, kind, Cause::Ready, io);
            }
        }
        self.run(io);
    }

    /// Cancels operations past their deadline, and runs those whose timer has expired.
    pub(in crate::reactor) fn on_time(&mut self, io: &mut impl Io) {
        let Some(due) = self.table.next_time() else { return };
        let now = io.now();
        if due > now {
            return;
        }
        while let Some(op) = self.table.pop_deadline(now) {
            self.cancel(op, CancelReason::Deadline, io);
        }
        while let Some(op) = self.table.pop_time(now) {
            if self.table.get(op).is_some_and(|entry| entry.work.is_some()) {
                self.make_runnable(op, Cause::Retry);
            } else {
                // Only a timeout awaits a time without work.
                self.complete(op, Ok(Outcome::Done), io);
            }
        }
        self.run(io);
    }

    /// Notes the directions that the user watches. If urgent data is among them, a ring must not
    /// receive: a receive waiting there consumes a lone urgent byte.
    pub(in crate::reactor) fn on_watched(&mut self, slot: Slot, user: Interest, io: &mut impl Io) {
        let Some(source) = self.sources.get_mut(slot) else { return };
        source.interest = user;
        if !source.emulates(Queue::Read) {
            return;
        }
        let Some((op, _)) = self.table.at(source.queue(Queue::Read).first) else { return };
        let Some(entry) = self.table.get_mut(op) else { return };
        if let OpState::Submitted { cancel } = &mut entry.state {
            cancel.get_or_insert(CancelReason::Reclaim);
            let mut events = Vec::new();
            io.cancel_and_wait(&[op], &mut events);
            self.on_driver_events(&mut events, io);
            self.run(io);
        }
    }

    /// Hands returned buffers to waiting receives, at most one each. `is_notified` is true if a
    /// pool has notified the poller.
    pub(in crate::reactor) fn on_buffers(&mut self, is_notified: bool, io: &mut impl Io) {
        if !std::mem::take(&mut self.buffers.must_ask) && !is_notified {
            return;
        }
        for index in 0..self.buffers.queues.len() {
            let mut is_empty = false;
            for _ in 0..self.buffers.queues[index].ops.len() {
                is_empty = !self.serve_first(index, io);
                if is_empty {
                    break;
                }
                self.run(io);
            }
            if !is_empty && !self.buffers.queues[index].ops.is_empty() {
                // More buffers may be free for the waiters, without a notification.
                io.notifier().wake_by_ref();
            }
        }
        self.buffers.remove_empty(io.notifier());
    }

    /// Serves the first waiter of a queue. Returns false if there is no buffer for it.
    fn serve_first(&mut self, index: usize, io: &mut impl Io) -> bool {
        let queue = &mut self.buffers.queues[index];
        let Some(&op) = queue.ops.front() else { return false };
        if !self.table.awaits_buffer(op) {
            queue.ops.pop_front();
            queue.stale = queue.stale.saturating_sub(1);
            return true;
        }
        match queue.pool.take_or_wait(io.notifier()) {
            // The pool now has the notifier.
            Ok(None) => {
                io.release_buffers(&queue.pool);
                return false;
            }
            Ok(Some(buf)) => {
                queue.ops.pop_front();
                self.serve(op, buf, io);
            }
            Err(error) => self.complete(op, Err(error), io),
        }
        true
    }

    /// Receives into the granted buffer. The receive then rejoins the queue while others wait.
    fn serve(&mut self, op: OpSlot, buf: PoolBuf, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.state = OpState::Runnable(Cause::Turn);
        if matches!(self.receive_into(buf, op, false, io), Attempt::Settled) {
            return;
        }
        let pool = self.table.get(op).and_then(|entry| entry.pool());
        if pool.is_some_and(|pool| self.buffers.is_short(pool)) {
            self.await_buffer(op);
        } else {
            self.start(op, io);
        }
    }
}
