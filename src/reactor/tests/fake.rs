//! A selector that plays a script and records its calls.

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
    /// Watches the given ends of other directions too.
    ArmWithEnds(Slot, Interest, PollBits, Trigger),
    Disarm(Slot),
    Remove(Slot),
    Wait(Deadline),
}

/// The reports of one wait, and its result.
pub(super) type Answer = (Vec<Report>, io::Result<WaitOutcome>);

/// The test's side of a [`FakeSelector`].
#[derive(Debug)]
pub(super) struct Script {
    pub(super) native: Triggers,
    /// The trigger that files get, if not the requested one.
    pub(super) granted_trigger: Option<Trigger>,
    /// [`ArmOutcome::level`] of every call.
    pub(super) level: Interest,
    /// [`ArmOutcome::needs_initial_poll`] of every call.
    pub(super) needs_initial_poll: bool,
    /// [`ArmOutcome::needs_poll_each_wait`] of every call.
    pub(super) needs_poll_each_wait: bool,
    /// The errors of the next calls of `arm`.
    pub(super) refusals: VecDeque<io::Error>,
    /// The results of the next waits. A further wait finds nothing, and must not have to sleep.
    pub(super) answers: VecDeque<Answer>,
    /// [`Selector::has_more`] while answers are left.
    pub(super) has_more: bool,
    /// The last argument of [`Selector::set_max_reports`].
    pub(super) max_reports: usize,
    /// Wakes the poller during the next wait.
    pub(super) waker: Option<Waker>,
    calls: Vec<Call>,
}

impl Script {
    /// Makes the next wait return these reports.
    pub(super) fn report(&mut self, reports: &[Report]) {
        self.answer(reports, Ok(WaitOutcome::Events));
    }

    pub(super) fn answer(&mut self, reports: &[Report], end: io::Result<WaitOutcome>) {
        self.answers.push_back((reports.to_vec(), end));
    }

    /// Makes the next `arm` fail.
    pub(super) fn refuse(&mut self) {
        self.refusals.push_back(io::ErrorKind::OutOfMemory.into());
    }

    pub(super) fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }
}

pub(super) struct FakeSelector {
    script: Rc<RefCell<Script>>,
    wake: WakeHandle,
    is_dropped: Arc<AtomicBool>,
}

impl Drop for FakeSelector {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}

impl Selector for FakeSelector {
    fn native(&self) -> Triggers {
        self.script.borrow().native
    }

    fn arm(&mut self, slot: Slot, _fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let mut script = self.script.borrow_mut();
        let ArmRequest { dirs, ends, trigger } = arm;
        script.calls.push(if ends.is_empty() {
            Call::Arm(slot, dirs, trigger)
        } else {
            Call::ArmWithEnds(slot, dirs, ends, trigger)
        });
        assert!(!arm.bits().is_empty(), "an empty request must be a disarm");
        let trigger = script.granted_trigger.unwrap_or(arm.trigger);
        let applied = ArmOutcome {
            trigger,
            level: script.level,
            needs_initial_poll: script.needs_initial_poll,
            needs_poll_each_wait: script.needs_poll_each_wait,
        };
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
            Some((reports, end)) => {
                out.extend(reports);
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

/// A reactor over a fake selector, and the test's handle to its script.
pub(super) struct FakeReactor {
    pub(super) reactor: Reactor<FakeSelector>,
    pub(super) script: Rc<RefCell<Script>>,
    pub(super) events: Events,
}

impl FakeReactor {
    pub(super) fn new(native: Triggers, capacity: usize) -> Self {
        let script = Rc::new(RefCell::new(Script {
            native,
            granted_trigger: None,
            level: Interest::empty(),
            needs_initial_poll: false,
            needs_poll_each_wait: false,
            refusals: VecDeque::new(),
            answers: VecDeque::new(),
            has_more: false,
            max_reports: usize::MAX,
            waker: None,
            calls: Vec::new(),
        }));
        let wake = WakeHandle::new().expect("an eventfd");
        let fake = FakeSelector { script: script.clone(), wake, is_dropped: Arc::default() };
        let reactor = Reactor::new(Backend::Other("fake"), fake).expect("a page");
        FakeReactor { reactor, script, events: Events::with_capacity(capacity) }
    }

    /// Waits with a timeout of zero, and returns the tokens in order.
    pub(super) fn poll_now(&mut self) -> Vec<usize> {
        self.wait(Some(Duration::ZERO)).expect("a wait without errors")
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<usize>> {
        let waited = self.reactor.wait(&mut self.events, timeout);
        self.reactor.verify();
        waited.map(|()| self.events.iter().map(|event| event.token.0).collect())
    }

    /// Returns the number of writes by wakers to the eventfd since the last call.
    pub(super) fn take_writes(&self) -> u64 {
        let mut count = [0; 8];
        match nix::unistd::read(&self.reactor.parts.selector.wake, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    pub(super) fn selector_is_dropped(&self) -> Arc<AtomicBool> {
        self.reactor.parts.selector.is_dropped.clone()
    }

    pub(super) fn take_calls(&self) -> Vec<Call> {
        self.script.borrow_mut().take_calls()
    }

    /// Returns the number of waits among the last calls.
    pub(super) fn take_waits(&self) -> usize {
        self.take_calls().iter().filter(|call| matches!(call, Call::Wait(_))).count()
    }
}

pub(super) fn slot(key: Key) -> Slot {
    key.slot
}

/// A source whose readiness the test sets: an eventfd, always writable.
pub(super) struct TestEventFd(Arc<EventFd>);

impl TestEventFd {
    pub(super) fn new() -> Self {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        TestEventFd(Arc::new(EventFd::from_value_and_flags(0, flags).expect("an eventfd")))
    }

    pub(super) fn readable() -> Self {
        let eventfd = TestEventFd::new();
        eventfd.set_readable();
        eventfd
    }

    pub(super) fn set_readable(&self) {
        self.0.write(1).expect("it is never full");
    }

    pub(super) fn clear(&self) {
        // The only failure is that the eventfd was empty.
        let _ = self.0.read();
    }

    pub(super) fn source(&self) -> Source {
        self.0.clone()
    }

    pub(super) fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(super) fn fd(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}
