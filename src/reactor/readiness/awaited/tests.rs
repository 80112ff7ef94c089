//! The awaited interest with every trigger: all actions in all reachable states.

use super::*;
use std::collections::HashSet;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const NONE: Interest = Interest::empty();

/// A file, its operations, and a kernel that watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Model {
    state: AwaitedInterest,
    trigger: Trigger,
    /// The ready directions of the file.
    ready: Interest,
    /// The directions watched by the kernel, and those of them with an unreported event.
    armed: Interest,
    pending: Interest,
    /// The kernel is out of date.
    is_dirty: bool,
    /// The next wait polls without a report.
    is_queued: bool,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// Submits an operation. If it completes, it leaves readiness or consumes it.
    Submit(Interest, bool),
    /// Cancels an awaiting operation.
    Stop(Interest),
    /// The file becomes ready.
    BecomeReady(Interest),
    /// Another process consumes the readiness.
    Consume(Interest),
    Modify,
    /// Waits; an operation that is served leaves readiness or consumes it.
    Wait(bool),
    /// The kernel loses its reports, and the next wait polls.
    Overflow,
}

const ACTIONS: [Action; 15] = [
    Action::Submit(R, true),
    Action::Submit(R, false),
    Action::Submit(W, true),
    Action::Submit(W, false),
    Action::Stop(R),
    Action::Stop(W),
    Action::BecomeReady(R),
    Action::BecomeReady(W),
    Action::BecomeReady(R.union(W)),
    Action::Consume(R),
    Action::Consume(W),
    Action::Modify,
    Action::Wait(true),
    Action::Wait(false),
    Action::Overflow,
];

impl Model {
    fn new(trigger: Trigger) -> Self {
        let state = AwaitedInterest::default();
        let (ready, armed, pending) = (NONE, NONE, NONE);
        Model { state, trigger, ready, armed, pending, is_dirty: false, is_queued: false }
    }

    fn note(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Arm => self.is_dirty = true,
            Step::Recheck(_) => panic!("an unexpected poll"),
        }
    }

    fn arm(&mut self) {
        (self.armed, self.is_dirty) = (self.state.watched(), false);
        self.pending = self.ready & self.armed;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Submit(dir, leaves) => {
                if self.state.awaited().contains(dir) {
                    return;
                }
                if self.state.is_likely_not_ready(dir, self.by_level()) || !self.ready.contains(dir)
                {
                    let step = self.state.await_ready(dir, self.trigger);
                    self.note(step);
                } else if !leaves {
                    self.ready -= dir;
                }
            }
            Action::Stop(dir) => self.state.stop_awaiting(dir),
            Action::BecomeReady(dirs) => {
                self.ready |= dirs;
                self.pending |= dirs & self.armed;
            }
            Action::Consume(dir) => self.ready -= dir,
            Action::Modify => {
                self.state.reset();
                self.arm();
            }
            Action::Wait(leaves) => {
                if self.is_dirty {
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
        let reported = match self.trigger {
            Trigger::Level => self.armed & self.ready,
            Trigger::Edge => self.armed & std::mem::replace(&mut self.pending, NONE),
            Trigger::OneShot => self.armed & self.ready,
        };
        if self.trigger == Trigger::OneShot && !reported.is_empty() {
            self.armed = NONE;
        }
        !reported.is_empty()
    }

    /// Serves operations as the reactor does.
    fn serve(&mut self, leaves: bool) {
        let ready = self.ready & self.state.watched();
        self.state.on_report(ready);
        for dir in [R, W] {
            if (self.state.awaited() & ready).contains(dir) {
                self.state.stop_awaiting(dir);
                // A short read indicates that, and may be wrong.
                self.state.note_likely_not_ready(dir);
                if !leaves {
                    self.ready -= dir;
                }
            }
        }
        let step = self.state.on_served(self.by_level());
        self.note(step);
        if self.trigger == Trigger::OneShot && !self.state.awaited().is_empty() {
            self.is_dirty = true;
        }
    }

    fn by_level(&self) -> Interest {
        if self.trigger == Trigger::Level { Interest::all() } else { NONE }
    }

    /// Returns the directions that the kernel watches after the next update.
    fn will_watch(&self) -> Interest {
        if self.is_dirty { self.state.watched() } else { self.armed }
    }

    fn check(&self) {
        let AwaitedInterest { awaited, watched, spurious, .. } = self.state;
        assert!(watched.contains(awaited), "awaited directions are watched: {self:?}");
        assert!(self.will_watch().contains(awaited), "awaited directions are armed: {self:?}");
        assert!(spurious <= MAX_SPURIOUS);
        for dir in
            [R, W].into_iter().filter(|&dir| self.state.is_likely_not_ready(dir, self.by_level()))
        {
            let is_reported = self.trigger == Trigger::Level && self.will_watch().contains(dir);
            assert!(is_reported, "no report is certain: {self:?}");
        }
    }

    fn check_service(mut self) {
        let wanted = self.state.awaited() & self.ready;
        self.act(Action::Wait(true));
        assert!(!self.state.awaited().intersects(wanted), "ready directions are served: {self:?}");
    }

    /// Checks that reports end if no operation awaits a busy file.
    fn check_silence(mut self) {
        let mut reports = 0;
        for _ in 0..20 {
            self.act(Action::BecomeReady(R | W));
            let had = self.state;
            self.act(Action::Wait(true));
            reports += u8::from(had != self.state || !self.armed.is_empty());
        }
        assert!(reports <= MAX_SPURIOUS + 2, "{reports} spurious reports: {self:?}");
        assert!(self.state.watched().is_empty() || self.trigger == Trigger::OneShot, "{self:?}");
        assert!(!self.reports(), "no more reports: {self:?}");
    }

    fn key(&self) -> [u8; 8] {
        let AwaitedInterest { awaited, watched, likely_not_ready, unawaited, spurious } =
            self.state;
        assert!(unawaited.is_empty(), "a served report leaves nothing unawaited");
        let sets = [awaited, watched, likely_not_ready, self.ready, self.armed, self.pending];
        let [a, b, c, d, e, f] = sets.map(|set| set.bits());
        let flags = u8::from(self.is_dirty) | u8::from(self.is_queued) << 1;
        [a, b, c, d, e, f, spurious, flags]
    }
}

fn explore(trigger: Trigger) -> usize {
    let (mut seen, mut open) = (HashSet::new(), vec![Model::new(trigger)]);
    while let Some(model) = open.pop() {
        if !seen.insert(model.key()) {
            continue;
        }
        model.check();
        model.check_service();
        if model.state.awaited().is_empty() {
            model.check_silence();
        }
        for action in ACTIONS {
            let mut next = model;
            next.act(action);
            open.push(next);
        }
    }
    seen.len()
}

#[test]
fn awaited_directions_are_served_and_spurious_reports_end() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::OneShot] {
        let states = explore(trigger);
        assert!(states > 100, "{trigger:?}: only {states} states");
    }
}

#[test]
fn watched_direction_is_awaited_without_arming() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let mut state = AwaitedInterest::default();
        assert_eq!(state.await_ready(R, trigger), Step::Arm);
        for _ in 0..100 {
            state.on_report(R);
            state.stop_awaiting(R);
            assert_eq!(state.await_ready(R, trigger), Step::Nothing);
            assert_eq!(state.on_served(NONE), Step::Nothing);
        }
        assert_eq!(state.await_ready(W, trigger), Step::Arm, "a new direction");
    }
    let mut state = AwaitedInterest::default();
    for _ in 0..3 {
        assert_eq!(state.await_ready(R, Trigger::OneShot), Step::Arm, "the shot may be used up");
        state.stop_awaiting(R);
    }
}

#[test]
fn unawaited_level_is_disarmed_after_one_report() {
    let mut state = AwaitedInterest::default();
    state.await_ready(R, Trigger::Level);
    state.await_ready(W, Trigger::Level);
    state.stop_awaiting(W);
    state.on_report(R | W);
    assert_eq!(state.on_served(Interest::all()), Step::Arm);
    assert_eq!(state.watched(), R, "the awaited direction stays watched");
}

/// The next operation is submitted after the delivery of the last completion.
#[test]
fn served_level_stays_watched_for_next_operation() {
    let mut state = AwaitedInterest::default();
    assert_eq!(state.await_ready(R, Trigger::Level), Step::Arm);
    for _ in 0..100 {
        state.on_report(R);
        state.stop_awaiting(R);
        state.note_likely_not_ready(R);
        assert_eq!(state.on_served(Interest::all()), Step::Nothing);
        assert!(state.is_likely_not_ready(R, Interest::all()), "a report will come");
        assert_eq!(state.await_ready(R, Trigger::Level), Step::Nothing);
    }
    state.stop_awaiting(R);
    state.on_report(R);
    assert_eq!(state.on_served(Interest::all()), Step::Arm, "no next operation");
}
