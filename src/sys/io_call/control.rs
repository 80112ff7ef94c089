//! Control messages in the layout of cmsg(3).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Space for the maximum of descriptors in a message, and 1 KiB of other messages.
pub(super) const CONTROL_SPACE: usize = space(MAX_FILES * size_of::<RawFd>()) + 1024;

/// The maximum of descriptors in a message (`SCM_MAX_FD`, unix(7)).
const MAX_FILES: usize = 253;

/// A pidfd of the sender (`SO_PASSPIDFD`); the libc crate lacks it.
const SCM_PIDFD: libc::c_int = 4;

/// The decoded control messages.
#[derive(Debug, Default)]
pub(crate) struct Ancillary {
    pub(crate) files: Vec<OwnedFd>,
    /// Level, type and data of the other messages.
    pub(crate) others: Vec<(i32, i32, Vec<u8>)>,
}

const ALIGN: usize = size_of::<usize>();
const HEAD: usize = size_of::<libc::cmsghdr>().next_multiple_of(ALIGN);

/// Returns the space of a control message with `length` bytes of data, padding included.
const fn space(length: usize) -> usize {
    HEAD + length.next_multiple_of(ALIGN)
}

/// Encodes control messages for sendmsg(2): one that passes `files`, if there are any, and the
/// others. Also returns their length in bytes.
///
/// # Errors
///
/// `InvalidInput`: one of the others would pass descriptors, which may not be open or the caller's.
pub(super) fn encode(
    files: &[RawFd],
    others: &[(i32, i32, &[u8])],
) -> io::Result<(Vec<u64>, usize)> {
    let mut bytes = Vec::new();
    if !files.is_empty() {
        let data: Vec<u8> = files.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
        append(&mut bytes, libc::SOL_SOCKET, libc::SCM_RIGHTS, &data);
    }
    for &(level, kind, data) in others {
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            let why = "pass descriptors with Message::file, not in a control message";
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

/// Decodes the control messages of recvmsg(2).
///
/// # Safety
///
/// recvmsg(2) must have written `length` bytes, and the descriptors must have no owner yet.
pub(super) unsafe fn decode(control: &[u64], length: usize) -> Ancillary {
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(length).collect();
    let (mut ancillary, mut rest) = (Ancillary::default(), &bytes[..]);
    while let Some((level, kind, data, behind)) = first(rest) {
        rest = behind;
        if level == libc::SOL_SOCKET && matches!(kind, libc::SCM_RIGHTS | SCM_PIDFD) {
            for fd in data.chunks_exact(size_of::<RawFd>()) {
                let fd = RawFd::from_ne_bytes(fd.try_into().unwrap_or_default());
                if fd >= 0 {
                    // SAFETY: the kernel has just made it, as the caller promises.
                    ancillary.files.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        } else {
            ancillary.others.push((level, kind, data.to_vec()));
        }
    }
    ancillary
}

/// Splits off the first control message: level, type, data, and the rest.
fn first(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    let length = usize::from_ne_bytes(*length);
    let data = bytes.get(HEAD..length)?;
    let behind = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
    Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data, behind))
}
