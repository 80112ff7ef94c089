//! Operations, for all backends alike: admission, order, loops, cancel, deadlines, completions.
//!
//! Of one source one operation is at work in each lane; the others stand behind it (C3). The one at
//! work is the mechanism's, if that has operations; else it is tried, and parks until the file is
//! ready (`emulate.rs`). [`Reactor::stop`] serves all that ends an operation early.

mod lane;
mod table;

use super::Reactor;
use crate::address::Address;
use crate::event::{Events, Interest, PollBits, Token};
use crate::key::{OpSlot, Slot};
use crate::op::{Amount, Completion, Kind, Op, OpId, Outcome, Rejected};
use crate::selector::{Landed, Selector, Start};
use crate::sys::buf::Buf;
use crate::sys::prepared::{Call, Gain, Prepared, shutdown};
pub(super) use lane::{Lane, Work};
use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};
pub(super) use table::Ops;
use table::{Operation, Over, State, Stop};

/// What a kind of operation is to the kernel, and the order in which it stands.
fn call_of(kind: Kind, is_socket: bool) -> Option<(Call, Lane)> {
    Some(match kind {
        Kind::Accept => (Call::Accept, Lane::Read),
        Kind::Recv | Kind::RecvExact => (Call::Recv, Lane::Read),
        Kind::RecvFrom => (Call::RecvFrom, Lane::Read),
        // What read(2) and write(2) do to a socket, and these have flags.
        Kind::Read if is_socket => (Call::Recv, Lane::Read),
        Kind::Read => (Call::Read, Lane::Read),
        Kind::Connect => (Call::Connect, Lane::Write),
        Kind::Send | Kind::SendAll => (Call::Send, Lane::Write),
        Kind::SendTo => (Call::SendTo, Lane::Write),
        Kind::Write if is_socket => (Call::Send, Lane::Write),
        Kind::Write => (Call::Write, Lane::Write),
        Kind::Shutdown(_) | Kind::Timeout(_) | Kind::Nop => return None,
    })
}

fn lane_of(kind: Kind) -> Lane {
    match kind {
        Kind::Shutdown(Shutdown::Read) => Lane::Read,
        Kind::Shutdown(Shutdown::Write | Shutdown::Both) => Lane::Write,
        kind => call_of(kind, false).map_or(Lane::Read, |(_, lane)| lane),
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// The moment after this much time, unless that is beyond the clock.
fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

impl<S: Selector> Reactor<S> {
    pub(super) fn submit_op(&mut self, mut op: Op, token: Token) -> Result<OpId, Rejected> {
        let (place, state) = match self.admit(&mut op) {
            Ok(admitted) => admitted,
            Err(error) => return Err(Rejected::new(op, error)),
        };
        let slot = self.ops.insert(Operation::new(token, op.kind, place, state));
        self.ops.set_due(slot, op.deadline.and_then(after));
        match (op.kind, place) {
            (Kind::Nop, _) => self.end(slot, None, Ok(Outcome::Done)),
            (Kind::Timeout(time), _) => self.ops.set_retry(slot, after(time)),
            // Nothing that waits is to hold it up.
            (Kind::Shutdown(Shutdown::Read), Some((source, _))) => {
                self.shut_down(slot, source, Shutdown::Read);
            }
            (_, Some((source, lane))) => {
                let work = self.registry.work_mut(source);
                let order = self.ops.get(slot).map_or(0, |operation| operation.order);
                let dir = lane_of(op.kind).dir();
                if work.is_some_and(|work| work.push(lane, slot, order, dir)) {
                    self.run_lane(source, lane);
                }
            }
            (_, None) => {}
        }
        Ok(OpId { poller: self.id, slot })
    }

    /// Clauses P1, R4, M1 and C5.
    fn admit(&mut self, op: &mut Op) -> io::Result<(Option<(Slot, Lane)>, State)> {
        self.check_process()?;
        let Some(key) = op.key else { return Ok((None, State::Timing)) };
        let slot = self.resolve(key)?;
        let part = match op.amount {
            Amount::Nothing => (0, 0),
            Amount::In(0) => return Err(invalid("nothing is to be received")),
            Amount::In(most) => (0, most),
            Amount::Out(ref range) if range.start > range.end => {
                return Err(invalid("the range ends before it begins"));
            }
            Amount::Out(ref range) => (range.start, range.len()),
        };
        let name = op.to.as_ref().map(Address::to_name).transpose()?;
        let Some(registration) = self.registry.get_mut(slot) else {
            return Err(invalid("the registration has gone"));
        };
        if registration.latch.interest().intersects(lane_of(op.kind).dir()) {
            return Err(invalid("the source is watched for what the operation would wait for"));
        }
        let (work, fd) = registration.work()?;
        let manner = &work.manner;
        // Reading and writing share the file's position.
        let lane = if manner.has_position() { Lane::Read } else { lane_of(op.kind) };
        let state = match (op.kind, call_of(op.kind, manner.is_socket())) {
            (Kind::Shutdown(how), _) => State::ShuttingDown(how),
            (_, Some((call, _))) => {
                let buf = std::mem::take(&mut op.buf);
                match Prepared::new(fd, call, buf, part, name) {
                    Ok(prepared) => State::Here(prepared),
                    Err((error, buf)) => {
                        op.buf = buf;
                        return Err(error);
                    }
                }
            }
            (_, None) => State::Timing,
        };
        Ok((Some((slot, lane)), state))
    }

    pub(super) fn cancel_op(&mut self, id: OpId) -> io::Result<()> {
        self.check_process()?;
        if id.poller != self.id || self.ops.get_mut(id.slot).is_none() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such operation is under way"));
        }
        self.stop(id.slot, Stop::Canceled);
        Ok(())
    }

    /// Sets the first of a lane to work, and those behind it while they are over at once.
    pub(super) fn run_lane(&mut self, source: Slot, lane: Lane) {
        while let Some(op) = self.registry.work_mut(source).and_then(|work| work.head(lane)) {
            if !self.begin(op, source, lane) {
                break;
            }
        }
        if lane == Lane::Write && self.has_waited_for_connect(source) {
            self.run_lane(source, Lane::Read);
        }
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
        let is_idle = matches!(operation.state, State::Here(_)) && !operation.is_paused();
        is_idle && !work.park.parked().contains(Lane::Read.dir()) && !self.is_connecting(source)
    }

    /// Sets an operation to work. Gives whether it is over already.
    fn begin(&mut self, op: OpSlot, source: Slot, lane: Lane) -> bool {
        let Some(operation) = self.ops.get_mut(op) else { return false };
        if let State::ShuttingDown(how) = operation.state {
            self.shut_down(op, source, how);
            return true;
        }
        let is_emulated = operation.is_emulated || self.is_for_emulation(source, lane);
        let Some(prepared) = self.ops.take(op) else { return false };
        let work = self.registry.work_mut(source);
        let is_suited = work.is_some_and(|work| prepared.suits_a_ring(&work.manner));
        if is_emulated || !is_suited {
            self.ops.put_back(op, prepared);
            return self.attempt(op, source, lane, None);
        }
        match self.selector.start(op, prepared) {
            Start::Emulate(prepared) => {
                self.ops.put_back(op, prepared);
                self.attempt(op, source, lane, None)
            }
            Start::Native => {
                self.has_begun = true;
                if let Some(operation) = self.ops.get_mut(op) {
                    operation.state = State::InKernel;
                }
                false
            }
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
            self.absorb();
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
        if let Some((source, lane)) = operation.place {
            if let Some(work) = self.registry.work_mut(source) {
                work.remove(lane, op, operation.order);
            }
        }
        let transferred = prepared.as_ref().map_or(0, Prepared::moved);
        let buf = prepared.map_or(Buf::None, Prepared::into_buf);
        self.ops.end(op, Over { transferred, result, buf });
    }

    /// A call has brought something. Gives the operation back if it is to go on.
    pub(super) fn note_gain(
        &mut self,
        op: OpSlot,
        prepared: Prepared,
        gain: Gain,
    ) -> Option<Prepared> {
        let operation = self.ops.get_mut(op)?;
        let (kind, stop) = (operation.kind, operation.stop);
        let is_whole = !matches!(kind, Kind::RecvExact | Kind::SendAll) || prepared.left() == 0;
        let peer = || Address::from_name(prepared.name());
        let result = match gain {
            Gain::Accepted(socket) => Ok(Outcome::Accepted { socket, peer: peer() }),
            Gain::Moved(_) if kind == Kind::RecvFrom => Ok(Outcome::Received { from: peer() }),
            Gain::Connected => Ok(Outcome::Done),
            Gain::Moved(_) if is_whole => Ok(Outcome::Done),
            Gain::Moved(0) if kind == Kind::RecvExact => Err(io::ErrorKind::UnexpectedEof.into()),
            Gain::Moved(0) => Err(io::ErrorKind::WriteZero.into()),
            Gain::Moved(_) => match stop {
                None => return Some(prepared),
                Some(why) => Err(why.error()),
            },
        };
        self.end(op, Some(prepared), result);
        None
    }

    /// Takes note of the operations that have ended in the kernel.
    pub(super) fn absorb(&mut self) {
        let mut landed = std::mem::take(&mut self.landed);
        self.selector.take(&mut landed);
        self.tell_resets_to_readers(&mut landed);
        for Landed { op, prepared, result } in landed.drain(..) {
            let Some(operation) = self.ops.get_mut(op) else { continue };
            let place = operation.place;
            self.land(op, prepared, result);
            if let Some((source, lane)) = place {
                self.run_lane(source, lane);
            }
        }
        self.landed = landed;
    }

    /// The kernel tells of a reset once, and if both wait it is the writer who hears of it. To the
    /// reader it would be the end of the stream.
    fn tell_resets_to_readers(&mut self, landed: &mut [Landed]) {
        let is_end = |landed: &Landed| {
            landed.prepared.call() == Call::Recv && matches!(landed.result, Ok(Gain::Moved(0)))
        };
        let is_reset = |landed: &Landed| {
            let error = landed.result.as_ref().err().and_then(io::Error::raw_os_error);
            landed.prepared.call() == Call::Send && error == Some(libc::ECONNRESET)
        };
        for writer in 0..landed.len() {
            if !is_reset(&landed[writer]) {
                continue;
            }
            let source = self.source_of(landed[writer].op);
            let work = source.and_then(|source| self.registry.work_mut(source));
            if !work.is_some_and(|work| work.manner.is_stream()) {
                continue;
            }
            let ended = |landed: &Landed| is_end(landed) && self.source_of(landed.op) == source;
            if let Some(reader) = landed.iter().position(ended) {
                landed[writer].result = Err(io::Error::from_raw_os_error(libc::EPIPE));
                landed[reader].result = Err(io::Error::from_raw_os_error(libc::ECONNRESET));
            }
        }
    }

    fn source_of(&self, op: OpSlot) -> Option<Slot> {
        self.ops.get(op)?.place.map(|(source, _)| source)
    }

    fn land(&mut self, op: OpSlot, mut prepared: Prepared, result: io::Result<Gain>) {
        let error = match result {
            Ok(gain) => {
                if let Some(prepared) = self.note_gain(op, prepared, gain) {
                    self.ops.put_back(op, prepared);
                }
                return;
            }
            Err(error) => error,
        };
        let Some(operation) = self.ops.get_mut(op) else { return };
        let is_canceled = error.raw_os_error() == Some(libc::ECANCELED);
        match operation.stop {
            Some(why) if is_canceled || is_unfinished(&error) => {
                self.end(op, Some(prepared), Err(why.error()));
            }
            // Not by us: the kernel could not have it done, or knows no such flag.
            None if is_canceled || is_unfinished(&error) || is_unknown(&error, &prepared) => {
                operation.is_emulated = error.kind() != io::ErrorKind::Interrupted;
                prepared.note_begun();
                self.ops.put_back(op, prepared);
            }
            _ => self.end(op, Some(prepared), Err(error)),
        }
    }

    /// Ends an operation before it is done. The one in the kernel ends when the kernel says so.
    fn stop(&mut self, op: OpSlot, why: Stop) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        match operation.state {
            State::Over(_) => {}
            State::InKernel => {
                operation.stop.get_or_insert(why);
                self.selector.cancel(op);
            }
            _ => {
                let place = operation.place;
                let is_first = |(source, lane): &(Slot, Lane)| {
                    let work = self.registry.work_mut(*source);
                    work.is_some_and(|work| work.head(*lane) == Some(op))
                };
                let lane = place.filter(is_first);
                let prepared = self.ops.take(op);
                self.end(op, prepared, Err(why.error()));
                if let Some((source, lane)) = lane {
                    self.run_lane(source, lane);
                }
            }
        }
    }

    /// Stops what is due, and tries again what paused.
    pub(super) fn run_timers(&mut self) {
        let Some(due) = self.ops.next_due() else { return };
        let now = Instant::now();
        if due > now {
            return;
        }
        while let Some(op) = self.ops.pop_expired(now) {
            self.stop(op, Stop::TimedOut);
        }
        while let Some(op) = self.ops.pop_retry(now) {
            self.try_again(op);
        }
    }

    fn try_again(&mut self, op: OpSlot) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        match operation.place {
            None => self.end(op, None, Ok(Outcome::Done)),
            Some((source, lane)) => {
                if self.attempt(op, source, lane, Some(PollBits::empty())) {
                    self.run_lane(source, lane);
                }
            }
        }
    }

    /// Ends all operations of a source that is about to go: in the order of their submission, but
    /// for those that the kernel can't interrupt.
    pub(super) fn abandon(&mut self, source: Slot) {
        let Some(registration) = self.registry.get_mut(source) else { return };
        // Whoever ends from now on is followed by nobody.
        let Some(mut work) = registration.work.take() else { return };
        let held = registration.source.clone();
        let mut ops = work.all();
        let over = self.ops.over_length();
        let mut in_kernel = Vec::new();
        for &op in &ops {
            let Some(operation) = self.ops.get_mut(op) else { continue };
            if operation.is_in_kernel() {
                operation.stop.get_or_insert(Stop::Canceled);
                in_kernel.push(op);
            }
        }
        if !in_kernel.is_empty() {
            self.selector.settle(&in_kernel);
            self.absorb();
        }
        ops.sort_by_key(|&op| self.ops.get_mut(op).map(|operation| operation.order));
        for op in self.ops.split_over(over) {
            if !ops.contains(&op) {
                self.ops.queue_over(op);
            }
        }
        for op in ops {
            let Some(operation) = self.ops.get_mut(op) else { continue };
            match operation.state {
                State::Over(_) => self.ops.queue_over(op),
                State::InKernel => operation.source = Some(held.clone()),
                _ => {
                    let prepared = self.ops.take(op);
                    self.end(op, prepared, Err(Stop::Canceled.error()));
                }
            }
        }
        work.manner.restore(held.number());
    }

    /// Hands over the completions, up to the capacity.
    pub(super) fn deliver_completions(&mut self, events: &mut Events) {
        while events.completion_room() > 0 {
            let Some((slot, operation)) = self.ops.pop_over() else { break };
            let Operation { token, state, source, .. } = operation;
            if let State::Over(Over { transferred, result, buf }) = state {
                let id = OpId { poller: self.id, slot };
                events.complete(Completion { token, id, transferred, result, buf, more: false });
            }
            // Last, because this may run the user's Drop, which may panic.
            drop(source);
        }
    }
}

/// Whether the call has done nothing, and is to be made again.
fn is_unfinished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether the kernel does not know how to do it without a signal.
fn is_unknown(error: &io::Error, prepared: &Prepared) -> bool {
    prepared.call() == Call::Write && error.raw_os_error() == Some(libc::EOPNOTSUPP)
}
