//! The signals that end a program as a source like any other.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;

/// Blocks these signals and gives a file that is readable once one of them has come. To be called
/// before there are other threads: they inherit the mask, and a thread without it would be killed.
pub(crate) fn divert(signals: &[Signal]) -> io::Result<SignalFd> {
    let signals: SigSet = signals.iter().copied().collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
