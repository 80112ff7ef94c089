//! Signal-driven I/O: `O_ASYNC`, `F_SETSIG` and `F_SETOWN_EX` of fcntl(2), and signalfd(2).
//!
//! Behaviour of the kernel (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** A file signals when something happens to it, and never because it is already ready.
//!   Arming it again changes nothing. So a poll follows the arming, in this order.
//! - **b.** Every event is a signal of its own. They do not merge, and cover every direction.
//!   `si_band` is often untrue: signals are hints.
//! - **c.** Owner, signal and `O_ASYNC` belong to the open file description. It has one owner,
//!   which another poller, or a duplicate here, cannot share.
//! - **d.** `F_SETFL` accepts `O_ASYNC` from files that cannot signal, and drops it; reading it
//!   back shows that. Others keep it and signal only some events: terminals not their hang-up,
//!   performance counters not their end. So only types that are known to signal all are claimed.
//! - **e.** Writability is signalled only in part. A unix socket signals it after a send returned
//!   `EAGAIN`. A TCP socket does so too after a poll(2) found it full, unless a write succeeded
//!   since. A pipe does not when it is enlarged. So these signals are never relied on.
//! - **f.** When the queue of signals is full (`RLIMIT_SIGPENDING`, counted per user), the kernel
//!   sends one plain `SIGIO` instead, which names no file.
//! - **g.** The signal names the descriptor under which the file was armed. A queued signal may
//!   outlive the registration, but not the next wait, which reads it. A registration that reuses
//!   the descriptor is polled in that wait anyway (a).
//! - **h.** After `O_ASYNC` is off no more signals are sent, but some may be queued.
//! - **i.** The program's own shutdown(2) sends no signal, and an `F_SETFL` without `O_ASYNC`
//!   silences the file; `rearm` repairs both. While a thread sleeps in a read of a socket, arriving
//!   data signals no owner.
//! - **k.** An owner is also sent `SIGURG` for urgent data, even if it wants only `O_ASYNC`.
//!
//! Files that cannot signal, and all that wait for writability, are in a fallback set: the array of
//! the ppoll(2) that waits for the signals.
//!
//! An operation must complete even after an event without a signal (i). So a larger array contains
//! the awaited directions too. A wait that has slept for a moment continues with that one, and a
//! poller that is never idle polls it from time to time.

use super::poll_fds::PollFds;
use super::{
    ArmOutcome, ArmRequest, Deadline, Report, Selector, Trigger, Triggers, WaitOutcome, WakeHandle,
};
use crate::event::Interest;
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::slab::SlotMap;
use crate::sys;
use crate::sys::file::FdKind;
use crate::sys::fork::{ForkGeneration, Lock};
use crate::sys::owner::{self, Owner};
use crate::sys::signals::Signals;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// The SIGIO selector.
#[derive(Debug)]
pub struct Sigio {
    // Dropped after `Drop` has silenced every file: drains the queue and restores the signals.
    signals: Signals,
    wake: WakeHandle,
    /// The queue of signals, the eventfd and the fallback set.
    fallback: PollFds,
    /// The entries of `fallback`, and the directions that operations await.
    all: PollFds,
    /// The number of files with an awaited direction that `fallback` does not poll.
    unpolled: usize,
    /// The time of the last poll of `all`.
    polled_all: Instant,
    /// By slot index.
    files: SlotMap<Slot, File>,
    /// By descriptor: the slot whose signals name it.
    slot_by_fd: Vec<Option<Slot>>,
    /// Slots signalled since the last wait.
    signalled: Vec<Slot>,
    generation: ForkGeneration,
}

/// The time that a wait sleeps before it polls `all`.
const GRACE: Duration = Duration::from_millis(10);
/// The longest time between polls of `all` by a poller that is never idle.
const MAX_POLL_DELAY: Duration = Duration::from_millis(500);

/// The first entries of both arrays.
const QUEUE: usize = 0;
const WAKE: usize = 1;

/// The file of a slot.
#[derive(Debug)]
struct File {
    fd: RawFd,
    /// The file cannot signal this thread, and is in the fallback set for all directions.
    uses_poll_fallback: bool,
    /// The state of its description before it was made to signal this thread.
    saved_owner: Option<SavedOwner>,
    is_signalled: bool,
    /// The bits for which it is in the fallback set.
    fallback: PollBits,
    /// The bits that operations may await.
    awaited: PollBits,
}

/// The owner and signal of a description before it was claimed.
#[derive(Clone, Copy, Debug)]
struct SavedOwner {
    owner: Owner,
    signal: i32,
}

/// Held while a description is claimed: it has one owner (c), and two threads may claim it.
static OWNER_LOCK: Lock = Lock::new();

impl Sigio {
    /// Blocks `SIGIO` and a real-time signal on this thread until it is dropped.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if no real-time signal is free; the errors of signalfd(2) and eventfd(2):
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let (generation, wake, signals) =
            (ForkGeneration::current()?, WakeHandle::new()?, Signals::take()?);
        let array = || PollFds::new(&[signals.signalfd(), wake.as_fd()]);
        let (fallback, all, polled_all) = (array(), array(), Instant::now());
        let (files, slot_by_fd, signalled) = Default::default();
        Ok(Sigio {
            signals,
            wake,
            fallback,
            all,
            unpolled: 0,
            polled_all,
            files,
            slot_by_fd,
            signalled,
            generation,
        })
    }

    /// Reads the queue of signals.
    fn read_signals(&mut self) {
        let Sigio { signals, files, slot_by_fd, signalled, .. } = self;
        signals.drain(|fd| {
            let slot = usize::try_from(fd).ok().and_then(|fd| slot_by_fd.get(fd));
            let Some(&Some(slot)) = slot else { return false };
            let Some(file) = files.get_mut(slot) else { return false };
            if !std::mem::replace(&mut file.is_signalled, true) {
                signalled.push(slot);
            }
            true
        });
    }

    /// Polls the fallback set, and after a moment without a report the awaited directions too.
    fn poll(
        &mut self,
        deadline: Deadline,
        may_sleep: bool,
        out: &mut Vec<Report>,
    ) -> io::Result<WaitOutcome> {
        let is_due = self.unpolled > 0 && self.polled_all.elapsed() >= MAX_POLL_DELAY;
        if !is_due {
            let is_needed = !self.fallback.is_empty() || (may_sleep && deadline != Deadline::Now);
            let moment = (self.unpolled > 0).then(|| Instant::now() + GRACE);
            let until = deadline.or_at(moment);
            let count = if is_needed { self.fallback.wait(until, out)? } else { 0 };
            if self.unpolled == 0 || count > 0 || deadline.has_passed() {
                let own = [QUEUE, WAKE].map(|own| is_needed && self.fallback.is_readable(own));
                return Ok(self.on_polled(count, own));
            }
        }
        let count = self.all.wait(deadline, out)?;
        self.polled_all = Instant::now();
        let own = [QUEUE, WAKE].map(|own| self.all.is_readable(own));
        Ok(self.on_polled(count, own))
    }

    fn on_polled(&mut self, count: usize, [has_signals, is_woken]: [bool; 2]) -> WaitOutcome {
        if is_woken {
            self.wake.drain();
        }
        if has_signals {
            self.read_signals();
        }
        if count == 0 { WaitOutcome::TimedOut } else { WaitOutcome::Events }
    }

    /// Changes the bits for which a file is polled.
    fn set_polled(&mut self, slot: Slot, fd: BorrowedFd<'_>, change: impl FnOnce(&mut File)) {
        let Some(file) = self.file(slot, fd) else { return };
        let was_unpolled = file.is_unpolled();
        change(file);
        let (fallback, all, is_unpolled) =
            (file.fallback, file.fallback | file.awaited, file.is_unpolled());
        self.fallback.set(slot, fd, fallback);
        self.all.set(slot, fd, all);
        self.unpolled = self.unpolled + usize::from(is_unpolled) - usize::from(was_unpolled);
    }

    /// Turns facts about files that signal into hints: the fallback set polls them for writability
    /// alone, and the file may be ready for more.
    fn downgrade_to_hints(&self, reports: &mut [Report]) {
        for report in reports {
            let file = self.files.get(report.slot());
            if file.is_some_and(|file| file.saved_owner.is_some()) {
                *report = Report::Hint(report.slot());
            }
        }
    }

    /// Reports the slots that signals have named.
    fn report_signalled(&mut self, out: &mut Vec<Report>) {
        for slot in self.signalled.drain(..) {
            if let Some(file) = self.files.get_mut(slot) {
                file.is_signalled = false;
            }
            out.push(Report::Hint(slot));
        }
    }

    /// Assigns signals that name this descriptor to the slot.
    fn set_slot(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        let raw_fd = fd.as_raw_fd() as usize;
        if self.slot_by_fd.len() <= raw_fd {
            self.slot_by_fd.resize(raw_fd + 1, None);
        }
        self.slot_by_fd[raw_fd] = Some(slot);
    }

    fn clear_slot(&mut self, fd: BorrowedFd<'_>) {
        if let Some(slot_by_fd) = self.slot_by_fd.get_mut(fd.as_raw_fd() as usize) {
            *slot_by_fd = None;
        }
    }

    fn file(&mut self, slot: Slot, fd: BorrowedFd<'_>) -> Option<&mut File> {
        self.files.get_mut(slot).filter(|file| file.fd == fd.as_raw_fd())
    }

    /// Adds the file of a slot, and determines whether it can signal.
    fn insert_file(&mut self, slot: Slot, fd: BorrowedFd<'_>) -> io::Result<&mut File> {
        sys::file::check_pollable(fd)?;
        let uses_poll_fallback = !can_signal(fd)?;
        // The program may have restored its old signal mask since the poller was made.
        self.signals.block();
        let raw_fd = fd.as_raw_fd();
        let [fallback, awaited] = [PollBits::empty(); 2];
        Ok(self.files.insert(
            slot,
            File {
                fd: raw_fd,
                uses_poll_fallback,
                saved_owner: None,
                is_signalled: false,
                fallback,
                awaited,
            },
        ))
    }
}

impl Selector for Sigio {
    fn native(&self) -> Triggers {
        Triggers::EDGE
    }

    fn edges(&self) -> Interest {
        Interest::all() - Interest::WRITABLE
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let (signal, generation) = (self.signals.signal(), self.generation);
        let file = match self.file(slot, fd) {
            Some(file) => file,
            None => self.insert_file(slot, fd)?,
        };
        // Signals are not relied on for writability (e).
        let is_read = !(arm.dirs - Interest::WRITABLE).is_empty();
        if arm.trigger == Trigger::Level || !is_read || !file.enable_signals(signal, &generation)? {
            file.disable_async();
            self.set_polled(slot, fd, |file| file.fallback = arm.bits());
            return Ok(ArmOutcome::whole(Trigger::Level));
        }
        self.set_slot(slot, fd);
        let room = PollBits::asked(arm.dirs & Interest::WRITABLE) | arm.ends;
        self.set_polled(slot, fd, |file| file.fallback = room);
        let by_level = ArmOutcome { level: Interest::WRITABLE, ..ArmOutcome::whole(Trigger::Edge) };
        Ok(ArmOutcome { needs_initial_poll: true, ..by_level })
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.set_polled(slot, fd, File::clear_polled);
        if let Some(file) = self.file(slot, fd) {
            file.disable_async();
        }
    }

    fn note_awaited(&mut self, slot: Slot, fd: BorrowedFd<'_>, dirs: Interest) {
        self.set_polled(slot, fd, |file| file.awaited = PollBits::asked(dirs));
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.set_polled(slot, fd, File::clear_polled);
        self.fallback.remove(slot);
        self.all.remove(slot);
        let signal = self.signals.signal();
        if let Some(file) = self.file(slot, fd) {
            file.release(signal);
            self.files.remove(slot);
        }
        self.clear_slot(fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let old = out.len();
        // First, because queued signals save a ppoll(2).
        self.read_signals();
        let is_idle = self.signalled.is_empty() && !self.signals.has_overflowed();
        let deadline = if is_idle { deadline } else { Deadline::Now };
        let ended = loop {
            match self.poll(deadline, is_idle, out) {
                // A poll that was interrupted has added no report, and is repeated.
                Err(e) if e.kind() == io::ErrorKind::Interrupted && !is_idle => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    break Ok(WaitOutcome::Interrupted);
                }
                ended => break ended,
            }
        };
        self.downgrade_to_hints(&mut out[old..]);
        self.report_signalled(out);
        if self.signals.take_overflow() {
            return Ok(WaitOutcome::Overflow);
        }
        if out.len() > old && ended.is_ok() { Ok(WaitOutcome::Events) } else { ended }
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

impl Drop for Sigio {
    /// Restores every file, and only then the signals. In a forked child the files belong to the
    /// parent (P1).
    fn drop(&mut self) {
        let signal = self.signals.signal();
        if !self.generation.is_forked_child() {
            self.files.iter_mut().for_each(|(_, file)| file.release(signal));
        }
    }
}

impl File {
    /// Returns true if operations await a direction that the fallback set does not poll.
    fn is_unpolled(&self) -> bool {
        !self.fallback.contains(self.awaited)
    }

    fn clear_polled(&mut self) {
        (self.fallback, self.awaited) = (PollBits::empty(), PollBits::empty());
    }

    /// Makes the file signal this thread. Returns false if it cannot, or signals another owner. It
    /// is then in the fallback set until it is registered again.
    ///
    /// # Errors
    ///
    /// The error of fcntl(2) if the descriptor was closed.
    fn enable_signals(&mut self, signal: i32, generation: &ForkGeneration) -> io::Result<bool> {
        if self.uses_poll_fallback {
            return Ok(false);
        }
        if self.saved_owner.is_none() {
            self.saved_owner = OWNER_LOCK.with(generation, || claim(self.fd, signal));
        } else if !owner::is_async(self.fd)? {
            // The file was disarmed, or the program has silenced it (i) and may have set another
            // owner.
            if is_ours(self.fd, signal)? {
                owner::set_async(self.fd, true)?;
            } else {
                self.release(signal);
            }
        }
        self.uses_poll_fallback = self.saved_owner.is_none();
        Ok(!self.uses_poll_fallback)
    }

    /// Stops the file's signals to this thread until it is armed again.
    fn disable_async(&self) {
        let is_ours = || Owner::of(self.fd).is_ok_and(|owner| owner == Owner::this_thread());
        if self.saved_owner.is_some() && is_ours() {
            // The only error is that the descriptor was closed.
            let _ = owner::set_async(self.fd, false);
        }
    }

    /// Restores the file. Errors mean that the descriptor was closed.
    fn release(&mut self, signal: i32) {
        let Some(saved_owner) = self.saved_owner.take() else { return };
        let Ok(owner) = Owner::of(self.fd) else { return };
        let is_ours = owner == Owner::this_thread();
        let has_our_signal = owner::signal_of(self.fd).is_ok_and(|current| current == signal);
        // This signal would end the process that the program has set as the owner.
        if is_ours || (has_our_signal && owner.is_this_process()) {
            let _ = owner::set_async(self.fd, false);
            if has_our_signal {
                let _ = owner::set_signal(self.fd, saved_owner.signal);
            }
        }
        if is_ours {
            let _ = saved_owner.owner.set(self.fd);
        }
    }
}

/// Returns true if a description has this thread and signal set.
fn is_ours(fd: RawFd, signal: i32) -> io::Result<bool> {
    Ok(Owner::of(fd)? == Owner::this_thread() && owner::signal_of(fd)? == signal)
}

/// Makes a description signal this thread, if it can and has no owner. Returns its earlier state.
fn claim(fd: RawFd, signal: i32) -> Option<SavedOwner> {
    let saved_owner = SavedOwner { owner: Owner::of(fd).ok()?, signal: owner::signal_of(fd).ok()? };
    if !saved_owner.owner.is_unset() || owner::is_async(fd).ok()? {
        return None;
    }
    Owner::this_thread().set(fd).ok()?;
    let turn_on = || {
        owner::set_signal(fd, signal)?;
        owner::set_async(fd, true)?;
        // Another process that shares the description may be doing the same.
        Ok::<bool, io::Error>(owner::is_async(fd)? && is_ours(fd, signal)?)
    };
    if turn_on().unwrap_or(false) {
        return Some(saved_owner);
    }
    if Owner::of(fd).is_ok_and(|owner| owner == Owner::this_thread()) {
        let _ = owner::set_async(fd, false);
        let _ = owner::set_signal(fd, saved_owner.signal);
        let _ = saved_owner.owner.set(fd);
    }
    None
}

/// Returns true if a file of this type signals everything that makes it readable (d).
fn can_signal(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(match FdKind::of(fd)? {
        FdKind::Pipe | FdKind::UnixSocket | FdKind::InternetSocket | FdKind::Inotify => true,
        FdKind::OtherSocket | FdKind::Anonymous | FdKind::Named => false,
    })
}

#[cfg(test)]
mod tests;
