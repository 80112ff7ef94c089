//! Clauses L, O and E for one source, stated without a latch.

use super::harness::Cost;
use crate::event::{Interest, Mode};
use crate::poll_bits::PollBits;

#[derive(Clone, Copy, Debug)]
pub(super) struct Contract {
    mode: Mode,
    interest: Interest,
    /// The directions whose changes the kernel reports unrequested (E2).
    edges: Interest,
    /// The directions to report once they are ready (O1, E1).
    must_report: Interest,
    /// The directions that may be reported without kernel edges (E2).
    open: Interest,
    /// The known bits of the other directions in edge mode (E5): true in their last report and, if
    /// a wait has polled a reported end, also then.
    known: [PollBits; 3],
    /// True if something happened since the last event (E3).
    has_event: bool,
    /// True if the last wait was empty and nothing has happened since.
    idle: bool,
}

impl Contract {
    /// Returns the state of a source just registered or modified.
    pub(super) fn new(mode: Mode, interest: Interest, edges: Interest) -> Self {
        let (must_report, open, known) = (interest, interest, [PollBits::empty(); 3]);
        Contract { mode, interest, edges, must_report, open, known, has_event: true, idle: false }
    }

    /// Returns the reported directions without edges; only new ends are reported again.
    fn closed(&self) -> Interest {
        let all = self.interest - self.open - self.edges;
        if self.mode == Mode::Edge { all } else { Interest::empty() }
    }

    /// Returns the known bits of a direction if it is closed.
    fn of(&mut self, dir: Interest) -> Option<&mut PollBits> {
        let is_closed = self.closed().contains(dir);
        is_closed.then(|| &mut self.known[dir.bits().trailing_zeros() as usize])
    }

    /// Begins a wait, or another poll of reported ends. If an end has passed, the direction counts
    /// as drained.
    pub(super) fn begin_wait(&mut self, bits: PollBits) {
        for dir in Interest::all().iter() {
            let bits = bits.about(dir);
            let Some(known) = self.of(dir).filter(|known| known.intersects(PollBits::ENDS)) else {
                continue;
            };
            let is_new = !(bits - *known).is_empty();
            let gone = *known & PollBits::ENDS & !bits;
            let mut has_passed = !gone.is_empty() && !bits.intersects(PollBits::ENDS);
            // Nothing else happened than that the program took the error.
            has_passed &= gone != PollBits::ERR || bits.is_empty() || is_new;
            *known &= bits;
            if has_passed || is_new {
                (self.must_report, self.open) = (self.must_report | dir, self.open | dir);
            }
        }
    }

    /// Returns the closed directions with an unreported end (E5).
    fn changed(&mut self, bits: PollBits) -> Interest {
        let is_new = |dir: &Interest| {
            let ends = bits.about(*dir) & PollBits::ENDS;
            self.of(*dir).is_some_and(|known| !(ends - *known).is_empty())
        };
        Interest::all().iter().filter(is_new).collect()
    }

    /// Notes a kernel event that made `dirs` ready.
    pub(super) fn on_event(&mut self, dirs: Interest) {
        self.has_event = true;
        if self.mode == Mode::Edge {
            self.must_report |= dirs & self.interest & self.edges;
        }
    }

    pub(super) fn rescanned(&mut self) {
        self.has_event = true;
    }

    pub(super) fn rearmed(&mut self, dirs: Interest) {
        self.has_event = true;
        match self.mode {
            Mode::Level => {}
            Mode::OneShot => self.must_report = dirs,
            Mode::Edge => {
                (self.must_report, self.open) = (self.must_report | dirs, self.open | dirs)
            }
        }
    }

    pub(super) fn drained(&mut self, dirs: Interest, bits: PollBits) {
        self.has_event = true;
        if self.mode != Mode::Edge {
            return;
        }
        if dirs.iter().any(|dir| self.of(dir).is_some_and(|it| it.intersects(PollBits::ENDS))) {
            self.begin_wait(bits);
        }
        // A direction that a reported end keeps ready was not drained.
        let reported = |dir: &Interest| {
            self.of(*dir).is_some_and(|known| known.intersects(PollBits::ENDS & bits))
        };
        let reported: Interest = dirs.iter().filter(reported).collect();
        self.must_report |= dirs - bits.ready(dirs);
        self.open |= dirs - reported;
    }

    /// Notes that the next wait may make system calls.
    pub(super) fn mark_active(&mut self) {
        self.idle = false;
    }

    /// Checks a wait that returned `reported` while `bits` were true throughout.
    pub(super) fn check_wait(
        &mut self,
        bits: PollBits,
        reported: Option<Interest>,
        cost: Cost,
    ) -> Result<(), String> {
        let (got, ready) = (reported.unwrap_or_default(), bits.ready(self.interest));
        let changed = self.changed(bits);
        let broken =
            |clause: &str| Err(format!("{clause}: {got:?} reported of {bits:?}, {self:?}"));
        if !(ready & self.interest).contains(got) {
            return broken("L2");
        }
        let must = match self.mode {
            Mode::Level => ready & self.interest,
            Mode::OneShot | Mode::Edge => ready & self.must_report,
        };
        if !got.contains(changed) {
            return broken("E5");
        }
        if !got.contains(must) {
            return broken("L1, O1 or E1");
        }
        match self.mode {
            Mode::Level | Mode::OneShot if got != must => return broken("O1"),
            Mode::Edge if !got.is_empty() && !self.has_event => return broken("E3"),
            Mode::Edge if got - self.edges != ((ready & self.open) | changed) - self.edges => {
                return broken("E2");
            }
            _ => {}
        }
        if self.idle && cost != Cost::default() {
            return broken("an idle poller works");
        }
        if got.is_empty() {
            self.idle = true;
        } else {
            self.on_reported(got, bits);
        }
        Ok(())
    }

    fn on_reported(&mut self, got: Interest, bits: PollBits) {
        self.has_event = false;
        self.must_report -= got;
        self.open -= got;
        for dir in got.iter() {
            if let Some(known) = self.of(dir) {
                *known = bits.about(dir);
            }
        }
        if self.mode == Mode::OneShot {
            self.must_report = Interest::empty();
        }
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = u8> {
        [self.must_report, self.open].map(|set| set.bits()).into_iter()
    }

    /// Returns a number of 15 bits.
    pub(super) fn known(&self) -> u16 {
        let mut copy = *self;
        let of = |dir| copy.of(dir).map_or(0, |known| 16 | fingerprint(*known));
        Interest::all().iter().map(of).fold(0, |number, known| number << 5 | u16::from(known))
    }

    pub(super) fn flags(&self) -> impl Iterator<Item = bool> {
        [self.has_event, self.idle].into_iter()
    }
}

/// Returns a number of 4 bits for the bits of a direction.
pub(super) fn fingerprint(bits: PollBits) -> u8 {
    let parts = [PollBits::ENDS.complement(), PollBits::RDHUP, PollBits::HUP, PollBits::ERR];
    parts.into_iter().fold(0, |number, part| number << 1 | u8::from(bits.intersects(part)))
}
