//! A driver and a thread pool without a kernel. Both return calls in any order, with any possible
//! result.

use super::fake_files::FakeFiles;
use crate::key::OpSlot;
use crate::selector::OpEvent;
use crate::sys::file::SourceFd;
use crate::sys::io_call::{Call, CallBox, CallResult, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Pseudo-random numbers, the same in each run of a case.
#[derive(Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// Returns a number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % end
    }

    pub(super) fn is_percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Makes the call for at most this many bytes, unless it would block.
    Real(usize),
    WouldBlock,
    Interrupted,
    Canceled,
    /// No buffer was available.
    NoBuffer,
    /// The driver does not support a flag.
    Unsupported,
    /// A device error.
    Failed,
}

impl End {
    fn error(self, work: &Work) -> Option<i32> {
        let call = work.call();
        Some(match self {
            End::Real(_) => return None,
            End::WouldBlock => libc::EAGAIN,
            End::Interrupted => libc::EINTR,
            End::Canceled => libc::ECANCELED,
            End::NoBuffer if call == Call::RecvMulti => libc::ENOBUFS,
            End::Unsupported if call.is_multi() => libc::EINVAL,
            End::Unsupported if call == Call::Write => libc::EOPNOTSUPP,
            End::Unsupported if work.may_be_silent() => libc::EOPNOTSUPP,
            End::Failed => libc::EIO,
            End::NoBuffer | End::Unsupported => return None,
        })
    }
}

/// A call that the driver has.
#[derive(Debug)]
struct DriverCall {
    op: OpSlot,
    work: Work,
    is_cancelled: bool,
    /// Cannot be interrupted.
    is_uninterruptible: bool,
}

#[derive(Debug)]
pub(super) struct FakeDriver {
    calls: Vec<DriverCall>,
    pub(super) events: Vec<OpEvent>,
    /// The percentages of refused and of uninterruptible calls.
    pub(super) refused: u64,
    pub(super) uninterruptible: u64,
    /// The injected errors by operation.
    pub(super) failed: BTreeMap<OpSlot, i32>,
    /// The operations returned as unsupported.
    unsupported: BTreeSet<OpSlot>,
}

impl FakeDriver {
    pub(super) fn new(refused: u64, uninterruptible: u64) -> Self {
        let (calls, events, failed) = (Vec::new(), Vec::new(), BTreeMap::new());
        let unsupported = BTreeSet::new();
        FakeDriver { calls, events, refused, uninterruptible, failed, unsupported }
    }

    pub(super) fn submit(&mut self, op: OpSlot, work: Work, rng: &mut Rng) -> Result<(), Work> {
        if rng.is_percent(self.refused) {
            return Err(work);
        }
        assert!(!self.has(op), "an operation is submitted twice");
        let queue = queue_of(&work);
        let is_free =
            queue.is_none() || self.calls.iter().all(|entry| queue_of(&entry.work) != queue);
        assert!(is_free, "one call of a queue is submitted at a time");
        assert!(
            !self.unsupported.contains(&op),
            "a call is submitted although unsupported: {work:?}"
        );
        let is_uninterruptible = rng.is_percent(self.uninterruptible);
        self.calls.push(DriverCall { op, work, is_cancelled: false, is_uninterruptible });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Returns the calls in the driver.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.iter().map(|its| its.work.call()).collect()
    }

    /// Returns the operations whose calls the driver has.
    pub(super) fn ops(&self) -> Vec<OpSlot> {
        self.calls.iter().map(|entry| entry.op).collect()
    }

    /// Returns true if the driver has the call, or an event that returns it.
    pub(super) fn has(&self, op: OpSlot) -> bool {
        self.calls.iter().any(|entry| entry.op == op)
            || self.returned().any(|returned| returned == op)
    }

    /// Returns the number of calls in the driver or in its events.
    pub(super) fn count(&self) -> usize {
        self.calls.len() + self.returned().count()
    }

    fn returned(&self) -> impl Iterator<Item = OpSlot> {
        self.events.iter().filter_map(|event| match event {
            OpEvent::Completed { op, .. } => Some(*op),
            OpEvent::Result { .. } => None,
        })
    }

    /// Ends the call at this index. Returns false if it cannot end so now.
    pub(super) fn finish(
        &mut self,
        at: usize,
        end: End,
        files: &mut FakeFiles,
        rng: &mut Rng,
    ) -> bool {
        let entry = &mut self.calls[at];
        let (op, call) = (entry.op, entry.work.call());
        let result = match (end, end.error(&entry.work)) {
            (_, Some(code)) => Err(io::Error::from_raw_os_error(code)),
            (End::Real(max), None) => match files.wait_for_work(&mut entry.work, max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // A ring returns the end of a stream without a buffer.
                Ok(CallResult::Received(buf)) if buf.is_empty() => Ok(CallResult::Moved(0)),
                result => result,
            },
            _ => return false,
        };
        if end == End::Failed {
            self.failed.insert(op, libc::EIO);
        }
        if end == End::Unsupported {
            self.unsupported.insert(op);
        }
        let is_result = matches!(result, Ok(CallResult::Received(_) | CallResult::Accepted(_)));
        // It may end unrequested (no `IORING_CQE_F_MORE`).
        if call.is_multi() && is_result && !rng.is_percent(25) {
            let result = result.expect("a result");
            self.events.push(OpEvent::Result { op, result });
            return true;
        }
        let DriverCall { op, work, .. } = self.calls.swap_remove(at);
        self.events.push(OpEvent::Completed { op, work, result });
        true
    }

    /// Requests the end of a call, which may come at once, later or too late.
    pub(super) fn cancel(&mut self, op: OpSlot, files: &mut FakeFiles, rng: &mut Rng) {
        let Some(at) = self.position(op) else { return };
        self.calls[at].is_cancelled = true;
        if !self.calls[at].is_uninterruptible && rng.is_percent(30) {
            self.end_cancelled(at, files, rng);
        }
    }

    /// Ends those of these calls that can be interrupted.
    pub(super) fn cancel_and_wait(&mut self, ops: &[OpSlot], files: &mut FakeFiles, rng: &mut Rng) {
        for &op in ops {
            let Some(at) = self.position(op) else { continue };
            self.calls[at].is_cancelled = true;
            if !self.calls[at].is_uninterruptible {
                self.end_cancelled(at, files, rng);
            }
        }
    }

    /// Ends the cancelled calls.
    pub(super) fn finish_cancelled(&mut self, files: &mut FakeFiles, rng: &mut Rng) {
        while let Some(at) = self.calls.iter().position(|entry| entry.is_cancelled) {
            self.end_cancelled(at, files, rng);
        }
    }

    fn position(&self, op: OpSlot) -> Option<usize> {
        self.calls.iter().position(|entry| entry.op == op)
    }

    /// Ends a cancelled call in a random way.
    fn end_cancelled(&mut self, at: usize, files: &mut FakeFiles, rng: &mut Rng) {
        let op = self.calls[at].op;
        let end = match rng.below(6) {
            0 => End::WouldBlock,
            1 => End::Interrupted,
            2 | 3 => End::Real(1 + rng.below(50) as usize),
            _ => End::Canceled,
        };
        self.finish(at, end, files, rng);
        if self.calls.get(at).is_some_and(|entry| entry.op == op) {
            self.finish(at, End::Canceled, files, rng);
        }
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.events.clear();
    }
}

/// Returns the queue of a call, in which the kernel must see one call at a time.
fn queue_of(work: &Work) -> Option<(i32, bool)> {
    let (fd, call, _) = work.wanted();
    match call {
        Call::ReadAt(_) | Call::WriteAt(_) | Call::Sync { .. } | Call::Open => None,
        Call::Accept | Call::AcceptMulti | Call::RecvMulti => Some((fd, true)),
        call => Some((fd, call.receives())),
    }
}

/// A call for the thread pool.
#[derive(Debug)]
struct Job {
    op: OpSlot,
    call: CallBox,
    files: Vec<SourceFd>,
    has_begun: bool,
}

/// Threads that take and return calls in any order.
#[derive(Debug, Default)]
pub(super) struct FakeThreads {
    jobs: Vec<Job>,
    events: Vec<(OpEvent, Vec<SourceFd>)>,
    pub(super) failed: BTreeMap<OpSlot, i32>,
}

impl FakeThreads {
    pub(super) fn spawn(&mut self, op: OpSlot, call: CallBox, files: Vec<SourceFd>) {
        assert!(!self.has(op), "an operation is spawned twice");
        self.jobs.push(Job { op, call, files, has_begun: false });
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn ops(&self) -> Vec<OpSlot> {
        self.jobs.iter().map(|job| job.op).collect()
    }

    pub(super) fn has(&self, op: OpSlot) -> bool {
        let has_returned = |(event, _): &(OpEvent, Vec<SourceFd>)| event.op() == op;
        self.jobs.iter().any(|job| job.op == op) || self.events.iter().any(has_returned)
    }

    pub(super) fn count(&self) -> usize {
        self.jobs.len() + self.events.len()
    }

    pub(super) fn withdraw(&mut self, op: OpSlot) -> Option<CallBox> {
        let at = self.jobs.iter().position(|job| job.op == op && !job.has_begun)?;
        Some(self.jobs.remove(at).call)
    }

    pub(super) fn begin(&mut self, at: usize) {
        self.jobs[at].has_begun = true;
    }

    /// Makes the call at this index. A call on a file may return `WouldBlock`.
    pub(super) fn finish(&mut self, at: usize, end: End, files: &mut FakeFiles) {
        let Job { op, mut call, files: held, .. } = self.jobs.swap_remove(at);
        let is_at_once = matches!(call.call(), Call::Open | Call::Sync { .. });
        let result = match end {
            End::Failed => {
                self.failed.insert(op, libc::EIO);
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            End::WouldBlock if !is_at_once => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            End::Real(max) => files.call(&mut call, max),
            _ => files.call(&mut call, usize::MAX),
        };
        self.events.push((OpEvent::Completed { op, work: Work::Call(call), result }, held));
    }

    pub(super) fn drain_events(&mut self, out: &mut Vec<OpEvent>, files: &mut Vec<SourceFd>) {
        for (event, held) in self.events.drain(..) {
            out.push(event);
            files.extend(held);
        }
    }

    pub(super) fn clear(&mut self) {
        self.jobs.clear();
        self.events.clear();
    }
}
