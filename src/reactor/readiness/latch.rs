//! The trigger state of one source: mode × native trigger, as a pure state machine.
//!
//! `armed` is the set of directions that may be reported now. The trigger, fixed when the source is
//! registered or modified, is the column:
//!
//! | mode \ trigger | LEVEL | EDGE | ONESHOT |
//! |---|---|---|---|
//! | Level | the kernel repeats | after a delivery poll again in the next wait | arm again after each report |
//! | OneShot | delivery empties `armed`, and the kernel watches nothing | the kernel keeps watching, until a few reports were spurious; only `armed` is delivered | delivery empties `armed`; a false report arms again |
//! | Edge | delivery removes the reported directions from `armed` | the kernel's edges are passed on | as LEVEL; remaining directions and a false report arm again |
//!
//! Some directions of a source with EDGE may still have the column LEVEL.
//!
//! In edge mode a direction that LEVEL or ONESHOT has removed from `armed` is *reported*. The
//! kernel then watches only for its first end ([`Latch::ends`]). A direction with a reported end is
//! not watched, because the kernel would repeat that end. It is polled when a wait begins, and in
//! `drained` ([`Latch::on_ended_polled`]).
//!
//! The state machine calls no kernel: it returns [`Step`]s, which the reactor carries out.

use super::shown::Shown;
use crate::event::{Interest, Mode};
use crate::poll_bits::PollBits;
use crate::selector::{Trigger, Triggers};

/// The trigger state of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latch {
    memory: Memory,
    trigger: Trigger,
    /// With EDGE: the directions in column LEVEL.
    level: Interest,
    interest: Interest,
    armed: Interest,
}

/// The mode and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Level,
    /// The reported directions not rearmed since. (With EDGE they stay armed.)
    Edge(Shown),
    OneShot {
        /// With EDGE: counts spurious reports since the last arming.
        spurious: u8,
    },
}

/// The consecutive spurious reports that disarm a source: a few cost less than arming anew.
pub(super) const MAX_SPURIOUS: u8 = 3;

/// The next action of the reactor for this source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Poll these directions in the next wait.
    Recheck(Interest),
    /// Make the kernel watch [`Latch::watched`], even if it seems to do so already.
    Arm,
}

impl Memory {
    /// The kernel is to report nothing.
    const GIVEN_UP: Memory = Memory::OneShot { spurious: MAX_SPURIOUS };
}

impl Latch {
    /// Returns a new source's state; [`Latch::fix_trigger`] may still change the column.
    pub(crate) fn new(mode: Mode, interest: Interest, native: Triggers) -> Self {
        let memory = match mode {
            Mode::Level => Memory::Level,
            Mode::Edge => Memory::Edge(Shown::default()),
            Mode::OneShot => Memory::OneShot { spurious: 0 },
        };
        // With an empty interest only operations use the source. Level suits them best: no
        // readiness can be missed.
        let trigger = preferred(if interest.is_empty() { Mode::Level } else { mode }, native);
        Latch { memory, trigger, level: Interest::empty(), interest, armed: interest }
    }

    /// Sets the trigger that the source really got. With EDGE, `level` are the directions that got
    /// LEVEL instead. A source that has lost its edges does not repeat reported directions.
    pub(crate) fn fix_trigger(&mut self, trigger: Trigger, level: Interest) {
        if trigger != Trigger::Edge {
            self.armed -= self.shown().reported();
        }
        self.trigger = trigger;
        self.level = if trigger == Trigger::Edge { level } else { Interest::empty() };
    }

    fn mode(&self) -> Mode {
        match self.memory {
            Memory::Level => Mode::Level,
            Memory::Edge(_) => Mode::Edge,
            Memory::OneShot { .. } => Mode::OneShot,
        }
    }

    /// Returns what was reported in edge mode and not rearmed since.
    fn shown(&self) -> Shown {
        if let Memory::Edge(shown) = self.memory { shown } else { Shown::default() }
    }

    pub(crate) fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// Returns the directions that the kernel reports as long as they are ready.
    pub(crate) fn by_level(&self) -> Interest {
        match self.trigger {
            Trigger::Level => Interest::all(),
            Trigger::Edge => self.level,
            Trigger::OneShot => Interest::empty(),
        }
    }

    pub(crate) fn interest(&self) -> Interest {
        self.interest
    }

    /// Returns the directions that may be reported now.
    pub(crate) fn armed(&self) -> Interest {
        self.armed
    }

    /// Returns the directions that the kernel should watch.
    pub(crate) fn watched(&self) -> Interest {
        match self.trigger {
            Trigger::Edge if self.memory == Memory::GIVEN_UP => Interest::empty(),
            Trigger::Edge => (self.interest - self.level) | (self.armed & self.level),
            Trigger::Level | Trigger::OneShot => self.armed,
        }
    }

    /// Returns the ends that the kernel should also watch for, so that the first end of a reported
    /// direction is reported (E5).
    pub(crate) fn ends(&self) -> PollBits {
        self.shown().ends_to_come(self.open())
    }

    /// Returns the directions whose readiness matters.
    pub(crate) fn relevant(&self) -> Interest {
        self.armed | self.open()
    }

    /// Returns the directions to report if `bits` are true.
    pub(crate) fn due(&self, bits: PollBits) -> Interest {
        bits.ready(self.armed) | self.changed(bits)
    }

    /// Returns the reported directions for which these bits are new.
    pub(crate) fn changed(&self, bits: PollBits) -> Interest {
        match self.reported() {
            reported if reported.is_empty() => reported,
            reported => self.shown().changed(reported, bits),
        }
    }

    /// Returns the directions whose end was reported.
    pub(crate) fn ended(&self) -> Interest {
        self.shown().ended(self.reported())
    }

    /// Returns the reported directions whose end the kernel can watch for.
    pub(crate) fn open(&self) -> Interest {
        self.shown().open(self.reported())
    }

    /// Returns the directions to poll together with any other. Where edges are emulated, the report
    /// of a direction needs all its bits. The poll must not show other directions' edges (E3).
    pub(crate) fn checked_together(&self) -> Interest {
        match (self.mode(), self.trigger) {
            (Mode::Edge, Trigger::Edge) => {
                let edges = PollBits::asked(self.interest - self.level);
                let is_apart = |dir: &Interest| !PollBits::asked(*dir).intersects(edges);
                self.level & (self.armed | self.interest.iter().filter(is_apart).collect())
            }
            (Mode::Edge, Trigger::Level | Trigger::OneShot) => self.interest,
            (Mode::Level | Mode::OneShot, _) => Interest::empty(),
        }
    }

    /// Returns the directions that were reported and that the kernel no longer watches.
    fn reported(&self) -> Interest {
        let is_edge = matches!(self.memory, Memory::Edge(_));
        if is_edge { self.interest - self.armed } else { Interest::empty() }
    }

    /// Returns the directions to report if they are ready now: those not reported since they were
    /// armed, or all by level. If the kernel does not report present readiness, they are polled.
    pub(crate) fn unreported(&self) -> Interest {
        match (self.mode(), self.trigger) {
            (Mode::Edge, Trigger::Edge) => self.armed & self.level,
            (Mode::Edge, Trigger::Level | Trigger::OneShot) => self.armed,
            (Mode::Level | Mode::OneShot, _) => self.armed,
        }
    }

    /// Notes that these directions, all [`due`](Latch::due), were delivered in an event. `bits` are
    /// all their true bits.
    pub(crate) fn on_delivered(&mut self, dirs: Interest, bits: PollBits) -> Step {
        debug_assert!(
            self.due(bits).contains(dirs) && !dirs.is_empty(),
            "only directions that are due are delivered"
        );
        if let Memory::Edge(shown) = &mut self.memory {
            shown.report(dirs, bits);
        }
        match (self.mode(), self.trigger) {
            (Mode::Level, Trigger::Level) => Step::Nothing,
            (Mode::Level, Trigger::Edge) => {
                let silent = !dirs.intersects(self.interest - self.level);
                if silent { Step::Nothing } else { Step::Recheck(self.interest - self.level) }
            }
            (Mode::Level, Trigger::OneShot) => Step::Arm,
            (Mode::OneShot, trigger) => {
                self.armed = Interest::empty();
                let by_level = trigger == Trigger::Level || self.interest.intersects(self.level);
                if by_level { Step::Arm } else { Step::Nothing }
            }
            (Mode::Edge, Trigger::Edge) => {
                self.armed -= dirs & self.level;
                if dirs.intersects(self.level) { Step::Arm } else { Step::Nothing }
            }
            (Mode::Edge, Trigger::Level) => {
                self.armed -= dirs;
                Step::Arm
            }
            (Mode::Edge, Trigger::OneShot) => {
                self.armed -= dirs;
                self.arm_if_any()
            }
        }
    }

    /// Notes that a poll found no armed direction ready.
    pub(crate) fn on_false_report(&mut self) -> Step {
        match self.trigger {
            Trigger::Edge if self.armed.is_empty() => self.on_spurious(),
            Trigger::Level | Trigger::Edge => Step::Nothing,
            // The report that caused the poll has used up the kernel's one shot.
            Trigger::OneShot => self.arm_if_any(),
        }
    }

    /// Rearms `dirs`, a subset of the interest. Arming makes the kernel check them, and repairs
    /// kernel state that others have changed.
    pub(crate) fn rearm(&mut self, dirs: Interest) -> Step {
        match &mut self.memory {
            Memory::Level => {}
            Memory::OneShot { spurious } => (self.armed, *spurious) = (dirs, 0),
            Memory::Edge(_) => self.arm(dirs),
        }
        Step::Arm
    }

    /// Notes that the user's I/O returned `WouldBlock` in `dirs`, a subset of the interest.
    pub(crate) fn drained(&mut self, dirs: Interest) -> Step {
        match (self.mode(), self.trigger) {
            (Mode::Level | Mode::OneShot, _) => Step::Nothing,
            (Mode::Edge, trigger) => {
                // While the end is still there, nothing was drained.
                let dirs = dirs - self.ended();
                self.arm(dirs);
                let by_edges = trigger == Trigger::Edge && !dirs.intersects(self.level);
                if by_edges || dirs.is_empty() { Step::Nothing } else { Step::Arm }
            }
        }
    }

    /// Notes that a poll of the ended directions found exactly `bits`. Arms those with new bits and
    /// those whose end has passed.
    pub(crate) fn on_ended_polled(&mut self, bits: PollBits) -> Step {
        let (before, ended) = ((self.ends(), self.armed), self.ended());
        let Memory::Edge(shown) = &mut self.memory else { return Step::Nothing };
        let dirs = shown.changed(ended, bits) | shown.forget(ended, bits);
        self.arm(dirs);
        if (self.ends(), self.armed) == before { Step::Nothing } else { Step::Arm }
    }

    fn arm(&mut self, dirs: Interest) {
        self.armed |= dirs;
        if let Memory::Edge(shown) = &mut self.memory {
            shown.clear(dirs);
        }
    }

    /// Notes a report that must not be delivered before the next `rearm`.
    fn on_spurious(&mut self) -> Step {
        match &mut self.memory {
            Memory::OneShot { spurious } if *spurious < MAX_SPURIOUS => *spurious += 1,
            _ => return Step::Nothing,
        }
        if self.memory == Memory::GIVEN_UP { Step::Arm } else { Step::Nothing }
    }

    fn arm_if_any(&self) -> Step {
        let is_watched = !self.armed.is_empty() || !self.open().is_empty();
        if is_watched { Step::Arm } else { Step::Nothing }
    }
}

/// Returns the native trigger for a mode that leaves the least to emulate.
fn preferred(mode: Mode, native: Triggers) -> Trigger {
    let order = match mode {
        Mode::Level => [Trigger::Level, Trigger::Edge, Trigger::OneShot],
        Mode::OneShot => [Trigger::OneShot, Trigger::Level, Trigger::Edge],
        Mode::Edge => [Trigger::Edge, Trigger::Level, Trigger::OneShot],
    };
    let has = |trigger: &Trigger| {
        native.contains(match trigger {
            Trigger::Level => Triggers::LEVEL,
            Trigger::Edge => Triggers::EDGE,
            Trigger::OneShot => Triggers::ONESHOT,
        })
    };
    order.into_iter().find(has).expect("a selector has at least one native trigger")
}

#[cfg(test)]
mod tests;
