//! What one source is owed: mode × native trigger, as a pure state machine.
//!
//! `armed` is the set of directions that may be reported now. The trigger, fixed when the source is
//! registered or modified, is the column:
//!
//! | mode \ trigger | LEVEL | EDGE | ONESHOT |
//! |---|---|---|---|
//! | Level | the kernel repeats | after a delivery look again in the next wait | arm again after each report |
//! | OneShot | delivery empties `armed`, and the kernel watches nothing | the kernel watches on; deliveries are for `armed` alone | delivery empties `armed`; a report that proved false arms again |
//! | Edge | delivery takes the reported directions out of `armed` | the kernel's edges are ours | as LEVEL; what is left and a report that proved false arm again |
//!
//! Nothing here knows a kernel: the answers are [`Step`]s, which the reactor carries out.

use crate::event::{Interest, Mode};
use crate::selector::{Trigger, Triggers};

/// The state of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latch {
    mode: Mode,
    trigger: Trigger,
    interest: Interest,
    armed: Interest,
}

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
        Latch { mode, trigger: preferred(mode, native), interest, armed: interest }
    }

    /// Takes over the trigger that the source really got.
    pub(crate) fn fix_trigger(&mut self, trigger: Trigger) {
        self.trigger = trigger;
    }

    pub(crate) fn trigger(&self) -> Trigger {
        self.trigger
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
            Trigger::Edge => self.interest,
            Trigger::Level | Trigger::OneShot => self.armed,
        }
    }

    /// These directions, all of them armed, were delivered in an event.
    pub(crate) fn delivered(&mut self, dirs: Interest) -> Step {
        debug_assert!(
            self.armed.contains(dirs) && !dirs.is_empty(),
            "only armed directions are delivered"
        );
        match (self.mode, self.trigger) {
            (Mode::Level, Trigger::Level) | (Mode::Edge, Trigger::Edge) => Step::Nothing,
            (Mode::Level, Trigger::Edge) => Step::Look(self.interest),
            (Mode::Level, Trigger::OneShot) => Step::Arm,
            (Mode::OneShot, trigger) => {
                self.armed = Interest::empty();
                if trigger == Trigger::Level { Step::Arm } else { Step::Nothing }
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
    pub(crate) fn missed(&self) -> Step {
        match self.trigger {
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
            Mode::OneShot => self.armed = dirs,
            Mode::Edge => self.armed |= dirs,
        }
        Step::Arm
    }

    /// The user's I/O said `WouldBlock` in `dirs`, a subset of the interest.
    pub(crate) fn drained(&mut self, dirs: Interest) -> Step {
        match (self.mode, self.trigger) {
            (Mode::Level | Mode::OneShot, _) | (Mode::Edge, Trigger::Edge) => Step::Nothing,
            (Mode::Edge, Trigger::Level | Trigger::OneShot) => self.rearm(dirs),
        }
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
