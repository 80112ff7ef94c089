//! The same is refused as by the standard library, and the same is asked of the kernel.

use super::*;
use std::os::unix::fs::OpenOptionsExt;

#[test]
fn they_open_as_the_standard_library_does() {
    let folder = tempfile::tempdir().expect("a folder of our own");
    for bits in 0..64 {
        let [read, write, append, truncate, create, create_new] =
            std::array::from_fn(|bit| bits & 1 << bit != 0);
        let mut ours = OpenOptions::new();
        ours.read(read).write(write).append(append);
        ours.truncate(truncate).create(create).create_new(create_new);
        let mut theirs = std::fs::OpenOptions::new();
        theirs.read(read).write(write).append(append);
        theirs.truncate(truncate).create(create).create_new(create_new);
        // A flag that opens a folder and nothing else tells refusals by the library from others.
        let opened = theirs.custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&folder);
        let is_refused = opened.is_err_and(|error| error.raw_os_error().is_none_or(|n| n == 22));
        assert_eq!(ours.to_flags().is_err(), is_refused, "{ours:?}");
    }
}

#[test]
fn what_is_chosen_reaches_the_kernel() {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.custom_flags(libc::O_DIRECT | libc::O_WRONLY).mode(0o640);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_DIRECT;
    assert_eq!(options.to_flags().expect("it is possible"), (flags, 0o640));
    options.create_new(true);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_DIRECT;
    assert_eq!(options.to_flags().expect("it is possible"), (flags, 0o640));
}
