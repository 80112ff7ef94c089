//! Who may be at work at the same time.

use std::sync::{PoisonError, RwLock};

/// Those who count the numbers of a file look at all that the process has, and hold each for a
/// moment: whoever closes one then, and looks for what comes of it at once, must not be there.
static NUMBERS: RwLock<()> = RwLock::new(());

/// Plays a script that looks at once for what comes of a close.
pub(crate) fn uncounted<T>(play: impl FnOnce() -> T) -> T {
    let _others = NUMBERS.read().unwrap_or_else(PoisonError::into_inner);
    play()
}

/// Plays a script that counts numbers.
pub(crate) fn counting<T>(play: impl FnOnce() -> T) -> T {
    let _alone = NUMBERS.write().unwrap_or_else(PoisonError::into_inner);
    play()
}
