//! Moving bytes from one source to another, which may both make it wait.

use super::Reactor;
use super::emulate::look;
use super::ops::Lane;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::selector::Selector;
use crate::sys::file::Held;
use std::io;

/// How often in a row it is tried while both seem ready.
const MOST_TRIES: usize = 3;

impl<S: Selector> Reactor<S> {
    /// Tries a splice, if it is its turn with both. Gives whether it is over.
    pub(super) fn attempt_splice(&mut self, op: OpSlot) -> bool {
        let Some(operation) = self.ops.get(op) else { return false };
        let (Some(from), Some(to)) = (operation.place, operation.second) else { return false };
        let is_first = |(source, lane): (Slot, Lane)| {
            self.registry.work(source).and_then(|work| work.head(lane)) == Some(op)
        };
        if !is_first(from) || !is_first(to) || self.is_connecting(from.0) {
            return false;
        }
        if self.splices_a_disk(from.0, to.0) {
            return self.splice_elsewhere(op, from.0, to.0);
        }
        for _ in 0..MOST_TRIES {
            if let Some(is_over) = self.splice_once(op, from.0, to.0) {
                return is_over;
            }
            if self.park_splice(op) {
                return false;
            }
        }
        // Their readiness says nothing about this call.
        self.pause(op);
        false
    }

    /// Has a splice that would block wait for the one that is not ready. False if both seem so.
    pub(super) fn park_splice(&mut self, op: OpSlot) -> bool {
        let Some(operation) = self.ops.get(op) else { return false };
        let (Some(from), Some(to)) = (operation.place, operation.second) else { return false };
        let Some((source, lane)) = self.first_to_wait_for(from, to) else { return false };
        self.park(op, source, lane);
        true
    }

    /// Which of the two is not ready.
    fn first_to_wait_for(&self, from: (Slot, Lane), to: (Slot, Lane)) -> Option<(Slot, Lane)> {
        let is_ready = |source: Slot, dir: Interest| {
            let registration = self.registry.get(source);
            registration.is_none_or(|its| !look(&its.source, dir).ready(dir).is_empty())
        };
        if !is_ready(from.0, Interest::READABLE) {
            return Some(from);
        }
        (!is_ready(to.0, Interest::WRITABLE)).then_some(to)
    }

    fn splices_a_disk(&self, from: Slot, to: Slot) -> bool {
        let works = [from, to].map(|source| self.registry.work(source));
        works.into_iter().flatten().any(|work| work.manner.has_position())
    }

    /// Gives whether it is over: it has failed at once.
    fn splice_elsewhere(&mut self, op: OpSlot, from: Slot, to: Slot) -> bool {
        let Some(prepared) = self.ops.take(op) else { return false };
        match self.files_to_splice(from, to) {
            Ok(files) => {
                self.send_to_thread(op, prepared, files);
                false
            }
            Err(error) => {
                self.end(op, Some(prepared), Err(error));
                true
            }
        }
    }

    fn files_to_splice(&mut self, from: Slot, to: Slot) -> io::Result<Vec<Held>> {
        let mut files = Vec::with_capacity(2);
        for source in [from, to] {
            let Some(registration) = self.registry.get_mut(source) else { continue };
            if let Some(work) = &mut registration.work {
                work.manner.prepare_to_splice(registration.source.number())?;
            }
            files.push(registration.source.clone());
        }
        Ok(files)
    }

    /// `None` if it would block.
    fn splice_once(&mut self, op: OpSlot, from: Slot, to: Slot) -> Option<bool> {
        let mut target = self.registry.get_mut(to)?.work.take()?;
        let source = self.registry.work_mut(from);
        let tried = source.zip(self.ops.take(op)).map(|(source, mut prepared)| {
            let tried = prepared.attempt_splice(&mut source.manner, &mut target.manner);
            (prepared, tried)
        });
        self.registry.get_mut(to)?.work = Some(target);
        let (prepared, tried) = tried?;
        match tried {
            Ok(gain) => self.note_gain(op, prepared, gain).is_none().then_some(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ops.put_back(op, prepared);
                None
            }
            Err(mut error) => {
                self.pass_on_reset(to, prepared.call(), &mut error);
                self.end(op, Some(prepared), Err(error));
                Some(true)
            }
        }
    }
}
