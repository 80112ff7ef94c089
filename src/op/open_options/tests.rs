//! Options are refused as in `std`, and reach the kernel as flags.

use super::*;
use std::os::unix::fs::OpenOptionsExt;

#[test]
fn refused_combinations_match_std() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for bits in 0..64 {
        let [read, write, append, truncate, create, create_new] =
            std::array::from_fn(|bit| bits & 1 << bit != 0);
        let mut ours = OpenOptions::new();
        ours.read(read).write(write).append(append);
        ours.truncate(truncate).create(create).create_new(create_new);
        let mut theirs = std::fs::OpenOptions::new();
        theirs.read(read).write(write).append(append);
        theirs.truncate(truncate).create(create).create_new(create_new);
        // With O_DIRECTORY the kernel opens the directory, so that only std refuses.
        let opened = theirs.custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&folder);
        let is_refused = opened.is_err_and(|error| error.raw_os_error().is_none_or(|n| n == 22));
        assert_eq!(ours.to_flags().is_err(), is_refused, "{ours:?}");
    }
}

#[test]
fn options_become_open_flags() {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.custom_flags(libc::O_DIRECT | libc::O_WRONLY).mode(0o640);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_DIRECT;
    assert_eq!(options.to_flags().expect("valid options"), (flags, 0o640));
    options.create_new(true);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_DIRECT;
    assert_eq!(options.to_flags().expect("valid options"), (flags, 0o640));
}
