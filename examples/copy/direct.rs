//! Files past the page cache: what they ask for.

use crate::failure::{Explain, Failure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::path::Path;

/// Where it begins, where it lands and how long it is: each a multiple of this, whatever the disk.
pub(crate) const UNIT: usize = 4096;

/// As many as there are, and then some, so that they fill units.
pub(crate) fn round_up(length: usize) -> usize {
    length.next_multiple_of(UNIT)
}

/// To be called before a poller has the file, and when it has it no longer. To open a new file so
/// would leave it behind where the file system refuses.
pub(crate) fn switch(file: &File, path: &Path, on: bool) -> Result<(), Failure> {
    let switched = fcntl(file, FcntlArg::F_GETFL).and_then(|flags| {
        let mut flags = OFlag::from_bits_retain(flags);
        flags.set(OFlag::O_DIRECT, on);
        fcntl(file, FcntlArg::F_SETFL(flags))
    });
    let why = format!("the file system of {} refuses O_DIRECT", path.display());
    switched.map(drop).explain(why)
}
