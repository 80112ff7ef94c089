//! A mechanism that has operations, and does with them whatever a kernel may do: it lets them wait,
//! moves less than it could, gives them back unfinished, and answers a cancel late or never.

use crate::key::{OpSlot, Slot};
use crate::selector::epoll::Epoll;
use crate::selector::{
    Applied, Arm, Deadline, Landed, Raw, Selector, Start, Triggers, Wake, WakeHandle,
};
use crate::sys::prepared::{Call, Gain, Prepared};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
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
    pub(super) prepared: Prepared,
    is_asked_to_end: bool,
    /// It can't be interrupted.
    pub(super) is_stubborn: bool,
}

impl Taken {
    fn lane(&self) -> (RawFd, bool) {
        let (number, call, _) = self.prepared.wanted();
        (number, matches!(call, Call::Recv | Call::Read | Call::RecvFrom | Call::Accept))
    }
}

/// How an operation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As the call ends for at most so many bytes; if it would block, not yet.
    Real(usize),
    WouldBlock,
    Interrupted,
    Canceled,
}

/// The test's side of it.
pub(super) struct World {
    pub(super) taken: Vec<Taken>,
    landed: Vec<Landed>,
    pub(super) dice: Dice,
    /// Of a hundred operations it leaves so many to the reactor.
    pub(super) emulated: u64,
    /// Of a hundred it can't interrupt so many.
    pub(super) stubborn: u64,
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

    /// Ends the one at this place, if it can end so now. Gives whether it did.
    pub(super) fn end(&mut self, at: usize, end: End) -> bool {
        let taken = &mut self.taken[at];
        let result = match end {
            End::Real(most) => match make(&mut taken.prepared, most) {
                Err(Errno::EWOULDBLOCK) => return false,
                made => made.map(Gain::Moved).map_err(io::Error::from),
            },
            End::WouldBlock => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            End::Interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
            End::Canceled => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
        };
        let Taken { op, prepared, .. } = self.taken.swap_remove(at);
        self.landed.push(Landed::Over { op, prepared, result });
        true
    }

    /// Ends one that was asked to, in one of the ways that there are.
    fn give_in(&mut self, at: usize) {
        let most = 1 + self.dice.throw(50) as usize;
        let end = match self.dice.throw(6) {
            0 => End::WouldBlock,
            1 => End::Interrupted,
            2 | 3 => End::Real(most),
            _ => End::Canceled,
        };
        if !self.end(at, end) {
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

/// The call, for at most so many bytes.
fn make(prepared: &mut Prepared, most: usize) -> Result<usize, Errno> {
    let (number, call, left) = prepared.wanted();
    let most = most.min(left);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match call {
        Call::Recv | Call::Read => {
            let mut bytes = vec![0; most];
            let count = recv(number, &mut bytes, flags)?;
            assert_eq!(prepared.receive(&bytes[..count]), count);
            Ok(count)
        }
        Call::Send | Call::Write => {
            let count = send(number, &prepared.to_send()[..most], flags)?;
            prepared.note_sent(count);
            Ok(count)
        }
        call => panic!("{call:?} is not for this kernel"),
    }
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

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: Arm) -> io::Result<Applied> {
        self.files.arm(slot, fd, arm)
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.files.disarm(slot, fd);
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.files.remove(slot, fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Raw>) -> io::Result<Wake> {
        self.world.borrow_mut().let_some_end();
        let wake = self.files.wait(Deadline::Now, out)?;
        if !self.world.borrow().landed.is_empty() {
            return Ok(Wake::Events);
        }
        let sleeps = out.is_empty() && wake == Wake::TimedOut && !deadline.has_passed();
        assert!(!sleeps, "it would sleep until {deadline:?}");
        Ok(wake)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.files.wake_handle()
    }

    fn has_operations(&self) -> bool {
        true
    }

    fn start(&mut self, op: OpSlot, prepared: Prepared) -> Start {
        let mut world = self.world.borrow_mut();
        world.starts += 1;
        if world.dice.throw(100) < world.emulated {
            return Start::Emulate(prepared);
        }
        let is_stubborn = world.dice.throw(100) < world.stubborn;
        let taken = Taken { op, prepared, is_asked_to_end: false, is_stubborn };
        assert!(!world.has(op), "it has that already");
        let is_free = world.taken.iter().all(|other| other.lane() != taken.lane());
        assert!(is_free, "one at a time of a lane, or the kernel reverses them");
        world.taken.push(taken);
        Start::Native
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

    fn settle(&mut self, ops: &[OpSlot]) {
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

    fn take(&mut self, out: &mut Vec<Landed>) {
        out.append(&mut self.world.borrow_mut().landed);
    }
}
