//! The limit on open files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one. The soft one is commonly 1024, for programs
/// that call select(2) with a fixed set.
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A sandbox may refuse. The acceptor then pauses at the lower limit.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
