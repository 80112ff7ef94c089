//! The acceptance of operations.

use super::entry::{Cause, OpEntry, OpState};
use super::io::Io;
use super::machine::Operations;
use super::prepare::{invalid, prepare};
use super::queue::{Queue, SourceOps};
use super::send_now::Early;
use crate::event::{Interest, Token};
use crate::key::{OpSlot, Slot};
use crate::op::{Kind, Op, OpArgs, Outcome};
use crate::sys::file::SourceFd;
use crate::sys::io_mode::FdIoMode;
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;

/// Returns the direction that an operation occupies on its source (M1).
pub(in crate::reactor) fn direction_of(op: &Op) -> Interest {
    Queue::of(op.kind).dir()
}

impl Operations {
    /// Adds a source that has had no operations.
    ///
    /// # Errors
    ///
    /// The errors of fstat(2): the descriptor was closed.
    pub(in crate::reactor) fn add_source(
        &mut self,
        slot: Slot,
        interest: Interest,
        io: &mut impl Io,
    ) -> io::Result<()> {
        let mode = io.mode_of(slot)?;
        let number = io.file(slot).map_or(-1, SourceFd::raw_fd);
        self.insert_source(slot, number, mode, interest);
        Ok(())
    }

    /// Adds a source whose I/O mode is known.
    pub(in crate::reactor) fn insert_source(
        &mut self,
        slot: Slot,
        number: RawFd,
        mode: FdIoMode,
        interest: Interest,
    ) {
        self.sources.insert(slot, SourceOps::new(number, mode, interest));
    }

    /// Accepts an operation on these sources, which were added, and takes its buffer out of `op`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, `OutOfMemory`, or `Other` with a text; `op` is unchanged.
    pub(in crate::reactor) fn submit(
        &mut self,
        op: &mut Op,
        token: Token,
        source: Option<Slot>,
        target: Option<Slot>,
        io: &mut impl Io,
    ) -> io::Result<OpSlot> {
        if op.skip_success && !op.kind.may_skip_success() {
            return Err(invalid("the success of this operation cannot be skipped"));
        }
        let early = match source {
            Some(slot) if io.has_driver() => {
                self.submit_now(op, token, slot, io).map_or(Early::NotMade, Early::Accepted)
            }
            Some(slot) => self.send_now(op, token, slot, io),
            None => Early::NotMade,
        };
        if let Early::Accepted(op) = early {
            return Ok(op);
        }
        let its = source.and_then(|slot| self.sources.get(slot));
        let others = target.and_then(|slot| self.sources.get(slot));
        let source = source.map(|slot| (slot, shared_queue(its, Queue::of(op.kind))));
        let target = target.map(|slot| (slot, shared_queue(others, Queue::Write)));
        let work = prepare(op, its, others, &mut self.spare_calls)?;
        let mut entry = OpEntry::new(token, op.kind, work);
        (entry.source, entry.skips_success) = (source, op.skip_success);
        if let Some(target) = target {
            entry.set_target(target);
        }
        let slot = self.table.insert(entry);
        if let Some(after) = op.deadline {
            self.table.set_deadline(slot, io.now().checked_add(after));
        }
        match op.kind {
            Kind::Nop => self.complete(slot, Ok(Outcome::Done), io),
            Kind::Timeout => self.start_timeout(slot, &op.with, io),
            // It does not wait, and is in no queue.
            Kind::Shutdown(Shutdown::Read) => self.shut_down(slot, Shutdown::Read, io),
            kind => {
                // (An `open` is in no queue.)
                let mut is_head = source.is_none_or(|place| self.enqueue(slot, kind, place));
                if let Some(place) = target {
                    is_head &= self.enqueue(slot, kind, place);
                }
                if is_head {
                    self.run_first(slot, kind, early, io);
                }
            }
        }
        self.run(io);
        Ok(slot)
    }

    fn start_timeout(&mut self, op: OpSlot, with: &OpArgs, io: &mut impl Io) {
        let time = match with {
            OpArgs::Time(time) => io.now().checked_add(*time),
            _ => None,
        };
        if let Some(entry) = self.table.get_mut(op) {
            entry.state = match time {
                Some(_) => OpState::AwaitingTime,
                None => OpState::AwaitingCancel,
            };
        }
        self.table.set_time(op, time);
    }

    /// Advances an operation at the head of its queues.
    fn run_first(&mut self, op: OpSlot, kind: Kind, early: Early, io: &mut impl Io) {
        match early {
            Early::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return self.on_would_block(op, false, io);
            }
            Early::Failed(error) => return self.on_error(op, error, io),
            Early::Sent(count) => {
                if let Some(call) = self.call_mut(op) {
                    call.note_sent(count);
                }
            }
            Early::NotMade | Early::Accepted(_) => {}
        }
        self.run_one(op, kind, Cause::Turn, io);
    }

    /// Appends an operation to one of its queues. Returns true if nothing blocks it there.
    #[inline]
    fn enqueue(&mut self, op: OpSlot, kind: Kind, (slot, queue): (Slot, Queue)) -> bool {
        let Some(source) = self.sources.get_mut(slot) else { return true };
        if kind == Kind::Connect {
            // An earlier reset belongs to another connection.
            source.is_reset = false;
        }
        source.pending += 1;
        let is_first = self.table.enqueue(op, (slot, queue), source.queue_mut(queue));
        if !is_first {
            self.silent.note_successor();
        }
        queue == Queue::Unordered || (is_first && !self.is_blocked(slot, queue))
    }
}

/// Returns the queue of a source. Reads and writes that share a position have one queue.
fn shared_queue(source: Option<&SourceOps>, queue: Queue) -> Queue {
    let shares = queue == Queue::Write && source.is_some_and(|its| its.mode.has_position());
    if shares { Queue::Read } else { queue }
}
