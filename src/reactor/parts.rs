//! The parts of a reactor that operations use.

use super::batch::Batch;
#[cfg(any(test, feature = "spi"))]
use super::operations::Causes;
use super::operations::{Io, ThreadPool};
use super::readiness::Readiness;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::poller::Capabilities;
use crate::selector::{Deadline, OpEvent, Report, Selector, Triggers, WaitOutcome};
use crate::sys;
use crate::sys::file::{SourceFd, has_more, has_not_connected_again};
use crate::sys::io_call::{CallBox, CallResult, IoCall, Opener, Work};
use crate::sys::io_call::{recv_now, send_now, shutdown};
use crate::sys::io_mode::FdIoMode;
use crate::sys::pool::{BufferPool, PoolBuf};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::task;

/// The parts of a reactor without its operations.
pub(super) struct Parts<S> {
    // First, so that the mechanism is gone when sources are dropped (R6).
    pub(super) selector: S,
    /// The selector has a driver.
    pub(super) has_driver: bool,
    pub(super) readiness: Readiness,
    pub(super) thread_pool: ThreadPool,
    opener: Opener,
    pub(super) notifier: task::Waker,
    /// Files to drop at the end of a call, because that may run the user's code.
    pub(super) deferred_drops: Vec<SourceFd>,
    /// The selector's reports; kept for its memory.
    reports: Vec<Report>,
    /// The number of reports of the last selector wait.
    reported: usize,
    /// The limit of reports when only operations wait.
    batch: Batch,
    /// Counts the waits in which the kernel lost reports.
    pub(super) overflows: u64,
}

impl<S: Selector> Parts<S> {
    pub(super) fn new(mut selector: S, notifier: task::Waker) -> Self {
        Parts {
            has_driver: selector.driver().is_some(),
            selector,
            readiness: Readiness::default(),
            thread_pool: ThreadPool::new(notifier.clone()),
            opener: Opener::default(),
            notifier,
            deferred_drops: Vec::new(),
            reports: Vec::new(),
            reported: 0,
            batch: Batch::default(),
            overflows: 0,
        }
    }

    /// Limits the next selector wait to the room in the events. The kernel must report all while
    /// reported sources are queued, or if it does not repeat levels: its order mixed with the
    /// queue's is not fair (Q2). For operations alone, the limit is a batch that fits the
    /// processor's cache.
    pub(super) fn limit_reports(&mut self, room: usize, deadline: Deadline) {
        let has_level = self.selector.native().contains(Triggers::LEVEL);
        let max = match self.readiness.is_watching() {
            true if has_level && self.readiness.queue_len() == 0 => room,
            true => usize::MAX,
            // A wait of zero reports everything that there is room for (T1).
            false if deadline == Deadline::Now => room,
            false => room.min(self.batch.size()),
        };
        self.selector.set_max_reports(max.max(1));
    }

    /// Notes the bytes that operations have received since the last selector wait.
    pub(super) fn note_received(&mut self, bytes: usize) {
        self.batch.adapt(self.reported, bytes);
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        let native = self.selector.native();
        let mut capabilities = Capabilities::empty();
        capabilities.set(Capabilities::NATIVE_LEVEL, native.contains(Triggers::LEVEL));
        let has_edges = native.contains(Triggers::EDGE);
        let edges = if has_edges { self.selector.edges() } else { Interest::empty() };
        capabilities.set(Capabilities::NATIVE_EDGE, edges.is_all());
        capabilities.set(Capabilities::NATIVE_READ_EDGE, edges.contains(Interest::READABLE));
        capabilities.set(Capabilities::NATIVE_ONESHOT, native.contains(Triggers::ONESHOT));
        capabilities.set(Capabilities::NATIVE_OPERATIONS, self.has_driver);
        capabilities
    }

    /// Waits in the selector once, and queues its reports.
    ///
    /// # Errors
    ///
    /// The errors of the selector; its reports are queued.
    pub(super) fn wait_once(&mut self, deadline: Deadline) -> io::Result<WaitOutcome> {
        self.readiness.begin_round();
        let waited = self.selector.wait(deadline, &mut self.reports);
        self.reported = self.reports.len();
        let has_more = self.selector.has_more();
        self.readiness.on_reports(&mut self.reports, has_more);
        if let Ok(WaitOutcome::Overflow) = waited {
            self.overflows += 1;
            self.readiness.on_overflow();
        }
        waited
    }

    /// Registers a source. With an empty interest operations will follow, so it also returns the
    /// descriptor's I/O mode.
    ///
    /// # Errors
    ///
    /// As [`Readiness::register`].
    pub(super) fn register(
        &mut self,
        source: SourceFd,
        token: Token,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<(Slot, Option<FdIoMode>)> {
        let mut io_mode = None;
        let check = |fd: BorrowedFd<'_>| {
            io_mode = Some(FdIoMode::of_pollable(fd)?);
            Ok(())
        };
        let selector = &mut self.selector;
        let slot = self.readiness.register(selector, source, token, interest, mode, check)?;
        Ok((slot, io_mode))
    }

    /// Returns the descriptor of a source.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not registered.
    fn fd(&self, slot: Slot) -> io::Result<BorrowedFd<'_>> {
        let file = self.readiness.source(slot).map(|(file, _)| file.fd());
        file.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Returns the true bits of these directions by one poll(2); all are ready if it fails.
    fn poll_each<const N: usize>(&self, sides: [(Slot, Interest); N]) -> [PollBits; N] {
        let mut fds = sides.map(|(slot, dir)| sys::poll::pollfd {
            fd: self.fd(slot).map_or(-1, |fd| fd.as_raw_fd()),
            events: PollBits::asked(dir).bits() as i16,
            revents: 0,
        });
        let is_polled = sys::poll::poll_now(&mut fds).is_ok();
        fds.map(|fd| {
            if is_polled && fd.fd >= 0 {
                PollBits::from_bits_retain(fd.revents as u16)
            } else {
                PollBits::from_bits_retain(fd.events as u16) - PollBits::RDHUP
            }
        })
    }

    /// Returns true if the selector left reports in the kernel that this wait must deliver: those
    /// of watched sources (L1), or all once the deadline has passed (T1).
    pub(super) fn must_wait_again(&mut self, events: &Events, deadline: Deadline) -> bool {
        let must_complete = || events.remaining_completions() > 0 && deadline.has_passed();
        let must_report = self.readiness.is_watching() || must_complete();
        events.remaining() > 0 && must_report && self.selector.has_more()
    }

    /// Collects the driver's events.
    pub(super) fn drain_events(&mut self, events: &mut Vec<OpEvent>) {
        if let Some(driver) = self.selector.driver() {
            driver.drain_events(events);
        }
    }

    /// Drops unneeded files, last in a call: that may run the user's `Drop`, which may panic.
    pub(super) fn run_deferred_drops(&mut self) {
        while let Some(file) = self.deferred_drops.pop() {
            drop(file);
        }
    }
}

impl<S: Selector> Io for Parts<S> {
    fn file(&self, slot: Slot) -> Option<&SourceFd> {
        self.readiness.source(slot).map(|(file, _)| file)
    }

    fn mode_of(&mut self, slot: Slot) -> io::Result<FdIoMode> {
        FdIoMode::of(self.fd(slot)?)
    }

    fn restore(&mut self, slot: Slot, mode: &mut FdIoMode) {
        if let Some(file) = self.file(slot) {
            mode.restore(file.raw_fd());
        }
    }

    fn prepare_to_splice(&mut self, slot: Slot, mode: &mut FdIoMode) -> io::Result<()> {
        mode.prepare_to_splice(self.fd(slot)?.as_raw_fd())
    }

    fn has_driver(&self) -> bool {
        self.has_driver
    }

    fn can_submit(&mut self, work: &Work, mode: &mut FdIoMode) -> bool {
        work.is_supported_by_ring(mode)
    }

    fn attempt(&mut self, call: &mut IoCall, mode: &mut FdIoMode) -> io::Result<CallResult> {
        call.attempt(mode)
    }

    fn recv_now(&mut self, slot: Slot, buf: &mut PoolBuf) -> io::Result<usize> {
        recv_now(self.fd(slot)?, buf)
    }

    fn open_now(&mut self, call: &IoCall) -> Option<io::Result<OwnedFd>> {
        call.open_now(&mut self.opener)
    }

    fn send_now(&mut self, slot: Slot, bytes: &[u8]) -> io::Result<usize> {
        send_now(self.fd(slot)?, bytes)
    }

    fn attempt_splice(
        &mut self,
        call: &mut IoCall,
        from: &mut FdIoMode,
        to: &mut FdIoMode,
    ) -> io::Result<CallResult> {
        call.attempt_splice(from, to)
    }

    fn shutdown(&mut self, slot: Slot, how: Shutdown) -> io::Result<()> {
        shutdown(self.fd(slot)?, how)
    }

    fn poll_now(&mut self, slot: Slot, dir: Interest) -> PollBits {
        let [bits] = self.poll_each([(slot, dir)]);
        bits
    }

    fn poll_both(&mut self, sides: [(Slot, Interest); 2]) -> [PollBits; 2] {
        self.poll_each(sides)
    }

    fn has_bytes(&mut self, slot: Slot) -> bool {
        self.fd(slot).is_ok_and(has_more)
    }

    fn has_not_reconnected(&mut self, slot: Slot) -> bool {
        self.fd(slot).is_ok_and(has_not_connected_again)
    }

    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work> {
        let Some(driver) = self.selector.driver() else { return Err(work) };
        driver.submit(op, work)
    }

    fn cancel(&mut self, op: OpSlot) {
        if let Some(driver) = self.selector.driver() {
            driver.cancel(op);
        }
    }

    fn cancel_and_wait(&mut self, ops: &[OpSlot], events: &mut Vec<OpEvent>) {
        if let Some(driver) = self.selector.driver() {
            driver.cancel_and_wait(ops);
            driver.drain_events(events);
        }
    }

    fn spawn(&mut self, op: OpSlot, call: CallBox, files: Vec<SourceFd>) {
        self.thread_pool.submit(op, call, files);
    }

    fn withdraw(&mut self, op: OpSlot) -> Option<CallBox> {
        self.thread_pool.withdraw(op)
    }

    fn await_ready(&mut self, slot: Slot, dir: Interest) {
        self.readiness.await_ready(slot, dir);
    }

    fn stop_awaiting(&mut self, slot: Slot, dir: Interest) {
        self.readiness.stop_awaiting(slot, dir);
    }

    fn recheck(&mut self, slot: Slot, dir: Interest) {
        self.readiness.recheck(slot, dir);
    }

    fn recheck_all(&mut self, slot: Slot) {
        self.readiness.recheck_all(slot);
    }

    fn repeats(&self, slot: Slot, dir: Interest) -> bool {
        self.readiness.repeats(slot, dir)
    }

    fn note_likely_not_ready(&mut self, slot: Slot, dir: Interest) -> bool {
        self.readiness.note_likely_not_ready(slot, dir)
    }

    fn can_skip_attempt(&mut self, slot: Slot, dir: Interest) -> bool {
        self.readiness.can_skip_attempt(slot, dir)
    }

    fn release_buffers(&mut self, pool: &BufferPool) {
        if let Some(driver) = self.selector.driver() {
            driver.release_buffers(pool);
        }
    }

    fn notifier(&self) -> &task::Waker {
        &self.notifier
    }

    fn defer_drop(&mut self, files: Vec<SourceFd>) {
        self.deferred_drops.extend(files);
    }
}

#[cfg(any(test, feature = "spi"))]
impl<S: Selector> Causes for Parts<S> {
    fn awaited(&self, slot: Slot) -> Interest {
        self.readiness.awaited(slot)
    }

    fn interest(&self, slot: Slot) -> Option<Interest> {
        self.readiness.source(slot).map(|(_, interest)| interest)
    }

    fn driver_has(&self, _op: OpSlot) -> Option<bool> {
        None
    }

    fn driver_count(&self) -> Option<usize> {
        None
    }

    /// A thread owns the call that it makes.
    fn thread_has(&self, _op: OpSlot) -> Option<bool> {
        None
    }

    fn thread_count(&self) -> usize {
        self.thread_pool.len()
    }

    /// Another thread may have returned a buffer and be about to notify.
    fn is_notified(&self) -> Option<bool> {
        None
    }

    fn notifier(&self) -> &task::Waker {
        &self.notifier
    }
}
