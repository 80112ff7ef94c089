//! The bits of poll(2), and the one table (clause H3) that turns them into readiness.

use crate::event::{Interest, Readiness};
use bitflags::bitflags;

bitflags! {
    /// The bits of [poll(2)], which epoll and io_uring share. Unknown bits are kept, and mean
    /// nothing here.
    ///
    /// [poll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PollBits: u16 {
        /// `POLLIN`
        const IN = libc::POLLIN as u16;
        /// `POLLPRI`
        const PRI = libc::POLLPRI as u16;
        /// `POLLOUT`
        const OUT = libc::POLLOUT as u16;
        /// `POLLERR`: reported whether or not it is asked for.
        const ERR = libc::POLLERR as u16;
        /// `POLLHUP`: reported whether or not it is asked for.
        const HUP = libc::POLLHUP as u16;
        /// `POLLNVAL`: the number is not open, which only a caller of `borrow_raw` can bring about.
        const NVAL = libc::POLLNVAL as u16;
        /// `POLLRDHUP`: the peer shut down writing.
        const RDHUP = libc::POLLRDHUP as u16;
        /// `POLLRDNORM` and `POLLRDBAND`. Files set them beside `POLLIN`, some devices alone; to
        /// select(2) they are the same.
        const READ_BANDS = (libc::POLLRDNORM | libc::POLLRDBAND) as u16;
        /// `POLLWRNORM` and `POLLWRBAND`, likewise beside `POLLOUT`.
        const WRITE_BANDS = (libc::POLLWRNORM | libc::POLLWRBAND) as u16;
    }
}

/// One row of the table: the directions that make a kernel look for this bit, and what the bit says
/// to those who asked for READABLE, WRITABLE and PRIORITY.
struct Row {
    bit: PollBits,
    asked_by: Interest,
    says: [(Interest, Readiness); 3],
}

/// Clause H3. `ERR` says WRITE_CLOSED too unless `IN` is set, which a table of single bits can't
/// hold: [`PollBits::readiness`] adds that.
const TABLE: [Row; 8] = {
    use Interest as I;
    use Readiness as R;
    const fn row(bit: PollBits, asked_by: I, read: R, write: R, priority: R) -> Row {
        Row {
            bit,
            asked_by,
            says: [(I::READABLE, read), (I::WRITABLE, write), (I::PRIORITY, priority)],
        }
    }
    const NONE: R = R::empty();
    const READ_END: R = R::READABLE.union(R::READ_CLOSED);
    const WRITE_END: R = R::WRITABLE.union(R::WRITE_CLOSED);
    const READ_ERROR: R = R::READABLE.union(R::ERROR);
    const WRITE_ERROR: R = R::WRITABLE.union(R::ERROR);
    [
        row(PollBits::IN, I::READABLE, R::READABLE, NONE, NONE),
        row(PollBits::READ_BANDS, I::READABLE, R::READABLE, NONE, NONE),
        row(PollBits::OUT, I::WRITABLE, NONE, R::WRITABLE, NONE),
        row(PollBits::WRITE_BANDS, I::WRITABLE, NONE, R::WRITABLE, NONE),
        row(PollBits::PRI, I::PRIORITY, NONE, NONE, R::PRIORITY),
        row(PollBits::RDHUP, I::READABLE.union(I::PRIORITY), READ_END, NONE, R::READ_CLOSED),
        row(PollBits::HUP, I::empty(), READ_END, WRITE_END, R::READ_CLOSED),
        row(PollBits::ERR, I::empty(), READ_ERROR, WRITE_ERROR, R::ERROR),
    ]
};

/// The bits that make each direction ready, as the table says.
const READY_BY: [(Interest, PollBits); 3] =
    [ready_by(Interest::READABLE), ready_by(Interest::WRITABLE), ready_by(Interest::PRIORITY)];

const fn ready_by(dir: Interest) -> (Interest, PollBits) {
    let (mut bits, mut row) = (PollBits::empty(), 0);
    while row < TABLE.len() {
        let (said, asked_by) = (&TABLE[row].says, TABLE[row].asked_by);
        let comes = asked_by.is_empty() || asked_by.intersects(dir);
        let mut column = 0;
        while column < said.len() {
            if comes && said[column].0.bits() == dir.bits() && !said[column].1.is_empty() {
                bits = bits.union(TABLE[row].bit);
            }
            column += 1;
        }
        row += 1;
    }
    (dir, bits)
}

impl PollBits {
    /// The end of what can be read, hang-up and errors (E5). To ask of what is not open is an
    /// error.
    pub(crate) const ENDS: Self =
        PollBits::RDHUP.union(PollBits::HUP).union(PollBits::ERR).union(PollBits::NVAL);

    /// What to ask a kernel for so that `dirs` are reported. `ERR` and `HUP` come unasked.
    pub fn asked(dirs: Interest) -> Self {
        let rows = TABLE.iter().filter(|row| row.asked_by.intersects(dirs));
        rows.fold(PollBits::empty(), |bits, row| bits | row.bit)
    }

    /// Which of `dirs` these bits make ready.
    pub fn ready(self, dirs: Interest) -> Interest {
        let mut ready = Interest::empty();
        for (dir, bits) in READY_BY {
            // What can't be asked of, as it is not open, counts as an error.
            ready.set(dir, dirs.contains(dir) && self.intersects(bits.union(PollBits::NVAL)));
        }
        ready
    }

    /// Leaves the bits that make one of `dirs` ready.
    pub(crate) fn about(self, dirs: Interest) -> Self {
        let about = READY_BY.iter().filter(|(dir, _)| dirs.contains(*dir));
        self & about.fold(PollBits::empty(), |all, &(_, bits)| all | bits | PollBits::NVAL)
    }

    /// What these bits say to someone who asked for `dirs`. Empty when none of them is ready.
    pub fn readiness(self, dirs: Interest) -> Readiness {
        let bits = self.as_if_asked(dirs);
        let mut readiness = Readiness::empty();
        for row in TABLE.iter().filter(|row| bits.intersects(row.bit)) {
            for (dir, says) in row.says {
                if dirs.contains(dir) {
                    readiness |= says;
                }
            }
        }
        let failed_writer = bits.contains(PollBits::ERR) && !bits.contains(PollBits::IN);
        if failed_writer && dirs.contains(Interest::WRITABLE) {
            readiness |= Readiness::WRITE_CLOSED;
        }
        readiness
    }

    /// Leaves out what a poll(2) for `dirs` alone would not have shown, so that a backend that
    /// looks at more says the same. A number that is not open counts as an error, else nobody
    /// would ever hear of it.
    fn as_if_asked(self, dirs: Interest) -> Self {
        let unasked = PollBits::ERR | PollBits::HUP;
        let seen = self & (PollBits::asked(dirs) | unasked);
        if self.contains(PollBits::NVAL) { seen | PollBits::ERR } else { seen }
    }
}

#[cfg(test)]
mod tests;
