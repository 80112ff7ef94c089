//! How much of a set the kernel is given, and that its answer is passed on.

use super::*;
use crate::testing::no_children;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::pipe;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

fn number_of(fd: &OwnedFd) -> usize {
    fd.as_raw_fd() as usize
}

fn ready() -> OwnedFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(1, flags).expect("an eventfd").into()
}

/// A set of as many words as the highest number needs, and two more that look like numbers.
fn guarded(numbers: &[usize], end: usize) -> Vec<Word> {
    let mut set = vec![0; end.div_ceil(BITS)];
    numbers.iter().for_each(|number| set[number / BITS] |= 1 << (number % BITS));
    set.extend([Word::MAX; 2]);
    set
}

fn look(count: usize, sets: [&mut [Word]; 3]) -> io::Result<usize> {
    wait(count, sets, Some(Duration::ZERO))
}

#[test]
fn a_longer_set_is_neither_read_nor_written_beyond_the_count() {
    let file = ready();
    let (number, end) = (number_of(&file), number_of(&file) + 1);
    let expected = guarded(&[number], end);
    // Numbers up there are not open: EBADF if they were looked at.
    let mut set = expected.clone();
    assert_eq!(look(end, [&mut set, &mut [], &mut []]).expect("all are open"), 1);
    assert_eq!(set, expected);
    let mut set = guarded(&[number], end);
    assert_eq!(look(number, [&mut set, &mut [], &mut []]).expect("none is asked for"), 0);
}

#[test]
fn the_three_sets_are_the_kernels_three() {
    let file = ready();
    let end = number_of(&file) + 1;
    let (due, nothing) = (guarded(&[number_of(&file)], end), guarded(&[], end));
    let sets = || [due.clone(), due.clone(), due.clone()];
    let [mut read, mut write, mut except] = sets();
    let count = look(end, [&mut read, &mut write, &mut except]).expect("it is open");
    assert_eq!((count, read, write, except), (2, due.clone(), due.clone(), nothing.clone()));
    for only in 0..3 {
        let mut sets = sets();
        let mut asked = [&mut [][..], &mut [], &mut []];
        asked[only] = &mut sets[only];
        let expected = if only == 2 { (0, &nothing) } else { (1, &due) };
        assert_eq!((look(end, asked).expect("it is open"), &sets[only]), expected, "{only}");
    }
}

#[test]
fn a_count_of_zero_asks_for_nothing() {
    let nobody = [&mut [][..], &mut [], &mut []];
    assert_eq!(look(0, nobody).expect("nothing to look at"), 0);
    let mut set = [Word::MAX];
    assert_eq!(look(0, [&mut set, &mut [], &mut []]).expect("nothing to look at"), 0);
    assert_eq!(set, [Word::MAX]);
}

#[test]
fn a_set_must_have_room_for_every_number() {
    for at in 0..3 {
        for (count, words) in [(BITS + 1, 1), (2 * BITS + 1, 2), (10 * BITS, 9)] {
            let short = std::panic::catch_unwind(|| {
                let mut set = vec![0; words];
                let mut sets = [&mut [][..], &mut [], &mut []];
                sets[at] = &mut set;
                drop(look(count, sets));
            });
            let message = short.expect_err("it is a word too short");
            let message = message.downcast_ref::<&str>().copied();
            assert_eq!(message, Some("a set has room for every number"));
        }
        let (count, mut set) = (2 * BITS, [0; 2]);
        let mut sets = [&mut [][..], &mut [], &mut []];
        sets[at] = &mut set;
        assert_eq!(look(count, sets).expect("nothing to look at"), 0, "just enough");
    }
}

#[test]
fn an_error_leaves_the_sets() {
    let _files_are_ours = no_children();
    let file = ready();
    // Far up, so that nobody opens it meanwhile; the table of files reaches there.
    let far = crate::sys::checked(
        // SAFETY: F_DUPFD_CLOEXEC takes an integer and touches no memory.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 900) },
    );
    let far = far.expect("a copy");
    let end = far + 1;
    let before = guarded(&[number_of(&file), far], end);
    let mut set = before.clone();
    assert_eq!(look(end, [&mut set, &mut [], &mut []]).expect("both are open"), 2);
    // SAFETY: the number was made above, and nobody else knows it.
    unsafe { libc::close(far as libc::c_int) };
    let mut set = before.clone();
    let error = look(end, [&mut set, &mut [], &mut []]).expect_err("one is closed");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!(set, before);
}

#[test]
fn a_wait_without_limit_ends_with_readiness_and_one_with_a_limit_without() {
    let (reader, writer) = pipe().expect("a pipe");
    let end = number_of(&reader) + 1;
    let set = || guarded(&[number_of(&reader)], end);
    let timeout = Duration::from_millis(2);
    let start = Instant::now();
    while wait(end, [&mut set(), &mut [], &mut []], Some(timeout)).is_err() {}
    assert!(start.elapsed() >= timeout);
    nix::unistd::write(&writer, b"x").expect("there is room");
    for timeout in [None, Some(Duration::MAX), Some(Duration::ZERO)] {
        let count = wait(end, [&mut set(), &mut [], &mut []], timeout);
        assert_eq!(count.expect("it is open"), 1, "{timeout:?}");
    }
}

/// The nanoseconds must not be lost: a wait that loops on them would spin.
#[test]
fn a_limit_below_a_second_is_kept() {
    for timeout in [Duration::from_nanos(999_999), Duration::from_micros(2_500)] {
        let start = Instant::now();
        let answer = wait(0, [&mut [], &mut [], &mut []], Some(timeout));
        assert!(answer.is_err() || start.elapsed() >= timeout, "{timeout:?}");
    }
}
