//! Control messages, as cmsg(3) lays them out.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// All files that one message can pass, and 1 KiB of others.
pub(super) const ROOM: usize = space(MOST_FILES * size_of::<RawFd>()) + 1024;

/// As many as one message can pass (unix(7)).
const MOST_FILES: usize = 253;

/// A pidfd of who has sent it (`SO_PASSPIDFD`); the crate libc lacks it.
const SCM_PIDFD: libc::c_int = 4;

/// What was beside the bytes.
#[derive(Debug, Default)]
pub(crate) struct Ancillary {
    pub(crate) files: Vec<OwnedFd>,
    /// Protocol, kind and content of the others.
    pub(crate) others: Vec<(i32, i32, Vec<u8>)>,
}

const ALIGN: usize = size_of::<usize>();
const HEAD: usize = size_of::<libc::cmsghdr>().next_multiple_of(ALIGN);

/// How much a control message with so many bytes takes, with what has to follow it.
const fn space(length: usize) -> usize {
    HEAD + length.next_multiple_of(ALIGN)
}

/// Writes control messages for sendmsg(2): one that passes these files, if there are any, and the
/// others. Gives how many bytes they are too.
///
/// # Errors
///
/// `InvalidInput`: another would pass files, which are not known to be open and the caller's.
pub(super) fn encode(
    files: &[RawFd],
    others: &[(i32, i32, &[u8])],
) -> io::Result<(Vec<u64>, usize)> {
    let mut bytes = Vec::new();
    if !files.is_empty() {
        let numbers: Vec<u8> = files.iter().flat_map(|number| number.to_ne_bytes()).collect();
        append(&mut bytes, libc::SOL_SOCKET, libc::SCM_RIGHTS, &numbers);
    }
    for &(level, kind, data) in others {
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            let why = "files are passed with Message::file, not by number";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        append(&mut bytes, level, kind, data);
    }
    let length = bytes.len();
    bytes.resize(length.next_multiple_of(size_of::<u64>()), 0);
    let words = bytes.chunks_exact(size_of::<u64>());
    let words = words.map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
    Ok((words.collect(), length))
}

fn append(bytes: &mut Vec<u8>, level: i32, kind: i32, data: &[u8]) {
    let start = bytes.len();
    bytes.extend((HEAD + data.len()).to_ne_bytes());
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.resize(start + HEAD, 0);
    bytes.extend(data);
    bytes.resize(start + space(data.len()), 0);
}

/// Reads what recvmsg(2) has written.
///
/// # Safety
///
/// It has to have written `length` bytes, and the files it names must have no owner yet.
pub(super) unsafe fn decode(control: &[u64], length: usize) -> Ancillary {
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(length).collect();
    let (mut ancillary, mut rest) = (Ancillary::default(), &bytes[..]);
    while let Some((level, kind, data, behind)) = first(rest) {
        rest = behind;
        if level == libc::SOL_SOCKET && matches!(kind, libc::SCM_RIGHTS | SCM_PIDFD) {
            for number in data.chunks_exact(size_of::<RawFd>()) {
                let number = RawFd::from_ne_bytes(number.try_into().unwrap_or_default());
                if number >= 0 {
                    // SAFETY: the kernel has just made it, as the caller vouches.
                    ancillary.files.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        } else {
            ancillary.others.push((level, kind, data.to_vec()));
        }
    }
    ancillary
}

/// Protocol, kind and content of the first control message, and what comes after it.
fn first(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    let length = usize::from_ne_bytes(*length);
    let data = bytes.get(HEAD..length)?;
    let behind = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
    Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data, behind))
}
