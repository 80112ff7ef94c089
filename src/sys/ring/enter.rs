//! The arguments of io_uring_enter(2).
#![allow(unsafe_code)]

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};
use std::io;
use std::time::Duration;

/// Submits `queued` SQEs and waits for `min_complete` CQEs: io_uring_enter(2).
pub(super) fn enter_once(
    ring: &IoUring,
    queued: u32,
    min_complete: u32,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let mut flags = EnterFlags::GETEVENTS;
    // A wait for peers is not a wait for a disk.
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

/// Converts a duration. The kernel adds it to the clock without a range check.
pub(super) fn timespec(duration: Duration) -> Timespec {
    const LONGEST: u64 = u32::MAX as u64;
    Timespec::new().sec(duration.as_secs().min(LONGEST)).nsec(duration.subsec_nanos())
}
