//! The part of a set that the kernel uses, and the results that are passed on.

use super::*;
use crate::testing::no_children;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::pipe;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

fn index_of(fd: &OwnedFd) -> usize {
    fd.as_raw_fd() as usize
}

fn ready() -> OwnedFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(1, flags).expect("an eventfd").into()
}

/// A set up to bit `end`, and two guard words with all bits set.
fn guarded(indices: &[usize], end: usize) -> Vec<Word> {
    let mut set = vec![0; end.div_ceil(BITS)];
    indices.iter().for_each(|index| set[index / BITS] |= 1 << (index % BITS));
    set.extend([Word::MAX; 2]);
    set
}

fn select_now(count: usize, sets: [&mut [Word]; 3]) -> io::Result<usize> {
    wait(count, sets, Some(Duration::ZERO))
}

#[test]
fn sets_are_untouched_beyond_the_count() {
    let file = ready();
    let (index, end) = (index_of(&file), index_of(&file) + 1);
    let expected = guarded(&[index], end);
    // Descriptors of the guard words are not open: selecting them would be EBADF.
    let mut set = expected.clone();
    assert_eq!(select_now(end, [&mut set, &mut [], &mut []]).expect("all are open"), 1);
    assert_eq!(set, expected);
    let mut set = guarded(&[index], end);
    assert_eq!(select_now(index, [&mut set, &mut [], &mut []]).expect("an empty range"), 0);
}

#[test]
fn sets_are_read_write_and_except() {
    let file = ready();
    let end = index_of(&file) + 1;
    let (expected_set, nothing) = (guarded(&[index_of(&file)], end), guarded(&[], end));
    let sets = || [expected_set.clone(), expected_set.clone(), expected_set.clone()];
    let [mut read, mut write, mut except] = sets();
    let count = select_now(end, [&mut read, &mut write, &mut except]).expect("it is open");
    assert_eq!(
        (count, read, write, except),
        (2, expected_set.clone(), expected_set.clone(), nothing.clone())
    );
    for only in 0..3 {
        let mut sets = sets();
        let mut selected = [&mut [][..], &mut [], &mut []];
        selected[only] = &mut sets[only];
        let expected = if only == 2 { (0, &nothing) } else { (1, &expected_set) };
        assert_eq!(
            (select_now(end, selected).expect("it is open"), &sets[only]),
            expected,
            "{only}"
        );
    }
}

#[test]
fn zero_count_selects_nothing() {
    let empty = [&mut [][..], &mut [], &mut []];
    assert_eq!(select_now(0, empty).expect("nothing to look at"), 0);
    let mut set = [Word::MAX];
    assert_eq!(select_now(0, [&mut set, &mut [], &mut []]).expect("nothing to look at"), 0);
    assert_eq!(set, [Word::MAX]);
}

#[test]
fn short_set_panics() {
    for at in 0..3 {
        for (count, words) in [(BITS + 1, 1), (2 * BITS + 1, 2), (10 * BITS, 9)] {
            let short = std::panic::catch_unwind(|| {
                let mut set = vec![0; words];
                let mut sets = [&mut [][..], &mut [], &mut []];
                sets[at] = &mut set;
                drop(select_now(count, sets));
            });
            let message = short.expect_err("it is a word too short");
            let message = message.downcast_ref::<&str>().copied();
            assert_eq!(message, Some("a set is shorter than the count"));
        }
        let (count, mut set) = (2 * BITS, [0; 2]);
        let mut sets = [&mut [][..], &mut [], &mut []];
        sets[at] = &mut set;
        assert_eq!(select_now(count, sets).expect("nothing to poll"), 0, "just long enough");
    }
}

#[test]
fn error_leaves_sets_unchanged() {
    let _files_are_ours = no_children();
    let file = ready();
    // So high that other tests do not open it; the descriptor table reaches there.
    let far = crate::sys::checked(
        // SAFETY: F_DUPFD_CLOEXEC takes an integer and touches no memory.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 900) },
    );
    let far = far.expect("a copy");
    let end = far + 1;
    let before = guarded(&[index_of(&file), far], end);
    let mut set = before.clone();
    assert_eq!(select_now(end, [&mut set, &mut [], &mut []]).expect("both are open"), 2);
    // SAFETY: the descriptor was made above, and nothing else owns it.
    unsafe { libc::close(far as libc::c_int) };
    let mut set = before.clone();
    let error = select_now(end, [&mut set, &mut [], &mut []]).expect_err("one is closed");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!(set, before);
}

#[test]
fn wait_ends_on_readiness_or_timeout() {
    let (reader, writer) = pipe().expect("a pipe");
    let end = index_of(&reader) + 1;
    let set = || guarded(&[index_of(&reader)], end);
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

/// Losing the nanoseconds would make a wait that loops on them spin.
#[test]
fn subsecond_timeout_is_kept() {
    for timeout in [Duration::from_nanos(999_999), Duration::from_micros(2_500)] {
        let start = Instant::now();
        let answer = wait(0, [&mut [], &mut [], &mut []], Some(timeout));
        assert!(answer.is_err() || start.elapsed() >= timeout, "{timeout:?}");
    }
}
