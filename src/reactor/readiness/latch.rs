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
//! Nothing here knows a kernel: the answers are [`Step`]s, which the reactor carries out.

use crate::event::{Interest, Mode};
use crate::selector::{Trigger, Triggers};

/// The state of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latch {
    mode: Mode,
    trigger: Trigger,
    /// With EDGE: the directions that have the column LEVEL.
    level: Interest,
    interest: Interest,
    armed: Interest,
    /// Edge mode with EDGE: what was reported, and not armed since, though it is armed always.
    told: Interest,
    /// One-shot mode with EDGE: counts spurious reports since it was armed.
    spurious: u8,
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

impl Latch {
    /// A source just registered or modified; [`Latch::fix_trigger`] may still change the column.
    pub(crate) fn new(mode: Mode, interest: Interest, native: Triggers) -> Self {
        let (level, told) = (Interest::empty(), Interest::empty());
        // Where nothing is reported the mode does not show, and operations are best served by
        // level: whoever waits untried can't miss anything.
        let trigger = preferred(if interest.is_empty() { Mode::Level } else { mode }, native);
        Latch { mode, trigger, level, interest, armed: interest, told, spurious: 0 }
    }

    /// Takes over the trigger that the source really got. With EDGE, `level` are the directions
    /// that got LEVEL instead. A source that has lost its edges is not to repeat what they told.
    pub(crate) fn fix_trigger(&mut self, trigger: Trigger, level: Interest) {
        if trigger != Trigger::Edge {
            self.armed -= std::mem::replace(&mut self.told, Interest::empty());
        }
        self.trigger = trigger;
        self.level = if trigger == Trigger::Edge { level } else { Interest::empty() };
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
            Trigger::Edge if self.spurious == MAX_SPURIOUS => Interest::empty(),
            Trigger::Edge => (self.interest - self.level) | (self.armed & self.level),
            Trigger::Level | Trigger::OneShot => self.armed,
        }
    }

    /// The directions that have to be reported if they are ready now, because they were not since
    /// they were last armed, or because they always are: where the kernel does not tell by itself,
    /// they have to be looked at.
    pub(crate) fn owed(&self) -> Interest {
        match (self.mode, self.trigger) {
            (Mode::Edge, Trigger::Edge) => self.armed & self.level,
            (Mode::Edge, Trigger::Level | Trigger::OneShot) => self.armed,
            (Mode::Level | Mode::OneShot, _) => self.armed,
        }
    }

    /// These directions, all of them armed, were delivered in an event.
    pub(crate) fn delivered(&mut self, dirs: Interest) -> Step {
        debug_assert!(
            self.armed.contains(dirs) && !dirs.is_empty(),
            "only armed directions are delivered"
        );
        match (self.mode, self.trigger) {
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
                self.told |= dirs;
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
            Trigger::Edge if self.mode == Mode::OneShot && self.armed.is_empty() => {
                self.on_spurious()
            }
            Trigger::Level | Trigger::Edge => Step::Nothing,
            // The report that made us look has used the kernel's one shot up.
            Trigger::OneShot => self.arm_if_any(),
        }
    }

    /// The user asks for another look at `dirs`, a subset of the interest. Arming makes the kernel
    /// look, and also heals what has been done to the kernel's state behind our back.
    pub(crate) fn rearm(&mut self, dirs: Interest) -> Step {
        match self.mode {
            Mode::Level => {}
            Mode::OneShot => (self.armed, self.spurious) = (dirs, 0),
            Mode::Edge => self.arm(dirs),
        }
        Step::Arm
    }

    /// The user's I/O said `WouldBlock` in `dirs`, a subset of the interest.
    pub(crate) fn drained(&mut self, dirs: Interest) -> Step {
        match (self.mode, self.trigger) {
            (Mode::Level | Mode::OneShot, _) => Step::Nothing,
            (Mode::Edge, Trigger::Edge) if !dirs.intersects(self.level) => {
                self.arm(dirs);
                Step::Nothing
            }
            (Mode::Edge, _) => self.rearm(dirs),
        }
    }

    fn arm(&mut self, dirs: Interest) {
        self.armed |= dirs;
        self.told -= dirs;
    }

    /// The kernel has reported what is not to be delivered before the next `rearm`.
    fn on_spurious(&mut self) -> Step {
        if self.spurious == MAX_SPURIOUS {
            return Step::Nothing;
        }
        self.spurious += 1;
        if self.spurious == MAX_SPURIOUS { Step::Arm } else { Step::Nothing }
    }

    fn arm_if_any(&self) -> Step {
        if self.armed.is_empty() { Step::Nothing } else { Step::Arm }
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
