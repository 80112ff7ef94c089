//! Control messages, with the macros of cmsg(3) as the oracle: what they write is read and what
//! they read is written.

use super::super::control::{ROOM, decode, encode};
use nix::fcntl::{FcntlArg, fcntl};
use proptest::prelude::*;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

type One = (i32, i32, Vec<u8>);

/// What the macros of cmsg(3) read.
fn read(words: &[u64], length: usize) -> Vec<One> {
    // SAFETY: zero is a valid value of all its fields: numbers and pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_control = words.as_ptr().cast_mut().cast();
    header.msg_controllen = length as _;
    let mut all = Vec::new();
    // SAFETY: the header names so many bytes, which outlive it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&header) };
    while !next.is_null() {
        // SAFETY: the macros give none that begins outside of these bytes.
        let its = unsafe { &*next };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: a length without bytes touches nothing.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let length = its.cmsg_len as usize - head;
        // SAFETY: whoever wrote them has written so many bytes.
        let data = unsafe { std::slice::from_raw_parts(data, length) };
        all.push((its.cmsg_level, its.cmsg_type, data.to_vec()));
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(&header, next) };
    }
    all
}

/// What the macros of cmsg(3) write.
fn write(all: &[One]) -> (Vec<u64>, usize) {
    // SAFETY: these compute, and touch no memory.
    let space = |one: &One| unsafe { libc::CMSG_SPACE(one.2.len() as u32) } as usize;
    let length: usize = all.iter().map(space).sum();
    let mut words = vec![0_u64; length.div_ceil(8)];
    let mut at = 0;
    for one in all {
        let start = words.as_mut_ptr().cast::<u8>();
        // SAFETY: the spaces of all have been added up, and this one begins within.
        let head = unsafe { start.add(at) }.cast::<libc::cmsghdr>();
        // SAFETY: it computes.
        let length = unsafe { libc::CMSG_LEN(one.2.len() as u32) };
        let (cmsg_level, cmsg_type) = (one.0, one.1);
        // SAFETY: zero is a valid value of all its fields.
        let mut its: libc::cmsghdr = unsafe { std::mem::zeroed() };
        (its.cmsg_len, its.cmsg_level, its.cmsg_type) = (length as _, cmsg_level, cmsg_type);
        // SAFETY: there is room for a head, which is aligned as words are.
        unsafe { head.write(its) };
        // SAFETY: as above; the data comes behind the head.
        let data = unsafe { libc::CMSG_DATA(head) };
        // SAFETY: there is room for the data.
        unsafe { std::ptr::copy_nonoverlapping(one.2.as_ptr(), data, one.2.len()) };
        at += space(one);
    }
    (words, length)
}

/// Of no protocol, so that no number in it is taken for a file's.
fn any_message() -> impl Strategy<Value = One> {
    (2..99_i32, any::<i32>(), prop::collection::vec(any::<u8>(), 0..40))
}

proptest! {
    #[test]
    fn what_is_written_is_what_the_macros_read(
        files in prop::collection::vec(any::<i32>(), 0..6),
        others in prop::collection::vec(any_message(), 0..6),
    ) {
        let borrowed: Vec<_> = others.iter().map(|its| (its.0, its.1, &its.2[..])).collect();
        let (words, length) = encode(&files, &borrowed).expect("none passes files by number");
        prop_assert!(length <= 8 * words.len());
        let mut expected = others;
        if !files.is_empty() {
            let numbers = files.iter().flat_map(|number| number.to_ne_bytes()).collect();
            expected.insert(0, (libc::SOL_SOCKET, libc::SCM_RIGHTS, numbers));
        }
        prop_assert_eq!(&read(&words, length), &expected);
        let (by_macros, its) = write(&expected);
        prop_assert_eq!((words, length), (by_macros, its), "to the byte");
    }

    #[test]
    fn what_the_macros_write_is_what_is_read(
        others in prop::collection::vec(any_message(), 0..6),
        behind in 0..3_usize,
    ) {
        let (mut words, length) = write(&others);
        // Room that the kernel has not used.
        words.extend(std::iter::repeat_n(u64::MAX, behind));
        // SAFETY: there are so many bytes, and no files in them.
        let ancillary = unsafe { decode(&words, length) };
        prop_assert_eq!(ancillary.files.len(), 0);
        prop_assert_eq!(ancillary.others, others);
    }

    /// The last one of a message that was cut has no padding, and may say more than there is.
    #[test]
    fn whatever_the_lengths_are_nothing_outside_is_read(
        mut others in prop::collection::vec(any_message(), 1..5),
        which in any::<prop::sample::Index>(),
        wrong in prop_oneof![0..80_usize, Just(usize::MAX), Just(usize::MAX - 7), any::<usize>()],
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut words, length) = write(&others);
        let at = which.index(others.len());
        // SAFETY: it computes.
        let space = |one: &One| unsafe { libc::CMSG_SPACE(one.2.len() as u32) } as usize;
        let start: usize = others[..at].iter().map(space).sum();
        words[start / 8] = wrong as u64;
        let cut = cut.index(length + 1);
        // SAFETY: there are so many bytes, and no files in them: the levels are read where
        // levels were written, or where anything else was that is no level of files.
        let ancillary = unsafe { decode_without_files(&words, cut) };
        let intact = others.iter().zip(1_usize..).take(at);
        let mut end = 0;
        let mut kept = 0;
        for (one, count) in intact {
            end += space(one);
            // Padding may be missing behind the last.
            if end - space(one) + 16 + one.2.len() <= cut {
                kept = count;
            }
        }
        prop_assert!(ancillary.len() >= kept, "those before it are whole");
        others.truncate(kept);
        prop_assert_eq!(&ancillary[..kept], &others[..]);
    }
}

/// Decodes what may be anything: numbers of files in it would be somebody else's, so they are let
/// go.
///
/// # Safety
///
/// There have to be so many bytes.
unsafe fn decode_without_files(words: &[u64], length: usize) -> Vec<One> {
    // SAFETY: there are so many bytes; the files are not closed below.
    let ancillary = unsafe { decode(words, length) };
    ancillary.files.into_iter().for_each(|file| _ = file.into_raw_fd());
    ancillary.others
}

#[test]
fn files_are_not_passed_by_number() {
    let one = (libc::SOL_SOCKET, libc::SCM_RIGHTS, &[0, 0, 0, 0][..]);
    let error = encode(&[], &[one]).expect_err("standard input is not to be had so");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    encode(&[], &[(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &[])]).expect("that is none");
    encode(&[], &[(libc::SOL_IP, libc::SCM_RIGHTS, &[])]).expect("nor that");
}

#[test]
fn there_is_room_for_all_that_can_be_passed() {
    // SAFETY: it computes.
    let files = unsafe { libc::CMSG_SPACE(253 * 4) } as usize;
    assert_eq!(ROOM, files + 1024);
    assert_eq!(ROOM % size_of::<u64>(), 0, "whole words");
    assert_eq!(encode(&[], &[]).expect("nothing is in order"), (vec![], 0));
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// In a process of its own: elsewhere a number that is closed here is soon somebody else's.
#[test]
fn each_file_is_owned_once_and_closed_with_what_came() {
    const TEST: &str = "each_file_is_owned_once_and_closed_with_what_came";
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
    // Two that pass files, one that passes a pidfd, a place without a file, and half a number.
    let pidfd = (libc::SOL_SOCKET, 4, numbers[4].to_ne_bytes().to_vec());
    let other = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, vec![7; 12]);
    let all = [rights(&numbers[..2], &[]), other.clone(), rights(&[-1], &[]), pidfd];
    let (words, length) = write(&[&all[..], &[rights(&numbers[2..4], &[1, 2])]].concat());
    // SAFETY: the numbers were given up above, and are decoded once.
    let ancillary = unsafe { decode(&words, length) };
    let owned: Vec<_> = ancillary.files.iter().map(AsRawFd::as_raw_fd).collect();
    assert_eq!(owned, [numbers[0], numbers[1], numbers[4], numbers[2], numbers[3]]);
    assert_eq!(ancillary.others, [other]);
    for file in &ancillary.files {
        fcntl(file, FcntlArg::F_GETFD).expect("it is open");
    }
    drop(ancillary);
    assert!(!numbers.iter().any(|&number| is_open(number)), "each was closed");
}
