//! By how many numbers this process has a file.
#![allow(unsafe_code)]

use nix::libc;
use std::ffi::CStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

/// What tells a file from any other.
type Identity = (libc::dev_t, libc::ino_t);

/// Returns how many numbers of this process stand for the file. A number that another thread closes
/// meanwhile stands for none.
///
/// The plain calls are for speed under a sanitizer: the entries of std are on the heap one by one,
/// and a path through proc costs several times as much as a call on the number.
///
/// # Panics
///
/// If the numbers can't be listed.
pub(super) fn count(file: &File) -> usize {
    let its = identity(file.as_raw_fd()).expect("the file is open");
    let (mut folder, mut count) = (Folder::open(), 0);
    while let Some(name) = folder.next() {
        let number = name.to_str().ok().and_then(|name| name.parse().ok());
        count += usize::from(number.and_then(identity) == Some(its));
    }
    count
}

/// The numbers of this process, as names of files.
struct Folder(*mut libc::DIR);

impl Folder {
    fn open() -> Self {
        // SAFETY: the path ends with a null.
        let folder = unsafe { libc::opendir(c"/proc/self/fd".as_ptr()) };
        assert!(!folder.is_null(), "proc is mounted");
        Folder(folder)
    }

    fn next(&mut self) -> Option<&CStr> {
        // SAFETY: the folder is open until it is dropped.
        let entry = unsafe { libc::readdir(self.0) };
        if entry.is_null() {
            return None;
        }
        // SAFETY: it points to an entry, which may be shorter than its type, but has a name.
        let name = unsafe { &raw const (*entry).d_name };
        // SAFETY: the name ends with a null, and is valid until the next call, which takes the
        // folder mutably as this one does.
        Some(unsafe { CStr::from_ptr(name.cast()) })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // SAFETY: it is open, and not used after this.
        unsafe { libc::closedir(self.0) };
    }
}

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
