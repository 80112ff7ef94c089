//! Receives that wait for a buffer of their pool.
//!
//! Each pool has a queue. The first waiter gets one buffer and an attempt, then rejoins the queue
//! while others wait, so that a peer that sends constantly starves none.

use crate::key::OpSlot;
use crate::sys::pool::BufferPool;
use std::collections::VecDeque;
use std::task::Waker;

/// The waiters of one poller. Between two waits each awaited pool has the notifier, has notified
/// the poller, or `must_ask` is set.
#[derive(Debug, Default)]
pub(super) struct BufferWaiters {
    pub(super) queues: Vec<WaitQueue>,
    pub(super) must_ask: bool,
}

#[derive(Debug)]
pub(super) struct WaitQueue {
    pub(super) pool: BufferPool,
    pub(super) ops: VecDeque<OpSlot>,
    /// Counts entries that no longer wait.
    pub(super) stale: usize,
}

impl WaitQueue {
    fn len(&self) -> usize {
        self.ops.len() - self.stale
    }
}

impl BufferWaiters {
    /// Makes the next wait ask the pools without a notification.
    pub(super) fn ask(&mut self) {
        self.must_ask = true;
    }

    pub(super) fn must_ask(&self) -> bool {
        self.must_ask
    }

    /// Returns true if no receive waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.len() == 0)
    }

    /// Returns true if others wait, and the pool has no buffer left beyond theirs.
    pub(super) fn is_short(&self, pool: &BufferPool) -> bool {
        let queue = self.queues.iter().find(|queue| queue.pool.is(pool) && queue.len() > 0);
        queue.is_some_and(|queue| pool.left() <= queue.len())
    }

    pub(super) fn push(&mut self, op: OpSlot, pool: &BufferPool) {
        match self.queues.iter_mut().find(|queue| queue.pool.is(pool)) {
            Some(queue) => queue.ops.push_back(op),
            None => {
                let (pool, ops) = (pool.clone(), [op].into());
                self.queues.push(WaitQueue { pool, ops, stale: 0 });
            }
        }
    }

    /// Notes that a waiter no longer waits. Removes stale entries once they are the majority.
    pub(super) fn remove(&mut self, pool: &BufferPool, waits: impl Fn(OpSlot) -> bool) {
        let Some(queue) = self.queues.iter_mut().find(|queue| queue.pool.is(pool)) else { return };
        queue.stale += 1;
        if 2 * queue.stale > queue.ops.len() {
            queue.ops.retain(|&op| waits(op));
            queue.stale = 0;
        }
    }

    /// Removes queues without waiters. Their pools need not notify the poller.
    pub(super) fn remove_empty(&mut self, notifier: &Waker) {
        self.queues.retain(|queue| {
            let is_empty = queue.ops.is_empty();
            if is_empty {
                queue.pool.stop_notifying(notifier);
            }
            !is_empty
        });
    }

    /// Removes the notifier from all pools.
    pub(super) fn stop_notifying(&self, notifier: &Waker) {
        self.queues.iter().for_each(|queue| queue.pool.stop_notifying(notifier));
    }

    /// Returns the number of waiters.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(WaitQueue::len).sum()
    }

    /// Returns true if an operation is in the queue of a pool.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn contains(&self, op: OpSlot, pool: &BufferPool) -> bool {
        let mut queues = self.queues.iter().filter(|queue| queue.pool.is(pool));
        queues.any(|queue| queue.ops.contains(&op))
    }

    /// Returns the pools that receives wait for.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn awaited_pools(&self) -> impl Iterator<Item = &BufferPool> {
        self.queues.iter().filter(|queue| queue.len() > 0).map(|queue| &queue.pool)
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self, waits: impl Fn(OpSlot) -> bool) {
        for queue in &self.queues {
            let waiting: Vec<_> = queue.ops.iter().filter(|&&op| waits(op)).collect();
            assert_eq!(waiting.len(), queue.len(), "stale entries are counted");
            let unique: std::collections::HashSet<_> = waiting.iter().collect();
            assert_eq!(unique.len(), waiting.len(), "no operation waits twice");
        }
    }
}
