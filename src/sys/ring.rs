//! An io_uring(7): its two queues, and the memory that its SQEs point to.
#![allow(unsafe_code)]

mod enter;
mod groups;
mod in_flight;
mod setup_error;
mod silent;

use super::fork::ForkGeneration;
use super::io_call::{Call, CallResult, Work, complete_one, note_leaked};
use super::own_fd::above_stdio;
use super::pool::BufferPool;
use super::raised::without_sigxfsz;
use enter::enter_once;
use groups::{BufGroups, NO_GROUP};
use in_flight::{InFlight, OPERATION, user_data_of};
use io_uring::types::Fd;
use io_uring::{Builder, IoUring, Probe, cqueue, opcode};
use silent::SilentSends;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A ring and its memory.
pub(crate) struct Ring {
    ring: ManuallyDrop<IoUring>,
    /// Memory that the kernel may touch.
    in_flight: InFlight,
    /// Buffers that the kernel may take.
    groups: BufGroups,
    silent: SilentSends,
    work: TaskWork,
    /// The operations that the kernel supports.
    probe: Probe,
    /// The completion queue was full at some moment.
    was_full: bool,
    /// SQEs that write to files were pushed, and perhaps not submitted.
    has_writes: bool,
    generation: ForkGeneration,
}

/// When the kernel runs the task work of completions, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskWork {
    /// On an enter for completions (6.1).
    Deferred,
    /// On any enter (5.19).
    Cooperative,
    /// At once, if need be by interrupting the thread.
    Prompt,
}

/// The sizes of the queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// The submission queue.
    pub(crate) requests: u32,
    /// The completion queue, which is not smaller. The kernel sizes its table of polls by it.
    pub(crate) completions: u32,
}

impl Size {
    fn halved(self) -> Self {
        Size { requests: self.requests / 2, completions: self.completions / 2 }
    }
}

/// The minimum submission queue.
const MIN_REQUESTS: u32 = 16;

/// Takes CQEs where they are read: an enum of these would be moved twice.
pub(crate) trait TakeCompletions {
    /// A request has completed, with the result of a system call or a negative error number.
    /// `more`: the request stays active (`IORING_CQE_F_MORE`).
    fn on_request(&mut self, user_data: u64, result: i32, more: bool);

    /// An operation has completed, and the kernel no longer touches its memory.
    fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>);

    /// A multishot operation has a result, and continues. `partial_results` counts the results in a
    /// row after which more data was available; 0 if none was.
    fn on_partial(&mut self, tag: u64, result: CallResult, partial_results: u8);
}

/// A request that is no operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// A multishot poll: a CQE for each wake-up with one of these poll(2) bits.
    Poll { fd: RawFd, bits: u16 },
    /// Cancels the request with this `user_data`.
    Cancel(u64),
    /// Cancels the operation with this tag.
    CancelOp(u64),
}

impl TaskWork {
    /// The order in which [`Ring::open`] tries them.
    pub(crate) const LADDER: [TaskWork; 3] =
        [TaskWork::Deferred, TaskWork::Cooperative, TaskWork::Prompt];

    fn set_up(self, builder: &mut Builder) {
        match self {
            TaskWork::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag()
            }
            TaskWork::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
            TaskWork::Prompt => builder,
        };
    }
}

impl Ring {
    /// Makes a ring for this thread, with these sizes or smaller ones if memory is short, and the
    /// first `ladder` entry that the kernel supports.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with the cause, where io_uring is permanently unavailable; those of
    /// io_uring_setup(2) and mmap(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(crate) fn open(mut size: Size, ladder: &[TaskWork]) -> io::Result<Self> {
        let generation = ForkGeneration::current()?;
        let mut ladder = ladder.iter();
        let mut work = ladder.next();
        while let Some(&task_work) = work {
            match Ring::set_up(size, task_work, generation) {
                Ok(ring) => return Ok(ring),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOMEM) if size.requests > MIN_REQUESTS => size = size.halved(),
                    // The only cause of EINVAL is a flag that the kernel does not know.
                    Some(libc::EINVAL) => work = ladder.next(),
                    _ => return Err(setup_error::explain_setup(error)),
                },
            }
        }
        Err(setup_error::too_old())
    }

    fn set_up(size: Size, work: TaskWork, generation: ForkGeneration) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        work.set_up(builder.dontfork().setup_cqsize(size.completions));
        let ring = ManuallyDrop::new(above_stdio(|| builder.build(size.requests))?);
        let mut probe = Probe::new();
        // A sandbox may forbid the probe. Then the reactor emulates all operations.
        let _ = ring.submitter().register_probe(&mut probe);
        // Deferred task work implies Linux 6.1, see `silent`.
        let can_skip = ring.params().is_feature_skip_cqe_on_success() && work == TaskWork::Deferred;
        let silent = SilentSends::new(can_skip);
        let ring = Ring {
            ring,
            in_flight: InFlight::default(),
            groups: BufGroups::default(),
            silent,
            work,
            probe,
            was_full: false,
            has_writes: false,
            generation,
        };
        let has = ring.ring.params();
        let [ext_arg, nodrop] = [has.is_feature_ext_arg(), has.is_feature_nodrop()];
        setup_error::check_features(ext_arg, nodrop, has.is_feature_resource_tagging())?;
        Ok(ring)
    }

    /// Emulates a kernel without buffer rings (before Linux 5.19).
    #[cfg(any(test, feature = "spi"))]
    pub(crate) fn forbid_groups(&mut self) {
        self.groups.forbid();
    }

    /// Returns true in a forked child of the process that made the ring; only a drop is allowed
    /// there.
    pub(crate) fn is_forked_child(&self) -> bool {
        self.generation.is_forked_child()
    }

    /// Returns the queues, which a forked child has not inherited.
    fn queues(&mut self) -> Option<&mut IoUring> {
        if self.is_forked_child() { None } else { Some(&mut self.ring) }
    }

    /// Queues a request for the next [`Ring::enter`]. Returns false if the queue is full.
    ///
    /// # Panics
    ///
    /// If the topmost bit of `user_data` is set, which marks operations.
    pub(crate) fn push(&mut self, request: Request, user_data: u64) -> bool {
        assert_eq!(user_data & OPERATION, 0, "the topmost bit marks operations");
        let entry = match request {
            Request::Poll { fd, bits } => {
                opcode::PollAdd::new(Fd(fd), u32::from(bits)).multi(true).build()
            }
            Request::Cancel(target) => opcode::AsyncCancel::new(target).build(),
            Request::CancelOp(tag) => opcode::AsyncCancel::new(user_data_of(tag)).build(),
        };
        let entry = entry.user_data(user_data);
        let Some(queues) = self.queues() else { return false };
        // SAFETY: the SQE points to no memory.
        unsafe { queues.submission().push(&entry) }.is_ok()
    }

    /// Returns true if the kernel supports this call.
    pub(crate) fn knows(&self, call: Call) -> bool {
        call.code().is_some_and(|code| self.probe.is_supported(code))
    }

    /// Returns true if receives can take buffers of this pool: some are provided.
    pub(crate) fn provides(&mut self, pool: &BufferPool) -> bool {
        !self.is_forked_child() && self.groups.provide(&self.ring, pool)
    }

    /// Marks the provided buffers of a pool to be returned as soon as no operation may take them.
    /// Returns false if there are none, or they are marked already.
    pub(crate) fn release_buffers(&mut self, pool: &BufferPool) -> bool {
        !self.is_forked_child() && self.groups.release(pool)
    }

    /// Returns true if an operation takes buffers of this pool.
    pub(crate) fn takes_from(&self, tag: u64, pool: &BufferPool) -> bool {
        let group = self.in_flight.get(tag).map(|operation| operation.group);
        group.is_some() && group == self.groups.find(pool)
    }

    /// Returns true if the kernel has the operation with this tag.
    pub(crate) fn has_operation(&self, tag: u64) -> bool {
        self.in_flight.get(tag).is_some()
    }

    /// Returns the tag of the operation with this index, if its cancel was requested.
    pub(crate) fn cancelled_operation(&self, index: u32) -> Option<u64> {
        let (tag, operation) = self.in_flight.get_index(index)?;
        operation.is_cancelled.then_some(tag)
    }

    /// Notes a cancel request. Returns true if the operation is in flight and this is the first.
    pub(crate) fn note_cancelled(&mut self, tag: u64) -> bool {
        let operation = self.in_flight.get_mut(tag);
        operation.is_some_and(|op| !std::mem::replace(&mut op.is_cancelled, true))
    }

    /// Returns the number of operations in flight.
    pub(crate) fn operations(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the tags of the operations in flight.
    pub(crate) fn operation_tags(&self) -> impl Iterator<Item = u64> {
        self.in_flight.tags()
    }

    /// Provides buffers in place of those that were taken.
    pub(crate) fn refill(&mut self) {
        if !self.is_forked_child() {
            self.groups.refill(&self.ring);
        }
    }

    /// Queues an operation for the next [`Ring::enter`]. A send completes with `WouldBlock` instead
    /// of waiting. Its file must stay open until it completes.
    ///
    /// # Errors
    ///
    /// The work, if there is no [`room`](Ring::room), or the tag's index has an operation.
    pub(crate) fn begin(&mut self, work: Work, tag: u64) -> Result<(), Work> {
        if self.is_forked_child() {
            return Err(work);
        }
        let mut queue = self.ring.submission();
        if queue.is_full() {
            return Err(work);
        }
        // A pool's buffers are used only if the ring provides them.
        let group = work.pool().and_then(|pool| self.groups.find(pool)).unwrap_or(NO_GROUP);
        let is_silent = self.silent.are_known() && work.may_be_silent();
        let work = self.in_flight.insert(work, tag, group)?;
        self.has_writes |= matches!(work.call(), Call::WriteAt(_));
        let entry = work.prepare_sqe(group, is_silent).user_data(user_data_of(tag));
        self.groups.add_user(group);
        if is_silent {
            self.silent.insert(user_data_of(tag));
        }
        // SAFETY: `in_flight` owns the memory that the SQE points to until its last CQE.
        let pushed = unsafe { queue.push(&entry) };
        debug_assert!(pushed.is_ok(), "the queue is full");
        Ok(())
    }

    /// Returns true if SQEs were pushed since the last [`Ring::enter`].
    pub(crate) fn has_pushed(&mut self) -> bool {
        self.queues().is_some_and(|queues| !queues.submission().is_empty())
    }

    /// Returns how many SQEs can be pushed.
    pub(crate) fn room(&mut self) -> usize {
        self.queues().map_or(0, |queues| {
            let queue = queues.submission();
            queue.capacity() - queue.len()
        })
    }

    /// Submits the queued SQEs, and lets the kernel run its task work until there are
    /// `min_complete` CQEs. Waits for them at most for `timeout` (`None`: no limit); a timeout is
    /// no error.
    ///
    /// # Errors
    ///
    /// Errors of io_uring_enter(2): `Interrupted` by a signal; `EBUSY` and `EAGAIN` if memory is
    /// short; `Unsupported`, with the cause, where it is forbidden. SQEs that were not submitted
    /// stay queued.
    pub(crate) fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.was_full |= self.is_full();
        loop {
            let has_writes = self.has_writes;
            let Some(queues) = self.queues() else { return Err(forked_error()) };
            let queued = queues.submission().len();
            let enter = || enter_once(queues, queued as u32, min_complete, timeout);
            // A submission may write on this thread.
            let entered = if has_writes { without_sigxfsz(enter) } else { enter() };
            self.has_writes = has_writes && !queues.submission().is_empty();
            match entered {
                // The kernel stops at an invalid SQE, and does not wait.
                Ok(submitted) if submitted < queued => {}
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ETIME) => return Ok(()),
                Err(error) => return Err(setup_error::explain(error)),
            }
        }
    }

    /// Returns true if the kernel reports pending task work, or CQEs kept back.
    pub(crate) fn has_more(&mut self) -> bool {
        self.queues().is_some_and(|queues| {
            let queue = queues.submission();
            queue.taskrun() || queue.cq_overflow()
        })
    }

    /// Takes all CQEs in the queue. Returns true if the queue may have been full at some moment
    /// since the last call.
    pub(crate) fn reap(&mut self, mut to: impl TakeCompletions) -> bool {
        let was_full = std::mem::take(&mut self.was_full) | self.is_full();
        if self.is_forked_child() {
            return false;
        }
        let Ring { ring: queues, in_flight, groups, .. } = &mut *self;
        for entry in queues.completion() {
            let (user_data, result) = (entry.user_data(), entry.result());
            if user_data & OPERATION == 0 {
                to.on_request(user_data, result, cqueue::more(entry.flags()));
            } else {
                pass_operation(in_flight, groups, &entry, &mut to);
            }
        }
        groups.note_taken();
        let lost = self.lost();
        if !self.silent.note_lost(lost) {
            self.settle_silent(lost, to);
        }
        was_full
    }

    /// Completes the silent sends whose success is certain.
    fn settle_silent(&mut self, lost: u32, mut to: impl TakeCompletions) {
        let Ring { ring: queues, in_flight, silent, .. } = self;
        let queue = queues.submission();
        if !queue.is_empty() || queue.cq_overflow() {
            return;
        }
        drop(queue);
        let (all, is_unknown) = silent.settle(lost);
        for user_data in all {
            // SAFETY: it was submitted, and such a send is executed during its submission.
            let Some((tag, mut work)) = (unsafe { in_flight.remove(user_data) }) else { continue };
            let result = if is_unknown {
                Err(io::Error::other("the kernel has lost the completion of this send"))
            } else {
                // SAFETY: it has no CQE, so all of it was sent.
                unsafe { work.complete_silent() }
            };
            to.on_end(tag, work, result);
        }
    }

    /// Returns the count of CQEs lost so far, because the kernel had no memory to keep them.
    pub(crate) fn lost(&mut self) -> u32 {
        self.queues().map_or(0, |queues| queues.completion().overflow())
    }

    /// Returns true if the completion queue is full. CQEs that the kernel keeps back fill it.
    fn is_full(&mut self) -> bool {
        self.queues().is_some_and(|queues| {
            queues.submission().cq_overflow() || queues.completion().is_full()
        })
    }
}

/// Passes on a CQE of an operation.
fn pass_operation(
    in_flight: &mut InFlight,
    groups: &mut BufGroups,
    entry: &cqueue::Entry,
    to: &mut impl TakeCompletions,
) {
    let (user_data, result) = (entry.user_data(), entry.result());
    let Some(operation) = in_flight.find_mut(user_data) else { return };
    let group = operation.group;
    let bid = cqueue::buffer_select(entry.flags());
    let length = usize::try_from(result).unwrap_or(0);
    // SAFETY: this CQE reports it, and is processed once.
    let buf = bid.and_then(|bid| unsafe { groups.take(group, bid, length) });
    if cqueue::more(entry.flags()) {
        let is_partial = cqueue::sock_nonempty(entry.flags());
        operation.partial_results = operation.partial_results.saturating_add(is_partial.into());
        let partial_results = if is_partial { operation.partial_results } else { 0 };
        let tag = operation.tag(user_data);
        // SAFETY: as above.
        if let Ok(result) = unsafe { complete_one(operation.accepts, result, buf) } {
            // (An operation never continues after an error.)
            to.on_partial(tag, result, partial_results);
        }
        return;
    }
    // SAFETY: this is the last CQE of the operation.
    let Some((tag, mut work)) = (unsafe { in_flight.remove(user_data) }) else { return };
    if work.call() == Call::RecvMulti && result == -libc::ENOBUFS {
        groups.note_shortage(group);
    }
    groups.remove_user(group);
    // SAFETY: as above.
    let result = unsafe { work.complete(result, buf) };
    to.on_end(tag, work, result);
}

fn forked_error() -> io::Error {
    io::Error::other("the ring belongs to a process from which this one was forked")
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Ring");
        f.field("fd", &self.ring.as_raw_fd())
            .field("entries", &self.ring.params().sq_entries())
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

impl Drop for Ring {
    /// Leaks the memory of operations in flight: the kernel goes on with them for a while. The
    /// caller cancels them first if it can.
    fn drop(&mut self) {
        if self.generation.is_forked_child() {
            // SAFETY: the kernel works on the parent's memory; this process has a copy.
            unsafe { self.in_flight.free() };
        } else {
            let is_empty = self.in_flight.leak() == 0;
            if !is_empty {
                note_leaked(self.groups.leak());
            }
        }
        if self.generation.is_forked_child() {
            // The queues were not inherited (MADV_DONTFORK); other memory may be at their address.
            // SAFETY: the descriptor is open, and this value, which owns it, does not use it again.
            drop(unsafe { OwnedFd::from_raw_fd(self.ring.as_raw_fd()) });
        } else {
            // SAFETY: the value is being dropped, and the field is not used again.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

#[cfg(test)]
mod tests;
