//! A mechanism that has operations, and does with them whatever a kernel may do: it lets them wait,
//! moves less than it could, gives them back unfinished, brings many results of one, says of any
//! that it is the last, has no buffers, and answers a cancel late or never.

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

/// Numbers that look random, and are the same in every run of the same case.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Below `sides`.
    pub(super) fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % sides
    }
}

/// An operation that the kernel has.
pub(super) struct Taken {
    pub(super) op: OpSlot,
    pub(super) work: Work,
    is_asked_to_end: bool,
    /// It can't be interrupted.
    pub(super) is_stubborn: bool,
}

impl Taken {
    /// Where it stands in line, if it does.
    fn lane(&self) -> Option<(RawFd, bool)> {
        let (number, call, _) = self.work.wanted();
        match call {
            Call::ReadAt(_) | Call::WriteAt(_) | Call::Sync { .. } | Call::Open => None,
            Call::Accept | Call::AcceptMulti | Call::RecvMulti => Some((number, true)),
            call => Some((number, call.receives())),
        }
    }
}

/// How an operation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As the call ends for at most so many bytes; if it would block, not yet. One that goes on
    /// brings one result by this.
    Real(usize),
    WouldBlock,
    Interrupted,
    Canceled,
    /// Of one that goes on: the kernel does not know how.
    Unknown,
}

/// The test's side of it.
pub(super) struct World {
    pub(super) taken: Vec<Taken>,
    landed: Vec<OpEvent>,
    pub(super) dice: Dice,
    /// Of a hundred operations it leaves so many to the reactor.
    pub(super) emulated: u64,
    /// Of a hundred it can't interrupt so many.
    pub(super) stubborn: u64,
    /// Who is to be accepted.
    pub(super) arrived: VecDeque<OwnedFd>,
    /// Of a hundred results of those that go on so many are the last.
    pub(super) cut: u64,
    /// Those that ended while somebody waited for that.
    pub(super) settled: Vec<OpSlot>,
    /// What it was asked to stop, in the order of asking.
    pub(super) asked: Vec<OpSlot>,
    /// How often it was given an operation.
    pub(super) starts: usize,
}

impl World {
    pub(super) fn has(&self, op: OpSlot) -> bool {
        self.taken.iter().any(|taken| taken.op == op)
    }

    /// Lets go of everything, as a mechanism does that goes.
    pub(super) fn forget(&mut self) {
        self.taken.clear();
        self.landed.clear();
    }

    /// Ends the one at this place, if it can end so now. Gives whether it did.
    pub(super) fn end(&mut self, at: usize, end: End) -> bool {
        let taken = &mut self.taken[at];
        let is_multi = taken.work.call().is_multi();
        let result = match end {
            End::Real(_) if taken.work.call() == Call::AcceptMulti => {
                let Some(socket) = self.arrived.pop_front() else { return false };
                Ok(CallResult::Accepted(socket))
            }
            End::Real(most) => match make(&mut taken.work, most) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                made => made,
            },
            End::Unknown if !is_multi => return false,
            End::WouldBlock => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            End::Interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
            End::Canceled => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            End::Unknown => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let is_one = matches!(result, Ok(CallResult::Received(_) | CallResult::Accepted(_)));
        // Now and then there is no room to say that it goes on.
        if is_multi && is_one && self.dice.throw(100) >= self.cut {
            let op = taken.op;
            let gain = result.expect("it is one result");
            self.landed.push(OpEvent::Result { op, result: gain });
            return true;
        }
        let Taken { op, work, .. } = self.taken.swap_remove(at);
        self.landed.push(OpEvent::Completed { op, work, result });
        true
    }

    /// Ends one that was asked to, in one of the ways that there are.
    fn give_in(&mut self, at: usize) {
        let most = 1 + self.dice.throw(50) as usize;
        let op = self.taken[at].op;
        let end = match self.dice.throw(6) {
            0 => End::WouldBlock,
            1 => End::Interrupted,
            2 | 3 => End::Real(most),
            _ => End::Canceled,
        };
        self.end(at, end);
        // What goes on, or could not end so, is cut off.
        if self.taken.get(at).is_some_and(|taken| taken.op == op) {
            self.end(at, End::Canceled);
        }
    }

    fn position(&self, op: OpSlot) -> Option<usize> {
        self.taken.iter().position(|taken| taken.op == op)
    }

    /// Some of those that were asked to end do so now.
    fn let_some_end(&mut self) {
        let asked = self.taken.iter().filter(|taken| taken.is_asked_to_end && !taken.is_stubborn);
        let asked: Vec<_> = asked.map(|taken| taken.op).collect();
        for op in asked {
            if self.dice.throw(2) == 0 {
                self.position(op).into_iter().for_each(|at| self.give_in(at));
            }
        }
    }
}

/// The work, for at most so many bytes.
fn make(work: &mut Work, most: usize) -> io::Result<CallResult> {
    match work {
        Work::Call(call) => make_call(call, most),
        Work::Receive { fd: number, pool } => receive_one(*number, pool),
    }
}

fn make_call(io_call: &mut IoCall, most: usize) -> io::Result<CallResult> {
    let (number, call, left) = io_call.wanted();
    let most = most.min(left);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match call {
        Call::Recv | Call::Read => {
            let mut bytes = vec![0; most];
            let count = recv(number, &mut bytes, flags)?;
            assert_eq!(io_call.receive(&bytes[..count]), count);
            Ok(CallResult::Moved(count))
        }
        Call::Send | Call::Write => {
            let count = send(number, &io_call.to_send()[..most], flags)?;
            io_call.note_sent(count);
            Ok(CallResult::Moved(count))
        }
        Call::ReadAt(_) | Call::WriteAt(_) | Call::Sync { .. } | Call::Open => {
            io_call.run_blocking()
        }
        call => panic!("{call:?} is not for this kernel"),
    }
}

/// A kernel takes a buffer when something comes, and also if that is the end.
fn receive_one(number: RawFd, pool: &BufferPool) -> io::Result<CallResult> {
    let Some(mut buf) = pool.take() else {
        return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    };
    let mut bytes = vec![0; pool.size()];
    let count = recv(number, &mut bytes, MsgFlags::MSG_DONTWAIT)?;
    buf.write_all(&bytes[..count])?;
    Ok(if count == 0 { CallResult::Moved(0) } else { CallResult::Received(buf) })
}

pub(super) struct Kernel {
    files: Epoll,
    native: Triggers,
    world: Rc<RefCell<World>>,
}

impl Kernel {
    /// Tells of readiness by one of these triggers; and the test's hold on it.
    pub(super) fn new(native: Triggers, seed: u64) -> (Self, Rc<RefCell<World>>) {
        let world = Rc::new(RefCell::new(World {
            taken: Vec::new(),
            landed: Vec::new(),
            dice: Dice(seed),
            emulated: 0,
            stubborn: 0,
            arrived: VecDeque::new(),
            cut: 25,
            settled: Vec::new(),
            asked: Vec::new(),
            starts: 0,
        }));
        (Kernel { files: Epoll::new().expect("epoll"), native, world: world.clone() }, world)
    }
}

impl Selector for Kernel {
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
        self.world.borrow_mut().let_some_end();
        let wake = self.files.wait(Deadline::Now, out)?;
        if !self.world.borrow().landed.is_empty() {
            return Ok(WaitOutcome::Events);
        }
        let sleeps = out.is_empty() && wake == WaitOutcome::TimedOut && !deadline.has_passed();
        assert!(!sleeps, "it would sleep until {deadline:?}");
        Ok(wake)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.files.wake_handle()
    }

    fn driver(&mut self) -> Option<&mut dyn OpDriver> {
        Some(self)
    }
}

impl OpDriver for Kernel {
    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work> {
        let mut world = self.world.borrow_mut();
        world.starts += 1;
        if world.dice.throw(100) < world.emulated {
            return Err(work);
        }
        let is_stubborn = world.dice.throw(100) < world.stubborn;
        let taken = Taken { op, work, is_asked_to_end: false, is_stubborn };
        assert!(!world.has(op), "it has that already");
        let lane = taken.lane();
        let is_free = lane.is_none() || world.taken.iter().all(|other| other.lane() != lane);
        assert!(is_free, "one at a time of a lane, or the kernel reverses them");
        world.taken.push(taken);
        Ok(())
    }

    fn cancel(&mut self, op: OpSlot) {
        let mut world = self.world.borrow_mut();
        world.asked.push(op);
        let Some(at) = world.position(op) else { return };
        world.taken[at].is_asked_to_end = true;
        if !world.taken[at].is_stubborn && world.dice.throw(3) == 0 {
            world.give_in(at);
        }
    }

    fn cancel_and_wait(&mut self, ops: &[OpSlot]) {
        let mut world = self.world.borrow_mut();
        for &op in ops {
            let Some(at) = world.position(op) else { continue };
            world.taken[at].is_asked_to_end = true;
            if !world.taken[at].is_stubborn {
                world.give_in(at);
                world.settled.push(op);
            }
        }
    }

    fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        out.append(&mut self.world.borrow_mut().landed);
    }
}
