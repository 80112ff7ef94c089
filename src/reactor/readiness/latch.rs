//! What one source is owed: mode × native trigger, as a pure state machine.
//!
//! `armed` is the set of directions that may be reported now. The trigger, fixed when the source is
//! registered or modified, is the column:
//!
//! | mode \ trigger | LEVEL | EDGE | ONESHOT |
//! |---|---|---|---|
//! | Level | the kernel repeats | after a delivery look again in the next wait | arm again after each report |
//! | OneShot | delivery empties `armed`, and the kernel watches nothing | the kernel watches on, until a few reports were for nobody; deliveries are for `armed` alone | delivery empties `armed`; a report that proved false arms again |
//! | Edge | delivery takes the reported directions out of `armed` | the kernel's edges are ours | as LEVEL; what is left and a report that proved false arm again |
//!
//! A source with EDGE may have some directions that have the column LEVEL all the same.
//!
//! In edge mode a direction that LEVEL or ONESHOT has taken out of `armed` is *told*. The kernel
//! then watches for its first end alone ([`Latch::ends`]). One that was told of an end is not
//! watched any more, because the kernel would repeat it; it is looked at when a wait begins, and
//! when the user says `drained` ([`Latch::look_at_ended`]).
//!
//! Nothing here knows a kernel: the answers are [`Step`]s, which the reactor carries out.

use super::shown::Shown;
use crate::event::{Interest, Mode};
use crate::poll_bits::PollBits;
use crate::selector::{Trigger, Triggers};

/// The state of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latch {
    memory: Memory,
    trigger: Trigger,
    /// With EDGE: the directions that have the column LEVEL.
    level: Interest,
    interest: Interest,
    armed: Interest,
}

/// The mode, and what is remembered in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Level,
    /// What was reported, and not armed since. (With EDGE it is armed all the same.)
    Edge(Shown),
    OneShot {
        /// With EDGE: counts spurious reports since it was armed.
        spurious: u8,
    },
}

/// After so many spurious reports in a row the kernel is not to report any more. A few are cheaper
/// than to arm anew.
pub(super) const MAX_SPURIOUS: u8 = 3;

/// What has to be done with the kernel, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Probe these directions in the next wait.
    Look(Interest),
    /// Have the kernel watch [`Latch::watched`], also if it seems to do so already.
    Arm,
}

impl Memory {
    /// The kernel is not to report any more.
    const GIVEN_UP: Memory = Memory::OneShot { spurious: MAX_SPURIOUS };
}

impl Latch {
    /// A source just registered or modified; [`Latch::fix_trigger`] may still change the column.
    pub(crate) fn new(mode: Mode, interest: Interest, native: Triggers) -> Self {
        let memory = match mode {
            Mode::Level => Memory::Level,
            Mode::Edge => Memory::Edge(Shown::default()),
            Mode::OneShot => Memory::OneShot { spurious: 0 },
        };
        // Where nothing is reported the mode does not show, and operations are best served by
        // level: whoever waits untried can't miss anything.
        let trigger = preferred(if interest.is_empty() { Mode::Level } else { mode }, native);
        Latch { memory, trigger, level: Interest::empty(), interest, armed: interest }
    }

    /// Takes over the trigger that the source really got. With EDGE, `level` are the directions
    /// that got LEVEL instead. A source that has lost its edges is not to repeat what they told.
    pub(crate) fn fix_trigger(&mut self, trigger: Trigger, level: Interest) {
        if trigger != Trigger::Edge {
            self.armed -= self.shown().told();
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

    /// What was reported in edge mode, and not armed since.
    fn shown(&self) -> Shown {
        if let Memory::Edge(shown) = self.memory { shown } else { Shown::default() }
    }

    pub(crate) fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// The directions that the kernel reports again while they are ready.
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

    /// The directions that may be reported now.
    pub(crate) fn armed(&self) -> Interest {
        self.armed
    }

    /// The directions that the kernel should watch.
    pub(crate) fn watched(&self) -> Interest {
        match self.trigger {
            Trigger::Edge if self.memory == Memory::GIVEN_UP => Interest::empty(),
            Trigger::Edge => (self.interest - self.level) | (self.armed & self.level),
            Trigger::Level | Trigger::OneShot => self.armed,
        }
    }

    /// The bits for which the kernel should watch too, so that the first end of a told direction is
    /// reported (E5).
    pub(crate) fn ends(&self) -> PollBits {
        self.shown().ends_to_come(self.open())
    }

    /// The directions of which it matters whether they are ready.
    pub(crate) fn relevant(&self) -> Interest {
        self.armed | self.open()
    }

    /// The directions that are to be reported when `bits` are true.
    pub(crate) fn due(&self, bits: PollBits) -> Interest {
        bits.ready(self.armed) | self.news(bits)
    }

    /// Those of the told directions of which these bits say something new.
    pub(crate) fn news(&self, bits: PollBits) -> Interest {
        match self.told() {
            told if told.is_empty() => told,
            told => self.shown().news(told, bits),
        }
    }

    /// The directions that were told of an end.
    pub(crate) fn ended(&self) -> Interest {
        self.shown().ended(self.told())
    }

    /// The told directions whose end the kernel can watch for.
    pub(crate) fn open(&self) -> Interest {
        self.shown().open(self.told())
    }

    /// The directions that are to be looked at whenever another one is: where edges are made of
    /// something else, all that is true has to be known when a direction is reported. But a look
    /// must not show edges that are not its business (E3).
    pub(crate) fn looked_at_together(&self) -> Interest {
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

    /// The directions that were reported, and that the kernel does not watch any more.
    fn told(&self) -> Interest {
        let is_edge = matches!(self.memory, Memory::Edge(_));
        if is_edge { self.interest - self.armed } else { Interest::empty() }
    }

    /// The directions that have to be reported if they are ready now, because they were not since
    /// they were last armed, or because they always are: where the kernel does not tell by itself,
    /// they have to be looked at.
    pub(crate) fn owed(&self) -> Interest {
        match (self.mode(), self.trigger) {
            (Mode::Edge, Trigger::Edge) => self.armed & self.level,
            (Mode::Edge, Trigger::Level | Trigger::OneShot) => self.armed,
            (Mode::Level | Mode::OneShot, _) => self.armed,
        }
    }

    /// These directions, all of which were [`due`](Latch::due), were delivered in an event. `bits`
    /// are all that is true of them.
    pub(crate) fn delivered(&mut self, dirs: Interest, bits: PollBits) -> Step {
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
                if silent { Step::Nothing } else { Step::Look(self.interest - self.level) }
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

    /// A look found none of the armed directions ready.
    pub(crate) fn missed(&mut self) -> Step {
        match self.trigger {
            Trigger::Edge if self.armed.is_empty() => self.on_spurious(),
            Trigger::Level | Trigger::Edge => Step::Nothing,
            // The report that made us look has used the kernel's one shot up.
            Trigger::OneShot => self.arm_if_any(),
        }
    }

    /// The user asks for another look at `dirs`, a subset of the interest. Arming makes the kernel
    /// look, and also heals what has been done to the kernel's state behind our back.
    pub(crate) fn rearm(&mut self, dirs: Interest) -> Step {
        match &mut self.memory {
            Memory::Level => {}
            Memory::OneShot { spurious } => (self.armed, *spurious) = (dirs, 0),
            Memory::Edge(_) => self.arm(dirs),
        }
        Step::Arm
    }

    /// The user's I/O said `WouldBlock` in `dirs`, a subset of the interest.
    pub(crate) fn drained(&mut self, dirs: Interest) -> Step {
        match (self.mode(), self.trigger) {
            (Mode::Level | Mode::OneShot, _) => Step::Nothing,
            (Mode::Edge, trigger) => {
                // If the end is there still, nothing was drained.
                let dirs = dirs - self.ended();
                self.arm(dirs);
                let by_edges = trigger == Trigger::Edge && !dirs.intersects(self.level);
                if by_edges || dirs.is_empty() { Step::Nothing } else { Step::Arm }
            }
        }
    }

    /// A look at the directions that were told of an end has found that `bits` are all that is true
    /// of them. Arms those of which they say something new, or whose end has passed.
    pub(crate) fn look_at_ended(&mut self, bits: PollBits) -> Step {
        let (before, ended) = ((self.ends(), self.armed), self.ended());
        let Memory::Edge(shown) = &mut self.memory else { return Step::Nothing };
        let dirs = shown.news(ended, bits) | shown.forget(ended, bits);
        self.arm(dirs);
        if (self.ends(), self.armed) == before { Step::Nothing } else { Step::Arm }
    }

    fn arm(&mut self, dirs: Interest) {
        self.armed |= dirs;
        if let Memory::Edge(shown) = &mut self.memory {
            shown.clear(dirs);
        }
    }

    /// The kernel has reported what is not to be delivered before the next `rearm`.
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

/// The best of the native triggers for a mode: the one with the least to do beside the kernel.
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
