//! Moving bytes from one source to another, either of which may make it wait.

use super::entry::Side;
use super::io::Io;
use super::machine::Operations;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::sys::file::Held;
use std::io;

/// How often in a row a splice is attempted while both sources seem ready.
const MAX_ATTEMPTS: usize = 3;

impl Operations {
    /// Attempts a splice, which is at the head of both queues.
    pub(super) fn advance_splice(&mut self, op: OpSlot, io: &mut impl Io) {
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
        for _ in 0..MAX_ATTEMPTS {
            if self.splice_once(op, (from, to), io) || self.await_either(op, io) {
                return;
            }
        }
        // Their readiness says nothing about this call.
        self.pause(op, io);
    }

    /// Makes the call. Returns true unless it would block.
    fn splice_once(&mut self, op: OpSlot, (from, to): (Slot, Slot), io: &mut impl Io) -> bool {
        let Some([from, target]) = self.sources.get_two_mut(from, to) else { return true };
        let Some(entry) = self.table.get_mut(op) else { return true };
        let Some(call) = entry.call_mut() else { return true };
        match io.attempt_splice(call, &mut from.mode, &mut target.mode) {
            Ok(result) => _ = self.on_result(op, result, io),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => self.on_error(op, error, io),
        }
        true
    }

    /// Awaits the source that is not ready. Returns false if both seem ready.
    pub(super) fn await_either(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        let Some(entry) = self.table.get(op) else { return true };
        let sides = [(Side::Source, entry.source), (Side::Target, entry.target())];
        for (side, place) in sides {
            let Some((slot, queue)) = place else { continue };
            let Some(source) = self.sources.get(slot) else { continue };
            // Reading or writing, whatever queue a file with a position has for both.
            let dir = match side {
                Side::Source => Interest::READABLE,
                Side::Target => Interest::WRITABLE,
            };
            debug_assert!(queue.dir() == dir || source.mode.has_position());
            if io.poll_now(slot, dir).ready(dir).is_empty() {
                self.await_ready(op, side, io);
                return true;
            }
        }
        false
    }

    fn files_to_splice(&mut self, from: Slot, to: Slot, io: &mut impl Io) -> io::Result<Vec<Held>> {
        let mut files = Vec::with_capacity(2);
        for slot in [from, to] {
            let Some(source) = self.sources.get_mut(slot) else { continue };
            io.prepare_to_splice(slot, &mut source.mode)?;
            files.extend(io.file(slot).cloned());
        }
        Ok(files)
    }
}
