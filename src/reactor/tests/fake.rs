//! A selector that reports what a test has written down, and writes down what it was asked.

use crate::backend::Backend;
use crate::event::{Events, Interest};
use crate::key::{Key, Slot};
use crate::poll_bits::PollBits;
use crate::poller::{Poller, Source};
use crate::reactor::{Reactor, Waker};
use crate::selector::{
    ArmOutcome, ArmRequest, Deadline, Report, Selector, Trigger, Triggers, WaitOutcome, WakeHandle,
};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call that the reactor made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Arm(Slot, Interest, Trigger),
    /// Of directions that are not among these the ends are watched.
    ArmWithEnds(Slot, Interest, PollBits, Trigger),
    Disarm(Slot),
    Remove(Slot),
    Wait(Deadline),
}

/// What one wait reports, and how it ends.
pub(super) type Answer = (Vec<Report>, io::Result<WaitOutcome>);

/// The test's side of a [`Fake`].
#[derive(Debug)]
pub(super) struct Script {
    pub(super) native: Triggers,
    /// The triggers that files get, where that is not the one asked for.
    pub(super) side_trigger: Option<Trigger>,
    /// [`ArmOutcome::level`] of every answer.
    pub(super) level: Interest,
    /// [`ArmOutcome::look`] of every answer.
    pub(super) look: bool,
    /// [`ArmOutcome::blind`] of every answer.
    pub(super) blind: bool,
    /// Errors of the next calls of `arm`.
    pub(super) refusals: VecDeque<io::Error>,
    /// A wait beyond them finds nothing; it must not have to sleep for it.
    pub(super) answers: VecDeque<Answer>,
    /// [`Selector::has_more`] while answers are left.
    pub(super) has_more: bool,
    /// The last of [`Selector::set_max_reports`].
    pub(super) max_reports: usize,
    /// Wakes during the next wait.
    pub(super) waker: Option<Waker>,
    calls: Vec<Call>,
}

impl Script {
    /// The next wait reports these.
    pub(super) fn report(&mut self, raw: &[Report]) {
        self.answer(raw, Ok(WaitOutcome::Events));
    }

    pub(super) fn answer(&mut self, raw: &[Report], end: io::Result<WaitOutcome>) {
        self.answers.push_back((raw.to_vec(), end));
    }

    /// The next `arm` fails.
    pub(super) fn refuse(&mut self) {
        self.refusals.push_back(io::ErrorKind::OutOfMemory.into());
    }

    pub(super) fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }
}

pub(super) struct Fake {
    script: Rc<RefCell<Script>>,
    wake: WakeHandle,
    is_gone: Arc<AtomicBool>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }
}

impl Selector for Fake {
    fn native(&self) -> Triggers {
        self.script.borrow().native
    }

    fn arm(&mut self, slot: Slot, _fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let mut script = self.script.borrow_mut();
        let ArmRequest { dirs, ends, trigger } = arm;
        script.calls.push(match ends.is_empty() {
            true => Call::Arm(slot, dirs, trigger),
            false => Call::ArmWithEnds(slot, dirs, ends, trigger),
        });
        assert!(!arm.bits().is_empty(), "nothing is disarmed, not armed");
        let trigger = script.side_trigger.unwrap_or(arm.trigger);
        let applied =
            ArmOutcome { trigger, level: script.level, look: script.look, blind: script.blind };
        script.refusals.pop_front().map_or(Ok(applied), Err)
    }

    fn disarm(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        self.script.borrow_mut().calls.push(Call::Disarm(slot));
    }

    fn remove(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        self.script.borrow_mut().calls.push(Call::Remove(slot));
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let mut script = self.script.borrow_mut();
        script.calls.push(Call::Wait(deadline));
        if let Some(waker) = script.waker.take() {
            waker.wake();
        }
        match script.answers.pop_front() {
            Some((raw, end)) => {
                out.extend(raw);
                end
            }
            None => {
                assert!(deadline.has_passed(), "it would sleep until {deadline:?}");
                Ok(WaitOutcome::TimedOut)
            }
        }
    }

    fn set_max_reports(&mut self, max: usize) {
        self.script.borrow_mut().max_reports = max;
    }

    fn has_more(&mut self) -> bool {
        let script = self.script.borrow();
        script.has_more && !script.answers.is_empty()
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

/// A reactor over a fake, and the test's hold on it.
pub(super) struct Stage {
    pub(super) reactor: Reactor<Fake>,
    pub(super) script: Rc<RefCell<Script>>,
    pub(super) events: Events,
}

impl Stage {
    pub(super) fn new(native: Triggers, capacity: usize) -> Self {
        let script = Rc::new(RefCell::new(Script {
            native,
            side_trigger: None,
            level: Interest::empty(),
            look: false,
            blind: false,
            refusals: VecDeque::new(),
            answers: VecDeque::new(),
            has_more: false,
            max_reports: usize::MAX,
            waker: None,
            calls: Vec::new(),
        }));
        let wake = WakeHandle::new().expect("an eventfd");
        let fake = Fake { script: script.clone(), wake, is_gone: Arc::default() };
        let reactor = Reactor::new(Backend::Other("fake"), fake).expect("a page");
        Stage { reactor, script, events: Events::with_capacity(capacity) }
    }

    /// Waits, without waiting, and gives the tokens in their order.
    pub(super) fn look(&mut self) -> Vec<usize> {
        self.wait(Some(Duration::ZERO)).expect("a wait without errors")
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<usize>> {
        let waited = self.reactor.wait(&mut self.events, timeout);
        self.reactor.verify();
        waited.map(|()| self.events.iter().map(|event| event.token.0).collect())
    }

    /// How often wakers have written to the eventfd since the last call.
    pub(super) fn take_writes(&self) -> u64 {
        let mut count = [0; 8];
        match nix::unistd::read(&self.reactor.parts.selector.wake, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    pub(super) fn selector_is_gone(&self) -> Arc<AtomicBool> {
        self.reactor.parts.selector.is_gone.clone()
    }

    pub(super) fn take_calls(&self) -> Vec<Call> {
        self.script.borrow_mut().take_calls()
    }

    /// How many of the last calls waited.
    pub(super) fn take_waits(&self) -> usize {
        self.take_calls().iter().filter(|call| matches!(call, Call::Wait(_))).count()
    }
}

pub(super) fn slot(key: Key) -> Slot {
    key.slot
}

/// A source whose readiness the test sets: an eventfd, always writable.
pub(super) struct Bell(Arc<EventFd>);

impl Bell {
    pub(super) fn new() -> Self {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Bell(Arc::new(EventFd::from_value_and_flags(0, flags).expect("an eventfd")))
    }

    pub(super) fn ringing() -> Self {
        let bell = Bell::new();
        bell.ring();
        bell
    }

    pub(super) fn ring(&self) {
        self.0.write(1).expect("it is never full");
    }

    pub(super) fn hush(&self) {
        // The only failure is that it was silent already.
        let _ = self.0.read();
    }

    pub(super) fn source(&self) -> Source {
        self.0.clone()
    }

    pub(super) fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(super) fn number(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}
