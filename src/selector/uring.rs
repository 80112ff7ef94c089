//! io_uring(7): operations are the kernel's own; and what is ready is learnt from a multishot
//! `IORING_OP_POLL_ADD` for each file.
//!
//! How it really behaves (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** A multishot poll completes when it is armed, if the file is ready, and then for every
//!   wake-up of the file: an edge. (`IORING_POLL_ADD_LEVEL` is refused with `EINVAL`.)
//! - **b.** A completion has the bits of the wake-up, not those of the file: one direction where
//!   two are ready, or data that has been read meanwhile. Completions are hints. `POLLRDHUP` is
//!   always among what is told, asked for or not.
//! - **c.** Where the wake-up names no bits the kernel looks at the file itself. A few files forget
//!   their news when they are looked at; of those the bits are all there will ever be.
//! - **d.** A poll ends, which is told by a completion without `IORING_CQE_F_MORE`: when it is
//!   cancelled, by us or because the file goes away under it; when there was no room for one of its
//!   completions, although none gets lost; and at a wake-up that comes from a ring (its own number,
//!   its eventfd, an epoll that has one of these). Armed again it sees what it has missed.
//! - **e.** A file that has nothing to wait on (regular files, directories, `/dev/null`) ends the
//!   poll as it begins, with its bits, or with `EINVAL` if they are not among those asked for; and
//!   with `EINVAL` one that has more than two queues to wait in.
//! - **f.** A poll holds its file open, and so does one that was not cancelled when the ring is
//!   closed, for a while: what ends a registration waits for the last completion of its polls.
//! - **g.** A cancel may come too early, while the poll is at work (`EALREADY`), or too late
//!   (`ENOENT`). What counts is the completion of the poll.
//! - **h.** With `IORING_SETUP_DEFER_TASKRUN` the kernel does nothing for a completion before it is
//!   entered for completions, and then (since 6.13) for the oldest 20 polls only, or for as many as
//!   completions are asked for. `IORING_SQ_TASKRUN` says that some are left. That it is clear does
//!   not say that there are none: another processor may be about to set it. (On the older ways to
//!   work the kernel itself may so overlook, for a moment, what the thread has just done.)
//! - **i.** Urgent data wakes a poll for `POLLPRI` alone only if that asks for `POLLRDBAND` too.
//! - **j.** An eventfd completes at every write, also while an earlier one is unread: nobody has to
//!   read it.
//! - **k.** Of several operations that wait for one file the kernel serves the last first. The
//!   reactor gives us one at a time.
//! - **l.** What a cancel answers says nothing about the operation, whose own completion does. One
//!   that is between two tries is not found (`ENOENT`), and waits on: it is cancelled again. One
//!   that is at work in the kernel's own thread (`EALREADY`) is interrupted, if it can be.
//! - **m.** Closing the ring does not end an operation that can't be interrupted: it goes on to
//!   write to its memory.
//! - **n.** A send that there is room for completes as it is submitted. One with `MSG_DONTWAIT`
//!   does so also if there is none, with `EAGAIN`. One without waits, and not well: a message goes
//!   out empty, and if the peer has shut down writing the kernel tries again and again, and then
//!   gives it a thread of its own.
//! - **o.** A multishot accept or receive completes for each connection, or for what there is, with
//!   `IORING_CQE_F_MORE`; without, it is over, also if it has brought something: that is so where
//!   there was no room for the completion. After 33 results with more behind each it pauses, and
//!   does not see then what has ended the stream before; one that begins does.
//! - **p.** A multishot receive takes one of the buffers that are set out when something comes; and
//!   if there is none, it is over (`ENOBUFS`), at once or later, whether something has come, the
//!   stream has ended or was reset. Nothing is lost by that. What else ends it takes none.
//! - **q.** To it an empty datagram is the end. Of a shutdown of reading nobody tells one for
//!   datagrams, nor a multishot accept on a unix listener; single ones are told.
//! - **r.** Files are read and written whole, but for their end; one that has begun with a disk is
//!   not interrupted, whatever the cancel answers. To open a FIFO without `O_NONBLOCK` waits for
//!   its other side or not, depending on what is in the cache.
//!
//! A wait enters the kernel once, which does some twenty pieces of its deferred work (h). The
//! reactor asks again where more is needed.
//!
//! Nothing is submitted before the next wait, so that arming costs no call of its own; the file of
//! a registration stays open until then. Removing is submitted at once, and so is a new file of
//! which it is not certain that it can be polled.

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
use ring_queue::{End, PollEvent, Polls};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Some kernels count the memory against `RLIMIT_MEMLOCK`, a user's, not a process's. With this
/// many completions the kernel has an index of 128 lists for the polls, and finds one of 10,000
/// that is to be cancelled in a microsecond or so.
const SIZE: Size = Size { requests: 256, completions: 4096 };

/// The io_uring selector.
#[derive(Debug)]
pub struct Uring {
    polls: Polls,
    wake: WakeHandle,
    /// It is not to leave operations to the reactor.
    has_operations: bool,
    watches: SlotMap<Slot, Watch>,
    /// Whose polls have told something since the last wait.
    heard: Vec<Slot>,
    /// The wake handle was notified since the last wait.
    is_notified: bool,
    /// Completions have got lost since the last wait.
    has_lost: bool,
    /// A poll that has ended as it began is to be armed again.
    has_restarted: bool,
    /// Whose polls the kernel has refused, to be tried again in the next wait.
    refused: Vec<Slot>,
    /// Whose it refused last, and with which error number, if that was not told yet.
    refusal: Option<(Slot, i32)>,
    /// Of one turn; kept for its memory.
    told: Vec<PollEvent>,
}

impl Uring {
    /// Makes a ring, smaller than usual if memory is short.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with the cause in words, where the kernel, a sandbox or `RLIMIT_MEMLOCK` does
    /// not let the process have it; what io_uring_setup(2), mmap(2) and eventfd(2) say: `EMFILE`,
    /// `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Uring::with_ring(Ring::open(SIZE, &TaskWork::LADDER)?)
    }

    /// Makes a ring with room for so many requests and twice as many completions, on which the
    /// kernel does its work so.
    ///
    /// # Errors
    ///
    /// As [`Uring::new`].
    #[cfg(any(test, feature = "spi"))]
    pub fn with(requests: u32, work: TaskWork) -> io::Result<Self> {
        let size = Size { requests, completions: 2 * requests };
        Uring::with_ring(Ring::open(size, &[work])?)
    }

    /// Makes it leave operations to the reactor, as on a kernel that knows none of them.
    #[cfg(any(test, feature = "spi"))]
    pub fn without_operations(mut self) -> Self {
        self.has_operations = false;
        self
    }

    /// Makes it provide no buffers of pools to the kernel, as before Linux 5.19.
    #[cfg(any(test, feature = "spi"))]
    pub fn without_provided_buffers(mut self) -> Self {
        self.polls.forbid_groups();
        self
    }

    fn with_ring(ring: Ring) -> io::Result<Self> {
        let (watches, heard, refused, told) = Default::default();
        let mut uring = Uring {
            polls: Polls::new(ring),
            wake: WakeHandle::new()?,
            has_operations: true,
            watches,
            heard,
            is_notified: false,
            has_lost: false,
            has_restarted: false,
            refused,
            refusal: None,
            told,
        };
        uring.begin_wake();
        // A sandbox may allow io_uring_setup(2) and not this.
        uring.run(Deadline::Now)?;
        Ok(uring)
    }

    fn watch(&mut self, slot: Slot) -> Option<&mut Watch> {
        self.watches.get_mut(slot)
    }

    fn begin_wake(&mut self) {
        self.polls.begin(Owner::WakeHandle, self.wake.as_fd().as_raw_fd(), PollBits::IN);
    }

    /// Has the next turn arm a poll for what is watched.
    fn begin(&mut self, slot: Slot) {
        let Some(watch) = self.watches.get_mut(slot) else { return };
        watch.poll = Some(self.polls.begin(Owner::Slot(slot), watch.number, watch.asked()));
        watch.polls += 1;
    }

    /// Has the next turn cancel the poll that is armed.
    fn cancel(&mut self, slot: Slot) {
        if let Some(poll) = self.watch(slot).and_then(|watch| watch.poll.take()) {
            self.polls.cancel(poll);
            // It may have ended by this.
            self.take_note();
        }
    }

    /// Enters the kernel once, and takes note of what it tells.
    fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        let entered = self.polls.enter(min_complete, timeout);
        self.take_note();
        entered
    }

    fn take_note(&mut self) {
        let mut told = std::mem::take(&mut self.told);
        let has_lost = self.polls.take_told(&mut told);
        for told in told.drain(..) {
            match told.owner {
                Owner::WakeHandle => self.note_wake(told),
                Owner::Slot(slot) => self.note(slot, told),
            }
        }
        self.told = told;
        if has_lost {
            self.start_over();
        }
    }

    fn note_wake(&mut self, told: PollEvent) {
        self.is_notified |= told.end != Some(End::Cancelled);
        if told.end.is_some_and(|end| end != End::Cancelled) {
            self.begin_wake();
        }
    }

    fn note(&mut self, slot: Slot, told: PollEvent) {
        let Some(watch) = self.watch(slot) else { return };
        if told.end.is_some() {
            watch.polls -= 1;
            watch.poll = watch.poll.filter(|&poll| poll != told.id);
        }
        if told.end == Some(End::Cancelled) {
            return;
        }
        watch.news |= PollBits::from_bits_retain(u16::try_from(told.result).unwrap_or(0));
        if told.end.is_none() {
            (watch.ends, watch.is_refused) = (0, false);
        }
        if !std::mem::replace(&mut watch.is_heard, true) {
            self.heard.push(slot);
        }
        if let Some(end) = told.end {
            self.note_end(slot, told.result, end);
        }
    }

    /// A poll has ended unasked.
    fn note_end(&mut self, slot: Slot, result: i32, end: End) {
        let Some(watch) = self.watch(slot) else { return };
        match -result {
            ..=0 if end == End::AtOnce && watch.ends_at_once() => {}
            ..=0 | libc::ECANCELED => {
                if end == End::Later {
                    watch.ends = 0;
                } else {
                    self.has_restarted = true;
                }
                self.begin(slot);
            }
            // The program has closed the number behind our back, and looks will tell of that.
            libc::EBADF => watch.be_still(),
            errno => {
                let is_news = !std::mem::replace(&mut watch.is_refused, true);
                if errno == libc::EINVAL {
                    watch.be_still();
                } else {
                    self.refused.push(slot);
                }
                // Once, lest the others are never heard of for it.
                if is_news {
                    self.refusal = Some((slot, errno));
                }
            }
        }
    }

    /// Completions have got lost, and with them perhaps the end of any poll.
    fn start_over(&mut self) {
        self.has_lost = true;
        self.polls.cancel_all();
        self.begin_wake();
        for slot in self.watches.keys().collect::<Vec<_>>() {
            if self.watch(slot).is_some_and(|watch| watch.poll.take().is_some()) {
                self.begin(slot);
            }
        }
    }

    /// Reports whose polls have told something.
    fn report_heard(&mut self, out: &mut Vec<Report>) {
        let mut heard = std::mem::take(&mut self.heard);
        for slot in heard.drain(..) {
            let Some(watch) = self.watch(slot) else { continue };
            let news = std::mem::take(&mut watch.news);
            if std::mem::replace(&mut watch.is_heard, false) {
                out.push(match !news.is_empty() && watch.is_forgetful() {
                    true => Report::Partial(slot, news),
                    false => Report::Hint(slot),
                });
            }
        }
        self.heard = heard;
    }
}

/// In words, where the number is not enough.
fn refused_with(errno: i32) -> io::Error {
    let error = io::Error::from_raw_os_error(errno);
    if errno != libc::EINVAL {
        return error;
    }
    let cause = "io_uring can't poll a file that has nothing, or more than two queues, to wait in";
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
            return Ok(ArmOutcome { look: true, ..edge });
        }
        watch.dirs = arm.dirs;
        watch.stir();
        let is_uncertain = is_new && watch.is_named();
        self.cancel(slot);
        self.begin(slot);
        if is_uncertain {
            self.insist(slot).inspect_err(|_| self.remove(slot, fd))?;
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
        self.settle_until(|uring| uring.watch(slot).is_none_or(|watch| watch.polls == 0));
        self.watches.remove(slot);
        self.refusal.take_if(|(refused, _)| *refused == slot);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let old = out.len();
        self.polls.begin_wait();
        let ran = self.run(deadline);
        self.report_heard(out);
        let is_notified = std::mem::take(&mut self.is_notified);
        if std::mem::take(&mut self.has_lost) {
            return Ok(WaitOutcome::Overflow);
        }
        if let Some((_, errno)) = self.refusal.take() {
            return Err(refused_with(errno));
        }
        let has_reports = out.len() > old || is_notified || self.polls.has_events();
        match ran {
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
        self.polls.begin_operation(op, work);
        Ok(())
    }

    fn cancel(&mut self, op: OpSlot) {
        self.polls.stop_operation(op);
    }

    fn cancel_and_wait(&mut self, ops: &[OpSlot]) {
        ops.iter().for_each(|&op| self.polls.stop_operation(op));
        self.settle_until(|uring| !ops.iter().any(|&op| uring.polls.has_operation(op)));
    }

    fn release_buffers(&mut self, pool: &BufferPool) {
        self.polls.release_buffers(pool);
    }

    fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        self.polls.drain_events(out);
    }
}

impl Drop for Uring {
    /// The ring alone would hold the files for a while (f), and the kernel the memory of operations
    /// (m). In a forked child they are the parent's (P1).
    fn drop(&mut self) {
        if !self.polls.is_forked_child() {
            self.polls.stop_all_operations();
            self.polls.cancel_all();
            // Nothing is armed any more, whatever the last completions say.
            self.watches.clear();
            self.take_note();
            self.settle_until(|uring| uring.polls.len() + uring.polls.operations() == 0);
            self.wait_for_the_last();
        }
    }
}

#[cfg(test)]
mod tests;
