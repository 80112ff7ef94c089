//! What operations have come to in the kernel, or on a thread.

use super::super::Reactor;
use super::admission;
use super::lane::Lane;
use super::table::State;
use crate::key::{OpSlot, Slot};
use crate::selector::{Landed, Selector};
use crate::sys::file::Held;
use crate::sys::prepared::{Call, Gain, Prepared};
use std::io;

impl<S: Selector> Reactor<S> {
    /// Takes note of the operations that have come to something elsewhere.
    pub(in crate::reactor) fn absorb(&mut self) {
        let mut landed = std::mem::take(&mut self.landed);
        self.selector.take(&mut landed);
        self.tell_resets_to_readers(&mut landed);
        for landed in landed.drain(..) {
            match landed {
                Landed::One { op, gain } => _ = self.bring(op, gain),
                Landed::Over { op, prepared, result } => self.land(op, prepared, result),
            }
        }
        self.thread_pool.collect(&mut landed, &mut self.spent);
        for landed in landed.drain(..) {
            if let Landed::Over { op, prepared, result } = landed {
                self.land_from_thread(op, prepared, result);
            }
        }
        self.landed = landed;
    }

    /// The same outside of a wait, which may leave something for the next one to do.
    pub(in crate::reactor) fn absorb_early(&mut self) {
        self.absorb();
        if self.pools.have_grown() {
            self.notifier.wake_by_ref();
        }
    }

    /// The kernel tells of a reset once, and if both wait it is the writer who hears of it. The
    /// reader may have come to its end in the same turn.
    fn tell_resets_to_readers(&mut self, landed: &mut [Landed]) {
        for landed in landed {
            let Landed::Over { op, prepared, result: Err(error) } = landed else { continue };
            if let Some(source) = self.source_of(*op) {
                self.pass_on_reset(source, prepared.call(), error);
            }
        }
    }

    /// A call has failed. If it was a writer who was told of a reset, and somebody reads, that is
    /// for the reader to hear when he comes to the end, and the writer's is a broken pipe.
    pub(in crate::reactor) fn pass_on_reset(
        &mut self,
        source: Slot,
        call: Call,
        error: &mut io::Error,
    ) {
        if !call.is_send() || error.raw_os_error() != Some(libc::ECONNRESET) {
            return;
        }
        let Some(work) = self.registry.work(source).filter(|work| work.manner.is_stream()) else {
            return;
        };
        let reader = work.head(Lane::Read).and_then(|op| self.ops.get(op));
        if !reader.is_some_and(|reader| admission::receives(reader.kind)) {
            return;
        }
        if let Some(work) = self.registry.work_mut(source) {
            work.is_reset = true;
            *error = io::Error::from_raw_os_error(libc::EPIPE);
        }
    }

    fn source_of(&self, op: OpSlot) -> Option<Slot> {
        self.ops.get(op)?.place.map(|(source, _)| source)
    }

    /// An operation is out of the kernel: over, or to be gone on with.
    fn land(&mut self, op: OpSlot, prepared: Prepared, result: io::Result<Gain>) {
        let Some(place) = self.ops.get(op).map(|operation| operation.place) else { return };
        let is_short = result.as_ref().is_err_and(|error| is_shortage(error, &prepared));
        let left = match result {
            Ok(gain) => self.note_gain(op, prepared, gain),
            Err(error) => self.note_error(op, prepared, error),
        };
        if let Some(prepared) = left {
            self.ops.put_back(op, prepared);
            let most = self.most_untaken;
            if let Some(operation) = self.ops.get_mut(op) {
                operation.is_held_back = operation.untaken >= most;
            }
            if is_short {
                self.wait_for_buffer(op);
                self.pools.note_grown();
            }
        }
        match place {
            Some((source, Lane::Loose)) => {
                self.begin(op, source, Lane::Loose);
            }
            Some((source, lane)) => self.run_lane(source, lane),
            None => self.begin_anywhere(op),
        }
    }

    /// Gives the operation back if it is to go on.
    fn note_error(&mut self, op: OpSlot, prepared: Prepared, error: io::Error) -> Option<Prepared> {
        let operation = self.ops.get_mut(op)?;
        let is_canceled = error.raw_os_error() == Some(libc::ECANCELED);
        let is_short = is_shortage(&error, &prepared);
        let is_unfinished = is_canceled || is_short || is_unfinished(&error);
        match operation.stop {
            Some(why) if is_unfinished || is_unknown(&error, &prepared) => {
                self.end(op, Some(prepared), Err(why.error()));
                None
            }
            // Not by us: the kernel could not have it done, or knows no such flag.
            None if is_unfinished || is_unknown(&error, &prepared) => {
                let is_to_stay = is_short || (is_canceled && prepared.call().is_multi());
                operation.is_emulated |= !is_to_stay && error.kind() != io::ErrorKind::Interrupted;
                Some(prepared)
            }
            _ => {
                self.end(op, Some(prepared), Err(error));
                None
            }
        }
    }

    /// A thread is done with it. One that would block, as a few files with a position do, waits
    /// until its file is ready, or a little.
    fn land_from_thread(&mut self, op: OpSlot, prepared: Prepared, result: io::Result<Gain>) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        operation.is_emulated = true;
        match result {
            Err(error) if is_unfinished(&error) && operation.stop.is_none() => {
                let (place, is_splice) = (operation.place, operation.second.is_some());
                self.ops.put_back(op, prepared);
                match place {
                    Some(_) if is_splice => {
                        if !self.park_splice(op) {
                            self.pause(op);
                        }
                    }
                    Some((source, lane)) if lane != Lane::Loose => {
                        self.park_or_pause(op, source, lane, None);
                    }
                    _ => self.pause(op),
                }
            }
            result => self.land(op, prepared, result),
        }
    }

    /// Has the threads do an operation, which needs these files open.
    pub(in crate::reactor) fn send_to_thread(
        &mut self,
        op: OpSlot,
        prepared: Prepared,
        files: Vec<Held>,
    ) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        operation.state = State::OnThread;
        self.thread_pool.submit(op, prepared, files);
    }
}

/// Whether the call has done nothing, and is to be made again.
fn is_unfinished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether there was no buffer for what has come.
fn is_shortage(error: &io::Error, prepared: &Prepared) -> bool {
    prepared.pool().is_some() && error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Whether the kernel does not know how to do it without a signal, or more than once.
fn is_unknown(error: &io::Error, prepared: &Prepared) -> bool {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => prepared.call() == Call::Write,
        Some(libc::EINVAL) => prepared.call().is_multi(),
        _ => false,
    }
}
