//! Operations, for all backends alike: order, loops, many results, completions.
//!
//! Of one source one operation is at work in each lane; the others stand behind it (C3). The one at
//! work is the mechanism's, if that has operations; else it is tried, and parks until the file is
//! ready (`emulate.rs`), or waits for a disk (`thread_pool.rs`).

mod admission;
mod ending;
mod landing;
mod lane;
mod table;

use super::Reactor;
use super::emulate::look;
use crate::event::{Events, Interest, Token};
use crate::key::{OpSlot, Slot};
use crate::op::{Address, Completion, Control, Kind, MessageFlags, Op, OpId, Outcome, Rejected};
use crate::poll_bits::PollBits;
use crate::selector::{Selector, Start};
use crate::sys::buf::Buf;
use crate::sys::file::{has_more, has_not_connected_again};
use crate::sys::pool::PoolBuf;
use crate::sys::prepared::{Gain, Prepared, Received, shutdown};
pub(super) use lane::{Lane, Work};
use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};
use table::{Delivery, Over, State};
pub(super) use table::{Operation, Ops};

/// Of many results no more are asked for while so many were not delivered: as many as one wait has
/// room for, within these bounds.
pub(super) const UNTAKEN: std::ops::RangeInclusive<usize> = 32..=256;

/// The moment after this much time, unless that is beyond the clock.
fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

impl<S: Selector> Reactor<S> {
    pub(super) fn submit_op(&mut self, mut op: Op, token: Token) -> Result<OpId, Rejected> {
        let admitted = match self.admit(&mut op) {
            Ok(admitted) => admitted,
            Err(error) => return Err(Rejected::new(op, error)),
        };
        let (place, second) = (admitted.place, admitted.second);
        let mut operation = Operation::new(token, op.kind, place, admitted.state);
        operation.second = second;
        let slot = self.ops.insert(operation);
        self.ops.set_due(slot, op.deadline.and_then(after));
        match (op.kind, place) {
            (Kind::Nop, _) => self.end(slot, None, Ok(Outcome::Done)),
            (Kind::Timeout(time), _) => self.ops.set_retry(slot, after(time)),
            // Nothing that waits is to hold it up.
            (Kind::Shutdown(Shutdown::Read), Some((source, _))) => {
                self.shut_down(slot, source, Shutdown::Read);
            }
            (_, Some((source, lane))) => self.line_up(slot, source, lane, op.kind),
            (_, None) => {
                self.begin_anywhere(slot);
            }
        }
        Ok(OpId { poller: self.id, slot })
    }

    /// Puts an operation in its lanes, and sets it to work if it is the first.
    fn line_up(&mut self, op: OpSlot, source: Slot, lane: Lane, kind: Kind) {
        let Some(operation) = self.ops.get(op) else { return };
        let (order, second) = (operation.order, operation.second);
        if let Some((target, lane)) = second {
            if let Some(work) = self.registry.work_mut(target) {
                work.push(lane, op, order, Interest::WRITABLE);
            }
        }
        let dir = admission::lane_of(kind).dir();
        let mut work = self.registry.work_mut(source);
        if let (Some(work), Kind::Connect) = (&mut work, kind) {
            // What was reset is another connection.
            work.is_reset = false;
        }
        if work.is_some_and(|work| work.push(lane, op, order, dir)) {
            match lane {
                Lane::Loose => _ = self.begin(op, source, lane),
                _ => self.run_lane(source, lane),
            }
        }
    }

    /// Sets the first of a lane to work, and those behind it while they are over at once.
    pub(super) fn run_lane(&mut self, source: Slot, lane: Lane) {
        self.run_one_lane(source, lane);
        self.run_successors();
    }

    fn run_one_lane(&mut self, source: Slot, lane: Lane) {
        while let Some(op) = self.registry.work_mut(source).and_then(|work| work.head(lane)) {
            if !self.begin(op, source, lane) {
                break;
            }
        }
        if lane == Lane::Write && self.has_waited_for_connect(source) {
            self.run_one_lane(source, Lane::Read);
        }
    }

    /// The same for lanes that somebody has left who stood in two. Whoever is at it does all of
    /// them: each may bring further ones.
    pub(super) fn run_successors(&mut self) {
        if self.successors.is_empty() || std::mem::replace(&mut self.runs_successors, true) {
            return;
        }
        while let Some((source, lane)) = self.successors.pop() {
            self.run_one_lane(source, lane);
        }
        self.runs_successors = false;
    }

    /// Whether the first to write is to make a connection. What is read before would take its error
    /// away.
    pub(super) fn is_connecting(&self, source: Slot) -> bool {
        let op = self.registry.work(source).and_then(|work| work.head(Lane::Write));
        op.and_then(|op| self.ops.get(op)).is_some_and(|operation| operation.kind == Kind::Connect)
    }

    /// Whether the first to read was held up by that, and is no longer.
    fn has_waited_for_connect(&self, source: Slot) -> bool {
        let Some(work) = self.registry.work(source) else { return false };
        let Some(operation) = work.head(Lane::Read).and_then(|op| self.ops.get(op)) else {
            return false;
        };
        let is_idle = matches!(operation.state, State::Here(_))
            && !operation.is_paused()
            && !operation.is_waiting;
        is_idle && !work.park.parked().contains(Lane::Read.dir()) && !self.is_connecting(source)
    }

    /// Sets an operation to work. Gives whether it is over already.
    pub(super) fn begin(&mut self, op: OpSlot, source: Slot, lane: Lane) -> bool {
        let Some(operation) = self.ops.get_mut(op) else { return false };
        if let State::ShuttingDown(how) = operation.state {
            self.shut_down(op, source, how);
            return true;
        }
        if operation.is_waiting || operation.is_held_back {
            return false;
        }
        if lane == Lane::Read && self.is_connecting(source) {
            return false;
        }
        let Some(prepared) = self.ops.take(op) else { return false };
        match self.start_if_suited(op, prepared, source, lane) {
            Some(prepared) => {
                self.ops.put_back(op, prepared);
                self.attempt(op, source, lane, None)
            }
            None => false,
        }
    }

    /// Hands an operation to the mechanism, unless it is the reactor's, or becomes so.
    pub(super) fn start_if_suited(
        &mut self,
        op: OpSlot,
        prepared: Prepared,
        source: Slot,
        lane: Lane,
    ) -> Option<Prepared> {
        let is_emulated = self.ops.get(op).is_none_or(|operation| operation.is_emulated);
        let work = self.registry.work(source);
        let is_suited = work.is_some_and(|work| prepared.suits_a_ring(&work.manner));
        match is_emulated || !is_suited || self.is_for_emulation(source, lane) {
            true => Some(prepared),
            false => self.start(op, prepared),
        }
    }

    /// Hands an operation to the mechanism, unless that gives it back.
    fn start(&mut self, op: OpSlot, prepared: Prepared) -> Option<Prepared> {
        match self.selector.start(op, prepared) {
            Start::Emulate(prepared) => Some(prepared),
            Start::Native => {
                self.has_begun = true;
                if let Some(operation) = self.ops.get_mut(op) {
                    operation.state = State::InKernel;
                }
                None
            }
        }
    }

    /// Sets an operation to work that needs no source: a thread does it.
    pub(super) fn begin_anywhere(&mut self, op: OpSlot) {
        if let Some(prepared) = self.ops.take(op) {
            self.send_to_thread(op, prepared, Vec::new());
        }
    }

    /// Whether a ring would spoil what the program watches for: a receive that waits there uses up
    /// an urgent byte that comes alone.
    fn is_for_emulation(&self, source: Slot, lane: Lane) -> bool {
        let registration = self.registry.get(source);
        let interest = registration.map_or(Interest::empty(), |its| its.latch.interest());
        lane == Lane::Read && interest.contains(Interest::PRIORITY)
    }

    /// A receive that the kernel has already, and is not to have by [`Reactor::is_for_emulation`],
    /// goes on here: a cancel that nobody has asked for has that effect.
    pub(super) fn take_back_reader(&mut self, source: Slot) {
        let work = self.registry.work(source);
        let Some(op) = work.and_then(|work| work.head(Lane::Read)) else { return };
        let is_in_kernel = self.ops.get(op).is_some_and(Operation::is_in_kernel);
        if is_in_kernel && self.is_for_emulation(source, Lane::Read) {
            self.selector.settle(&[op]);
            self.absorb_early();
        }
    }

    fn shut_down(&mut self, op: OpSlot, source: Slot, how: Shutdown) {
        let Some(registration) = self.registry.get_mut(source) else { return };
        let done = shutdown(registration.source.fd(), how);
        if done.is_ok() {
            // Where the mechanism says nothing of what the program does itself.
            self.registry.queue_hint(source);
        }
        self.end(op, None, done.map(|()| Outcome::Done));
    }

    /// An operation is over. Who stands behind it is for [`Reactor::run_lane`].
    pub(super) fn end(
        &mut self,
        op: OpSlot,
        prepared: Option<Prepared>,
        result: io::Result<Outcome>,
    ) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        let (place, second, order) = (operation.place, operation.second, operation.order);
        let has_waited = std::mem::take(&mut operation.is_waiting);
        if let Some(pool) = prepared.as_ref().and_then(Prepared::pool).filter(|_| has_waited) {
            self.leave_line(pool);
        }
        for (source, lane) in place.into_iter().chain(second) {
            if let Some(work) = self.registry.work_mut(source) {
                work.remove(lane, op, order);
            }
        }
        if second.is_some() {
            self.successors.extend(place.into_iter().chain(second));
        }
        let transferred = prepared.as_ref().map_or(0, Prepared::moved);
        let (buf, files) = prepared.map_or((Buf::None, Vec::new()), Prepared::into_parts);
        self.spent.extend(files);
        self.ops.end(op, Over::new(transferred, result, buf));
    }

    /// A call has brought something. Gives the operation back if it is to go on.
    pub(super) fn note_gain(
        &mut self,
        op: OpSlot,
        mut prepared: Prepared,
        gain: Gain,
    ) -> Option<Prepared> {
        let operation = self.ops.get_mut(op)?;
        let (kind, stop) = (operation.kind, operation.stop);
        let is_whole = !matches!(kind, Kind::RecvExact | Kind::SendAll) || prepared.left() == 0;
        let goes_on = || stop.map_or(Ok(()), |why| Err(why.error()));
        let from = || Address::from_name(prepared.name());
        let is_nothing = match &gain {
            Gain::Moved(0) => true,
            Gain::Received(buf) => buf.is_empty(),
            _ => false,
        };
        let is_end = is_nothing && prepared.call().is_recv();
        let result = match gain {
            _ if is_end && self.take_reset(op) => {
                Err(io::Error::from_raw_os_error(libc::ECONNRESET))
            }
            Gain::Accepted(_) | Gain::Received(_) if prepared.call().is_multi() => {
                match self.bring(op, gain) {
                    true => match goes_on() {
                        Ok(()) => return Some(prepared),
                        Err(error) => Err(error),
                    },
                    false => Ok(Outcome::Done),
                }
            }
            Gain::Accepted(socket) => Ok(Outcome::Accepted { socket, peer: from() }),
            Gain::Opened(file) => Ok(Outcome::Opened { file }),
            Gain::Moved(_) if kind == Kind::RecvFrom => Ok(Outcome::Received { from: from() }),
            Gain::Moved(_) if kind == Kind::RecvMsg => {
                let from = from();
                Ok(outcome_of_message(from, prepared.take_received()))
            }
            Gain::Connected | Gain::Done | Gain::Received(_) => Ok(Outcome::Done),
            Gain::Moved(_) if is_whole => Ok(Outcome::Done),
            Gain::Moved(0) if kind == Kind::RecvExact => Err(io::ErrorKind::UnexpectedEof.into()),
            Gain::Moved(0) => Err(io::ErrorKind::WriteZero.into()),
            Gain::Moved(_) => match goes_on() {
                Ok(()) => return Some(prepared),
                Err(error) => Err(error),
            },
        };
        self.end(op, Some(prepared), result);
        None
    }

    /// Whether this end of the stream is one that a writer has heard of.
    fn take_reset(&mut self, op: OpSlot) -> bool {
        let place = self.ops.get(op).and_then(|operation| operation.place);
        let Some(registration) = place.and_then(|(source, _)| self.registry.get_mut(source)) else {
            return false;
        };
        let work = registration.work.as_mut();
        let is_reset = work.is_some_and(|work| std::mem::take(&mut work.is_reset));
        is_reset && has_not_connected_again(registration.source.fd())
    }

    /// One of many results. False if it says that there will be no more.
    pub(super) fn bring(&mut self, op: OpSlot, gain: Gain) -> bool {
        let one = match gain {
            Gain::Accepted(socket) => {
                let outcome = Outcome::Accepted { socket, peer: None };
                Over::new(0, Ok(outcome), Buf::None)
            }
            Gain::Received(buf) if buf.is_empty() && self.is_at_end(op) => return false,
            Gain::Received(buf) => over_with(buf),
            _ => return false,
        };
        self.ops.bring(op, one);
        self.hold_back(op);
        true
    }

    /// While nobody takes what an operation brings, the mechanism is to bring no more of it.
    fn hold_back(&mut self, op: OpSlot) {
        let most = self.most_untaken;
        let Some(operation) = self.ops.get_mut(op) else { return };
        let is_too_much = operation.untaken >= most && operation.is_in_kernel();
        if is_too_much && !std::mem::replace(&mut operation.is_held_back, true) {
            self.selector.cancel(op);
        }
    }

    /// Some of it was taken.
    fn let_go_on(&mut self, op: OpSlot) {
        let most = self.most_untaken;
        let Some(operation) = self.ops.get_mut(op) else { return };
        let is_over = matches!(operation.state, State::Over(_));
        if operation.untaken >= most || is_over || operation.is_in_kernel() {
            return;
        }
        if std::mem::take(&mut operation.is_held_back) {
            if let Some((source, lane)) = operation.place {
                self.run_lane(source, lane);
            }
        }
    }

    /// Whether no bytes are the end, and not an empty datagram.
    fn is_at_end(&self, op: OpSlot) -> bool {
        let source = self.ops.get(op).and_then(|operation| operation.place);
        let Some(registration) = source.and_then(|(source, _)| self.registry.get(source)) else {
            return true;
        };
        match registration.work.as_ref().map(|work| &work.manner) {
            Some(manner) if manner.is_endless() => return false,
            Some(manner) if !manner.is_stream() => {}
            _ => return true,
        }
        // Of records without bytes only the last can't be told from the end.
        let has_ended = look(&registration.source, Interest::READABLE).contains(PollBits::RDHUP);
        has_ended && !has_more(registration.source.fd())
    }

    /// Hands over the completions, up to the capacity.
    pub(super) fn deliver_completions(&mut self, events: &mut Events) {
        while events.completion_room() > 0 {
            let Some(delivery) = self.ops.pop_over() else { break };
            let Delivery { op, token, over, more, held } = delivery;
            let transferred = over.transferred;
            let (result, buf) = over.into_result();
            let id = OpId { poller: self.id, slot: op };
            events.complete(Completion { token, id, transferred, result, buf, more });
            self.let_go_on(op);
            // Last, because this may run the user's Drop, which may panic.
            drop(held);
        }
    }
}

fn over_with(buf: PoolBuf) -> Over {
    Over::new(buf.len(), Ok(Outcome::Done), Buf::Pool(buf))
}

fn outcome_of_message(from: Option<Address>, mut received: Received) -> Outcome {
    let mut flags = MessageFlags::empty();
    for (bit, flag) in [
        (libc::MSG_TRUNC, MessageFlags::TRUNCATED),
        (libc::MSG_CTRUNC, MessageFlags::CONTROL_TRUNCATED),
        (libc::MSG_EOR, MessageFlags::END_OF_RECORD),
    ] {
        flags.set(flag, received.flags & bit != 0);
    }
    let files = received.take_files();
    let others = received.beside.others.into_iter();
    let control = others.map(|(level, kind, data)| Control { level, kind, data }).collect();
    Outcome::Message { from, files, control, flags }
}
