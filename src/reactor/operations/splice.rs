//! Splices between two sources. A splice may wait for either.

use super::entry::{Cause, Side, Spliced};
use super::io::Io;
use super::machine::Operations;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::sys::file::SourceFd;
use crate::sys::io_call::CallResult;
use std::io;

/// The most consecutive attempts of a splice while both sources seem ready.
const MAX_ATTEMPTS: usize = 3;

impl Operations {
    /// Attempts a splice, which is at the head of both queues.
    pub(super) fn advance_splice(&mut self, op: OpSlot, cause: Cause, io: &mut impl Io) {
        let Some(entry) = self.table.get(op) else { return };
        let (Some((from, _)), Some((to, _))) = (entry.source, entry.target()) else { return };
        let waits_for_disk =
            |slot| self.sources.get(slot).is_some_and(|its| its.mode.has_position());
        if waits_for_disk(from) || waits_for_disk(to) {
            match self.files_to_splice(from, to, io) {
                Ok(files) => self.spawn(op, files, io),
                Err(error) => self.complete(op, Err(error), io),
            }
            return;
        }
        for slot in [from, to] {
            if let Some(source) = self.sources.get_mut(slot) {
                source.mode.begin_turn();
            }
        }
        if cause == Cause::Turn && self.await_predicted(op, (from, to), io) {
            return;
        }
        for _ in 0..MAX_ATTEMPTS {
            if self.splice_once(op, (from, to), io) || self.await_either(op, io) {
                return;
            }
        }
        // The readiness of the sources does not apply to this call.
        self.pause(op, io);
    }

    /// Awaits the side that the last splice between these two waited for, if a poll predicts that
    /// the call would block again. That saves the call, and those that make it nonblocking.
    fn await_predicted(&mut self, op: OpSlot, (from, to): (Slot, Slot), io: &mut impl Io) -> bool {
        let Some(&Spliced { to: Some(last), awaited: Some(side) }) = self.splices.get(from) else {
            return false;
        };
        let Some([source, target]) = self.sources.get_two_mut(from, to) else { return false };
        let is_shown = match side {
            Side::Source => source.mode.shows_bytes(source.fd),
            Side::Target => target.mode.shows_room(target.fd),
        };
        // An unsupported splice must be refused by the call; it may never become ready.
        if last != to || !is_shown {
            return false;
        }
        let [read, write] = io.poll_both([(from, Interest::READABLE), (to, Interest::WRITABLE)]);
        let ends = PollBits::RDHUP | PollBits::HUP | PollBits::ERR;
        let would_block = match side {
            // A broken target is reported at once, even if the source is idle.
            Side::Source => read.ready(Interest::READABLE).is_empty() && !write.intersects(ends),
            // The end of the source is reported at once, even if the target is full.
            Side::Target => {
                let is_full = write.ready(Interest::WRITABLE).is_empty();
                is_full && read.contains(PollBits::IN) && !read.intersects(ends)
            }
        };
        if would_block {
            self.await_ready(op, side, io);
        } else {
            self.note_spliced(from, |its| its.awaited = None);
        }
        would_block
    }

    fn note_spliced(&mut self, from: Slot, note: impl FnOnce(&mut Spliced)) {
        let mut spliced = self.splices.get(from).copied().unwrap_or_default();
        note(&mut spliced);
        self.splices.insert(from, spliced);
    }

    /// Makes the call. Returns true unless it would block.
    fn splice_once(&mut self, op: OpSlot, (from, to): (Slot, Slot), io: &mut impl Io) -> bool {
        let Some([source, target]) = self.sources.get_two_mut(from, to) else { return true };
        let Some(entry) = self.table.get_mut(op) else { return true };
        let Some(call) = entry.call_mut() else { return true };
        match io.attempt_splice(call, &mut source.mode, &mut target.mode) {
            Ok(result) => {
                if matches!(result, CallResult::Moved(1..)) {
                    self.note_spliced(from, |its| its.to = Some(to));
                }
                self.on_result(op, result, io);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => self.on_error(op, error, io),
        }
        true
    }

    /// Awaits the side that is not ready. Returns false if both seem ready.
    pub(super) fn await_either(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        let Some(entry) = self.table.get(op) else { return true };
        let (Some((from, _)), Some((to, _))) = (entry.source, entry.target()) else { return true };
        // The directions of the call, even if a file with a position has one queue for both.
        let dirs = [Interest::READABLE, Interest::WRITABLE];
        let bits = io.poll_both([(from, dirs[0]), (to, dirs[1])]);
        let side = match [0, 1].map(|at| bits[at].ready(dirs[at]).is_empty()) {
            [true, _] => Side::Source,
            [false, true] => Side::Target,
            [false, false] => return false,
        };
        self.note_spliced(from, |its| its.awaited = Some(side));
        self.await_ready(op, side, io);
        true
    }

    fn files_to_splice(
        &mut self,
        from: Slot,
        to: Slot,
        io: &mut impl Io,
    ) -> io::Result<Vec<SourceFd>> {
        let mut files = Vec::with_capacity(2);
        for slot in [from, to] {
            let Some(source) = self.sources.get_mut(slot) else { continue };
            io.prepare_to_splice(slot, &mut source.mode)?;
            files.extend(io.file(slot).cloned());
        }
        Ok(files)
    }
}
