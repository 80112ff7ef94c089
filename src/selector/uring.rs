//! io_uring(7): native operations, and readiness by a multishot `IORING_OP_POLL_ADD` for each file.
//!
//! Behaviour of the kernel (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** A multishot poll completes when it is armed, if the file is ready, and then for every
//!   wake-up of the file: an edge. (`IORING_POLL_ADD_LEVEL` is refused with `EINVAL`.)
//! - **b.** A CQE has the bits of the wake-up, not those of the file: one direction where two are
//!   ready, or data that has been read meanwhile. CQEs are hints. `POLLRDHUP` is always reported,
//!   even if it is not requested.
//! - **c.** If the wake-up names no bits, the kernel polls the file. In a few files a poll clears
//!   the pending state. The bits of the CQE are then the only report.
//! - **d.** The last CQE of a poll lacks `IORING_CQE_F_MORE`. A poll ends when it is cancelled, by
//!   us or because its file goes away. It also ends when the CQ has no space for one of its CQEs,
//!   although none is lost. It ends too at a wake-up that comes from a ring (its own descriptor,
//!   its eventfd, an epoll that contains one of these). Armed again, it reports what it missed.
//! - **e.** A file without a wait queue (regular files, directories, `/dev/null`) ends the poll as
//!   it begins, with its bits. If these are not among the requested ones it ends with `EINVAL`. So
//!   does the poll of a file with more than two wait queues.
//! - **f.** A poll holds its file open. A poll that was not cancelled does so for a while after the
//!   ring is closed. `remove` therefore waits for the last CQE of the polls.
//! - **g.** A cancel may come too early, while the poll is being executed (`EALREADY`), or too late
//!   (`ENOENT`). The CQE of the poll decides.
//! - **h.** With `IORING_SETUP_DEFER_TASKRUN` the kernel does no work for a CQE before an enter
//!   with `IORING_ENTER_GETEVENTS`. It then (since 6.13) serves the oldest 20 polls only, or as
//!   many as `min_complete`. `IORING_SQ_TASKRUN` says that some are left. If it is clear there may
//!   still be some: another processor may be about to set it. (In the other modes of task work too,
//!   the kernel may for a moment miss what the thread has just done.)
//! - **i.** Urgent data wakes a poll for `POLLPRI` alone only if it requests `POLLRDBAND` too.
//! - **j.** An eventfd completes at every write, also while an earlier one is unread: it need not
//!   be read.
//! - **k.** Of several operations that wait for one file the kernel serves the last first. The
//!   reactor submits one at a time.
//! - **l.** The CQE of a cancel says nothing about the operation, whose own CQE does. An operation
//!   between two attempts is not found (`ENOENT`) and keeps waiting: it is cancelled again. One in
//!   a kernel worker thread (`EALREADY`) is interrupted, if it can be.
//! - **m.** Closing the ring does not end an operation that cannot be interrupted. It goes on to
//!   write to its memory.
//! - **n.** A send completes at submission if the socket buffer has space. With `MSG_DONTWAIT` it
//!   also does without space, with `EAGAIN`. Without the flag it waits, with two faults: a message
//!   is sent empty, and if the peer has shut down writing the kernel retries in a loop, and then
//!   in a worker thread.
//! - **o.** A multishot accept or receive completes for each connection, or for available bytes,
//!   with `IORING_CQE_F_MORE`. Without the flag it has ended, even if it has a result: that is so
//!   if the CQ had no space. After 33 results with more behind each it pauses, and does not see an
//!   earlier end of the stream. A new one does.
//! - **p.** A multishot receive takes a provided buffer when data arrives. If there is none it ends
//!   with `ENOBUFS`, at once or later, whether data has come or the stream has ended or was reset.
//!   Nothing is lost by that. Other ends take no buffer.
//! - **q.** A multishot receive ends at an empty datagram. A shutdown of reading is not reported to
//!   one for datagrams, nor to a multishot accept on a unix listener. Single ones see it.
//! - **r.** Files are read and written whole, except at their end. An operation that a disk has
//!   begun is not interrupted, whatever the cancel answers. Opening a FIFO without `O_NONBLOCK` may
//!   wait for its other end or not, depending on the cache.
//!
//! A wait enters the kernel once, which does about twenty pieces of its deferred work (h). The
//! reactor asks again if more is needed.
//!
//! SQEs are submitted by the next wait, so that arming costs no call of its own. The file of a
//! registration stays open until then. Removals are submitted at once, and so is the first poll of
//! a file that may not support polling.

mod enter;
mod operations;
mod poll_slab;
mod poll_state;
mod ring_queue;

use super::{
    ArmOutcome, ArmRequest, Deadline, OpDriver, OpEvent, Report, Selector, Trigger, Triggers,
};
use super::{WaitOutcome, WakeHandle};
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::slab::SlotMap;
use crate::sys::io_call::{Call, Work};
use crate::sys::pool::BufferPool;
use crate::sys::ring::{Ring, Size, TaskWork};
use poll_slab::Owner;
use poll_state::Watch;
use ring_queue::{PollEnd, PollEvent, RingQueue};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// The size of the ring. Some kernels count its memory against `RLIMIT_MEMLOCK`, which is per user.
/// With this many CQEs the kernel has a hash of 128 lists for the polls. It finds one of 10,000 to
/// cancel in about a microsecond.
const SIZE: Size = Size { requests: 256, completions: 4096 };

/// The io_uring selector.
#[derive(Debug)]
pub struct Uring {
    polls: RingQueue,
    wake: WakeHandle,
    /// False if operations are left to the reactor.
    has_operations: bool,
    watches: SlotMap<Slot, Watch>,
    /// Slots whose polls have completed since the last wait.
    reported: Vec<Slot>,
    /// The wake handle was notified since the last wait.
    is_notified: bool,
    /// CQEs were lost since the last wait.
    has_lost_completions: bool,
    /// A poll that ended as it began must be armed again.
    has_restarted: bool,
    /// Slots whose polls the kernel has refused; the next wait retries them.
    refused: Vec<Slot>,
    /// The slot and errno of the last refusal, if it was not reported yet.
    refusal: Option<(Slot, i32)>,
    /// The events of one enter; kept for its memory.
    events: Vec<PollEvent>,
}

impl Uring {
    /// Makes a ring, smaller than usual if memory is short.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with the cause in words, if the kernel, a sandbox or `RLIMIT_MEMLOCK` forbids
    /// it; the errors of io_uring_setup(2), mmap(2) and eventfd(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Uring::with_ring(Ring::open(SIZE, &TaskWork::LADDER)?)
    }

    /// Makes a ring of `requests` SQEs and twice as many CQEs, with this mode of task work.
    ///
    /// # Errors
    ///
    /// As [`Uring::new`].
    #[cfg(any(test, feature = "spi"))]
    pub fn with(requests: u32, work: TaskWork) -> io::Result<Self> {
        let size = Size { requests, completions: 2 * requests };
        Uring::with_ring(Ring::open(size, &[work])?)
    }

    /// Leaves operations to the reactor, as on a kernel that supports none of them.
    #[cfg(any(test, feature = "spi"))]
    pub fn without_operations(mut self) -> Self {
        self.has_operations = false;
        self
    }

    /// Provides no pool buffers to the kernel, as before Linux 5.19.
    #[cfg(any(test, feature = "spi"))]
    pub fn without_provided_buffers(mut self) -> Self {
        self.polls.forbid_groups();
        self
    }

    fn with_ring(ring: Ring) -> io::Result<Self> {
        let (watches, reported, refused, events) = Default::default();
        let mut uring = Uring {
            polls: RingQueue::new(ring),
            wake: WakeHandle::new()?,
            has_operations: true,
            watches,
            reported,
            is_notified: false,
            has_lost_completions: false,
            has_restarted: false,
            refused,
            refusal: None,
            events,
        };
        uring.queue_wake_poll();
        // A sandbox may allow io_uring_setup(2) and not this.
        uring.run(Deadline::Now)?;
        Ok(uring)
    }

    fn watch(&mut self, slot: Slot) -> Option<&mut Watch> {
        self.watches.get_mut(slot)
    }

    fn queue_wake_poll(&mut self) {
        self.polls.queue_poll(Owner::WakeHandle, self.wake.as_fd().as_raw_fd(), PollBits::IN);
    }

    /// Queues a poll for the watched directions.
    fn queue_poll(&mut self, slot: Slot) {
        let Some(watch) = self.watches.get_mut(slot) else { return };
        watch.poll = Some(self.polls.queue_poll(Owner::Slot(slot), watch.fd, watch.requested()));
        watch.polls += 1;
    }

    /// Queues the cancel of the armed poll.
    fn cancel(&mut self, slot: Slot) {
        if let Some(poll) = self.watch(slot).and_then(|watch| watch.poll.take()) {
            self.polls.cancel_poll(poll);
            // A poll that was not submitted has ended by this.
            self.collect_events();
        }
    }

    /// Enters the kernel once, and collects the CQEs.
    fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        let entered = self.polls.enter(min_complete, timeout);
        self.collect_events();
        entered
    }

    fn collect_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        let has_lost_completions = self.polls.take_events(&mut events);
        for event in events.drain(..) {
            match event.owner {
                Owner::WakeHandle => self.on_wake_event(event),
                Owner::Slot(slot) => self.on_poll_event(slot, event),
            }
        }
        self.events = events;
        if has_lost_completions {
            self.restart_all();
        }
    }

    fn on_wake_event(&mut self, event: PollEvent) {
        self.is_notified |= event.end != Some(PollEnd::Cancelled);
        if event.end.is_some_and(|end| end != PollEnd::Cancelled) {
            self.queue_wake_poll();
        }
    }

    fn on_poll_event(&mut self, slot: Slot, event: PollEvent) {
        let Some(watch) = self.watch(slot) else { return };
        if event.end.is_some() {
            watch.polls -= 1;
            watch.poll = watch.poll.filter(|&poll| poll != event.id);
        }
        if event.end == Some(PollEnd::Cancelled) {
            return;
        }
        watch.pending_bits |= PollBits::from_bits_retain(u16::try_from(event.result).unwrap_or(0));
        if event.end.is_none() {
            (watch.immediate_ends, watch.is_refused) = (0, false);
        }
        if !std::mem::replace(&mut watch.is_reported, true) {
            self.reported.push(slot);
        }
        if let Some(end) = event.end {
            self.on_poll_end(slot, event.result, end);
        }
    }

    /// Handles a poll that ended without a cancel.
    fn on_poll_end(&mut self, slot: Slot, result: i32, end: PollEnd) {
        let Some(watch) = self.watch(slot) else { return };
        match -result {
            ..=0 if end == PollEnd::Immediate && watch.has_no_wait_queue() => {}
            ..=0 | libc::ECANCELED => {
                if end == PollEnd::AfterArming {
                    watch.immediate_ends = 0;
                } else {
                    self.has_restarted = true;
                }
                self.queue_poll(slot);
            }
            // The program has closed the registered descriptor. Polls by the reactor report that.
            libc::EBADF => watch.disable(),
            errno => {
                let is_first = !std::mem::replace(&mut watch.is_refused, true);
                if errno == libc::EINVAL {
                    watch.disable();
                } else {
                    self.refused.push(slot);
                }
                // Once: an error in every wait would hide the other sources.
                if is_first {
                    self.refusal = Some((slot, errno));
                }
            }
        }
    }

    /// Arms all polls anew, because the lost CQEs may have ended any of them.
    fn restart_all(&mut self) {
        self.has_lost_completions = true;
        self.polls.cancel_all();
        self.queue_wake_poll();
        for slot in self.watches.keys().collect::<Vec<_>>() {
            if self.watch(slot).is_some_and(|watch| watch.poll.take().is_some()) {
                self.queue_poll(slot);
            }
        }
    }

    /// Reports the slots whose polls have completed.
    fn report_pending(&mut self, out: &mut Vec<Report>) {
        let mut reported = std::mem::take(&mut self.reported);
        for slot in reported.drain(..) {
            let Some(watch) = self.watch(slot) else { continue };
            let pending_bits = std::mem::take(&mut watch.pending_bits);
            if std::mem::replace(&mut watch.is_reported, false) {
                out.push(match !pending_bits.is_empty() && watch.clears_on_poll() {
                    true => Report::Partial(slot, pending_bits),
                    false => Report::Hint(slot),
                });
            }
        }
        self.reported = reported;
    }
}

/// Returns the error of a refused poll, in words if the errno is ambiguous.
fn refusal_error(errno: i32) -> io::Error {
    let error = io::Error::from_raw_os_error(errno);
    if errno != libc::EINVAL {
        return error;
    }
    let cause = "io_uring cannot poll a file with no or more than two queues to wait in";
    io::Error::new(io::ErrorKind::Unsupported, format!("{cause} ({error})"))
}

impl Selector for Uring {
    fn native(&self) -> Triggers {
        Triggers::EDGE
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let edge = ArmOutcome::whole(Trigger::Edge);
        let is_new = self.watch(slot).is_none();
        if is_new {
            self.watches.insert(slot, Watch::new(fd)?);
        }
        let Some(watch) = self.watch(slot) else { return Ok(edge) };
        if watch.poll.is_some() && watch.dirs == arm.dirs {
            return Ok(ArmOutcome { needs_initial_poll: true, ..edge });
        }
        watch.dirs = arm.dirs;
        watch.enable();
        let may_be_refused = is_new && watch.is_in_file_system();
        self.cancel(slot);
        self.queue_poll(slot);
        if may_be_refused {
            self.submit_now(slot).inspect_err(|_| self.remove(slot, fd))?;
        }
        Ok(edge)
    }

    fn disarm(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        let Some(watch) = self.watch(slot) else { return };
        watch.dirs = Interest::empty();
        self.cancel(slot);
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.disarm(slot, fd);
        self.enter_until(|uring| uring.watch(slot).is_none_or(|watch| watch.polls == 0));
        self.watches.remove(slot);
        self.refusal.take_if(|(refused, _)| *refused == slot);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let old = out.len();
        self.polls.begin_wait();
        let result = self.run(deadline);
        self.report_pending(out);
        let is_notified = std::mem::take(&mut self.is_notified);
        if std::mem::take(&mut self.has_lost_completions) {
            return Ok(WaitOutcome::Overflow);
        }
        if let Some((_, errno)) = self.refusal.take() {
            return Err(refusal_error(errno));
        }
        let has_reports = out.len() > old || is_notified || self.polls.has_op_events();
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ if has_reports => Ok(WaitOutcome::Events),
            Err(_) => Ok(WaitOutcome::Interrupted),
            Ok(()) => Ok(WaitOutcome::TimedOut),
        }
    }

    fn has_more(&mut self) -> bool {
        self.polls.has_queued() || self.polls.has_more()
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }

    fn driver(&mut self) -> Option<&mut dyn OpDriver> {
        let can_operate = self.has_operations && self.polls.knows(Call::Recv);
        can_operate.then_some(self as &mut dyn OpDriver)
    }
}

impl OpDriver for Uring {
    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work> {
        if !self.polls.can(&work) {
            return Err(work);
        }
        self.polls.queue_operation(op, work);
        Ok(())
    }

    fn cancel(&mut self, op: OpSlot) {
        self.polls.cancel_operation(op);
    }

    fn cancel_and_wait(&mut self, ops: &[OpSlot]) {
        ops.iter().for_each(|&op| self.polls.cancel_operation(op));
        self.enter_until(|uring| !ops.iter().any(|&op| uring.polls.has_operation(op)));
    }

    fn release_buffers(&mut self, pool: &BufferPool) {
        self.polls.release_buffers(pool);
    }

    fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        self.polls.drain_events(out);
    }
}

impl Drop for Uring {
    /// Ends all polls and operations: a closed ring holds their files for a while (f), and the
    /// kernel their memory (m). In a forked child they belong to the parent (P1).
    fn drop(&mut self) {
        if !self.polls.is_forked_child() {
            self.polls.cancel_all_operations();
            self.polls.cancel_all();
            // The last CQEs must not arm anything.
            self.watches.clear();
            self.collect_events();
            self.enter_until(|uring| uring.polls.len() + uring.polls.operations() == 0);
            self.wait_in_flight();
        }
    }
}

#[cfg(test)]
mod tests;
