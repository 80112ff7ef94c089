//! What makes operations runnable, and the loop that runs them.

use super::attempt::Attempt;
use super::entry::{Cause, OpState, Why};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::op::{Kind, Outcome};
use crate::sys::pool::PoolBuf;

impl Operations {
    /// Runs what is runnable.
    pub(in crate::reactor) fn run(&mut self, io: &mut impl Io) {
        while let Some(op) = self.run_queue.pop_front() {
            let Some(entry) = self.table.get(op) else { continue };
            let OpState::Runnable(cause) = entry.state else { continue };
            self.run_one(op, entry.kind, cause, io);
        }
    }

    /// Advances an operation that is runnable, and need not be in the run queue.
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

    /// Runs what awaits these directions of a source.
    pub(in crate::reactor) fn on_ready(&mut self, slot: Slot, ready: Interest, io: &mut impl Io) {
        // A connect comes before reads: it is to be told the error of the socket.
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

    /// Cancels what is past its deadline, and makes runnable what waited for a time.
    pub(in crate::reactor) fn on_time(&mut self, io: &mut impl Io) {
        let Some(due) = self.table.next_time() else { return };
        let now = io.now();
        if due > now {
            return;
        }
        while let Some(op) = self.table.pop_deadline(now) {
            self.cancel(op, Why::Deadline, io);
        }
        while let Some(op) = self.table.pop_time(now) {
            match self.table.get(op).is_some_and(|entry| entry.work.is_some()) {
                true => self.make_runnable(op, Cause::Retry),
                // Only a timeout waits without work.
                false => self.complete(op, Ok(Outcome::Done), io),
            }
        }
        self.run(io);
    }

    /// Notes that the user watches these directions of a source. While urgent data is among them a
    /// ring must not receive: a receive that waits there uses up an urgent byte that comes alone.
    pub(in crate::reactor) fn on_watched(&mut self, slot: Slot, user: Interest, io: &mut impl Io) {
        let Some(source) = self.sources.get_mut(slot) else { return };
        source.interest = user;
        if !source.emulates(Queue::Read) {
            return;
        }
        let Some((op, _)) = self.table.at(source.queue(Queue::Read).first) else { return };
        let Some(entry) = self.table.get_mut(op) else { return };
        if let OpState::Submitted { cancel } = &mut entry.state {
            cancel.get_or_insert(Why::Reclaim);
            let mut events = Vec::new();
            io.cancel_and_wait(&[op], &mut events);
            self.on_driver_events(&mut events, io);
            self.run(io);
        }
    }

    /// Gives buffers that were returned to receives that wait for them, to each one at most.
    /// `is_notified`: a pool has notified the poller.
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
                // There may be more buffers for those that wait again, and nothing would tell.
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
            // The pool has the notifier now.
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

    /// Has a receive use the buffer that it has waited for. Then it joins the end of the queue
    /// while others wait.
    fn serve(&mut self, op: OpSlot, buf: PoolBuf, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.state = OpState::Runnable(Cause::Turn);
        if matches!(self.receive_into(buf, op, false, io), Attempt::Settled) {
            return;
        }
        let pool = self.table.get(op).and_then(|entry| entry.pool());
        match pool.is_some_and(|pool| self.buffers.is_short(pool)) {
            true => self.await_buffer(op),
            false => self.start(op, io),
        }
    }
}
