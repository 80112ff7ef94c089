//! What the last report of each direction has shown (E5), as a pure state machine.
//!
//! The first end since then is news, and so is data where the report has shown an end alone. An end
//! that has passed is forgotten, and then the direction is as if it had been drained: a FIFO whose
//! next writer has come, a socket that is connected now.

use crate::event::Interest;
use crate::poll_bits::PollBits;
use bitflags::bitflags;

/// Of each direction that was reported and not armed since: the [`Part`]s that were true. Four bits
/// each, in as few bytes as possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown([u8; 2]);

bitflags! {
    /// What a report says of one direction: at least one of these.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Part: u16 {
        /// There is data, or room.
        const READY = 1;
        const RDHUP = 1 << 1;
        const HUP = 1 << 2;
        /// An error, or the file is not open.
        const ERR = 1 << 3;
    }
}

const DIRECTIONS: [Interest; 3] = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];

impl Part {
    const ENDS: Part = Part::RDHUP.union(Part::HUP).union(Part::ERR);
    /// The ends that a kernel reports also if it is not asked for them.
    const UNASKED: Part = Part::HUP.union(Part::ERR);
    const ALL: [(Part, PollBits); 4] = [
        (Part::READY, PollBits::all().difference(PollBits::ENDS)),
        (Part::RDHUP, PollBits::RDHUP),
        (Part::HUP, PollBits::HUP),
        (Part::ERR, PollBits::ERR.union(PollBits::NVAL)),
    ];

    /// What these bits say of a direction.
    fn of(dir: Interest, bits: PollBits) -> Part {
        let about = bits.about(dir);
        Part::ALL
            .iter()
            .filter(|(_, bits)| about.intersects(*bits))
            .map(|(part, _)| *part)
            .collect()
    }
}

impl Shown {
    /// Notes that `dirs` are reported, while `bits` are all that is true of them.
    pub(super) fn report(&mut self, dirs: Interest, bits: PollBits) {
        for (at, dir) in numbered(dirs) {
            self.set(at, Part::of(dir, bits));
        }
    }

    /// Forgets what was reported of `dirs`.
    pub(super) fn clear(&mut self, dirs: Interest) {
        for (at, _) in numbered(dirs) {
            self.set(at, Part::empty());
        }
    }

    /// Returns the directions of which something is known.
    pub(super) fn told(self) -> Interest {
        self.those(Interest::all(), |_, shown| !shown.is_empty())
    }

    /// Returns those of `dirs` of which `bits` say something that their last report did not.
    pub(super) fn news(self, dirs: Interest, bits: PollBits) -> Interest {
        self.those(dirs, |dir, shown| !shown.contains(Part::of(dir, bits)))
    }

    /// Returns those of `dirs` whose last report has shown an end.
    pub(super) fn ended(self, dirs: Interest) -> Interest {
        self.those(dirs, |_, shown| shown.intersects(Part::ENDS))
    }

    /// Returns those of `dirs` whose end a kernel can be asked to watch for. It would report that
    /// of the others all the time.
    pub(super) fn open(self, dirs: Interest) -> Interest {
        self.those(dirs, |_, shown| !shown.intersects(Part::UNASKED))
    }

    /// Returns the ends to watch for, so that a kernel reports the first one of `dirs`, which are
    /// [`open`](Shown::open).
    pub(super) fn ends_to_come(self, dirs: Interest) -> PollBits {
        const ENDS: PollBits = PollBits::ENDS.difference(PollBits::NVAL);
        numbered(dirs).fold(PollBits::empty(), |ends, (at, dir)| {
            let known = self.get(at).contains(Part::RDHUP);
            ends | (ENDS.about(dir) - if known { PollBits::RDHUP } else { PollBits::empty() })
        })
    }

    /// Notes that `bits` are all that is true of `dirs`, which have [`ended`](Shown::ended), and
    /// forgets what is true no longer. Returns those of them whose ends have passed.
    ///
    /// An error may pass because the program has taken it: if nothing has happened but that, data
    /// or room that were reported together with it are not to be reported again (E3).
    pub(super) fn forget(&mut self, dirs: Interest, bits: PollBits) -> Interest {
        let mut passed = Interest::empty();
        for (at, dir) in numbered(dirs) {
            let (shown, now) = (self.get(at), Part::of(dir, bits));
            let is_taken = shown == Part::READY | Part::ERR && now == Part::READY;
            passed.set(dir, !now.intersects(Part::ENDS) && !is_taken);
            self.set(at, shown & now);
        }
        passed
    }

    fn those(self, dirs: Interest, is_one: impl Fn(Interest, Part) -> bool) -> Interest {
        numbered(dirs).filter(|&(at, dir)| is_one(dir, self.get(at))).map(|(_, dir)| dir).collect()
    }

    fn get(self, at: usize) -> Part {
        Part::from_bits_truncate(u16::from_le_bytes(self.0) >> (4 * at))
    }

    fn set(&mut self, at: usize, shown: Part) {
        let others = u16::from_le_bytes(self.0) & !(Part::all().bits() << (4 * at));
        self.0 = (others | shown.bits() << (4 * at)).to_le_bytes();
    }

    /// A number for the whole state.
    #[cfg(test)]
    pub(super) fn fingerprint(self) -> u16 {
        u16::from_le_bytes(self.0)
    }
}

fn numbered(dirs: Interest) -> impl Iterator<Item = (usize, Interest)> {
    DIRECTIONS.into_iter().enumerate().filter(move |(_, dir)| dirs.contains(*dir))
}

#[cfg(test)]
mod tests;
