//! How a ring is entered: what is passed to io_uring_enter(2).
#![allow(unsafe_code)]

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};
use std::io;
use std::time::Duration;

/// Submits so many requests, and waits for so many completions: io_uring_enter(2).
pub(super) fn enter_once(
    ring: &IoUring,
    queued: u32,
    min_complete: u32,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let mut flags = EnterFlags::GETEVENTS;
    // A thread that waits for its peers is not waiting for a disk.
    flags.set(EnterFlags::NO_IOWAIT, ring.params().is_feature_no_iowait());
    let submitter = ring.submitter();
    let mut args = SubmitArgs::new();
    let timespec = timeout.map(timespec);
    if let Some(timespec) = &timespec {
        args = args.timespec(timespec);
    }
    if timespec.is_none() {
        // SAFETY: no argument is passed.
        return unsafe { submitter.enter::<()>(queued, min_complete, flags.bits(), None) };
    }
    let flags = (flags | EnterFlags::EXT_ARG).bits();
    // SAFETY: the flag goes with this type, which points to a timespec that outlives the call.
    unsafe { submitter.enter(queued, min_complete, flags, Some(&args)) }
}

/// A duration as io_uring takes it. The kernel adds it to the clock without a look at the range.
pub(super) fn timespec(duration: Duration) -> Timespec {
    const LONGEST: u64 = u32::MAX as u64;
    Timespec::new().sec(duration.as_secs().min(LONGEST)).nsec(duration.subsec_nanos())
}
