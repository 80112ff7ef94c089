//! The bits in the last report of each direction (E5), as a pure state machine.
//!
//! After a report the first end is new, and so are data if only an end was reported. A passed end
//! is forgotten, as if the direction had been drained: a FIFO has a new writer, or a socket is
//! connected now.

use crate::event::Interest;
use crate::poll_bits::PollBits;
use bitflags::bitflags;

/// The [`Part`]s that were true of each direction reported and not rearmed since. Each direction
/// takes four bits, to keep registrations small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown([u8; 2]);

bitflags! {
    /// The parts of a report on one direction: at least one is set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Part: u16 {
        /// Data or room.
        const READY = 1;
        const RDHUP = 1 << 1;
        const HUP = 1 << 2;
        /// An error, or the descriptor is not open.
        const ERR = 1 << 3;
    }
}

const DIRECTIONS: [Interest; 3] = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];

impl Part {
    const ENDS: Part = Part::RDHUP.union(Part::HUP).union(Part::ERR);
    /// The ends that a kernel reports unrequested.
    const UNASKED: Part = Part::HUP.union(Part::ERR);
    const ALL: [(Part, PollBits); 4] = [
        (Part::READY, PollBits::all().difference(PollBits::ENDS)),
        (Part::RDHUP, PollBits::RDHUP),
        (Part::HUP, PollBits::HUP),
        (Part::ERR, PollBits::ERR.union(PollBits::NVAL)),
    ];

    /// Returns the parts that these bits set for a direction.
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
    /// Notes that `dirs` are reported with `bits`, which are all their true bits.
    pub(super) fn report(&mut self, dirs: Interest, bits: PollBits) {
        for (at, dir) in indexed(dirs) {
            self.set(at, Part::of(dir, bits));
        }
    }

    /// Forgets what was reported of `dirs`.
    pub(super) fn clear(&mut self, dirs: Interest) {
        for (at, _) in indexed(dirs) {
            self.set(at, Part::empty());
        }
    }

    /// Returns the directions that were reported.
    pub(super) fn reported(self) -> Interest {
        self.filter(Interest::all(), |_, shown| !shown.is_empty())
    }

    /// Returns those of `dirs` for which `bits` have a part that their last report lacked.
    pub(super) fn changed(self, dirs: Interest, bits: PollBits) -> Interest {
        self.filter(dirs, |dir, shown| !shown.contains(Part::of(dir, bits)))
    }

    /// Returns those of `dirs` whose last report had an end.
    pub(super) fn ended(self, dirs: Interest) -> Interest {
        self.filter(dirs, |_, shown| shown.intersects(Part::ENDS))
    }

    /// Returns those of `dirs` whose end a kernel can watch for. It would keep reporting the end of
    /// the others.
    pub(super) fn open(self, dirs: Interest) -> Interest {
        self.filter(dirs, |_, shown| !shown.intersects(Part::UNASKED))
    }

    /// Returns the ends to watch for in `dirs`, which are [`open`](Shown::open), so that the kernel
    /// reports the first.
    pub(super) fn ends_to_come(self, dirs: Interest) -> PollBits {
        const ENDS: PollBits = PollBits::ENDS.difference(PollBits::NVAL);
        indexed(dirs).fold(PollBits::empty(), |ends, (at, dir)| {
            let known = self.get(at).contains(Part::RDHUP);
            ends | (ENDS.about(dir) - if known { PollBits::RDHUP } else { PollBits::empty() })
        })
    }

    /// Notes that `bits` are all true bits of `dirs`, which have [`ended`](Shown::ended), and
    /// forgets the others. Returns those whose ends have passed.
    ///
    /// An error also passes when the program takes it. If nothing else has happened, data or room
    /// reported with the error are not reported again (E3).
    pub(super) fn forget(&mut self, dirs: Interest, bits: PollBits) -> Interest {
        let mut passed = Interest::empty();
        for (at, dir) in indexed(dirs) {
            let (shown, now) = (self.get(at), Part::of(dir, bits));
            let is_taken = shown == Part::READY | Part::ERR && now == Part::READY;
            passed.set(dir, !now.intersects(Part::ENDS) && !is_taken);
            self.set(at, shown & now);
        }
        passed
    }

    fn filter(self, dirs: Interest, is_one: impl Fn(Interest, Part) -> bool) -> Interest {
        indexed(dirs).filter(|&(at, dir)| is_one(dir, self.get(at))).map(|(_, dir)| dir).collect()
    }

    fn get(self, at: usize) -> Part {
        Part::from_bits_truncate(u16::from_le_bytes(self.0) >> (4 * at))
    }

    fn set(&mut self, at: usize, shown: Part) {
        let others = u16::from_le_bytes(self.0) & !(Part::all().bits() << (4 * at));
        self.0 = (others | shown.bits() << (4 * at)).to_le_bytes();
    }

    /// Returns a number that identifies the state.
    #[cfg(test)]
    pub(super) fn fingerprint(self) -> u16 {
        u16::from_le_bytes(self.0)
    }
}

fn indexed(dirs: Interest) -> impl Iterator<Item = (usize, Interest)> {
    DIRECTIONS.into_iter().enumerate().filter(move |(_, dir)| dirs.contains(*dir))
}

#[cfg(test)]
mod tests;
