//! Excludes tests that count descriptors from others.

use std::sync::{PoisonError, RwLock};

/// A test that counts the descriptors of a file duplicates each of the process for a moment. Tests
/// that close a file and check the effect at once must not run then.
static FD_COUNTS: RwLock<()> = RwLock::new(());

/// Runs a script that checks the effects of a close at once.
pub(crate) fn without_fd_counts<T>(play: impl FnOnce() -> T) -> T {
    let _others = FD_COUNTS.read().unwrap_or_else(PoisonError::into_inner);
    play()
}

/// Runs a script that counts descriptors.
pub(crate) fn with_fd_counts<T>(play: impl FnOnce() -> T) -> T {
    let _alone = FD_COUNTS.write().unwrap_or_else(PoisonError::into_inner);
    play()
}
