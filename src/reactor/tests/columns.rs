//! Random scripts over the kernel, with every selector forced into every column of the latch. Waits
//! have small capacities, and fail, overflow or are interrupted at times.

mod expected;
mod forced;
mod split;

use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Readiness, Token};
use crate::poller::{Poller, Source};
use crate::reactor::Reactor;
use crate::selector::epoll::Epoll;
use crate::selector::poll::Poll;
use crate::selector::{Selector, Triggers};
use expected::Expected;
use forced::{Faults, Forced};
use nix::sys::eventfd::{EfdFlags, EventFd};
use proptest::prelude::*;
use split::Split;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
/// Three eventfds and a file that is always ready.
const SOURCES: usize = 4;
const ALWAYS_READY: usize = 3;

#[derive(Clone, Debug)]
enum Action {
    /// Makes an eventfd readable, or adds to its counter.
    Add(usize),
    /// Makes it readable and not writable.
    Fill(usize),
    /// Makes it writable only.
    Drain(usize),
    Register(usize, Interest, Mode),
    Modify(usize, Interest, Mode),
    Deregister(usize),
    Rearm(usize, Interest),
    Drained(usize, Interest),
    Wait {
        capacity: usize,
    },
    /// Refuses the next `arm`.
    Refuse,
    /// Fails the next wait after its reports are taken.
    Fail,
    /// Drops the reports of the next wait, which returns an overflow.
    Overflow,
    /// Interrupts the next wait if it has no reports.
    Interrupt,
}

fn any_action() -> impl Strategy<Value = Action> {
    let source = || 0..SOURCES;
    let file = || 0..ALWAYS_READY;
    let dirs = || (0..4_u8).prop_map(Interest::from_bits_truncate);
    let mode = || proptest::sample::select(vec![Mode::Level, Mode::Edge, Mode::OneShot]);
    prop_oneof![
        4 => file().prop_map(Action::Add),
        1 => file().prop_map(Action::Fill),
        4 => file().prop_map(Action::Drain),
        3 => (source(), dirs(), mode())
            .prop_map(|(at, dirs, mode)| Action::Register(at, dirs, mode)),
        2 => (source(), dirs(), mode()).prop_map(|(at, dirs, mode)| Action::Modify(at, dirs, mode)),
        1 => source().prop_map(Action::Deregister),
        4 => (source(), dirs()).prop_map(|(at, dirs)| Action::Rearm(at, dirs)),
        4 => (source(), dirs()).prop_map(|(at, dirs)| Action::Drained(at, dirs)),
        12 => (1..SOURCES).prop_map(|capacity| Action::Wait { capacity }),
        1 => Just(Action::Refuse),
        1 => Just(Action::Fail),
        1 => Just(Action::Overflow),
        1 => Just(Action::Interrupt),
    ]
}

fn any_script() -> impl Strategy<Value = Vec<Action>> {
    // Most scripts begin with everything registered, in one mode or in several.
    let mode = || proptest::sample::select(vec![Mode::Level, Mode::Edge, Mode::OneShot]);
    let modes =
        prop_oneof![mode().prop_map(|mode| [mode; SOURCES]), [mode(), mode(), mode(), mode()]];
    (modes, proptest::collection::vec(any_action(), 1..80)).prop_map(|(modes, mut actions)| {
        let all = modes.into_iter().enumerate();
        actions.splice(0..0, all.map(|(at, mode)| Action::Register(at, R | W, mode)));
        actions
    })
}

/// A poller in one column, its sources, and their expected state.
struct ColumnHarness {
    reactor: Reactor<Forced>,
    faults: Rc<Faults>,
    eventfds: Vec<Arc<EventFd>>,
    expected: [Option<Expected>; SOURCES],
    native: Triggers,
    level: Interest,
}

impl ColumnHarness {
    fn new(selector: Forced) -> Self {
        let (faults, native, level) = (selector.faults(), selector.native(), selector.level());
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let eventfd = || Arc::new(EventFd::from_value_and_flags(0, flags).expect("an eventfd"));
        ColumnHarness {
            reactor: Reactor::new(Backend::Other("forced"), selector).expect("a page"),
            faults,
            eventfds: std::iter::repeat_with(eventfd).take(ALWAYS_READY).collect(),
            expected: Default::default(),
            native,
            level,
        }
    }

    fn source(&self, at: usize) -> Source {
        match self.eventfds.get(at) {
            Some(eventfd) => eventfd.clone(),
            None => Arc::new(std::fs::File::open("/dev/null").expect("every Linux has it")),
        }
    }

    /// Writes `count` if it fits, and notes an event.
    fn write(&mut self, at: usize, count: u64) {
        // It fails if the counter is full, which is the intended state.
        let _ = self.eventfds[at].write(count);
        self.on_event(at);
    }

    fn on_event(&mut self, at: usize) {
        if let Some(expected) = &mut self.expected[at] {
            expected.on_event();
        }
    }

    /// Returns the readiness of a source by a poll(2) of the test.
    fn ready(&self, at: usize) -> Interest {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let Some(eventfd) = self.eventfds.get(at) else { return R | W };
        let request = PollFlags::POLLIN | PollFlags::POLLOUT;
        let mut fds = [PollFd::new(eventfd.as_fd(), request)];
        poll(&mut fds, PollTimeout::ZERO).expect("one is not too many");
        let bits = fds[0].revents().expect("no other bits than asked for");
        let mut ready = Interest::empty();
        ready.set(R, bits.contains(PollFlags::POLLIN));
        ready.set(W, bits.contains(PollFlags::POLLOUT));
        ready
    }

    fn play(&mut self, action: &Action) -> Result<(), String> {
        match *action {
            Action::Add(at) => self.write(at, 1),
            Action::Fill(at) => {
                let _ = self.eventfds[at].read();
                self.write(at, u64::MAX - 1);
            }
            Action::Drain(at) => {
                let _ = self.eventfds[at].read();
                self.on_event(at);
            }
            Action::Register(at, interest, mode) => self.register(at, interest, mode),
            Action::Modify(at, interest, mode) => self.modify(at, interest, mode),
            Action::Deregister(at) => {
                if let Some(gone) = self.expected[at].take() {
                    self.deregister(gone);
                }
            }
            Action::Rearm(at, dirs) => {
                if let Some(expected) = &mut self.expected[at] {
                    let dirs = dirs & expected.interest;
                    let done = self.reactor.rearm(expected.key, dirs);
                    expected.rearmed(dirs, accepted(done)?);
                }
            }
            Action::Drained(at, dirs) => {
                let ready = self.ready(at);
                if let Some(expected) = &mut self.expected[at] {
                    let dirs = dirs & expected.interest;
                    let done = self.reactor.drained(expected.key, dirs);
                    expected.drained(dirs, ready, accepted(done)?);
                }
            }
            Action::Wait { capacity } => return self.wait(capacity).map(drop),
            // After a delivery the selector would keep reporting the level of an unarmed direction.
            Action::Refuse if !self.level.is_empty() => {}
            Action::Refuse => self.faults.refuse.set(true),
            Action::Fail => self.faults.fail.set(true),
            Action::Overflow => {
                self.faults.overflow.set(true);
                self.expected.iter_mut().flatten().for_each(Expected::on_event);
            }
            Action::Interrupt => self.faults.interrupt.set(true),
        }
        self.reactor.verify();
        Ok(())
    }

    fn register(&mut self, at: usize, interest: Interest, mode: Mode) {
        let (source, token) = (self.source(at), Token(self.faults.arms.get()));
        let key = match self.reactor.register(source, token, interest, mode) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                assert!(self.expected[at].is_some());
                return;
            }
            // The always ready file is opened anew each time, and may be registered twice.
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::OutOfMemory),
        };
        if let Some(before) = self.expected[at].take() {
            self.deregister(before);
        }
        let has_edges = at == ALWAYS_READY || self.native == Triggers::EDGE;
        let has_edges = has_edges || self.native == Triggers::all();
        let edges = if has_edges { Interest::all() - self.level } else { Interest::empty() };
        self.expected[at] = Some(Expected::new(key, token, interest, mode, edges));
    }

    fn deregister(&mut self, gone: Expected) {
        self.reactor.deregister(gone.key).expect("known");
        // With fewer sources Q2 promises more, from here on only.
        self.expected.iter_mut().flatten().for_each(Expected::reset_left_out);
    }

    fn modify(&mut self, at: usize, interest: Interest, mode: Mode) {
        let Some(expected) = &mut self.expected[at] else { return };
        let token = Token(usize::MAX - self.faults.arms.get());
        match self.reactor.modify(expected.key, token, interest, mode) {
            Ok(()) => expected.modified(token, interest, mode),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::OutOfMemory),
        }
    }

    /// Returns the number of events; 0 after an error.
    fn wait(&mut self, capacity: usize) -> Result<usize, String> {
        let mut events = Events::with_capacity(capacity);
        let waited = self.reactor.wait(&mut events, Some(Duration::ZERO));
        self.reactor.verify();
        if !accepted(waited)? {
            assert!(events.is_empty());
            return Ok(0);
        }
        let is_full = events.len() == capacity;
        let registered = self.expected.iter().flatten().count();
        if events.len() > capacity || events.woken() {
            return Err(format!("Q1 or W2: {events:?}"));
        }
        for at in 0..SOURCES {
            let ready = self.ready(at);
            let Some(expected) = &mut self.expected[at] else { continue };
            let mut own = events.iter().filter(|event| event.key == expected.key);
            let event = own.next();
            if own.next().is_some() || event.is_some_and(|event| event.token != expected.token) {
                return Err(format!("H4 or R3: {events:?}, {expected:?}"));
            }
            let got = event.map_or(Interest::empty(), |event| dirs(event.readiness));
            let left_out = if is_full { capacity } else { registered };
            expected.check_wait(got, ready, left_out, registered)?;
        }
        let known = |key| self.expected.iter().flatten().any(|expected| expected.key == key);
        match events.iter().find(|event| !known(event.key)) {
            Some(event) => Err(format!("R5: {event:?} has an unknown key")),
            None => Ok(events.len()),
        }
    }

    /// Checks that without new events the poller reports the rest and then sleeps.
    fn check_idle(&mut self) -> Result<(), String> {
        self.faults.clear();
        for _ in 0..4 {
            self.wait(SOURCES)?;
        }
        if self.wait(SOURCES)? > 0 {
            return Ok(());
        }
        let (arms, waits) = (self.faults.arms.get(), self.faults.waits.get());
        let mut events = Events::with_capacity(1);
        let waited = self.reactor.wait(&mut events, Some(Duration::from_micros(100)));
        if !accepted(waited)? || !events.is_empty() {
            return Err(format!("an idle poller finds {events:?}"));
        }
        let (arms, waits) = (self.faults.arms.get() - arms, self.faults.waits.get() - waits);
        // A signal may interrupt it.
        if arms > 0 || waits > 3 {
            Err(format!("it spins: {arms} arms, {waits} waits"))
        } else {
            Ok(())
        }
    }
}

/// Returns true if the call succeeded. Only requested refusals are allowed.
fn accepted(result: io::Result<()>) -> Result<bool, String> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn dirs(readiness: Readiness) -> Interest {
    let mut dirs = Interest::empty();
    dirs.set(R, readiness.contains(Readiness::READABLE));
    dirs.set(W, readiness.contains(Readiness::WRITABLE));
    assert_eq!(dirs.bits(), readiness.bits(), "no ends");
    dirs
}

fn check(selector: Forced, script: &[Action]) -> Result<(), TestCaseError> {
    let mut harness = ColumnHarness::new(selector);
    let result = script.iter().try_for_each(|action| {
        harness.play(action).map_err(|broken| format!("{broken}\nat {action:?}"))
    });
    result.and_then(|()| harness.check_idle()).map_err(TestCaseError::fail)
}

fn epoll() -> Box<dyn Selector> {
    Box::new(Epoll::new().expect("epoll"))
}

fn poll() -> Box<dyn Selector> {
    Box::new(Poll::new().expect("an eventfd"))
}

macro_rules! columns {
    ($($name:ident: $selector:expr;)*) => {
        proptest! {
            $(#[test]
            fn $name(script in any_script()) {
                check($selector, &script)?;
            })*
        }
    };
}

columns! {
    epoll_native_triggers: Forced::new(epoll(), Triggers::all());
    poll_native_triggers: Forced::new(poll(), Triggers::LEVEL);
    epoll_level_only: Forced::new(epoll(), Triggers::LEVEL);
    epoll_edge_only: Forced::new(epoll(), Triggers::EDGE);
    epoll_one_shot_only: Forced::new(epoll(), Triggers::ONESHOT);
    epoll_level_hints: Forced::new(epoll(), Triggers::LEVEL).with_hints();
    epoll_edge_hints: Forced::new(epoll(), Triggers::EDGE).with_hints();
    epoll_edge_change_hints: Forced::new(epoll(), Triggers::EDGE).with_hints().with_initial_polls();
    edge_reads_and_level_writes:
        Forced::new(Box::new(Split::new()), Triggers::EDGE).with_levels(split::LEVEL);
    epoll_one_shot_hints: Forced::new(epoll(), Triggers::ONESHOT).with_hints();
}
