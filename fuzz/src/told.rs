//! What of each direction is no news (clause E5), in the plainest terms.
//!
//! Each end counts for itself: one that was not there when the direction was last reported must be
//! reported. Without native edges an end that was told can't be watched for any more; a wait looks
//! at it when it begins, and so does `drained`. If it has passed, the direction is as if it had
//! been drained (table of permitted differences).

use super::oracle::{Bits, DIRECTIONS, about, ends};
use quintpoll::Interest;

/// Of each direction, what was true when it was last reported, and is since.
#[derive(Clone, Copy, Debug)]
pub struct Told([Bits; 3]);

impl Told {
    /// Nothing was reported.
    pub const NOTHING: Told = Told([Bits::empty(); 3]);

    /// `dirs` are reported.
    pub fn report(&mut self, dirs: Interest, bits: Bits) {
        for (told, dir) in self.each(dirs) {
            *told = about(bits, dir);
        }
    }

    /// The directions of which there is an end that was not told.
    pub fn news(mut self, dirs: Interest, bits: Bits) -> Interest {
        let news = self.each(dirs).filter(|(told, dir)| !(ends(bits, *dir) - **told).is_empty());
        news.map(|(_, dir)| dir).collect()
    }

    /// Those of `dirs` of which an end was told.
    pub fn ended(mut self, dirs: Interest) -> Interest {
        let ended = self.each(dirs).filter(|(told, dir)| !ends(**told, *dir).is_empty());
        ended.map(|(_, dir)| dir).collect()
    }

    /// What is there no longer is news when it comes again.
    pub fn observe(&mut self, dirs: Interest, bits: Bits) {
        self.each(dirs).for_each(|(told, _)| *told &= bits);
    }

    /// The poller looks at those of `dirs` of which an end was told. Gives those that are as if
    /// they had been drained: there is no end any more, or there is data where an end alone was
    /// told. But to take an error is nothing that happens: what was told together with it stays
    /// told.
    pub fn look(&mut self, dirs: Interest, bits: Bits) -> Interest {
        let mut drained = Interest::empty();
        for (told, dir) in self.each(self.ended(dirs)) {
            let now = about(bits, dir);
            let gone = ends(*told, dir) - now;
            let has_passed = ends(now, dir).is_empty() && gone != Bits::EPOLLERR;
            let is_new = now.is_empty() || !(now - *told).is_empty();
            drained.set(dir, has_passed || is_new);
            *told &= now;
        }
        drained
    }

    fn each(&mut self, dirs: Interest) -> impl Iterator<Item = (&mut Bits, Interest)> + use<'_> {
        self.0.iter_mut().zip(DIRECTIONS).filter(move |(_, dir)| dirs.contains(*dir))
    }
}
