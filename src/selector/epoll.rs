//! epoll(7).
//!
//! Behaviour of the kernel (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** A level-triggered entry moves to the end of the kernel's ready list when it is
//!   reported. A second call continues after the first, and then repeats. Edge and one-shot entries
//!   are reported once. So a wait may take only some reports: no source starves.
//! - **b.** The bits are polled again when they are reported: they are facts, complete for the
//!   requested bits.
//! - **c.** `EPOLLERR` and `EPOLLHUP` are reported whatever the mask, even by a level-triggered
//!   entry with an empty mask. Watching nothing is therefore `EPOLL_CTL_DEL`.
//! - **d.** `EPOLL_CTL_MOD` checks readiness again, for an edge-triggered entry too.
//! - **e.** Files without a poll operation (regular files, directories, `/dev/null`) are refused
//!   with `EPERM`. poll(2) reports exactly those as always ready.
//! - **f.** An entry belongs to the open file description and the descriptor it was added under. If
//!   the descriptor is closed or replaced (dup2) while a duplicate lives, the entry stays and
//!   cannot be removed: DEL and MOD return `ENOENT`, and a new file under the old descriptor is
//!   another entry. If the old description returns to the descriptor, ADD returns `EEXIST`.
//! - **g.** An edge-triggered eventfd reports every write, also while an earlier one is unread: it
//!   need not be read.
//! - **h.** The bits have the values of poll(2).
//! - **i.** An entry waits in the queues that the file has when it is added. `EPOLL_CTL_MOD` finds
//!   no others. So a file that gets its queue later (`/dev/net/tun`, which reports ERR until
//!   `TUNSETIFF`) must be added anew.

use super::{
    ArmOutcome, ArmRequest, Deadline, Report, Selector, Trigger, Triggers, WaitOutcome, WakeHandle,
};
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::sys;
use crate::sys::own_fd::above_stdio;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll as EpollFd, EpollCreateFlags, EpollEvent, EpollFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The data word of the eventfd, which no slot has ([`Slot::MAX_INDEX`]).
const WAKE: u64 = u64::MAX;
/// The initial size of the report buffer, which doubles, up to the limit, when one call fills it.
const INITIAL_BUFFER: usize = 64;

/// The epoll selector.
#[derive(Debug)]
pub struct Epoll {
    epoll: EpollFd,
    wake: WakeHandle,
    /// By slot index.
    entries: Vec<Entry>,
    /// The number of entries that the kernel has.
    watched: usize,
    buffer: Vec<sys::epoll::epoll_event>,
    max_reports: usize,
    has_more: bool,
}

/// The kernel's entry of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Absent,
    /// Added, and has reported only errors: its file may have had no queue (i).
    Unproven,
    Watched,
    /// Refused with `EPERM` (e).
    AlwaysReady,
}

impl Entry {
    /// Returns true if the kernel has the entry.
    fn is_added(self) -> bool {
        matches!(self, Entry::Unproven | Entry::Watched)
    }
}

impl Epoll {
    /// # Errors
    ///
    /// The errors of epoll_create1(2) and eventfd(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let create = || Ok(EpollFd::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0);
        let epoll = EpollFd(above_stdio(create)?);
        let wake = WakeHandle::new()?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE))?;
        let empty = sys::epoll::epoll_event { events: 0, u64: 0 };
        let buffer = vec![empty; INITIAL_BUFFER];
        let entries = Vec::new();
        let (watched, max_reports, has_more) = (0, usize::MAX, false);
        Ok(Epoll { epoll, wake, entries, watched, buffer, max_reports, has_more })
    }

    fn entry(&mut self, slot: Slot) -> &mut Entry {
        if self.entries.len() <= slot.index() {
            self.entries.resize(slot.index() + 1, Entry::Absent);
        }
        &mut self.entries[slot.index()]
    }

    fn set_entry(&mut self, slot: Slot, entry: Entry) {
        let before = std::mem::replace(self.entry(slot), entry);
        self.watched -= usize::from(before.is_added());
        self.watched += usize::from(entry.is_added());
    }

    /// Deletes the entry of a slot.
    fn delete(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        if self.entry(slot).is_added() {
            // The only errors are ENOENT and EBADF: the entry was removed with its file (f).
            let _ = self.epoll.delete(fd);
        }
        self.set_entry(slot, Entry::Absent);
    }

    /// Adds or modifies the entry, by the state known here, then by the kernel's answer (f).
    fn set(&mut self, slot: Slot, fd: BorrowedFd<'_>, flags: EpollFlags) -> Result<(), Errno> {
        let lacks_queue = *self.entry(slot) == Entry::Unproven && may_lack_queue(fd);
        let has_error = lacks_queue && has_error(fd);
        if lacks_queue && !has_error {
            // Once only: an entry that is added anew is the last in the kernel's order (Q2). If
            // adding it fails for want of memory, the kernel has no entry until it is armed again.
            self.delete(slot, fd);
        }
        let mut event = EpollEvent::new(flags, slot.to_bits());
        let entry = if self.entry(slot).is_added() {
            match self.epoll.modify(fd, &mut event) {
                Err(Errno::ENOENT) => self.epoll.add(fd, event).map(|()| Entry::Unproven),
                done => done.map(|()| if has_error { Entry::Unproven } else { Entry::Watched }),
            }
        } else {
            match self.epoll.add(fd, event) {
                Err(Errno::EEXIST) => self.epoll.modify(fd, &mut event),
                done => done,
            }
            .map(|()| if lacks_queue { Entry::Watched } else { Entry::Unproven })
        }?;
        self.set_entry(slot, entry);
        Ok(())
    }

    /// Notes from a report whether the file has a queue (i).
    fn note_report(entries: &mut [Entry], slot: Slot, bits: PollBits) {
        if let Some(entry) = entries.get_mut(slot.index()).filter(|entry| entry.is_added()) {
            let has_error = bits.contains(PollBits::ERR);
            *entry = if has_error { Entry::Unproven } else { Entry::Watched };
        }
    }
}

/// Returns true for devices. Other files have their queues from the beginning.
fn may_lack_queue(fd: BorrowedFd<'_>) -> bool {
    sys::file::is_character_device(fd)
}

fn has_error(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [sys::poll::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 }];
    let is_polled = sys::poll::poll_now(&mut fds).is_ok();
    is_polled && PollBits::from_bits_retain(fds[0].revents as u16).contains(PollBits::ERR)
}

impl Selector for Epoll {
    fn native(&self) -> Triggers {
        Triggers::all()
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let trigger = match arm.trigger {
            Trigger::Level => EpollFlags::empty(),
            Trigger::Edge => EpollFlags::EPOLLET,
            Trigger::OneShot => EpollFlags::EPOLLONESHOT,
        };
        let bits = i32::from(arm.bits().bits());
        match self.set(slot, fd, EpollFlags::from_bits_retain(bits) | trigger) {
            Ok(()) => Ok(ArmOutcome::whole(arm.trigger)),
            // Such a file has no wake-ups, so it is an edge without events. The reactor polls it,
            // and poll(2) reports it ready (e).
            Err(Errno::EPERM) => {
                self.set_entry(slot, Entry::AlwaysReady);
                Ok(ArmOutcome { needs_initial_poll: true, ..ArmOutcome::whole(Trigger::Edge) })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.delete(slot, fd);
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.disarm(slot, fd);
    }

    fn set_max_reports(&mut self, max: usize) {
        self.max_reports = max;
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let mut timeout = deadline.remaining();
        let mut taken = 0;
        self.has_more = false;
        loop {
            let space = (self.max_reports - taken).clamp(1, self.buffer.len());
            let buffer = &mut self.buffer[..space];
            let count = match sys::epoll::wait(self.epoll.0.as_fd(), buffer, timeout) {
                Ok(count) => count,
                // Reports that were taken must not be lost; the next call returns the error again.
                Err(_) if taken > 0 => return Ok(WaitOutcome::Events),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    return Ok(WaitOutcome::Interrupted);
                }
                Err(e) => return Err(e),
            };
            let entries = &mut self.entries;
            out.extend(self.buffer[..count].iter().filter(|event| event.u64 != WAKE).map(
                |event| {
                    let bits = PollBits::from_bits_retain(event.events as u16);
                    let slot = Slot::from_bits(event.u64);
                    Epoll::note_report(entries, slot, bits);
                    Report::Fact(slot, bits)
                },
            ));
            taken += count;
            // A full buffer may mean that there are more. Level entries repeat, so as many reports
            // as entries are all (a).
            if count < space || taken > self.watched {
                return Ok(if taken == 0 { WaitOutcome::TimedOut } else { WaitOutcome::Events });
            }
            if taken >= self.max_reports {
                self.has_more = true;
                return Ok(WaitOutcome::Events);
            }
            let doubled = self.buffer.len() * 2;
            self.buffer.resize(doubled, sys::epoll::epoll_event { events: 0, u64: 0 });
            timeout = Deadline::Now.remaining();
        }
    }

    fn has_more(&mut self) -> bool {
        self.has_more
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

#[cfg(test)]
mod tests;
