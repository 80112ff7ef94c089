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
    let mut entries: Vec<_> = files.iter().map(one).collect();
    ask(&mut entries);
    if entries.iter().all(|entry| entry.revents().is_some()) {
        return entries.iter().map(told_by_one).collect();
    }
    let mut pairs: Vec<_> = files.iter().map(both).collect();
    ask(pairs.as_flattened_mut());
    pairs.iter().map(told_by_both).collect()
}

/// Like [`look`], for a known number of files, and without the heap.
///
/// # Panics
///
/// As `look` does.
pub fn look_at<const N: usize>(files: [BorrowedFd<'_>; N]) -> [Bits; N] {
    let mut entries = files.each_ref().map(one);
    ask(&mut entries);
    if entries.iter().all(|entry| entry.revents().is_some()) {
        return entries.each_ref().map(told_by_one);
    }
    let mut pairs = files.each_ref().map(both);
    ask(pairs.as_flattened_mut());
    pairs.each_ref().map(told_by_both)
}

const ASKED: PollFlags = PollFlags::POLLIN.union(PollFlags::POLLOUT).union(PollFlags::POLLPRI);
const HANG_UP: PollFlags = PollFlags::from_bits_retain(Bits::EPOLLRDHUP.bits() as i16);

fn one<'f>(file: &BorrowedFd<'f>) -> PollFd<'f> {
    PollFd::new(*file, ASKED | HANG_UP)
}

/// Two entries for a file: an answer that has a bit unknown to nix is given as `None`, so the one
/// unknown bit is asked for apart.
fn both<'f>(file: &BorrowedFd<'f>) -> [PollFd<'f>; 2] {
    [PollFd::new(*file, ASKED), PollFd::new(*file, HANG_UP)]
}

fn ask(entries: &mut [PollFd<'_>]) {
    poll(entries, PollTimeout::ZERO).expect("poll(2) with a timeout of zero");
}

fn told_by_one(entry: &PollFd<'_>) -> Bits {
    bits(entry.revents().expect("bits that nix knows"))
}

fn told_by_both([entry, hang_up]: &[PollFd<'_>; 2]) -> Bits {
    told_by_one(entry) | hang_up.revents().map_or(Bits::EPOLLRDHUP, bits)
}

fn bits(flags: PollFlags) -> Bits {
    Bits::from_bits_retain(i32::from(flags.bits()))
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

/// Which of these bits say something of a direction.
pub fn about(bits: Bits, direction: Interest) -> Bits {
    bits.iter().filter(|&bit| !readiness(bit, direction).is_empty()).collect()
}

/// Which of these bits say that a direction has ended or failed (clause E5).
pub fn ends(bits: Bits, direction: Interest) -> Bits {
    about(bits, direction) & (ENDED | Bits::EPOLLERR)
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
