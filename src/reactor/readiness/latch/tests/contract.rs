//! Clauses L, O and E for one source, stated without a latch.

use super::bench::Work;
use crate::event::{Interest, Mode};

#[derive(Clone, Copy, Debug)]
pub(super) struct Contract {
    mode: Mode,
    interest: Interest,
    /// Where the kernel has edges of its own it hears of news that nobody asked for (E2).
    edges: Interest,
    /// What must be reported once it is ready (O1, E1).
    owed: Interest,
    /// What may be reported where the kernel has no edges (E2).
    open: Interest,
    /// Something happened since the last event (E3).
    stirred: bool,
    /// The last wait was empty, and nothing has happened since.
    idle: bool,
}

impl Contract {
    /// Just registered or modified.
    pub(super) fn new(mode: Mode, interest: Interest, edges: Interest) -> Self {
        let (owed, open) = (interest, interest);
        Contract { mode, interest, edges, owed, open, stirred: true, idle: false }
    }

    /// The kernel had news, which made `dirs` ready.
    pub(super) fn woken(&mut self, dirs: Interest) {
        self.stirred = true;
        if self.mode == Mode::Edge {
            self.owed |= dirs & self.interest & self.edges;
        }
    }

    pub(super) fn rescanned(&mut self) {
        self.stirred = true;
    }

    pub(super) fn rearmed(&mut self, dirs: Interest) {
        self.stirred = true;
        match self.mode {
            Mode::Level => {}
            Mode::OneShot => self.owed = dirs,
            Mode::Edge => (self.owed, self.open) = (self.owed | dirs, self.open | dirs),
        }
    }

    pub(super) fn drained(&mut self, dirs: Interest, ready: Interest) {
        self.stirred = true;
        if self.mode == Mode::Edge {
            self.owed |= dirs - ready;
            self.open |= dirs;
        }
    }

    /// The next wait may have things to do.
    pub(super) fn expect_work(&mut self) {
        self.idle = false;
    }

    /// A wait in which `ready` was ready throughout came back with `reported`.
    pub(super) fn judge(
        &mut self,
        ready: Interest,
        reported: Option<Interest>,
        work: Work,
    ) -> Result<(), String> {
        let got = reported.unwrap_or_default();
        let broken =
            |clause: &str| Err(format!("{clause}: {got:?} reported of {ready:?}, {self:?}"));
        if !(ready & self.interest).contains(got) {
            return broken("L2");
        }
        let must = match self.mode {
            Mode::Level => ready & self.interest,
            Mode::OneShot | Mode::Edge => ready & self.owed,
        };
        if !got.contains(must) {
            return broken("L1, O1 or E1");
        }
        match self.mode {
            Mode::Level | Mode::OneShot if got != must => return broken("O1"),
            Mode::Edge if !got.is_empty() && !self.stirred => return broken("E3"),
            Mode::Edge if got - self.edges != (ready & self.open) - self.edges => {
                return broken("E2");
            }
            _ => {}
        }
        if self.idle && work != Work::default() {
            return broken("an idle poller works");
        }
        if got.is_empty() {
            self.idle = true;
        } else {
            self.settle(got);
        }
        Ok(())
    }

    fn settle(&mut self, got: Interest) {
        self.stirred = false;
        self.owed -= got;
        self.open -= got;
        if self.mode == Mode::OneShot {
            self.owed = Interest::empty();
        }
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = u8> {
        [self.owed, self.open].map(|set| set.bits()).into_iter()
    }

    pub(super) fn flags(&self) -> impl Iterator<Item = bool> {
        [self.stirred, self.idle].into_iter()
    }
}
