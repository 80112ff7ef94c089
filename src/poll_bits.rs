//! The bits of poll(2), and the table (clause H3) that maps them to readiness.

use crate::event::{Interest, Readiness};
use bitflags::bitflags;

bitflags! {
    /// The bits of [poll(2)], which epoll and io_uring share. Unknown bits are kept and ignored.
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
        /// `POLLERR`: reported even if it is not requested.
        const ERR = libc::POLLERR as u16;
        /// `POLLHUP`: reported even if it is not requested.
        const HUP = libc::POLLHUP as u16;
        /// `POLLNVAL`: the descriptor is not open, which only a caller of `borrow_raw` can cause.
        const NVAL = libc::POLLNVAL as u16;
        /// `POLLRDHUP`: the peer shut down writing.
        const RDHUP = libc::POLLRDHUP as u16;
        /// `POLLRDNORM` and `POLLRDBAND`. Files set them together with `POLLIN`, some devices
        /// alone; select(2) does not distinguish them.
        const READ_BANDS = (libc::POLLRDNORM | libc::POLLRDBAND) as u16;
        /// `POLLWRNORM` and `POLLWRBAND`, which files set together with `POLLOUT`.
        const WRITE_BANDS = (libc::POLLWRNORM | libc::POLLWRBAND) as u16;
    }
}

/// One row of the table: the directions that request this bit, and the readiness that it means for
/// READABLE, WRITABLE and PRIORITY.
struct Row {
    bit: PollBits,
    requested_by: Interest,
    means: [(Interest, Readiness); 3],
}

/// Clause H3. `ERR` means WRITE_CLOSED too unless `IN` is set, which a table of single bits cannot
/// express: [`PollBits::readiness`] adds that.
const TABLE: [Row; 8] = {
    use Interest as I;
    use Readiness as R;
    const fn row(bit: PollBits, requested_by: I, read: R, write: R, priority: R) -> Row {
        Row {
            bit,
            requested_by,
            means: [(I::READABLE, read), (I::WRITABLE, write), (I::PRIORITY, priority)],
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

/// The bits that make each direction ready, derived from the table.
const READY_BY: [(Interest, PollBits); 3] =
    [ready_by(Interest::READABLE), ready_by(Interest::WRITABLE), ready_by(Interest::PRIORITY)];

const fn ready_by(dir: Interest) -> (Interest, PollBits) {
    let (mut bits, mut row) = (PollBits::empty(), 0);
    while row < TABLE.len() {
        let (means, requested_by) = (&TABLE[row].means, TABLE[row].requested_by);
        let is_shown = requested_by.is_empty() || requested_by.intersects(dir);
        let mut column = 0;
        while column < means.len() {
            let (column_dir, readiness) = means[column];
            if is_shown && column_dir.bits() == dir.bits() && !readiness.is_empty() {
                bits = bits.union(TABLE[row].bit);
            }
            column += 1;
        }
        row += 1;
    }
    (dir, bits)
}

impl PollBits {
    /// End of input, hang-up and errors (E5). A descriptor that is not open counts as an error.
    pub(crate) const ENDS: Self =
        PollBits::RDHUP.union(PollBits::HUP).union(PollBits::ERR).union(PollBits::NVAL);

    /// Returns the bits to request from the kernel for `dirs`. `ERR` and `HUP` need no request.
    pub fn asked(dirs: Interest) -> Self {
        let rows = TABLE.iter().filter(|row| row.requested_by.intersects(dirs));
        rows.fold(PollBits::empty(), |bits, row| bits | row.bit)
    }

    /// Returns the directions of `dirs` that these bits make ready.
    pub fn ready(self, dirs: Interest) -> Interest {
        let mut ready = Interest::empty();
        for (dir, bits) in READY_BY {
            // A descriptor that is not open counts as an error.
            ready.set(dir, dirs.contains(dir) && self.intersects(bits.union(PollBits::NVAL)));
        }
        ready
    }

    /// Returns the bits that make one of `dirs` ready.
    pub(crate) fn about(self, dirs: Interest) -> Self {
        let about = READY_BY.iter().filter(|(dir, _)| dirs.contains(*dir));
        self & about.fold(PollBits::empty(), |all, &(_, bits)| all | bits | PollBits::NVAL)
    }

    /// Returns the readiness that these bits mean for `dirs`; empty if none of them is ready.
    pub fn readiness(self, dirs: Interest) -> Readiness {
        let bits = self.as_if_asked(dirs);
        let mut readiness = Readiness::empty();
        for row in TABLE.iter().filter(|row| bits.intersects(row.bit)) {
            for (dir, means) in row.means {
                if dirs.contains(dir) {
                    readiness |= means;
                }
            }
        }
        let failed_writer = bits.contains(PollBits::ERR) && !bits.contains(PollBits::IN);
        if failed_writer && dirs.contains(Interest::WRITABLE) {
            readiness |= Readiness::WRITE_CLOSED;
        }
        readiness
    }

    /// Removes the bits that a poll(2) for `dirs` alone would not have shown, so that a backend
    /// that polls for more reports the same. A descriptor that is not open becomes an error, which
    /// would go unreported otherwise.
    fn as_if_asked(self, dirs: Interest) -> Self {
        let always = PollBits::ERR | PollBits::HUP;
        let shown = self & (PollBits::asked(dirs) | always);
        if self.contains(PollBits::NVAL) { shown | PollBits::ERR } else { shown }
    }
}

#[cfg(test)]
mod tests;
