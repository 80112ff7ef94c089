//! The requirements of `O_DIRECT`.

use crate::failure::{Explain, Failure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::path::Path;

/// The alignment of offset, buffer and length, which suits every disk.
pub(crate) const UNIT: usize = 4096;

/// Rounds up to a multiple of [`UNIT`].
pub(crate) fn round_up(length: usize) -> usize {
    length.next_multiple_of(UNIT)
}

/// Sets or clears `O_DIRECT`. Must be called while the file is not registered. Opening a new file
/// with the flag would leave the file behind if the file system refuses it.
pub(crate) fn switch(file: &File, path: &Path, on: bool) -> Result<(), Failure> {
    let switched = fcntl(file, FcntlArg::F_GETFL).and_then(|flags| {
        let mut flags = OFlag::from_bits_retain(flags);
        flags.set(OFlag::O_DIRECT, on);
        fcntl(file, FcntlArg::F_SETFL(flags))
    });
    let why = format!("the file system of {} refuses O_DIRECT", path.display());
    switched.map(drop).explain(why)
}
