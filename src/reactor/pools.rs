//! Receives that wait for a buffer of their pool to come home.
//!
//! They stand in a line for each pool. Who comes to its head gets one buffer, and tries; if others
//! wait he goes to the end, so that a peer that sends without pause starves nobody.

use super::Reactor;
use super::ops::Lane;
use crate::key::{OpSlot, Slot};
use crate::selector::Selector;
use crate::sys::pool::{BufferPool, PoolBuf};
use std::collections::VecDeque;
use std::io;

/// The lines of one poller. Between two waits their pools know whom to tell, or the notifier was
/// notified, or they have grown without that.
#[derive(Debug, Default)]
pub(super) struct Pools {
    lines: Vec<Line>,
    have_grown: bool,
}

#[derive(Debug)]
struct Line {
    pool: BufferPool,
    ops: VecDeque<OpSlot>,
    /// How many of these have been stopped since.
    gone: usize,
}

impl Line {
    fn length(&self) -> usize {
        self.ops.len() - self.gone
    }

    /// Somebody in it was stopped. Those are let go of when they are the most.
    fn note_gone(&mut self, is_waiting: impl Fn(OpSlot) -> bool) {
        self.gone += 1;
        if 2 * self.gone > self.ops.len() {
            self.ops.retain(|&op| is_waiting(op));
            self.gone = 0;
        }
    }
}

impl Pools {
    fn line(&mut self, pool: &BufferPool) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.pool.is(pool))
    }

    /// Somebody may have lined up who has not asked his pool.
    pub(super) fn note_grown(&mut self) {
        self.have_grown = true;
    }

    /// Whether that is so.
    pub(super) fn have_grown(&self) -> bool {
        self.have_grown
    }

    /// Whether there are not enough for all who are in line, and one more.
    fn is_short(&self, pool: &BufferPool) -> bool {
        let line = self.lines.iter().find(|line| line.pool.is(pool) && line.length() > 0);
        line.is_some_and(|line| pool.left() <= line.length())
    }

    fn push(&mut self, op: OpSlot, pool: &BufferPool) {
        match self.line(pool) {
            Some(line) => line.ops.push_back(op),
            None => self.lines.push(Line { pool: pool.clone(), ops: [op].into(), gone: 0 }),
        }
    }
}

impl<S: Selector> Reactor<S> {
    /// An operation waits for a buffer.
    pub(super) fn wait_for_buffer(&mut self, op: OpSlot) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        let Some(pool) = operation.prepared().and_then(|prepared| prepared.pool().cloned()) else {
            return;
        };
        if !std::mem::replace(&mut operation.is_waiting, true) {
            self.pools.push(op, &pool);
        }
    }

    /// An operation that waited for a buffer ends without.
    pub(super) fn leave_line(&mut self, pool: &BufferPool) {
        if let Some(line) = self.pools.line(pool) {
            line.note_gone(|op| self.ops.get(op).is_some_and(|its| its.is_waiting));
        }
    }

    /// Sees to it that an operation that takes its buffers from a pool has one. False if it has to
    /// wait: others do already, or there is none.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: it would wait for ever.
    pub(super) fn equip(&mut self, op: OpSlot) -> io::Result<bool> {
        let Some(prepared) = self.ops.get_mut(op).and_then(|its| its.prepared_mut()) else {
            return Ok(false);
        };
        let Some(pool) = prepared.pool().filter(|_| prepared.lacks_buffer()) else {
            return Ok(true);
        };
        if self.pools.is_short(pool) {
            return Ok(false);
        }
        let Some(buf) = pool.take_or_wait(&self.notifier)? else { return Ok(false) };
        prepared.equip(buf);
        Ok(true)
    }

    /// Gives those who wait what has come home, everyone once at most.
    pub(super) fn serve_lines(&mut self) {
        self.pools.have_grown = false;
        for index in 0..self.pools.lines.len() {
            let mut is_empty_handed = false;
            for _ in 0..self.pools.lines[index].ops.len() {
                let Line { pool, ops, gone } = &mut self.pools.lines[index];
                let is_waiting = |op: &OpSlot| self.ops.get(*op).is_some_and(|its| its.is_waiting);
                let Some(&op) = ops.front() else { break };
                if !is_waiting(&op) {
                    ops.pop_front();
                    *gone = gone.saturating_sub(1);
                    continue;
                }
                let taken = pool.take_or_wait(&self.notifier);
                if matches!(taken, Ok(None)) {
                    is_empty_handed = true;
                    break;
                }
                ops.pop_front();
                let Some(operation) = self.ops.get_mut(op) else { continue };
                operation.is_waiting = false;
                let Some((source, lane)) = operation.place else { continue };
                if self.resume(op, source, lane, taken) {
                    self.run_lane(source, lane);
                }
            }
            if !is_empty_handed && !self.pools.lines[index].ops.is_empty() {
                // There may be more for those who are in line again, and no one will tell.
                self.notifier.wake_by_ref();
            }
        }
        self.pools.lines.retain(|line| !line.ops.is_empty());
    }

    /// Receives into the buffer that has come. Gives whether the operation is over.
    fn resume(
        &mut self,
        op: OpSlot,
        source: Slot,
        lane: Lane,
        taken: io::Result<Option<PoolBuf>>,
    ) -> bool {
        let Some(work) = self.registry.work_mut(source) else { return false };
        let Some(mut prepared) = self.ops.take(op) else { return false };
        let tried = taken.and_then(|buf| {
            buf.into_iter().for_each(|buf| prepared.equip(buf));
            prepared.attempt(&mut work.manner)
        });
        match tried {
            Ok(gain) => match self.note_gain(op, prepared, gain) {
                Some(prepared) => self.ops.put_back(op, prepared),
                None => return true,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // It needs no buffer before something comes, and is out of the line until then.
                return self.wait_for(op, prepared, source, lane, false);
            }
            Err(error) => {
                self.end(op, Some(prepared), Err(error));
                return true;
            }
        }
        let prepared = self.ops.get(op).and_then(|operation| operation.prepared());
        if prepared.and_then(|its| its.pool()).is_some_and(|pool| self.pools.is_short(pool)) {
            self.wait_for_buffer(op);
            return false;
        }
        self.begin(op, source, lane)
    }

    /// Who is in line is known to be, once, and those who have gone are counted.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify_lines(&self) {
        let is_waiting = |op: &&OpSlot| self.ops.get(**op).is_some_and(|its| its.is_waiting);
        for line in &self.pools.lines {
            let waiting: Vec<_> = line.ops.iter().filter(is_waiting).collect();
            assert_eq!(waiting.len(), line.length(), "those who have gone are counted");
            let unique: std::collections::HashSet<_> = waiting.iter().collect();
            assert_eq!(unique.len(), waiting.len(), "nobody is in line twice");
        }
    }
}
