//! Receives that wait for a buffer of their pool.
//!
//! They wait in a queue for each pool. The first gets one buffer and an attempt, and joins the end
//! of the queue while others wait, so that a peer that sends without pause starves none.

use super::table::{Cause, OpState};
use super::{Io, Operations};
use crate::key::OpSlot;
use crate::sys::pool::BufferPool;
use crate::sys::prepared::Prepared;
use std::collections::VecDeque;
use std::io;

/// The waiters of one poller. Between two waits of the poller each pool that is waited for has the
/// notifier, or was notified, or `must_ask` is set.
#[derive(Debug, Default)]
pub(super) struct BufferWaiters {
    queues: Vec<WaitQueue>,
    must_ask: bool,
}

#[derive(Debug)]
struct WaitQueue {
    pool: BufferPool,
    ops: VecDeque<OpSlot>,
    /// Counts entries that wait no more.
    stale: usize,
}

impl WaitQueue {
    fn len(&self) -> usize {
        self.ops.len() - self.stale
    }
}

impl BufferWaiters {
    /// Asks the pools in the next wait, though none has notified the poller.
    pub(super) fn ask(&mut self) {
        self.must_ask = true;
    }

    pub(super) fn must_ask(&self) -> bool {
        self.must_ask
    }

    /// Returns true if there are not enough buffers for all that wait, and one more.
    fn is_short(&self, pool: &BufferPool) -> bool {
        let queue = self.queues.iter().find(|queue| queue.pool.is(pool) && queue.len() > 0);
        queue.is_some_and(|queue| pool.left() <= queue.len())
    }

    fn push(&mut self, op: OpSlot, pool: &BufferPool) {
        match self.queues.iter_mut().find(|queue| queue.pool.is(pool)) {
            Some(queue) => queue.ops.push_back(op),
            None => {
                let (pool, ops) = (pool.clone(), [op].into());
                self.queues.push(WaitQueue { pool, ops, stale: 0 });
            }
        }
    }

    /// Counts a waiter out. Stale entries are removed once they are the majority.
    pub(super) fn remove(&mut self, pool: &BufferPool, waits: impl Fn(OpSlot) -> bool) {
        let Some(queue) = self.queues.iter_mut().find(|queue| queue.pool.is(pool)) else { return };
        queue.stale += 1;
        if 2 * queue.stale > queue.ops.len() {
            queue.ops.retain(|&op| waits(op));
            queue.stale = 0;
        }
    }

    /// Returns the number of waiters.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(WaitQueue::len).sum()
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self, waits: impl Fn(OpSlot) -> bool) {
        for queue in &self.queues {
            let waiting: Vec<_> = queue.ops.iter().filter(|&&op| waits(op)).collect();
            assert_eq!(waiting.len(), queue.len(), "stale entries are counted");
            let unique: std::collections::HashSet<_> = waiting.iter().collect();
            assert_eq!(unique.len(), waiting.len(), "nothing waits twice");
        }
    }
}

impl Operations {
    /// Queues an operation for a buffer.
    pub(super) fn await_buffer(&mut self, op: OpSlot, _io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let Some(pool) = entry.call.as_ref().and_then(Prepared::pool) else { return };
        self.buffers.push(op, pool);
        entry.state = OpState::AwaitingBuffer;
    }

    /// Returns true if other receives wait for all that the pool of this one has.
    pub(super) fn lacks_buffers(&self, op: OpSlot) -> bool {
        let call = self.table.get(op).and_then(|entry| entry.call.as_ref());
        call.and_then(Prepared::pool).is_some_and(|pool| self.buffers.is_short(pool))
    }

    /// Gives a receive from a pool a buffer if it has none. Returns false if it has to wait: others
    /// do already, or there is none.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: it would wait for ever.
    pub(super) fn attach_buffer(&mut self, op: OpSlot, io: &mut impl Io) -> io::Result<bool> {
        let Some(call) = self.table.get_mut(op).and_then(|entry| entry.call.as_mut()) else {
            return Ok(false);
        };
        let Some(pool) = call.pool().filter(|_| call.lacks_buffer()) else { return Ok(true) };
        if self.buffers.is_short(pool) {
            return Ok(false);
        }
        let Some(buf) = pool.take_or_wait(io.notifier())? else { return Ok(false) };
        call.equip(buf);
        Ok(true)
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
        self.buffers.queues.retain(|queue| !queue.ops.is_empty());
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
            Ok(None) => return false,
            Ok(Some(buf)) => {
                queue.ops.pop_front();
                let call = self.table.get_mut(op).and_then(|entry| entry.call.as_mut());
                if let Some(call) = call {
                    call.equip(buf);
                }
                self.make_runnable(op, Cause::Buffer);
            }
            Err(error) => self.complete(op, Err(error), io),
        }
        true
    }
}
