//! A driver that treats operations as any kernel may. It delays them, moves less than it could, and
//! returns them unfinished. It ends multishot operations at any result, has no buffers, and ignores
//! or delays a cancel.

use crate::key::{OpSlot, Slot};
use crate::selector::epoll::Epoll;
use crate::selector::{
    ArmOutcome, ArmRequest, Deadline, OpDriver, OpEvent, Report, Selector, Triggers, WaitOutcome,
    WakeHandle,
};
use crate::sys::io_call::{Call, CallResult, IoCall, Work};
use crate::sys::pool::BufferPool;
use nix::sys::socket::{MsgFlags, recv, send};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

/// Pseudo-random numbers, the same in every run of a case.
#[derive(Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// Returns a number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }
}

/// An operation that the kernel has.
pub(super) struct InFlightOp {
    pub(super) op: OpSlot,
    pub(super) work: Work,
    is_cancelled: bool,
    /// Cannot be interrupted.
    pub(super) is_uninterruptible: bool,
}

impl InFlightOp {
    /// Returns the operation's queue, if any.
    fn queue(&self) -> Option<(RawFd, bool)> {
        let (number, call, _) = self.work.wanted();
        match call {
            Call::ReadAt(_) | Call::WriteAt(_) | Call::Sync { .. } | Call::Open => None,
            Call::Accept | Call::AcceptMulti | Call::RecvMulti => Some((number, true)),
            call => Some((number, call.receives())),
        }
    }
}

/// The end of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Makes the call for at most this many bytes, unless it would block. A multishot operation
    /// gets one result.
    Real(usize),
    WouldBlock,
    Interrupted,
    Canceled,
    /// Only for multishot operations: not supported by the kernel.
    Unknown,
}

/// The test's handle to the kernel.
pub(super) struct KernelState {
    pub(super) in_flight: Vec<InFlightOp>,
    events: Vec<OpEvent>,
    pub(super) rng: Rng,
    /// The percentage of operations left to the reactor.
    pub(super) percent_emulated: u64,
    /// The percentage of operations that cannot be interrupted.
    pub(super) percent_uninterruptible: u64,
    /// The sockets to be accepted.
    pub(super) pending_accepts: VecDeque<OwnedFd>,
    /// The percentage of multishot results that are the last.
    pub(super) percent_last: u64,
    /// The operations ended by `cancel_and_wait`.
    pub(super) ended_in_wait: Vec<OpSlot>,
    /// The operations cancelled by the reactor, in order.
    pub(super) cancelled: Vec<OpSlot>,
    /// Counts the calls of `submit`.
    pub(super) starts: usize,
}

impl KernelState {
    pub(super) fn has(&self, op: OpSlot) -> bool {
        self.in_flight.iter().any(|in_flight| in_flight.op == op)
    }

    /// Drops everything, as a selector that is dropped.
    pub(super) fn clear(&mut self) {
        self.in_flight.clear();
        self.events.clear();
    }

    /// Ends the operation at this index. Returns false if it cannot end so now.
    pub(super) fn end(&mut self, at: usize, end: End) -> bool {
        let in_flight = &mut self.in_flight[at];
        let is_multi = in_flight.work.call().is_multi();
        let result = match end {
            End::Real(_) if in_flight.work.call() == Call::AcceptMulti => {
                let Some(socket) = self.pending_accepts.pop_front() else { return false };
                Ok(CallResult::Accepted(socket))
            }
            End::Real(max) => match run_blocking(&mut in_flight.work, max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                performed => performed,
            },
            End::Unknown if !is_multi => return false,
            End::WouldBlock => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            End::Interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
            End::Canceled => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            End::Unknown => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let is_one = matches!(result, Ok(CallResult::Received(_) | CallResult::Accepted(_)));
        // At times a multishot operation ends with a result.
        if is_multi && is_one && self.rng.below(100) >= self.percent_last {
            let op = in_flight.op;
            let result = result.expect("one result");
            self.events.push(OpEvent::Result { op, result });
            return true;
        }
        let InFlightOp { op, work, .. } = self.in_flight.swap_remove(at);
        self.events.push(OpEvent::Completed { op, work, result });
        true
    }

    /// Ends a cancelled operation in a random way.
    fn end_cancelled(&mut self, at: usize) {
        let max = 1 + self.rng.below(50) as usize;
        let op = self.in_flight[at].op;
        let end = match self.rng.below(6) {
            0 => End::WouldBlock,
            1 => End::Interrupted,
            2 | 3 => End::Real(max),
            _ => End::Canceled,
        };
        self.end(at, end);
        // A multishot operation, or one that could not end so, is cancelled.
        if self.in_flight.get(at).is_some_and(|in_flight| in_flight.op == op) {
            self.end(at, End::Canceled);
        }
    }

    fn position(&self, op: OpSlot) -> Option<usize> {
        self.in_flight.iter().position(|in_flight| in_flight.op == op)
    }

    /// Ends some of the cancelled operations.
    fn end_some_cancelled(&mut self) {
        let cancelled = self
            .in_flight
            .iter()
            .filter(|in_flight| in_flight.is_cancelled && !in_flight.is_uninterruptible);
        let cancelled: Vec<_> = cancelled.map(|in_flight| in_flight.op).collect();
        for op in cancelled {
            if self.rng.below(2) == 0 {
                self.position(op).into_iter().for_each(|at| self.end_cancelled(at));
            }
        }
    }
}

/// Performs the work for at most `max` bytes.
fn run_blocking(work: &mut Work, max: usize) -> io::Result<CallResult> {
    match work {
        Work::Call(call) => perform_call(call, max),
        Work::Receive { fd: number, pool } => receive_one(*number, pool),
    }
}

fn perform_call(io_call: &mut IoCall, max: usize) -> io::Result<CallResult> {
    let (number, call, left) = io_call.wanted();
    let max = max.min(left);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match call {
        Call::Recv | Call::Read => {
            let mut bytes = vec![0; max];
            let count = recv(number, &mut bytes, flags)?;
            assert_eq!(io_call.receive(&bytes[..count]), count);
            Ok(CallResult::Moved(count))
        }
        Call::Send | Call::Write => {
            let count = send(number, &io_call.to_send()[..max], flags)?;
            io_call.note_sent(count);
            Ok(CallResult::Moved(count))
        }
        Call::ReadAt(_) | Call::WriteAt(_) | Call::Sync { .. } | Call::Open => {
            io_call.run_blocking()
        }
        call => panic!("{call:?} is not supported by this kernel"),
    }
}

/// Receives into a buffer. The buffer is taken before the end of the stream is known.
fn receive_one(number: RawFd, pool: &BufferPool) -> io::Result<CallResult> {
    let Some(mut buf) = pool.take() else {
        return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    };
    let mut bytes = vec![0; pool.size()];
    let count = recv(number, &mut bytes, MsgFlags::MSG_DONTWAIT)?;
    buf.write_all(&bytes[..count])?;
    Ok(if count == 0 { CallResult::Moved(0) } else { CallResult::Received(buf) })
}

pub(super) struct FakeKernel {
    files: Epoll,
    native: Triggers,
    state: Rc<RefCell<KernelState>>,
}

impl FakeKernel {
    /// Returns a kernel with these triggers, and its state.
    pub(super) fn new(native: Triggers, seed: u64) -> (Self, Rc<RefCell<KernelState>>) {
        let state = Rc::new(RefCell::new(KernelState {
            in_flight: Vec::new(),
            events: Vec::new(),
            rng: Rng(seed),
            percent_emulated: 0,
            percent_uninterruptible: 0,
            pending_accepts: VecDeque::new(),
            percent_last: 25,
            ended_in_wait: Vec::new(),
            cancelled: Vec::new(),
            starts: 0,
        }));
        (FakeKernel { files: Epoll::new().expect("epoll"), native, state: state.clone() }, state)
    }
}

impl Selector for FakeKernel {
    fn native(&self) -> Triggers {
        self.native
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        self.files.arm(slot, fd, arm)
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.files.disarm(slot, fd);
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.files.remove(slot, fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        self.state.borrow_mut().end_some_cancelled();
        let wake = self.files.wait(Deadline::Now, out)?;
        if !self.state.borrow().events.is_empty() {
            return Ok(WaitOutcome::Events);
        }
        let would_sleep = out.is_empty() && wake == WaitOutcome::TimedOut && !deadline.has_passed();
        assert!(!would_sleep, "it would sleep until {deadline:?}");
        Ok(wake)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.files.wake_handle()
    }

    fn driver(&mut self) -> Option<&mut dyn OpDriver> {
        Some(self)
    }
}

impl OpDriver for FakeKernel {
    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work> {
        let mut state = self.state.borrow_mut();
        state.starts += 1;
        if state.rng.below(100) < state.percent_emulated {
            return Err(work);
        }
        let is_uninterruptible = state.rng.below(100) < state.percent_uninterruptible;
        let in_flight = InFlightOp { op, work, is_cancelled: false, is_uninterruptible };
        assert!(!state.has(op), "it has that operation already");
        let queue = in_flight.queue();
        let is_free = queue.is_none() || state.in_flight.iter().all(|other| other.queue() != queue);
        assert!(is_free, "one operation of a queue at a time, or they are reordered");
        state.in_flight.push(in_flight);
        Ok(())
    }

    fn cancel(&mut self, op: OpSlot) {
        let mut state = self.state.borrow_mut();
        state.cancelled.push(op);
        let Some(at) = state.position(op) else { return };
        state.in_flight[at].is_cancelled = true;
        if !state.in_flight[at].is_uninterruptible && state.rng.below(3) == 0 {
            state.end_cancelled(at);
        }
    }

    fn cancel_and_wait(&mut self, ops: &[OpSlot]) {
        let mut state = self.state.borrow_mut();
        for &op in ops {
            let Some(at) = state.position(op) else { continue };
            state.in_flight[at].is_cancelled = true;
            if !state.in_flight[at].is_uninterruptible {
                state.end_cancelled(at);
                state.ended_in_wait.push(op);
            }
        }
    }

    fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        out.append(&mut self.state.borrow_mut().events);
    }
}
