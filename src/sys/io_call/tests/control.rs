//! Control messages, with the macros of cmsg(3) as the oracle for both directions.

use super::super::control::{CONTROL_SPACE, decode, encode};
use nix::fcntl::{FcntlArg, fcntl};
use proptest::prelude::*;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

type One = (i32, i32, Vec<u8>);

/// Decodes by the macros of cmsg(3).
fn read(words: &[u64], length: usize) -> Vec<One> {
    // SAFETY: all fields are integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_control = words.as_ptr().cast_mut().cast();
    header.msg_controllen = length as _;
    let mut all = Vec::new();
    // SAFETY: the header names `length` bytes, which outlive it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&header) };
    while !next.is_null() {
        // SAFETY: the macros return only messages that begin within these bytes.
        let its = unsafe { &*next };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: the macro only computes.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let length = its.cmsg_len as usize - head;
        // SAFETY: the writer of the message has written this many bytes.
        let data = unsafe { std::slice::from_raw_parts(data, length) };
        all.push((its.cmsg_level, its.cmsg_type, data.to_vec()));
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(&header, next) };
    }
    all
}

/// Encodes by the macros of cmsg(3).
fn write(all: &[One]) -> (Vec<u64>, usize) {
    // SAFETY: the macro only computes.
    let space = |one: &One| unsafe { libc::CMSG_SPACE(one.2.len() as u32) } as usize;
    let length: usize = all.iter().map(space).sum();
    let mut words = vec![0_u64; length.div_ceil(8)];
    let mut at = 0;
    for one in all {
        let start = words.as_mut_ptr().cast::<u8>();
        // SAFETY: `words` has room for all messages, and this one begins within.
        let head = unsafe { start.add(at) }.cast::<libc::cmsghdr>();
        // SAFETY: the macro only computes.
        let length = unsafe { libc::CMSG_LEN(one.2.len() as u32) };
        let (cmsg_level, cmsg_type) = (one.0, one.1);
        // SAFETY: all fields are integers, for which zero is a value.
        let mut its: libc::cmsghdr = unsafe { std::mem::zeroed() };
        (its.cmsg_len, its.cmsg_level, its.cmsg_type) = (length as _, cmsg_level, cmsg_type);
        // SAFETY: there is room for a header, aligned as words are.
        unsafe { head.write(its) };
        // SAFETY: as above; the data follows the header.
        let data = unsafe { libc::CMSG_DATA(head) };
        // SAFETY: there is room for the data.
        unsafe { std::ptr::copy_nonoverlapping(one.2.as_ptr(), data, one.2.len()) };
        at += space(one);
    }
    (words, length)
}

/// A message of no level that passes descriptors.
fn any_message() -> impl Strategy<Value = One> {
    (2..99_i32, any::<i32>(), prop::collection::vec(any::<u8>(), 0..40))
}

proptest! {
    #[test]
    fn encoded_messages_are_read_by_cmsg_macros(
        files in prop::collection::vec(any::<i32>(), 0..6),
        others in prop::collection::vec(any_message(), 0..6),
    ) {
        let borrowed: Vec<_> = others.iter().map(|its| (its.0, its.1, &its.2[..])).collect();
        let (words, length) = encode(&files, &borrowed).expect("none passes descriptors");
        prop_assert!(length <= 8 * words.len());
        let mut expected = others;
        if !files.is_empty() {
            let numbers = files.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
            expected.insert(0, (libc::SOL_SOCKET, libc::SCM_RIGHTS, numbers));
        }
        prop_assert_eq!(&read(&words, length), &expected);
        let (by_macros, its) = write(&expected);
        prop_assert_eq!((words, length), (by_macros, its), "to the byte");
    }

    #[test]
    fn messages_of_cmsg_macros_are_decoded(
        others in prop::collection::vec(any_message(), 0..6),
        behind in 0..3_usize,
    ) {
        let (mut words, length) = write(&others);
        // Space that the kernel has not used.
        words.extend(std::iter::repeat_n(u64::MAX, behind));
        // SAFETY: `words` has `length` bytes, and passes no descriptors.
        let ancillary = unsafe { decode(&words, length) };
        prop_assert_eq!(ancillary.files.len(), 0);
        prop_assert_eq!(ancillary.others, others);
    }

    /// A truncated message lacks padding at its end, and its length may exceed the bytes.
    #[test]
    fn wrong_lengths_read_nothing_outside(
        mut others in prop::collection::vec(any_message(), 1..5),
        which in any::<prop::sample::Index>(),
        wrong in prop_oneof![0..80_usize, Just(usize::MAX), Just(usize::MAX - 7), any::<usize>()],
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut words, length) = write(&others);
        let at = which.index(others.len());
        // SAFETY: the macro only computes.
        let space = |one: &One| unsafe { libc::CMSG_SPACE(one.2.len() as u32) } as usize;
        let start: usize = others[..at].iter().map(space).sum();
        words[start / 8] = wrong as u64;
        let cut = cut.index(length + 1);
        // SAFETY: `words` has `cut` bytes. Levels are read where levels were written, or where no
        // value is a level that passes descriptors.
        let ancillary = unsafe { decode_without_files(&words, cut) };
        let intact = others.iter().zip(1_usize..).take(at);
        let mut end = 0;
        let mut kept = 0;
        for (one, count) in intact {
            end += space(one);
            // The last message may lack its padding.
            if end - space(one) + 16 + one.2.len() <= cut {
                kept = count;
            }
        }
        prop_assert!(ancillary.len() >= kept, "the messages before it are whole");
        others.truncate(kept);
        prop_assert_eq!(&ancillary[..kept], &others[..]);
    }
}

/// Decodes arbitrary bytes. Descriptors in them are not the caller's, so they are not closed.
///
/// # Safety
///
/// `words` must have `length` bytes.
unsafe fn decode_without_files(words: &[u64], length: usize) -> Vec<One> {
    // SAFETY: as the caller promises; the descriptors are released below.
    let ancillary = unsafe { decode(words, length) };
    ancillary.files.into_iter().for_each(|file| _ = file.into_raw_fd());
    ancillary.others
}

#[test]
fn encode_refuses_scm_rights() {
    let one = (libc::SOL_SOCKET, libc::SCM_RIGHTS, &[0, 0, 0, 0][..]);
    let error = encode(&[], &[one]).expect_err("it would pass standard input");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    encode(&[], &[(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &[])]).expect("another type");
    encode(&[], &[(libc::SOL_IP, libc::SCM_RIGHTS, &[])]).expect("another level");
}

#[test]
fn control_space_fits_maximum_of_files() {
    // SAFETY: the macro only computes.
    let files = unsafe { libc::CMSG_SPACE(253 * 4) } as usize;
    assert_eq!(CONTROL_SPACE, files + 1024);
    assert_eq!(CONTROL_SPACE % size_of::<u64>(), 0, "whole words");
    assert_eq!(encode(&[], &[]).expect("no messages"), (vec![], 0));
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// In a process of its own: elsewhere another thread may reuse a closed descriptor.
#[test]
fn received_files_are_owned_once_and_closed() {
    const TEST: &str = "received_files_are_owned_once_and_closed";
    if !crate::testing::is_alone(&format!("sys::io_call::tests::control::{TEST}")) {
        return;
    }
    let open = || File::open("/dev/null").expect("every Linux has it").into_raw_fd();
    let numbers = [(); 5].map(|()| open());
    let rights = |numbers: &[RawFd], extra: &[u8]| -> One {
        let mut data: Vec<u8> = numbers.iter().flat_map(|its| its.to_ne_bytes()).collect();
        data.extend(extra);
        (libc::SOL_SOCKET, libc::SCM_RIGHTS, data)
    };
    // Two messages pass files, one a pidfd, one -1, and one ends in half a descriptor.
    let pidfd = (libc::SOL_SOCKET, 4, numbers[4].to_ne_bytes().to_vec());
    let other = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, vec![7; 12]);
    let all = [rights(&numbers[..2], &[]), other.clone(), rights(&[-1], &[]), pidfd];
    let (words, length) = write(&[&all[..], &[rights(&numbers[2..4], &[1, 2])]].concat());
    // SAFETY: the descriptors have no owner, and are decoded once.
    let ancillary = unsafe { decode(&words, length) };
    let owned: Vec<_> = ancillary.files.iter().map(AsRawFd::as_raw_fd).collect();
    assert_eq!(owned, [numbers[0], numbers[1], numbers[4], numbers[2], numbers[3]]);
    assert_eq!(ancillary.others, [other]);
    for file in &ancillary.files {
        fcntl(file, FcntlArg::F_GETFD).expect("it is open");
    }
    drop(ancillary);
    assert!(!numbers.iter().any(|&fd| is_open(fd)), "each was closed");
}
