//! Clauses L, O and E for one source, stated without a latch.

use super::bench::Work;
use crate::event::{Interest, Mode};
use crate::poll_bits::PollBits;

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
    /// Of the other directions, in edge mode: what is no news (E5), because it was true when they
    /// were last reported, and later too if a wait has looked at an end that was told.
    known: [PollBits; 3],
    /// Something happened since the last event (E3).
    stirred: bool,
    /// The last wait was empty, and nothing has happened since.
    idle: bool,
}

impl Contract {
    /// Just registered or modified.
    pub(super) fn new(mode: Mode, interest: Interest, edges: Interest) -> Self {
        let (owed, open, known) = (interest, interest, [PollBits::empty(); 3]);
        Contract { mode, interest, edges, owed, open, known, stirred: true, idle: false }
    }

    /// The directions without edges that were reported, and are not to be again but for news.
    fn closed(&self) -> Interest {
        let all = self.interest - self.open - self.edges;
        if self.mode == Mode::Edge { all } else { Interest::empty() }
    }

    /// What is known of a direction, if it is closed.
    fn of(&mut self, dir: Interest) -> Option<&mut PollBits> {
        let is_closed = self.closed().contains(dir);
        is_closed.then(|| &mut self.known[dir.bits().trailing_zeros() as usize])
    }

    /// A wait begins, or what may have ended is looked at for another reason. An end that was told
    /// may have passed, and then the direction is as if it had been drained.
    pub(super) fn begin_wait(&mut self, bits: PollBits) {
        for dir in Interest::all().iter() {
            let bits = bits.about(dir);
            let Some(known) = self.of(dir).filter(|known| known.intersects(PollBits::ENDS)) else {
                continue;
            };
            let is_new = !(bits - *known).is_empty();
            let gone = *known & PollBits::ENDS & !bits;
            let mut has_passed = !gone.is_empty() && !bits.intersects(PollBits::ENDS);
            // Nothing has happened but that the error was taken.
            has_passed &= gone != PollBits::ERR || bits.is_empty() || is_new;
            *known &= bits;
            if has_passed || is_new {
                (self.owed, self.open) = (self.owed | dir, self.open | dir);
            }
        }
    }

    /// Of what was told before and is not open: what has an end that was not told (E5).
    fn news(&mut self, bits: PollBits) -> Interest {
        let is_new = |dir: &Interest| {
            let ends = bits.about(*dir) & PollBits::ENDS;
            self.of(*dir).is_some_and(|known| !(ends - *known).is_empty())
        };
        Interest::all().iter().filter(is_new).collect()
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

    pub(super) fn drained(&mut self, dirs: Interest, bits: PollBits) {
        self.stirred = true;
        if self.mode != Mode::Edge {
            return;
        }
        if dirs.iter().any(|dir| self.of(dir).is_some_and(|it| it.intersects(PollBits::ENDS))) {
            self.begin_wait(bits);
        }
        // What an end that was told makes ready was not drained.
        let told = |dir: &Interest| {
            self.of(*dir).is_some_and(|known| known.intersects(PollBits::ENDS & bits))
        };
        let told: Interest = dirs.iter().filter(told).collect();
        self.owed |= dirs - bits.ready(dirs);
        self.open |= dirs - told;
    }

    /// The next wait may have things to do.
    pub(super) fn expect_work(&mut self) {
        self.idle = false;
    }

    /// A wait in which `ready` was ready throughout came back with `reported`.
    pub(super) fn judge(
        &mut self,
        bits: PollBits,
        reported: Option<Interest>,
        work: Work,
    ) -> Result<(), String> {
        let (got, ready) = (reported.unwrap_or_default(), bits.ready(self.interest));
        let news = self.news(bits);
        let broken =
            |clause: &str| Err(format!("{clause}: {got:?} reported of {bits:?}, {self:?}"));
        if !(ready & self.interest).contains(got) {
            return broken("L2");
        }
        let must = match self.mode {
            Mode::Level => ready & self.interest,
            Mode::OneShot | Mode::Edge => ready & self.owed,
        };
        if !got.contains(news) {
            return broken("E5");
        }
        if !got.contains(must) {
            return broken("L1, O1 or E1");
        }
        match self.mode {
            Mode::Level | Mode::OneShot if got != must => return broken("O1"),
            Mode::Edge if !got.is_empty() && !self.stirred => return broken("E3"),
            Mode::Edge if got - self.edges != ((ready & self.open) | news) - self.edges => {
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
            self.settle(got, bits);
        }
        Ok(())
    }

    fn settle(&mut self, got: Interest, bits: PollBits) {
        self.stirred = false;
        self.owed -= got;
        self.open -= got;
        for dir in got.iter() {
            if let Some(known) = self.of(dir) {
                *known = bits.about(dir);
            }
        }
        if self.mode == Mode::OneShot {
            self.owed = Interest::empty();
        }
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = u8> {
        [self.owed, self.open].map(|set| set.bits()).into_iter()
    }

    /// A number of 15 bits.
    pub(super) fn known(&self) -> u16 {
        let mut copy = *self;
        let of = |dir| copy.of(dir).map_or(0, |known| 16 | fingerprint(*known));
        Interest::all().iter().map(of).fold(0, |number, known| number << 5 | u16::from(known))
    }

    pub(super) fn flags(&self) -> impl Iterator<Item = bool> {
        [self.stirred, self.idle].into_iter()
    }
}

/// A number of 4 bits for the bits of a direction.
pub(super) fn fingerprint(bits: PollBits) -> u8 {
    let parts = [PollBits::ENDS.complement(), PollBits::RDHUP, PollBits::HUP, PollBits::ERR];
    parts.into_iter().fold(0, |number, part| number << 1 | u8::from(bits.intersects(part)))
}
