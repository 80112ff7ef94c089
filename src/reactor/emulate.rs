//! Operations on mechanisms that have none: try, park until the file is ready, try again.

use super::Reactor;
use super::latch::Step;
use super::ops::Lane;
use crate::event::PollBits;
use crate::key::{OpSlot, Slot};
use crate::selector::{Selector, Trigger};
use crate::sys;
use crate::sys::file::Held;
use crate::sys::prepared::{Call, Gain};
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
        let mut moved = 0;
        for _ in 0..MOST_CALLS {
            let Some(registration) = self.registry.get_mut(source) else { return false };
            let by_level = registration.latch.by_level();
            let Ok((work, _)) = registration.work() else { return false };
            let Some(mut prepared) = self.ops.take(op) else { return false };
            if prepared.call() == Call::Recv && work.park.is_dry(lane.dir(), by_level) {
                self.ops.put_back(op, prepared);
                self.park(op, source, lane);
                return false;
            }
            let room = prepared.left();
            match prepared.attempt(&mut work.manner) {
                Ok(gain) => {
                    if let Gain::Moved(count) = gain {
                        if 0 < count && count < room && work.manner.is_drained_by_short_reads() {
                            work.park.note_dry(lane.dir());
                        }
                        moved += count;
                    }
                    match self.note_gain(op, prepared, gain) {
                        Some(prepared) => self.ops.put_back(op, prepared),
                        None => return true,
                    }
                    if moved > MOST_BYTES {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ops.put_back(op, prepared);
                    match found {
                        Some(_) => self.park_or_pause(op, source, lane),
                        None => self.park_and_look(op, source, lane),
                    }
                    return false;
                }
                Err(error) => {
                    self.end(op, Some(prepared), Err(error));
                    return true;
                }
            }
        }
        self.park(op, source, lane);
        self.registry.queue_look(source, lane.dir());
        false
    }

    /// Has the kernel tell when the lane's direction is ready.
    fn park(&mut self, op: OpSlot, source: Slot, lane: Lane) {
        if let Some(operation) = self.ops.get_mut(op) {
            operation.pause = Duration::ZERO;
        }
        let Some(registration) = self.registry.get_mut(source) else { return };
        let trigger = registration.latch.trigger();
        let Ok((work, _)) = registration.work() else { return };
        if work.park.park(lane.dir(), trigger) == Step::Arm {
            self.registry.note_lagging(source);
        }
    }

    /// A file may call itself writable and take nothing: an eventfd that would overflow, a datagram
    /// socket whose peer's queue is full. No edge will tell of that, so it has to be looked at.
    fn park_and_look(&mut self, op: OpSlot, source: Slot, lane: Lane) {
        self.park(op, source, lane);
        if lane == Lane::Write {
            self.registry.queue_look(source, lane.dir());
        }
    }

    /// The file was ready, but the call would block: somebody else was faster, or its readiness
    /// says nothing about this call, and would be reported for ever.
    fn park_or_pause(&mut self, op: OpSlot, source: Slot, lane: Lane) {
        let Some(registration) = self.registry.get_mut(source) else { return };
        if !is_ready(&registration.source, lane) {
            return self.park(op, source, lane);
        }
        let Some(operation) = self.ops.get_mut(op) else { return };
        operation.pause = (2 * operation.pause).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let retry = Instant::now() + operation.pause;
        self.ops.set_retry(op, Some(retry));
    }

    /// A source has been looked at: tries the operations that have waited for that.
    pub(super) fn serve(&mut self, source: Slot, bits: PollBits) {
        let Some(work) = self.registry.work_mut(source) else { return };
        let ready = bits.ready(work.park.watched());
        work.park.heard(ready);
        for lane in Lane::BOTH {
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
        if work.park.served(ready, by_level) == Step::Arm || is_used_up {
            self.registry.note_lagging(source);
        }
    }
}

/// Whether the lane's direction is ready now. If the kernel can't be asked, a pause does no harm.
fn is_ready(source: &Held, lane: Lane) -> bool {
    let events = PollBits::asked(lane.dir()).bits() as i16;
    let mut fds = [sys::poll::pollfd { fd: source.number(), events, revents: 0 }];
    match sys::poll::look(&mut fds) {
        Ok(_) => {
            let bits = PollBits::from_bits_retain(fds[0].revents as u16);
            !bits.ready(lane.dir()).is_empty()
        }
        Err(_) => true,
    }
}
