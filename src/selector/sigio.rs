//! Signal-driven I/O: `O_ASYNC`, `F_SETSIG` and `F_SETOWN_EX` of fcntl(2), and signalfd(2).
//!
//! How it really behaves (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** A file signals when something happens to it, and never because it is ready already.
//!   Arming it again changes nothing. So a look follows the arming, in this order.
//! - **b.** Every event is a signal of its own; they don't merge, and are about every direction.
//!   What `si_band` says is often untrue: signals are hints.
//! - **c.** Owner, signal and `O_ASYNC` belong to the open file description: it has one owner,
//!   which another poller, or a duplicate here, can't share.
//! - **d.** `F_SETFL` accepts `O_ASYNC` from files that can't signal, and drops it; reading it back
//!   tells. Others keep it and signal only a part: terminals not their hang-up, performance
//!   counters not their end. So only kinds that are known to signal everything are made to.
//! - **e.** But room to write is signalled by halves. A unix socket does so only after a send said
//!   `EAGAIN`; a TCP socket also after a poll(2) found it full, unless a write succeeded meanwhile;
//!   a pipe not when it is made larger. So it is never relied on.
//! - **f.** When the queue of signals is full (`RLIMIT_SIGPENDING`, counted per user), the kernel
//!   sends one plain `SIGIO` instead, which names no file.
//! - **g.** The signal names the number under which the file was armed. One that is queued outlives
//!   the registration, but no wait: it is read with the first one after, in which a registration
//!   that uses the number again is looked at anyhow (a).
//! - **h.** Once `O_ASYNC` is off no more signals come, but some may be queued.
//! - **i.** What the program itself does is left out. Its own shutdown(2) sends no signal, and an
//!   `F_SETFL` without `O_ASYNC` silences the file; `rearm` mends both. While somebody sleeps in a
//!   read of a socket, what arrives there sends no signal to anybody.
//! - **k.** An owner, and be it for `O_ASYNC`, is also sent `SIGURG` for urgent data.
//!
//! What can't signal, and everything that waits to write, stands in a side set: the array of the
//! ppoll(2) that waits for the signals.
//!
//! An operation must complete, also after what sends no signal (i). So what operations await stands
//! in a larger array. A wait that has slept for a moment goes on with that one, and a poller that
//! is never idle polls it from time to time.

use super::array::Array;
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
    // After `Drop` has silenced every file: reads the queue empty and gives the signals back.
    signals: Signals,
    wake: WakeHandle,
    /// Beside the queue of signals and the eventfd, the side set.
    side: Array,
    /// The same, and what operations await.
    all: Array,
    /// How many files operations await in a direction in which the side set does not poll them.
    hidden: usize,
    /// When `all` was polled last.
    polled_all: Instant,
    /// By slot index.
    files: SlotMap<Slot, File>,
    /// By file number: whose signals name it.
    named: Vec<Option<Slot>>,
    /// Whom signals have named since the last wait.
    heard: Vec<Slot>,
    generation: ForkGeneration,
}

/// How long a wait sleeps before it polls what operations await too.
const GRACE: Duration = Duration::from_millis(10);
/// How long that may be put off by a poller that is never idle.
const MAX_PUT_OFF: Duration = Duration::from_millis(500);

/// The entries of both arrays that are not slots'.
const QUEUE: usize = 0;
const WAKE: usize = 1;

/// What is known of a slot's file.
#[derive(Debug)]
struct File {
    number: RawFd,
    /// It can't signal, or not us: it is watched in the side set for everything.
    is_mute: bool,
    /// How its description was before it was made to signal us.
    before: Option<Before>,
    is_heard: bool,
    /// What it is watched for in the side set.
    side: PollBits,
    /// What operations may await.
    awaited: PollBits,
}

/// Whom a description signalled, and how.
#[derive(Clone, Copy, Debug)]
struct Before {
    owner: Owner,
    signal: i32,
}

/// Held while a description is claimed: it has room for one owner (c), and two threads may want it.
static CLAIMS: Lock = Lock::new();

impl Sigio {
    /// Blocks `SIGIO` and a real-time signal on this thread until it is dropped.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if no real-time signal is free; what signalfd(2) and eventfd(2) say:
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let (generation, wake, signals) =
            (ForkGeneration::current()?, WakeHandle::new()?, Signals::take()?);
        let array = || Array::new(&[signals.signalfd(), wake.as_fd()]);
        let (side, all, polled_all) = (array(), array(), Instant::now());
        let (files, named, heard) = Default::default();
        Ok(Sigio {
            signals,
            wake,
            side,
            all,
            hidden: 0,
            polled_all,
            files,
            named,
            heard,
            generation,
        })
    }

    /// Reads the queue of signals.
    fn listen(&mut self) {
        let Sigio { signals, files, named, heard, .. } = self;
        signals.drain(|number| {
            let named = usize::try_from(number).ok().and_then(|number| named.get(number));
            let Some(&Some(slot)) = named else { return false };
            let Some(file) = files.get_mut(slot) else { return false };
            if !std::mem::replace(&mut file.is_heard, true) {
                heard.push(slot);
            }
            true
        });
    }

    /// Polls the side set, and if nothing comes for a moment also what operations await.
    fn poll(
        &mut self,
        deadline: Deadline,
        may_sleep: bool,
        out: &mut Vec<Report>,
    ) -> io::Result<WaitOutcome> {
        let is_due = self.hidden > 0 && self.polled_all.elapsed() >= MAX_PUT_OFF;
        if !is_due {
            let is_needed = !self.side.is_empty() || (may_sleep && deadline != Deadline::Now);
            let moment = (self.hidden > 0).then(|| Instant::now() + GRACE);
            let until = deadline.or_at(moment);
            let count = if is_needed { self.side.wait(until, out)? } else { 0 };
            if self.hidden == 0 || count > 0 || deadline.has_passed() {
                let own = [QUEUE, WAKE].map(|own| is_needed && self.side.is_readable(own));
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
            self.listen();
        }
        if count == 0 { WaitOutcome::TimedOut } else { WaitOutcome::Events }
    }

    /// Changes what a file is polled for.
    fn set_polled(&mut self, slot: Slot, fd: BorrowedFd<'_>, change: impl FnOnce(&mut File)) {
        let Some(file) = self.file(slot, fd) else { return };
        let was_hidden = file.hides();
        change(file);
        let (side, all, is_hidden) = (file.side, file.side | file.awaited, file.hides());
        self.side.set(slot, fd, side);
        self.all.set(slot, fd, all);
        self.hidden = self.hidden + usize::from(is_hidden) - usize::from(was_hidden);
    }

    /// Of a file that signals, the side set tells only that there is room to write, and so not all
    /// there is: a hint.
    fn blur(&self, reports: &mut [Report]) {
        for report in reports {
            let file = self.files.get(report.slot());
            if file.is_some_and(|file| file.before.is_some()) {
                *report = Report::Hint(report.slot());
            }
        }
    }

    /// Reports whom signals have named.
    fn report_heard(&mut self, out: &mut Vec<Report>) {
        for slot in self.heard.drain(..) {
            if let Some(file) = self.files.get_mut(slot) {
                file.is_heard = false;
            }
            out.push(Report::Hint(slot));
        }
    }

    /// From now on signals that carry this number are about this slot.
    fn name(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        let number = fd.as_raw_fd() as usize;
        if self.named.len() <= number {
            self.named.resize(number + 1, None);
        }
        self.named[number] = Some(slot);
    }

    fn forget_name(&mut self, fd: BorrowedFd<'_>) {
        if let Some(named) = self.named.get_mut(fd.as_raw_fd() as usize) {
            *named = None;
        }
    }

    fn file(&mut self, slot: Slot, fd: BorrowedFd<'_>) -> Option<&mut File> {
        self.files.get_mut(slot).filter(|file| file.number == fd.as_raw_fd())
    }

    /// A slot's file, which is looked into when it is new.
    fn enter(&mut self, slot: Slot, fd: BorrowedFd<'_>) -> io::Result<&mut File> {
        sys::file::check_pollable(fd)?;
        let is_mute = !can_signal(fd)?;
        // Between making a poller and registering files a program may have put its old mask back.
        self.signals.block();
        let number = fd.as_raw_fd();
        let [side, awaited] = [PollBits::empty(); 2];
        Ok(self
            .files
            .insert(slot, File { number, is_mute, before: None, is_heard: false, side, awaited }))
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
            None => self.enter(slot, fd)?,
        };
        // Signals say nothing that only a writer wants to know (e).
        let is_read = !(arm.dirs - Interest::WRITABLE).is_empty();
        if arm.trigger == Trigger::Level || !is_read || !file.signals(signal, &generation)? {
            file.silence();
            self.set_polled(slot, fd, |file| file.side = arm.bits());
            return Ok(ArmOutcome::whole(Trigger::Level));
        }
        self.name(slot, fd);
        let room = PollBits::asked(arm.dirs & Interest::WRITABLE) | arm.ends;
        self.set_polled(slot, fd, |file| file.side = room);
        let by_level = ArmOutcome { level: Interest::WRITABLE, ..ArmOutcome::whole(Trigger::Edge) };
        Ok(ArmOutcome { look: true, ..by_level })
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.set_polled(slot, fd, File::unpoll);
        if let Some(file) = self.file(slot, fd) {
            file.silence();
        }
    }

    fn note_awaited(&mut self, slot: Slot, fd: BorrowedFd<'_>, dirs: Interest) {
        self.set_polled(slot, fd, |file| file.awaited = PollBits::asked(dirs));
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.set_polled(slot, fd, File::unpoll);
        self.side.forget(slot);
        self.all.forget(slot);
        let signal = self.signals.signal();
        if let Some(file) = self.file(slot, fd) {
            file.release(signal);
            self.files.remove(slot);
        }
        self.forget_name(fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let old = out.len();
        // First, because what is queued already costs a ppoll(2) less.
        self.listen();
        let is_idle = self.heard.is_empty() && !self.signals.has_overflowed();
        let deadline = if is_idle { deadline } else { Deadline::Now };
        let ended = loop {
            match self.poll(deadline, is_idle, out) {
                // Of a look that is cut short no array has told anything yet.
                Err(e) if e.kind() == io::ErrorKind::Interrupted && !is_idle => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    break Ok(WaitOutcome::Interrupted);
                }
                ended => break ended,
            }
        };
        self.blur(&mut out[old..]);
        self.report_heard(out);
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
    /// Every file is as it was before, and only then are the signals given back. In a forked child
    /// the files are the parent's (P1).
    fn drop(&mut self) {
        let signal = self.signals.signal();
        if !self.generation.is_forked_child() {
            self.files.iter_mut().for_each(|(_, file)| file.release(signal));
        }
    }
}

impl File {
    /// Returns true if operations await it in a direction in which the side set does not poll it.
    fn hides(&self) -> bool {
        !self.side.contains(self.awaited)
    }

    fn unpoll(&mut self) {
        (self.side, self.awaited) = (PollBits::empty(), PollBits::empty());
    }

    /// Makes the file signal this thread. False if it can't, or signals somebody else; it is then
    /// mute until it is registered again.
    ///
    /// # Errors
    ///
    /// What fcntl(2) says: the number was closed.
    fn signals(&mut self, signal: i32, generation: &ForkGeneration) -> io::Result<bool> {
        if self.is_mute {
            return Ok(false);
        }
        if self.before.is_none() {
            self.before = CLAIMS.with(generation, || claim(self.number, signal));
        } else if !owner::is_async(self.number)? {
            // It was disarmed, or the program has silenced it (i), and perhaps given it to somebody
            // else, whose it then is.
            match is_ours(self.number, signal)? {
                true => owner::set_async(self.number, true)?,
                false => self.release(signal),
            }
        }
        self.is_mute = self.before.is_none();
        Ok(!self.is_mute)
    }

    /// Has a file that signals us stop it, until it is armed again.
    fn silence(&self) {
        let is_ours = || Owner::of(self.number).is_ok_and(|owner| owner == Owner::this_thread());
        if self.before.is_some() && is_ours() {
            // The only failure is that the number was closed.
            let _ = owner::set_async(self.number, false);
        }
    }

    /// Makes the file as it was before it was claimed. Failures mean that the number was closed.
    fn release(&mut self, signal: i32) {
        let Some(before) = self.before.take() else { return };
        let Ok(owner) = Owner::of(self.number) else { return };
        let is_ours = owner == Owner::this_thread();
        let has_our_signal = owner::signal_of(self.number).is_ok_and(|its| its == signal);
        // Our signal to a process that the program has put in our place would end it.
        if is_ours || (has_our_signal && owner.is_this_process()) {
            let _ = owner::set_async(self.number, false);
            if has_our_signal {
                let _ = owner::set_signal(self.number, before.signal);
            }
        }
        if is_ours {
            let _ = before.owner.set(self.number);
        }
    }
}

/// Whether a description signals this thread, or would.
fn is_ours(number: RawFd, signal: i32) -> io::Result<bool> {
    Ok(Owner::of(number)? == Owner::this_thread() && owner::signal_of(number)? == signal)
}

/// Makes a description signal this thread, if it can, and signals nobody: gives how it was.
fn claim(number: RawFd, signal: i32) -> Option<Before> {
    let before = Before { owner: Owner::of(number).ok()?, signal: owner::signal_of(number).ok()? };
    if !before.owner.is_unset() || owner::is_async(number).ok()? {
        return None;
    }
    Owner::this_thread().set(number).ok()?;
    let turn_on = || {
        owner::set_signal(number, signal)?;
        owner::set_async(number, true)?;
        // Another process that shares the description may be doing the same.
        Ok::<bool, io::Error>(owner::is_async(number)? && is_ours(number, signal)?)
    };
    if turn_on().unwrap_or(false) {
        return Some(before);
    }
    if Owner::of(number).is_ok_and(|owner| owner == Owner::this_thread()) {
        let _ = owner::set_async(number, false);
        let _ = owner::set_signal(number, before.signal);
        let _ = before.owner.set(number);
    }
    None
}

/// Whether a file of this kind signals all that makes it readable (d).
fn can_signal(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(match FdKind::of(fd)? {
        FdKind::Pipe | FdKind::UnixSocket | FdKind::InternetSocket | FdKind::Inotify => true,
        FdKind::OtherSocket | FdKind::Anonymous | FdKind::Named => false,
    })
}

#[cfg(test)]
mod tests;
