//! By how many numbers this process has a file.
#![allow(unsafe_code)]

use nix::libc;
use std::fs::{File, read_dir};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

/// What tells a file from any other.
type Identity = (libc::dev_t, libc::ino_t);

/// Returns how many numbers of this process stand for the file. A number that another thread closes
/// meanwhile stands for none.
///
/// # Panics
///
/// If the numbers can't be listed.
pub(super) fn count(file: &File) -> usize {
    let its = identity(file.as_raw_fd()).expect("the file is open");
    let entries = read_dir("/proc/self/fd").expect("proc is mounted");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.parse().ok());
    numbers.filter(|&number| identity(number) == Some(its)).count()
}

/// By a call on the number: a path through proc costs several times as much.
fn identity(number: RawFd) -> Option<Identity> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for what the call writes; any number may be asked for.
    let answer = unsafe { libc::fstat(number, stat.as_mut_ptr()) };
    if answer != 0 {
        return None;
    }
    // SAFETY: the call has succeeded, so it has written all of it.
    let stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}
