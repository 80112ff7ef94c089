//! What is true of a file, without the library: poll(2), and what its bits mean (clause H3).
//!
//! The table is written a second time here, straight from the contract, so that a slip in the
//! library's own does not test itself.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quintpoll::{Interest, Readiness};
use std::os::fd::BorrowedFd;

/// The bits of poll(2), which are those of epoll. (nix has no `POLLRDHUP`.)
pub use nix::sys::epoll::EpollFlags as Bits;

/// What poll(2) says of each of these files at this moment, asked for everything.
///
/// # Panics
///
/// If poll(2) fails, which takes an interrupting signal or no memory.
pub fn look(files: &[BorrowedFd<'_>]) -> Vec<Bits> {
    let asked = PollFlags::POLLIN | PollFlags::POLLOUT | PollFlags::POLLPRI;
    let hang_up = PollFlags::from_bits_retain(Bits::EPOLLRDHUP.bits() as i16);
    let bits = |flags: PollFlags| Bits::from_bits_retain(i32::from(flags.bits()));
    let all = |&file| PollFd::new(file, asked | hang_up);
    let entries = polled(files.iter().map(all).collect());
    if let Some(answers) = entries.iter().map(PollFd::revents).collect::<Option<Vec<_>>>() {
        return answers.into_iter().map(bits).collect();
    }
    // An answer that has a bit unknown to nix is given as `None`, so the one unknown bit is asked
    // for apart, by a second entry for each file.
    let both = |&file| [PollFd::new(file, asked), PollFd::new(file, hang_up)];
    let entries = polled(files.iter().flat_map(both).collect());
    let pairs = entries.chunks_exact(2);
    pairs
        .map(|pair| {
            let told = bits(pair[0].revents().expect("bits that nix knows"));
            told | pair[1].revents().map_or(Bits::EPOLLRDHUP, bits)
        })
        .collect()
}

fn polled(mut entries: Vec<PollFd<'_>>) -> Vec<PollFd<'_>> {
    poll(&mut entries, PollTimeout::ZERO).expect("poll(2) with a timeout of zero");
    entries
}

/// The directions of an interest.
pub const DIRECTIONS: [Interest; 3] = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];

/// What these bits say to someone who asked for `dirs` and nothing else.
pub fn readiness(bits: Bits, dirs: Interest) -> Readiness {
    let read_asked = dirs.contains(Interest::READABLE);
    DIRECTIONS.into_iter().filter(|&direction| dirs.contains(direction)).fold(
        Readiness::empty(),
        |all, direction| {
            all | match direction {
                Interest::READABLE => to_readers(bits),
                Interest::WRITABLE => to_writers(bits, read_asked && bits.contains(Bits::EPOLLIN)),
                _ => to_priority(bits),
            }
        },
    )
}

/// Which of `dirs` these bits make ready.
pub fn ready(bits: Bits, dirs: Interest) -> Interest {
    let each = DIRECTIONS.into_iter().filter(|&direction| dirs.contains(direction));
    each.filter(|&direction| !readiness(bits, direction).is_empty()).collect()
}

fn to_readers(bits: Bits) -> Readiness {
    let mut says = Readiness::empty();
    says.set(Readiness::READABLE, bits.intersects(Bits::EPOLLIN | ENDED | Bits::EPOLLERR));
    says.set(Readiness::READ_CLOSED, bits.intersects(ENDED));
    says.set(Readiness::ERROR, bits.contains(Bits::EPOLLERR));
    says
}

fn to_writers(bits: Bits, data: bool) -> Readiness {
    let (hung_up, failed) = (bits.contains(Bits::EPOLLHUP), bits.contains(Bits::EPOLLERR));
    let mut says = Readiness::empty();
    says.set(Readiness::WRITABLE, bits.contains(Bits::EPOLLOUT) || hung_up || failed);
    says.set(Readiness::WRITE_CLOSED, hung_up || (failed && !data));
    says.set(Readiness::ERROR, failed);
    says
}

fn to_priority(bits: Bits) -> Readiness {
    let mut says = Readiness::empty();
    says.set(Readiness::PRIORITY, bits.contains(Bits::EPOLLPRI));
    says.set(Readiness::READ_CLOSED, bits.intersects(ENDED));
    says.set(Readiness::ERROR, bits.contains(Bits::EPOLLERR));
    says
}

/// The bits by which the peer says that it will send no more.
const ENDED: Bits = Bits::EPOLLRDHUP.union(Bits::EPOLLHUP);
