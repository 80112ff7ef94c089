//! An io_uring(7): its two queues, and the memory that its requests name.
#![allow(unsafe_code)]

mod enter;
mod groups;
mod in_flight;
mod refused;
mod silent;

use super::fork::ForkGeneration;
use super::io_call::{Call, CallResult, Work, complete_one, note_leaked};
use super::own_fd::above_stdio;
use super::pool::BufferPool;
use super::raised::without_sigxfsz;
use enter::enter_once;
use groups::{Groups, NO_GROUP};
use in_flight::{InFlight, OPERATION, user_data_of};
use io_uring::types::Fd;
use io_uring::{Builder, IoUring, Probe, cqueue, opcode};
use silent::SilentSends;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A ring, and its memory.
pub(crate) struct Ring {
    ring: ManuallyDrop<IoUring>,
    /// What the kernel may still touch.
    in_flight: InFlight,
    /// And what it may take to write to.
    groups: Groups,
    silent: SilentSends,
    work: TaskWork,
    /// Which operations the kernel says that it knows.
    known: Probe,
    /// There was a moment without room for another completion.
    was_full: bool,
    /// Requests that write to files were pushed, and perhaps not submitted.
    has_writes: bool,
    generation: ForkGeneration,
}

/// When the kernel does the work that comes with a completion ("task work"), best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskWork {
    /// When it is entered to get completions (6.1).
    Deferred,
    /// When it is entered for anything (5.19).
    Cooperative,
    /// At once, if need be by interrupting the thread.
    Prompt,
}

/// How much room a ring has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// For requests that were not submitted yet.
    pub(crate) requests: u32,
    /// For completions that were not taken yet; not less. The kernel's index of polls grows with
    /// it.
    pub(crate) completions: u32,
}

impl Size {
    fn halved(self) -> Self {
        Size { requests: self.requests / 2, completions: self.completions / 2 }
    }
}

/// With less room it is not tried.
const LEAST_REQUESTS: u32 = 16;

/// Takes what has become of requests, each where it is read: an enum of these would be moved twice.
pub(crate) trait TakeCompletions {
    /// A request has completed with what a system call would answer: a negative error number, or
    /// something else. `more`: the request lives on.
    fn on_request(&mut self, user_data: u64, result: i32, more: bool);

    /// An operation is over, and the kernel touches its memory no longer.
    fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>);

    /// An operation has brought something, and goes on. `partial_results` counts how many results
    /// in a row had more behind them, so that the kernel went on at once; 0 if this one had not.
    fn on_one(&mut self, tag: u64, gain: CallResult, partial_results: u8);
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Completes whenever one of these bits of poll(2) is told of the file, until it is cancelled.
    Poll { number: RawFd, bits: u16 },
    /// Cancels the request with this `user_data`.
    Cancel(u64),
    /// Cancels the operation with this tag.
    Stop(u64),
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
    /// Makes a ring of this size, or of what there is memory for, and with the first of these ways
    /// to work that the kernel knows. It belongs to this thread.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with the cause in words, where io_uring can't be had for good; what
    /// io_uring_setup(2) and mmap(2) say: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(crate) fn open(mut size: Size, ladder: &[TaskWork]) -> io::Result<Self> {
        let generation = ForkGeneration::current()?;
        let mut ladder = ladder.iter();
        let mut work = ladder.next();
        while let Some(&rung) = work {
            match Ring::set_up(size, rung, generation) {
                Ok(ring) => return Ok(ring),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOMEM) if size.requests > LEAST_REQUESTS => size = size.halved(),
                    // A flag that the kernel does not know is all there is to its EINVAL.
                    Some(libc::EINVAL) => work = ladder.next(),
                    _ => return Err(refused::of_setup(error)),
                },
            }
        }
        Err(refused::too_old())
    }

    fn set_up(size: Size, work: TaskWork, generation: ForkGeneration) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        work.set_up(builder.dontfork().setup_cqsize(size.completions));
        let ring = ManuallyDrop::new(above_stdio(|| builder.build(size.requests))?);
        let mut known = Probe::new();
        // A sandbox may forbid to ask. Then none is known, and all are the reactor's.
        let _ = ring.submitter().register_probe(&mut known);
        let (in_flight, groups) = Default::default();
        // This way to work came with Linux 6.1.
        let can_skip = ring.params().is_feature_skip_cqe_on_success() && work == TaskWork::Deferred;
        let silent = SilentSends::new(can_skip);
        let [was_full, has_writes] = [false; 2];
        let ring =
            Ring { ring, in_flight, groups, silent, work, known, was_full, has_writes, generation };
        let has = ring.ring.params();
        let [ext_arg, nodrop] = [has.is_feature_ext_arg(), has.is_feature_nodrop()];
        refused::check_features(ext_arg, nodrop, has.is_feature_resource_tagging())?;
        Ok(ring)
    }

    /// Provides no buffers of pools, as before Linux 5.19.
    #[cfg(any(test, feature = "spi"))]
    pub(crate) fn forbid_groups(&mut self) {
        self.groups.forbid();
    }

    /// Whether this process was forked from the one that made the ring. Then it must not be used,
    /// but for dropping it.
    pub(crate) fn is_forked_child(&self) -> bool {
        self.generation.is_forked_child()
    }

    /// The queues, where there are any: a forked child has not inherited them.
    fn queues(&mut self) -> Option<&mut IoUring> {
        if self.is_forked_child() { None } else { Some(&mut self.ring) }
    }

    /// Queues a request for the next [`Ring::enter`]. False if there is no room.
    ///
    /// # Panics
    ///
    /// If the topmost bit of `user_data` is set: those are operations'.
    pub(crate) fn push(&mut self, request: Request, user_data: u64) -> bool {
        assert_eq!(user_data & OPERATION, 0, "it would be taken for an operation");
        let entry = match request {
            Request::Poll { number, bits } => {
                opcode::PollAdd::new(Fd(number), u32::from(bits)).multi(true).build()
            }
            Request::Cancel(target) => opcode::AsyncCancel::new(target).build(),
            Request::Stop(tag) => opcode::AsyncCancel::new(user_data_of(tag)).build(),
        };
        let entry = entry.user_data(user_data);
        let Some(queues) = self.queues() else { return false };
        // SAFETY: the entry names no memory that the kernel might touch.
        unsafe { queues.submission().push(&entry) }.is_ok()
    }

    /// Whether the kernel knows how to do this.
    pub(crate) fn knows(&self, call: Call) -> bool {
        call.code().is_some_and(|code| self.known.is_supported(code))
    }

    /// Whether receives can take their buffers from this pool: some of them are set out.
    pub(crate) fn serves(&mut self, pool: &BufferPool) -> bool {
        !self.is_forked_child() && self.groups.open(&self.ring, pool)
    }

    /// Has the buffers of a pool that are provided returned to it, as soon as no operation may take
    /// them. Returns false if there are none, or if that is so already.
    pub(crate) fn release_buffers(&mut self, pool: &BufferPool) -> bool {
        !self.is_forked_child() && self.groups.release(pool)
    }

    /// Returns true if an operation takes buffers of this pool.
    pub(crate) fn takes_from(&self, tag: u64, pool: &BufferPool) -> bool {
        let its = self.in_flight.get(tag).map(|operation| operation.group);
        its.is_some() && its == self.groups.find(pool)
    }

    /// Returns true if the kernel has the operation with this tag.
    pub(crate) fn has_operation(&self, tag: u64) -> bool {
        self.in_flight.get(tag).is_some()
    }

    /// Returns the tag of the operation with this index, which was to be cancelled.
    pub(crate) fn cancelled_operation(&self, index: u32) -> Option<u64> {
        let (tag, operation) = self.in_flight.get_index(index)?;
        operation.is_cancelled.then_some(tag)
    }

    /// Notes that an operation is to be cancelled. Returns true if it is there and was not.
    pub(crate) fn note_cancelled(&mut self, tag: u64) -> bool {
        let operation = self.in_flight.get_mut(tag);
        operation.is_some_and(|its| !std::mem::replace(&mut its.is_cancelled, true))
    }

    /// Returns the number of operations that the kernel has.
    pub(crate) fn operations(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the tags of the operations that the kernel has.
    pub(crate) fn operation_tags(&self) -> impl Iterator<Item = u64> {
        self.in_flight.tags()
    }

    /// Sets out buffers in the place of those that were taken.
    pub(crate) fn supply(&mut self) {
        if !self.is_forked_child() {
            self.groups.supply(&self.ring);
        }
    }

    /// Queues an operation for the next [`Ring::enter`]; one that is for now says `WouldBlock`
    /// where it would have to wait. Its file has to stay open until it is over.
    ///
    /// # Errors
    ///
    /// The work, if there is no [`room`](Ring::room), or an operation with the index that is the
    /// lower half of the tag.
    pub(crate) fn begin(&mut self, work: Work, tag: u64) -> Result<(), Work> {
        if self.is_forked_child() {
            return Err(work);
        }
        let mut queue = self.ring.submission();
        if queue.is_full() {
            return Err(work);
        }
        // What takes buffers of a pool is begun where the ring serves that.
        let group = work.pool().and_then(|pool| self.groups.find(pool)).unwrap_or(NO_GROUP);
        let is_silent = self.silent.are_known() && work.may_be_silent();
        let work = self.in_flight.insert(work, tag, group)?;
        self.has_writes |= matches!(work.call(), Call::WriteAt(_));
        let entry = work.entry(group, is_silent).user_data(user_data_of(tag));
        self.groups.enter(group);
        if is_silent {
            self.silent.insert(user_data_of(tag));
        }
        // SAFETY: `in_flight` keeps what the entry names until its last completion.
        let pushed = unsafe { queue.push(&entry) };
        debug_assert!(pushed.is_ok(), "there was room");
        Ok(())
    }

    /// Returns true if requests were pushed since the last [`Ring::enter`].
    pub(crate) fn has_pushed(&mut self) -> bool {
        self.queues().is_some_and(|queues| !queues.submission().is_empty())
    }

    /// How many requests can be pushed.
    pub(crate) fn room(&mut self) -> usize {
        self.queues().map_or(0, |queues| {
            let queue = queues.submission();
            queue.capacity() - queue.len()
        })
    }

    /// Submits what is queued, and has the kernel do its work for all completions that it knows of,
    /// until there are `min_complete`; waits for them no longer than `timeout` (`None`: no limit).
    ///
    /// # Errors
    ///
    /// What io_uring_enter(2) says: `Interrupted` by a signal; `EBUSY` and `EAGAIN` where there
    /// is no memory for more; `Unsupported`, with the cause in words, where it is forbidden. What
    /// was not submitted is still queued. Not that time is up.
    pub(crate) fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.was_full |= self.is_full();
        loop {
            let has_writes = self.has_writes;
            let Some(queues) = self.queues() else { return Err(foreign()) };
            let queued = queues.submission().len();
            let enter = || enter_once(queues, queued as u32, min_complete, timeout);
            // The kernel may write as it takes the request, in the name of this thread.
            let entered = if has_writes { without_sigxfsz(enter) } else { enter() };
            self.has_writes = has_writes && !queues.submission().is_empty();
            match entered {
                // After an invalid request it stops, and does not wait.
                Ok(submitted) if submitted < queued => {}
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ETIME) => return Ok(()),
                Err(error) => return Err(refused::explained(error)),
            }
        }
    }

    /// Whether the kernel says that it has more to hand out than it has.
    pub(crate) fn has_more(&mut self) -> bool {
        self.queues().is_some_and(|queues| {
            let queue = queues.submission();
            queue.taskrun() || queue.cq_overflow()
        })
    }

    /// Takes all completions that the kernel has handed out. Gives whether there may have been a
    /// moment, since the last time, without room for another.
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

    /// Completes the silent sends that have succeeded, once that is certain.
    fn settle_silent(&mut self, lost: u32, mut to: impl TakeCompletions) {
        let Ring { ring: queues, in_flight, silent, .. } = self;
        let queue = queues.submission();
        if !queue.is_empty() || queue.cq_overflow() {
            return;
        }
        drop(queue);
        let (all, is_unknown) = silent.settle(lost);
        for user_data in all {
            // SAFETY: it was submitted, and such a send is over then.
            let Some((tag, mut work)) = (unsafe { in_flight.remove(user_data) }) else { continue };
            let result = match is_unknown {
                true => Err(io::Error::other("the kernel has lost the completion of this send")),
                // SAFETY: it has no completion, and so all of it was sent.
                false => unsafe { work.complete_silent() },
            };
            to.on_end(tag, work, result);
        }
    }

    /// How many completions have got lost so far, because there was no memory to keep them in.
    pub(crate) fn lost(&mut self) -> u32 {
        self.queues().map_or(0, |queues| queues.completion().overflow())
    }

    /// Whether there is no room for another completion. While the kernel keeps some back it has
    /// none for others either.
    fn is_full(&mut self) -> bool {
        self.queues().is_some_and(|queues| {
            queues.submission().cq_overflow() || queues.completion().is_full()
        })
    }
}

/// Passes on what a completion of an operation comes to.
fn pass_operation(
    in_flight: &mut InFlight,
    groups: &mut Groups,
    entry: &cqueue::Entry,
    to: &mut impl TakeCompletions,
) {
    let (user_data, result) = (entry.user_data(), entry.result());
    let Some(operation) = in_flight.find_mut(user_data) else { return };
    let group = operation.group;
    let number = cqueue::buffer_select(entry.flags());
    let length = usize::try_from(result).unwrap_or(0);
    // SAFETY: this completion says so, and is looked at once.
    let buf = number.and_then(|number| unsafe { groups.take(group, number, length) });
    if cqueue::more(entry.flags()) {
        let is_partial = cqueue::sock_nonempty(entry.flags());
        operation.partial_results = operation.partial_results.saturating_add(is_partial.into());
        let partial_results = if is_partial { operation.partial_results } else { 0 };
        let tag = operation.tag(user_data);
        // SAFETY: as above.
        if let Ok(gain) = unsafe { complete_one(operation.accepts, result, buf) } {
            // (No error goes on.)
            to.on_one(tag, gain, partial_results);
        }
        return;
    }
    // SAFETY: this is its last completion.
    let Some((tag, mut work)) = (unsafe { in_flight.remove(user_data) }) else { return };
    if work.call() == Call::RecvMulti && result == -libc::ENOBUFS {
        groups.note_shortage(group);
    }
    groups.leave(group);
    // SAFETY: as above.
    let result = unsafe { work.complete(result, buf) };
    to.on_end(tag, work, result);
}

fn foreign() -> io::Error {
    io::Error::other("this ring belongs to the process that this one was forked from")
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Ring");
        f.field("number", &self.ring.as_raw_fd())
            .field("entries", &self.ring.params().sq_entries())
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

impl Drop for Ring {
    /// The kernel goes on with what is under way, for a while: whoever minds has to settle it
    /// before. The memory of operations that are not over is left to the kernel for good.
    fn drop(&mut self) {
        if self.generation.is_forked_child() {
            // SAFETY: the kernel works for the parent, and this process has a copy of its memory.
            unsafe { self.in_flight.free() };
        } else {
            let is_empty = self.in_flight.leak() == 0;
            if !is_empty {
                note_leaked(self.groups.leak());
            }
        }
        if self.generation.is_forked_child() {
            // The queues were not inherited (MADV_DONTFORK), and what may stand in their place is
            // somebody else's. Only the number is here.
            // SAFETY: it is open, this value has owned it, and does not look at it again.
            drop(unsafe { OwnedFd::from_raw_fd(self.ring.as_raw_fd()) });
        } else {
            // SAFETY: the value is being lost, and nobody uses the field after this.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

#[cfg(test)]
mod tests;
