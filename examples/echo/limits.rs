//! How many files the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one. The soft one is commonly 1024 for the sake
/// of programs that call select(2) with a fixed set.
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A sandbox may refuse. Then fewer connections have room, and the acceptor copes with that.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
