//! Receives that wait for a buffer of their pool to come home.
//!
//! They stand in a line for each pool. Who comes to its head gets one buffer, and tries; if others
//! wait he goes to the end, so that a peer that sends without pause starves nobody.

use super::Reactor;
use super::ops::Lane;
use crate::key::{OpSlot, Slot};
use crate::selector::Selector;
use crate::sys::pool::BufferPool;
use std::collections::VecDeque;
use std::io;

/// The lines of one poller.
#[derive(Debug, Default)]
pub(super) struct Pools(Vec<Line>);

#[derive(Debug)]
struct Line {
    pool: BufferPool,
    /// Some may have been stopped since.
    ops: VecDeque<OpSlot>,
}

impl Pools {
    fn line(&mut self, pool: &BufferPool) -> Option<&mut Line> {
        self.0.iter_mut().find(|line| line.pool.is(pool))
    }

    fn has_line(&self, pool: &BufferPool) -> bool {
        self.0.iter().any(|line| line.pool.is(pool) && !line.ops.is_empty())
    }

    fn push(&mut self, op: OpSlot, pool: &BufferPool) {
        match self.line(pool) {
            Some(line) => line.ops.push_back(op),
            None => self.0.push(Line { pool: pool.clone(), ops: [op].into() }),
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
        operation.is_waiting = true;
        self.pools.push(op, &pool);
    }

    /// Sees to it that an operation that takes its buffers from a pool has one. False if it has to
    /// wait: others do already, or there is none.
    pub(super) fn equip(&mut self, op: OpSlot) -> bool {
        let Some(prepared) = self.ops.get_mut(op).and_then(|its| its.prepared_mut()) else {
            return false;
        };
        let Some(pool) = prepared.pool().filter(|_| prepared.lacks_buffer()) else { return true };
        if self.pools.has_line(pool) {
            return false;
        }
        let Some(buf) = pool.take_or_wait(&self.bell) else { return false };
        prepared.equip(buf);
        true
    }

    /// Gives those who wait what has come home, everyone once at most.
    pub(super) fn serve_lines(&mut self) {
        if self.pools.0.is_empty() {
            return;
        }
        for index in 0..self.pools.0.len() {
            let mut is_empty_handed = false;
            for _ in 0..self.pools.0[index].ops.len() {
                let Line { pool, ops } = &mut self.pools.0[index];
                let is_waiting = |op: &OpSlot| self.ops.get(*op).is_some_and(|its| its.is_waiting);
                let Some(&op) = ops.front() else { break };
                if !is_waiting(&op) {
                    ops.pop_front();
                    continue;
                }
                let Some(buf) = pool.take_or_wait(&self.bell) else {
                    is_empty_handed = true;
                    break;
                };
                ops.pop_front();
                let Some(operation) = self.ops.get_mut(op) else { continue };
                operation.is_waiting = false;
                let place = operation.place;
                if let Some(prepared) = operation.prepared_mut() {
                    prepared.equip(buf);
                }
                if let Some((source, lane)) = place {
                    if self.resume(op, source, lane) {
                        self.run_lane(source, lane);
                    }
                }
            }
            if !is_empty_handed && !self.pools.0[index].ops.is_empty() {
                // There may be more for those who are in line again, and no one will tell.
                self.bell.wake_by_ref();
            }
        }
        self.pools.0.retain(|line| !line.ops.is_empty());
    }

    /// Receives into the buffer that has come. Gives whether the operation is over.
    fn resume(&mut self, op: OpSlot, source: Slot, lane: Lane) -> bool {
        let Some(work) = self.registry.work_mut(source) else { return false };
        let Some(mut prepared) = self.ops.take(op) else { return false };
        let tried = prepared.attempt(&mut work.manner);
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
        let others_wait = |pool: &BufferPool| self.pools.has_line(pool);
        let prepared = self.ops.get(op).and_then(|operation| operation.prepared());
        if prepared.and_then(|its| its.pool()).is_some_and(others_wait) {
            self.wait_for_buffer(op);
            return false;
        }
        self.begin(op, source, lane)
    }
}
