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
//!   tells. Terminals keep it, but are silent on hang-up; of other devices nothing is known.
//! - **e.** A unix socket signals a writer only after a send said `EAGAIN`, not after a poll(2)
//!   found it full. TCP and UDP do both. What other families do differs.
//! - **f.** When the queue of signals is full (`RLIMIT_SIGPENDING`, counted per user), the kernel
//!   sends one plain `SIGIO` instead, which names no file.
//! - **g.** The signal names the number under which the file was armed. One that is queued outlives
//!   the registration, but no wait: it is read with the first one after, in which a registration
//!   that uses the number again is looked at anyhow (a).
//! - **h.** Once `O_ASYNC` is off no more signals come, but some may be queued.
//! - **i.** Left out: what the program itself does. Its own shutdown(2) sends no signal, nor does
//!   `F_SETPIPE_SZ`; an `F_SETFL` without `O_ASYNC` silences the file. `rearm` mends all of it.
//!
//! What can't signal, or not for what is armed, stands in a side set: the array of the ppoll(2)
//! that waits for the signals.

use super::array::Array;
use super::{Applied, Arm, Deadline, Raw, Selector, Trigger, Triggers, Wake, WakeHandle};
use crate::event::Interest;
use crate::key::Slot;
use crate::sys;
use crate::sys::file::Kind;
use crate::sys::fork::Stamp;
use crate::sys::owner::{self, Owner};
use crate::sys::signals::Signals;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// The SIGIO selector.
#[derive(Debug)]
pub struct Sigio {
    // After `Drop` has silenced every file: reads the queue empty and gives the signals back.
    signals: Signals,
    wake: WakeHandle,
    /// Beside the queue of signals and the eventfd, the side set.
    side: Array,
    /// By slot index.
    files: Vec<Option<File>>,
    /// By file number: whose signals name it.
    named: Vec<Option<Slot>>,
    /// Whom signals have named since the last wait.
    heard: Vec<Slot>,
    stamp: Stamp,
}

/// The entries of the array that are not slots'.
const QUEUE: usize = 0;
const WAKE: usize = 1;

/// What is known of a slot's file.
#[derive(Debug)]
struct File {
    slot: Slot,
    number: RawFd,
    voice: Voice,
    /// How its description was before it was made to signal us.
    before: Option<Before>,
    is_heard: bool,
}

/// What a file signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    /// Everything.
    Whole,
    /// Everything but that there is room to write (e).
    Reads,
    /// Nothing, or nothing to us.
    Mute,
}

/// Whom a description signalled, and how.
#[derive(Clone, Copy, Debug)]
struct Before {
    owner: Owner,
    signal: i32,
}

/// Held while a description is claimed: it has room for one owner (c), and two threads may want it.
static CLAIMS: Mutex<()> = Mutex::new(());

impl Sigio {
    /// Blocks `SIGIO` and a real-time signal on this thread until it is dropped.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if no real-time signal is free; what signalfd(2) and eventfd(2) say:
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let (stamp, wake, signals) = (Stamp::here()?, WakeHandle::new()?, Signals::take()?);
        let side = Array::new(&[signals.queue(), wake.as_fd()]);
        let (files, named, heard) = Default::default();
        Ok(Sigio { signals, wake, side, files, named, heard, stamp })
    }

    /// Reads the queue of signals.
    fn listen(&mut self) {
        let Sigio { signals, files, named, heard, .. } = self;
        signals.drain(|number| {
            let named = usize::try_from(number).ok().and_then(|number| named.get(number));
            let Some(&Some(slot)) = named else { return };
            let Some(Some(file)) = files.get_mut(slot.index()) else { return };
            if !std::mem::replace(&mut file.is_heard, true) {
                heard.push(slot);
            }
        });
    }

    /// Reports whom signals have named.
    fn report_heard(&mut self, out: &mut Vec<Raw>) {
        for slot in self.heard.drain(..) {
            if let Some(Some(file)) = self.files.get_mut(slot.index()) {
                file.is_heard = false;
            }
            out.push(Raw::Hint(slot));
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

    fn file(&mut self, slot: Slot, fd: BorrowedFd<'_>) -> Option<&mut File> {
        let file = self.files.get_mut(slot.index())?.as_mut();
        file.filter(|file| file.slot == slot && file.number == fd.as_raw_fd())
    }

    /// A slot's file, which is looked into when it is new.
    fn enter(&mut self, slot: Slot, fd: BorrowedFd<'_>) -> io::Result<&mut File> {
        sys::file::check_pollable(fd)?;
        let voice = voice_of(fd)?;
        if self.files.len() <= slot.index() {
            self.files.resize_with(slot.index() + 1, || None);
        }
        let number = fd.as_raw_fd();
        let file = File { slot, number, voice, before: None, is_heard: false };
        Ok(self.files[slot.index()].insert(file))
    }
}

impl Selector for Sigio {
    fn native(&self) -> Triggers {
        Triggers::EDGE
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: Arm) -> io::Result<Applied> {
        let signal = self.signals.number();
        let file = match self.file(slot, fd) {
            Some(file) => file,
            None => self.enter(slot, fd)?,
        };
        if file.signals(arm.dirs, signal)? {
            self.name(slot, fd);
            self.side.take_out(slot);
            // Signals don't repeat, as a level trigger would. A file has both only in edge and
            // one-shot mode, where what was reported is armed no longer.
            return Ok(Applied { look: true, ..Applied::whole(arm.trigger) });
        }
        self.side.put(slot, fd, arm.dirs);
        Ok(Applied::whole(Trigger::Level))
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.side.take_out(slot);
        if self.file(slot, fd).is_some_and(|file| file.before.is_some()) {
            // The only failure is that the number was closed.
            let _ = owner::set_async(fd.as_raw_fd(), false);
        }
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.side.forget(slot);
        let signal = self.signals.number();
        if let Some(file) = self.file(slot, fd) {
            file.release(signal);
            self.files[slot.index()] = None;
        }
        if let Some(named) = self.named.get_mut(fd.as_raw_fd() as usize) {
            *named = None;
        }
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Raw>) -> io::Result<Wake> {
        let old = out.len();
        // First, because what is queued already costs a ppoll(2) less.
        self.listen();
        let is_idle = self.heard.is_empty() && !self.signals.has_overflowed();
        let deadline = if is_idle { deadline } else { Deadline::Now };
        let mut ended = Ok(Wake::TimedOut);
        while !self.side.is_empty() || (is_idle && deadline != Deadline::Now) {
            ended = match self.side.wait(deadline, out) {
                Ok(0) => Ok(Wake::TimedOut),
                Ok(_) => {
                    if self.side.is_readable(WAKE) {
                        self.wake.drain();
                    }
                    if self.side.is_readable(QUEUE) {
                        self.listen();
                    }
                    Ok(Wake::Events)
                }
                // Of a look that is cut short the side set has told nothing yet.
                Err(e) if e.kind() == io::ErrorKind::Interrupted && !is_idle => continue,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Wake::Interrupted),
                Err(e) => Err(e),
            };
            break;
        }
        self.report_heard(out);
        if self.signals.take_overflow() {
            return Ok(Wake::Overflow);
        }
        if out.len() > old && ended.is_ok() { Ok(Wake::Events) } else { ended }
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

impl Drop for Sigio {
    /// Every file is as it was before, and only then are the signals given back. In a forked child
    /// the files are the parent's (P1).
    fn drop(&mut self) {
        let signal = self.signals.number();
        if !self.stamp.is_foreign() {
            self.files.iter_mut().flatten().for_each(|file| file.release(signal));
        }
    }
}

impl File {
    /// Makes the file signal this thread. False if it can't do so for all of `dirs`, or signals
    /// somebody else; it is then mute until it is registered again.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if the program has given a file that signalled us to another owner.
    fn signals(&mut self, dirs: Interest, signal: i32) -> io::Result<bool> {
        match self.voice {
            Voice::Mute => return Ok(false),
            Voice::Reads if dirs.contains(Interest::WRITABLE) => return Ok(false),
            Voice::Reads | Voice::Whole => {}
        }
        if self.before.is_some() {
            return self.signals_again(signal);
        }
        let claiming = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        self.before = claim(self.number, signal);
        drop(claiming);
        if self.before.is_none() {
            self.voice = Voice::Mute;
        }
        Ok(self.before.is_some())
    }

    /// The same for a file that was claimed: it may have been disarmed, or silenced (i).
    fn signals_again(&self, signal: i32) -> io::Result<bool> {
        if owner::is_async(self.number)? {
            return Ok(true);
        }
        let owner = Owner::of(self.number)?;
        if owner != Owner::this_thread() || owner::signal_of(self.number)? != signal {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the signals of this file were given to another owner (F_SETOWN, F_SETSIG)",
            ));
        }
        owner::set_async(self.number, true)?;
        Ok(true)
    }

    /// Makes the file as it was before it was claimed. Failures mean that the number was closed.
    fn release(&mut self, signal: i32) {
        let Some(before) = self.before.take() else { return };
        if owner::signal_of(self.number).is_ok_and(|its| its == signal) {
            let _ = owner::set_async(self.number, false);
            let _ = owner::set_signal(self.number, before.signal);
            before.restore_owner(self.number);
        }
    }
}

impl Before {
    /// Unless somebody else has become the owner meanwhile.
    fn restore_owner(self, number: RawFd) {
        if Owner::of(number).is_ok_and(|owner| owner == Owner::this_thread()) {
            let _ = self.owner.set(number);
        }
    }
}

/// Makes a description signal this thread, if it can, and signals nobody: gives how it was.
fn claim(number: RawFd, signal: i32) -> Option<Before> {
    let before = Before { owner: Owner::of(number).ok()?, signal: owner::signal_of(number).ok()? };
    if !before.owner.is_nobody() || owner::is_async(number).ok()? {
        return None;
    }
    Owner::this_thread().set(number).ok()?;
    let turn_on = || {
        owner::set_signal(number, signal)?;
        owner::set_async(number, true)?;
        owner::is_async(number)
    };
    if turn_on().unwrap_or(false) {
        return Some(before);
    }
    let _ = owner::set_signal(number, before.signal);
    before.restore_owner(number);
    None
}

/// What a file will signal, as far as its kind tells.
fn voice_of(fd: BorrowedFd<'_>) -> io::Result<Voice> {
    Ok(match Kind::of(fd)? {
        Kind::Pipe | Kind::InternetSocket => Voice::Whole,
        Kind::UnixSocket => Voice::Reads,
        // inotify signals, eventfd and others don't: reading `O_ASYNC` back tells (d).
        Kind::Anonymous => Voice::Whole,
        Kind::OtherSocket | Kind::Named => Voice::Mute,
    })
}

#[cfg(test)]
mod tests;
