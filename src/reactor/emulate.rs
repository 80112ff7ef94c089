//! Operations on mechanisms that have none: try, park until the file is ready, try again.

use super::Reactor;
use super::latch;
use super::ops::{Lane, Operation};
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::selector::{Selector, Trigger};
use crate::sys;
use crate::sys::file::Held;
use crate::sys::prepared::{Call, Gain, Prepared};
use std::io;
use std::time::{Duration, Instant};

/// How many calls an operation makes in one turn, lest a fast peer keeps all others waiting.
const MOST_CALLS: usize = 16;
/// After so many bytes it makes no more either.
const MOST_BYTES: usize = 1 << 20;
/// Pauses between two tries, where readiness says nothing.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl<S: Selector> Reactor<S> {
    /// Tries the first operation of a lane. `found` is what made us, if it is not its turn that
    /// did. Gives whether it is over; else it is parked.
    pub(super) fn attempt(
        &mut self,
        op: OpSlot,
        source: Slot,
        lane: Lane,
        found: Option<PollBits>,
    ) -> bool {
        if self.ops.get(op).is_some_and(|operation| operation.second.is_some()) {
            return self.attempt_splice(op);
        }
        if lane == Lane::Read && self.is_connecting(source) {
            return false;
        }
        let mut moved = 0;
        for _ in 0..MOST_CALLS {
            let is_enough = |operation: &Operation| operation.untaken >= self.most_untaken;
            if moved > MOST_BYTES || self.ops.get(op).is_some_and(is_enough) {
                break;
            }
            match self.attempt_once(op, source, lane, found.is_some()) {
                Step::Over => return true,
                Step::Waits => return false,
                Step::GoesOn(count) => moved += count,
            }
        }
        self.park(op, source, lane);
        self.registry.queue_look(source, lane.dir());
        false
    }

    fn attempt_once(&mut self, op: OpSlot, source: Slot, lane: Lane, was_found: bool) -> Step {
        if self.needs_no_try(op, source, lane) {
            return Step::Waits;
        }
        match self.equip(op) {
            Ok(true) => {}
            Ok(false) => {
                self.wait_for_buffer(op);
                return Step::Waits;
            }
            Err(error) => {
                let prepared = self.ops.take(op);
                self.end(op, prepared, Err(error));
                return Step::Over;
            }
        }
        let Some(work) = self.registry.work_mut(source) else { return Step::Waits };
        let Some(mut prepared) = self.ops.take(op) else { return Step::Waits };
        let left = prepared.left();
        match prepared.attempt(&mut work.manner) {
            Ok(gain) => {
                let (count, room) = match &gain {
                    Gain::Moved(count) => (*count, left),
                    Gain::Received(buf) => (buf.len(), buf.capacity()),
                    _ => (0, 0),
                };
                if 0 < count && count < room && work.manner.is_drained_by_short_reads() {
                    work.park.note_dry(lane.dir());
                }
                match self.note_gain(op, prepared, gain) {
                    Some(prepared) => self.ops.put_back(op, prepared),
                    None => return Step::Over,
                }
                Step::GoesOn(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match self.wait_for(op, prepared, source, lane, was_found) {
                    true => Step::Over,
                    false => Step::Waits,
                }
            }
            Err(error) => {
                self.fail(op, prepared, source, error);
                Step::Over
            }
        }
    }

    /// Whether an operation waits already, or would, which need not be tried.
    fn needs_no_try(&mut self, op: OpSlot, source: Slot, lane: Lane) -> bool {
        let Some(operation) = self.ops.get(op).filter(|its| !its.is_waiting) else { return true };
        let Some(call) = operation.prepared().map(Prepared::call) else { return true };
        let Some(registration) = self.registry.get_mut(source) else { return true };
        let by_level = registration.latch.by_level();
        let Ok((work, _)) = registration.work() else { return true };
        let may_be_dry = matches!(call, Call::Recv | Call::RecvMulti);
        let is_dry = may_be_dry && work.park.is_dry(lane.dir(), by_level);
        if is_dry {
            self.park(op, source, lane);
        }
        is_dry
    }

    /// The call would block. Gives whether the operation is over.
    pub(super) fn wait_for(
        &mut self,
        op: OpSlot,
        mut prepared: Prepared,
        source: Slot,
        lane: Lane,
        was_found: bool,
    ) -> bool {
        let Some(registration) = self.registry.get(source) else { return false };
        let Some(work) = registration.work.as_ref() else { return false };
        let is_message = !work.manner.is_stream() && work.manner.is_socket();
        let at_the_end = match prepared.call() {
            Call::Accept | Call::AcceptMulti => Some(AtTheEnd::Invalid),
            Call::Recv | Call::RecvMulti | Call::RecvFrom | Call::RecvMsg if is_message => {
                Some(AtTheEnd::Nothing)
            }
            _ => None,
        };
        if prepared.is_for_a_disk(&work.manner) {
            let held = registration.source.clone();
            self.send_to_thread(op, prepared, vec![held]);
            return false;
        }
        prepared.give_back_buffer();
        if prepared.pool().is_some() {
            // It was tried only because the mechanism had no buffers for it.
            match self.start_if_suited(op, prepared, source, lane) {
                Some(left) => prepared = left,
                None => return false,
            }
        }
        self.ops.put_back(op, prepared);
        if lane == Lane::Loose {
            self.pause(op);
            return false;
        }
        if was_found {
            return self.park_or_pause(op, source, lane, at_the_end);
        }
        self.park_and_look(op, source, lane, at_the_end);
        false
    }

    /// The call has failed.
    fn fail(&mut self, op: OpSlot, prepared: Prepared, source: Slot, mut error: io::Error) {
        self.pass_on_reset(source, prepared.call(), &mut error);
        self.end(op, Some(prepared), Err(error));
    }

    /// Has the kernel tell when the lane's direction is ready.
    pub(super) fn park(&mut self, op: OpSlot, source: Slot, lane: Lane) {
        if let Some(operation) = self.ops.get_mut(op) {
            operation.pause = Duration::ZERO;
        }
        let Some(registration) = self.registry.get_mut(source) else { return };
        let trigger = registration.latch.trigger();
        let Ok((work, _)) = registration.work() else { return };
        if work.park.park(lane.dir(), trigger) == latch::Step::Arm {
            self.registry.note_lagging(source);
        }
    }

    /// A file may call itself writable and take nothing: an eventfd that would overflow, a datagram
    /// socket whose peer's queue is full. Or readable, and give nothing: a datagram socket that is
    /// shut down. No edge will tell of these, so they have to be looked at.
    fn park_and_look(
        &mut self,
        op: OpSlot,
        source: Slot,
        lane: Lane,
        at_the_end: Option<AtTheEnd>,
    ) {
        self.park(op, source, lane);
        if lane == Lane::Write || at_the_end.is_some() {
            self.registry.queue_look(source, lane.dir());
        }
    }

    /// The file was ready, but the call would block: somebody else was faster, or its readiness
    /// says nothing about this call, and would be reported for ever. Gives whether it is over.
    pub(super) fn park_or_pause(
        &mut self,
        op: OpSlot,
        source: Slot,
        lane: Lane,
        at_the_end: Option<AtTheEnd>,
    ) -> bool {
        let Some(registration) = self.registry.get_mut(source) else { return false };
        let bits = look(&registration.source, lane.dir());
        if bits.ready(lane.dir()).is_empty() {
            self.park(op, source, lane);
            return false;
        }
        if let Some(end) = at_the_end.filter(|_| bits.contains(PollBits::RDHUP)) {
            return self.end_reading(op, end);
        }
        self.pause(op);
        false
    }

    /// Has it tried again after a while.
    pub(super) fn pause(&mut self, op: OpSlot) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        operation.pause = (2 * operation.pause).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let retry = Instant::now() + operation.pause;
        self.ops.set_retry(op, Some(retry));
    }

    /// Reading was shut down.
    fn end_reading(&mut self, op: OpSlot, end: AtTheEnd) -> bool {
        let Some(mut prepared) = self.ops.take(op) else { return false };
        match end {
            AtTheEnd::Invalid => {
                let error = io::Error::from_raw_os_error(libc::EINVAL);
                self.end(op, Some(prepared), Err(error));
                true
            }
            AtTheEnd::Nothing => {
                prepared.note_nothing();
                match self.note_gain(op, prepared, Gain::Moved(0)) {
                    None => true,
                    Some(prepared) => {
                        self.ops.put_back(op, prepared);
                        false
                    }
                }
            }
        }
    }

    /// A source has been looked at: tries the operations that have waited for that.
    pub(super) fn serve(&mut self, source: Slot, bits: PollBits) {
        let Some(work) = self.registry.work_mut(source) else { return };
        let ready = bits.ready(work.park.watched());
        work.park.heard(ready);
        // Of an error while connecting the connect is to be told.
        for lane in [Lane::Write, Lane::Read] {
            let Some(work) = self.registry.work_mut(source) else { return };
            if !(work.park.parked() & ready).contains(lane.dir()) {
                continue;
            }
            work.park.unpark(lane.dir());
            let Some(op) = work.head(lane) else { continue };
            if self.attempt(op, source, lane, Some(bits)) {
                self.run_lane(source, lane);
            }
        }
        let Some(registration) = self.registry.get_mut(source) else { return };
        let (trigger, by_level) = (registration.latch.trigger(), registration.latch.by_level());
        let Ok((work, _)) = registration.work() else { return };
        let is_used_up = trigger == Trigger::OneShot && !work.park.parked().is_empty();
        if work.park.served(ready, by_level) == latch::Step::Arm || is_used_up {
            self.registry.note_lagging(source);
        }
    }
}

/// What one try has come to.
enum Step {
    Over,
    /// It is to be tried again when something else has happened.
    Waits,
    /// It has moved so many bytes.
    GoesOn(usize),
}

/// What a call that waits is told when reading is shut down, where one that does not wait is told
/// to come again.
#[derive(Clone, Copy, Debug)]
pub(super) enum AtTheEnd {
    /// There is nothing.
    Nothing,
    /// `EINVAL`.
    Invalid,
}

/// What is true of a direction now. If the kernel can't be asked it is called ready: a
/// pause does no harm.
pub(super) fn look(source: &Held, dir: Interest) -> PollBits {
    let asked = PollBits::asked(dir);
    let mut fds =
        [sys::poll::pollfd { fd: source.number(), events: asked.bits() as i16, revents: 0 }];
    match sys::poll::look(&mut fds) {
        Ok(_) => PollBits::from_bits_retain(fds[0].revents as u16),
        Err(_) => asked - PollBits::RDHUP,
    }
}
