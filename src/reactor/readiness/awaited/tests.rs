//! What operations await, over every kernel there is: all states that can be reached, and all that
//! can happen in them.

use super::*;
use std::collections::HashSet;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const NONE: Interest = Interest::empty();

/// One file, the operations that want it, and a kernel that watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct World {
    await_ready: AwaitedInterest,
    trigger: Trigger,
    /// What the file is ready for.
    ready: Interest,
    /// What the kernel watches, and what of that has happened and was not reported.
    armed: Interest,
    pending: Interest,
    /// The kernel is to be told.
    is_lagging: bool,
    /// The next wait looks for itself, whatever the kernel says.
    is_queued: bool,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// An operation is submitted; one that is not awaited is done, and leaves something or nothing.
    Try(Interest, bool),
    /// One that is awaited is stopped.
    Stop(Interest),
    /// Something happens to the file.
    Happen(Interest),
    /// Somebody else uses it up.
    Steal(Interest),
    Modify,
    /// A wait, in which an operation that is served leaves something or nothing.
    Wait(bool),
    /// The kernel loses its reports, and the next wait looks for itself.
    Overflow,
}

const ACTIONS: [Action; 15] = [
    Action::Try(R, true),
    Action::Try(R, false),
    Action::Try(W, true),
    Action::Try(W, false),
    Action::Stop(R),
    Action::Stop(W),
    Action::Happen(R),
    Action::Happen(W),
    Action::Happen(R.union(W)),
    Action::Steal(R),
    Action::Steal(W),
    Action::Modify,
    Action::Wait(true),
    Action::Wait(false),
    Action::Overflow,
];

impl World {
    fn new(trigger: Trigger) -> Self {
        let await_ready = AwaitedInterest::default();
        let (ready, armed, pending) = (NONE, NONE, NONE);
        World { await_ready, trigger, ready, armed, pending, is_lagging: false, is_queued: false }
    }

    fn note(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Arm => self.is_lagging = true,
            Step::Look(_) => panic!("it looks for nobody"),
        }
    }

    fn arm(&mut self) {
        (self.armed, self.is_lagging) = (self.await_ready.watched(), false);
        self.pending = self.ready & self.armed;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Try(dir, leaves) => {
                if self.await_ready.awaited().contains(dir) {
                    return;
                }
                if self.await_ready.is_likely_not_ready(dir, self.by_level())
                    || !self.ready.contains(dir)
                {
                    let step = self.await_ready.await_ready(dir, self.trigger);
                    self.note(step);
                } else if !leaves {
                    self.ready -= dir;
                }
            }
            Action::Stop(dir) => self.await_ready.stop_awaiting(dir),
            Action::Happen(dirs) => {
                self.ready |= dirs;
                self.pending |= dirs & self.armed;
            }
            Action::Steal(dir) => self.ready -= dir,
            Action::Modify => {
                self.await_ready.start_over();
                self.arm();
            }
            Action::Wait(leaves) => {
                if self.is_lagging {
                    self.arm();
                }
                if self.reports() | std::mem::take(&mut self.is_queued) {
                    self.serve(leaves);
                }
            }
            Action::Overflow => {
                self.pending = NONE;
                self.is_queued = true;
            }
        }
    }

    fn reports(&mut self) -> bool {
        let told = match self.trigger {
            Trigger::Level => self.armed & self.ready,
            Trigger::Edge => self.armed & std::mem::replace(&mut self.pending, NONE),
            Trigger::OneShot => self.armed & self.ready,
        };
        if self.trigger == Trigger::OneShot && !told.is_empty() {
            self.armed = NONE;
        }
        !told.is_empty()
    }

    /// As the reactor does it.
    fn serve(&mut self, leaves: bool) {
        let ready = self.ready & self.await_ready.watched();
        self.await_ready.on_report(ready);
        for dir in [R, W] {
            if (self.await_ready.awaited() & ready).contains(dir) {
                self.await_ready.stop_awaiting(dir);
                // A short read says so, and may be mistaken.
                self.await_ready.note_likely_not_ready(dir);
                if !leaves {
                    self.ready -= dir;
                }
            }
        }
        let step = self.await_ready.on_served(self.by_level());
        self.note(step);
        if self.trigger == Trigger::OneShot && !self.await_ready.awaited().is_empty() {
            self.is_lagging = true;
        }
    }

    fn by_level(&self) -> Interest {
        if self.trigger == Trigger::Level { Interest::all() } else { NONE }
    }

    /// What the kernel will watch when it has been told.
    fn will_watch(&self) -> Interest {
        if self.is_lagging { self.await_ready.watched() } else { self.armed }
    }

    fn check(&self) {
        let AwaitedInterest { awaited, watched, spurious, .. } = self.await_ready;
        assert!(watched.contains(awaited), "what is awaited is watched: {self:?}");
        assert!(self.will_watch().contains(awaited), "and the kernel knows: {self:?}");
        assert!(spurious <= MAX_SPURIOUS);
        for dir in [R, W]
            .into_iter()
            .filter(|&dir| self.await_ready.is_likely_not_ready(dir, self.by_level()))
        {
            let is_told = self.trigger == Trigger::Level && self.will_watch().contains(dir);
            assert!(is_told, "nobody would tell: {self:?}");
        }
    }

    fn check_service(mut self) {
        let wanted = self.await_ready.awaited() & self.ready;
        self.act(Action::Wait(true));
        assert!(
            !self.await_ready.awaited().intersects(wanted),
            "what is ready is served: {self:?}"
        );
    }

    /// Nobody waits, and the file is as busy as can be.
    fn check_silence(mut self) {
        let mut reports = 0;
        for _ in 0..20 {
            self.act(Action::Happen(R | W));
            let had = self.await_ready;
            self.act(Action::Wait(true));
            reports += u8::from(had != self.await_ready || !self.armed.is_empty());
        }
        assert!(reports <= MAX_SPURIOUS + 2, "{reports} reports for nobody: {self:?}");
        assert!(
            self.await_ready.watched().is_empty() || self.trigger == Trigger::OneShot,
            "{self:?}"
        );
        assert!(!self.reports(), "it is quiet: {self:?}");
    }

    fn key(&self) -> [u8; 8] {
        let AwaitedInterest { awaited, watched, likely_not_ready, unawaited, spurious } =
            self.await_ready;
        assert!(unawaited.is_empty(), "a report is over when it was served");
        let sets = [awaited, watched, likely_not_ready, self.ready, self.armed, self.pending];
        let [a, b, c, d, e, f] = sets.map(|set| set.bits());
        let flags = u8::from(self.is_lagging) | u8::from(self.is_queued) << 1;
        [a, b, c, d, e, f, spurious, flags]
    }
}

fn explore(trigger: Trigger) -> usize {
    let (mut seen, mut open) = (HashSet::new(), vec![World::new(trigger)]);
    while let Some(world) = open.pop() {
        if !seen.insert(world.key()) {
            continue;
        }
        world.check();
        world.check_service();
        if world.await_ready.awaited().is_empty() {
            world.check_silence();
        }
        for action in ACTIONS {
            let mut next = world;
            next.act(action);
            open.push(next);
        }
    }
    seen.len()
}

#[test]
fn nobody_waits_in_vain_and_reports_for_nobody_end() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::OneShot] {
        let states = explore(trigger);
        assert!(states > 100, "{trigger:?}: {states} is not all there is");
    }
}

#[test]
fn what_is_watched_already_costs_nothing() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let mut await_ready = AwaitedInterest::default();
        assert_eq!(await_ready.await_ready(R, trigger), Step::Arm);
        for _ in 0..100 {
            await_ready.on_report(R);
            await_ready.stop_awaiting(R);
            assert_eq!(await_ready.await_ready(R, trigger), Step::Nothing);
            assert_eq!(await_ready.on_served(NONE), Step::Nothing);
        }
        assert_eq!(await_ready.await_ready(W, trigger), Step::Arm, "that is new");
    }
    let mut await_ready = AwaitedInterest::default();
    for _ in 0..3 {
        assert_eq!(
            await_ready.await_ready(R, Trigger::OneShot),
            Step::Arm,
            "it may have been used up"
        );
        await_ready.stop_awaiting(R);
    }
}

#[test]
fn levels_that_nobody_waits_for_are_given_up_at_once() {
    let mut await_ready = AwaitedInterest::default();
    await_ready.await_ready(R, Trigger::Level);
    await_ready.await_ready(W, Trigger::Level);
    await_ready.stop_awaiting(W);
    await_ready.on_report(R | W);
    assert_eq!(await_ready.on_served(Interest::all()), Step::Arm);
    assert_eq!(await_ready.watched(), R, "the other one goes on");
}

/// The next operation is submitted after the completion of the one before was delivered.
#[test]
fn level_that_was_awaited_stays_watched_for_the_next() {
    let mut await_ready = AwaitedInterest::default();
    assert_eq!(await_ready.await_ready(R, Trigger::Level), Step::Arm);
    for _ in 0..100 {
        await_ready.on_report(R);
        await_ready.stop_awaiting(R);
        await_ready.note_likely_not_ready(R);
        assert_eq!(await_ready.on_served(Interest::all()), Step::Nothing);
        assert!(await_ready.is_likely_not_ready(R, Interest::all()), "a report will come");
        assert_eq!(await_ready.await_ready(R, Trigger::Level), Step::Nothing);
    }
    await_ready.stop_awaiting(R);
    await_ready.on_report(R);
    assert_eq!(await_ready.on_served(Interest::all()), Step::Arm, "there was no next");
}
