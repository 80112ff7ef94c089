//! Signals that end a program, as a source.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;

/// Blocks these signals, and returns a signalfd that is readable when one of them is pending. Must
/// be called before threads are started: they inherit the mask, and one without it would be killed.
pub(crate) fn block_into_fd(signals: &[Signal]) -> io::Result<SignalFd> {
    let signals: SigSet = signals.iter().copied().collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
