//! Ctrl-C and SIGTERM as a source like any other.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;

/// Blocks both signals and gives a file that is readable once one of them has come. To be called
/// before there are other threads: they inherit the mask, and a thread without it would be killed.
pub(crate) fn divert() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
