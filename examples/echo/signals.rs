//! The signals that end a program as a source like any other.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::read_to_string;
use std::io;

/// Blocks these signals and gives a file that is readable once one of them has come. Those that
/// whoever has started the program had ignored, as nohup(1) does, stay so. To be called before
/// there are other threads: they inherit the mask, and a thread without it would be killed.
pub(crate) fn divert(signals: &[Signal]) -> io::Result<SignalFd> {
    let ignored = ignored()?;
    let is_heeded = |signal: &Signal| ignored & 1 << (*signal as u32 - 1) == 0;
    let signals: SigSet = signals.iter().copied().filter(is_heeded).collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// The set of signals that are ignored, as proc(5) writes it.
fn ignored() -> io::Result<u64> {
    let status = read_to_string("/proc/self/status")?;
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.ok_or_else(|| io::Error::other("/proc does not tell which signals are ignored"))
}
