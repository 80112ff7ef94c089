//! Threads for calls that wait for a disk, if the driver does not make them.
//!
//! A thread keeps the credentials and the file descriptor table that its parent had at its start.
//! The poller's thread may change both later. So an open that may wait gets a new thread. A call on
//! an open file needs a thread that shares the table of the poller's thread at that moment:
//! otherwise the descriptor may refer to another file.
//!
//! A server that does not respond blocks the threads that wait for it. So one mount gets at most
//! half of them.

mod fair_queue;

use crate::key::OpSlot;
use crate::selector::OpEvent;
use crate::sys::fd_table::{ForeignFd, Sharing, ThreadId};
use crate::sys::file::SourceFd;
use crate::sys::io_call::{Call, CallBox, CallResult, Work};
use crate::sys::mount::MountId;
use crate::sys::signals::spawn_with_signals_blocked;
use fair_queue::FairQueue;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// The default limit of reused threads of one poller, and of threads with one job each.
const DEFAULT_MAX_THREADS: usize = 16;
/// How long an idle thread waits for a job.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a drop waits for the threads.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// The threads of one poller, started on demand.
pub(in crate::reactor) struct ThreadPool {
    shared: Arc<Shared>,
    /// Counts the jobs submitted and not collected.
    count: usize,
    /// Each job gets a new thread, because it is unknown whether an older one shares the table.
    has_no_reuse: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The thread of the poller.
    submitter: ThreadId,
    has_jobs: Condvar,
    /// A thread has ended.
    has_ended: Condvar,
    /// A descriptor was fetched, or is no longer needed.
    is_fetched: Condvar,
    notifier: Waker,
    keep_alive: Duration,
}

struct Queue {
    /// The most threads of each of the two kinds.
    max_threads: usize,
    jobs: FairQueue,
    /// Jobs that wait for a new thread.
    unstarted: FairQueue,
    /// Jobs whose new thread has not started them.
    own_jobs: Vec<Job>,
    done: Vec<(Job, OpEvent)>,
    /// Descriptors that were opened in another table than the submitter's.
    foreign: Vec<Foreign>,
    /// Reused threads, and those of them that are idle or starting.
    threads: usize,
    idle: usize,
    /// Threads with one job each.
    own_threads: usize,
    /// The submitter must start threads when the next one ends.
    lacks_threads: bool,
    /// A thread could not determine whether it shares the submitter's table.
    is_sharing_unknown: bool,
    is_closed: bool,
}

/// An operation, and the files that it needs open.
struct Job {
    op: OpSlot,
    files: Vec<SourceFd>,
    /// The mount that the call may wait for; `None` if unknown.
    mount: Option<MountId>,
    /// `None` while a thread makes the call.
    call: Option<CallBox>,
}

/// A descriptor to be fetched by the submitter. The thread that opened it waits to close its own.
struct Foreign {
    op: OpSlot,
    fd: ForeignFd,
    /// `None` once the submitter has fetched the descriptor.
    job: Option<(Job, CallBox)>,
}

impl ThreadPool {
    /// Returns a pool for the poller on the calling thread.
    pub(in crate::reactor) fn new(notifier: Waker) -> Self {
        ThreadPool::with_keep_alive(notifier, KEEP_ALIVE)
    }

    fn with_keep_alive(notifier: Waker, keep_alive: Duration) -> Self {
        let shared = Shared {
            queue: Mutex::new(Queue::new(DEFAULT_MAX_THREADS)),
            submitter: ThreadId::current(),
            has_jobs: Condvar::new(),
            has_ended: Condvar::new(),
            is_fetched: Condvar::new(),
            notifier,
            keep_alive,
        };
        ThreadPool { shared: Arc::new(shared), count: 0, has_no_reuse: false }
    }

    /// Sets the limit of each of the two kinds of threads.
    pub(in crate::reactor) fn set_max_threads(&mut self, max: usize) {
        self.shared.lock().max_threads = max.max(1);
        // Surplus threads end when they are idle.
        self.shared.has_jobs.notify_all();
        self.start_threads();
    }

    /// Makes the call of an operation on a thread, or directly if no thread can be started.
    pub(in crate::reactor) fn submit(&mut self, op: OpSlot, call: CallBox, files: Vec<SourceFd>) {
        self.count += 1;
        let needs_own_thread = self.has_no_reuse || call.call() == Call::Open;
        let mount = call.mount();
        let job = Job { op, files, mount, call: Some(call) };
        let mut queue = self.shared.lock();
        if needs_own_thread {
            queue.unstarted.push_back(job);
        } else {
            queue.jobs.push_back(job);
        }
        drop(queue);
        if !needs_own_thread {
            self.shared.has_jobs.notify_one();
        }
        self.start_threads();
    }

    /// Returns the number of jobs submitted and not collected.
    #[cfg(any(test, feature = "spi"))]
    pub(in crate::reactor) fn len(&self) -> usize {
        self.count
    }

    /// Withdraws an operation unless a thread has started it.
    pub(in crate::reactor) fn withdraw(&mut self, op: OpSlot) -> Option<CallBox> {
        let mut queue = self.shared.lock();
        let matches_op = |job: &Job| job.op == op;
        let job = if let Some(at) = queue.own_jobs.iter().position(matches_op) {
            let job = queue.own_jobs.remove(at);
            queue.unstarted.finish(job.mount);
            Some(job)
        } else {
            queue.unstarted.remove(matches_op).or_else(|| queue.jobs.remove(matches_op))
        };
        drop(queue);
        let call = job?.call;
        self.count -= 1;
        call
    }

    /// Collects results with the files of their jobs, and starts missing threads.
    pub(in crate::reactor) fn collect(
        &mut self,
        out: &mut Vec<OpEvent>,
        files: &mut Vec<SourceFd>,
    ) {
        if self.count == 0 {
            return;
        }
        let mut queue = self.shared.lock();
        let mut done = std::mem::take(&mut queue.done);
        self.shared.fetch_foreign(&mut queue, &mut done);
        if std::mem::take(&mut queue.is_sharing_unknown) {
            self.has_no_reuse = true;
            while let Some(job) = queue.jobs.remove(|_| true) {
                queue.unstarted.push_back(job);
            }
        }
        drop(queue);
        self.count -= done.len();
        for (job, event) in done {
            files.extend(job.files);
            out.push(event);
        }
        self.start_threads();
    }

    /// Starts threads for runnable jobs, up to the limits.
    fn start_threads(&mut self) {
        while self.shared.begin_thread() {
            let shared = self.shared.clone();
            let spawned =
                spawn_with_signals_blocked("quintpoll-blocking", move || shared.run_jobs());
            if spawned.is_err() && !self.shared.run_without_thread() {
                break;
            }
        }
        while let Some(op) = self.shared.begin_own_thread() {
            let shared = self.shared.clone();
            if spawn_with_signals_blocked("quintpoll-once", move || shared.run_own_job(op)).is_err()
            {
                self.shared.run_own_job(op);
            }
        }
    }

    /// Stops the threads. A call that takes longer than a second continues, with its buffer and
    /// file. Must not be called in a forked child, which has neither threads nor lock.
    pub(in crate::reactor) fn close(&mut self) {
        let deadline = Instant::now() + DROP_TIMEOUT;
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        let jobs = (queue.jobs.take(), queue.unstarted.take(), std::mem::take(&mut queue.own_jobs));
        self.shared.has_jobs.notify_all();
        self.shared.is_fetched.notify_all();
        while queue.threads + queue.own_threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.has_ended.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let done = std::mem::take(&mut queue.done);
        drop(queue);
        // Outside the lock, because this may run the user's code.
        drop((jobs, done));
    }
}

impl Queue {
    fn new(max_threads: usize) -> Self {
        Queue {
            max_threads,
            jobs: FairQueue::default(),
            unstarted: FairQueue::default(),
            own_jobs: Vec::new(),
            done: Vec::new(),
            foreign: Vec::new(),
            threads: 0,
            idle: 0,
            own_threads: 0,
            lacks_threads: false,
            is_sharing_unknown: false,
            is_closed: false,
        }
    }

    /// Returns the number of threads of each kind that may wait for one mount.
    fn share(&self) -> usize {
        self.max_threads.div_ceil(2)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if a reused thread is to be started, and counts it.
    fn begin_thread(&self) -> bool {
        let mut queue = self.lock();
        let is_lacking =
            queue.idle < queue.jobs.runnable(queue.share()) && queue.threads < queue.max_threads;
        if is_lacking {
            queue.threads += 1;
            queue.idle += 1;
        }
        is_lacking
    }

    /// Returns the operation for which a new thread is to be started, and counts the thread.
    fn begin_own_thread(&self) -> Option<OpSlot> {
        let mut queue = self.lock();
        let share = queue.share();
        let may_start = queue.own_threads < queue.max_threads;
        let job = if may_start { queue.unstarted.pop_front(share) } else { None };
        let Some(job) = job else {
            queue.lacks_threads |= !queue.unstarted.is_empty();
            return None;
        };
        let op = job.op;
        queue.own_threads += 1;
        queue.own_jobs.push(job);
        Some(op)
    }

    /// Runs jobs on a thread until the pool is closed, the submitter has left this thread's table,
    /// or the thread was idle for too long.
    fn run_jobs(&self) {
        let _guard = ThreadGuard(self, |queue| &mut queue.threads);
        let mut queue = self.lock();
        queue.idle -= 1;
        while !queue.is_closed && queue.threads <= queue.max_threads {
            let share = queue.share();
            let Some(job) = queue.jobs.pop_front(share) else {
                let is_idle = |queue: &mut Queue| {
                    let may_stay = !queue.is_closed && queue.threads <= queue.max_threads;
                    may_stay && queue.jobs.runnable(queue.share()) == 0
                };
                queue.idle += 1;
                let waited = self.has_jobs.wait_timeout_while(queue, self.keep_alive, is_idle);
                let (its, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                queue = its;
                queue.idle -= 1;
                if timeout.timed_out() {
                    return;
                }
                continue;
            };
            drop(queue);
            let sharing = self.submitter.shares_fd_table();
            queue = self.lock();
            if sharing != Sharing::Shared && !queue.is_closed {
                // Another thread takes the job; the submitter starts one if none is idle.
                queue.jobs.finish(job.mount);
                queue.jobs.push_front(job);
                self.has_jobs.notify_one();
                queue.is_sharing_unknown |= sharing == Sharing::Unknown;
                queue.lacks_threads = true;
                return;
            }
            queue = self.run(queue, job, |queue| &mut queue.jobs);
        }
    }

    /// Runs on a thread started for one operation, which may have been withdrawn.
    fn run_own_job(&self, op: OpSlot) {
        let _guard = ThreadGuard(self, |queue| &mut queue.own_threads);
        let mut queue = self.lock();
        if let Some(at) = queue.own_jobs.iter().position(|job| job.op == op) {
            let job = queue.own_jobs.remove(at);
            drop(self.run(queue, job, |queue| &mut queue.unstarted));
        }
    }

    /// Runs a job on the submitter because no thread could be started. Returns false if there is
    /// none, or a thread will take it.
    fn run_without_thread(&self) -> bool {
        let mut queue = self.lock();
        queue.threads -= 1;
        queue.idle -= 1;
        let job = if queue.threads == 0 { queue.jobs.pop_front(usize::MAX) } else { None };
        let Some(job) = job else { return false };
        drop(self.run(queue, job, |queue| &mut queue.jobs));
        true
    }

    /// Runs a job that was popped from this queue.
    fn run<'a>(
        &'a self,
        queue: MutexGuard<'a, Queue>,
        mut job: Job,
        from: fn(&mut Queue) -> &mut FairQueue,
    ) -> MutexGuard<'a, Queue> {
        let Some(mut call) = job.call.take() else { return queue };
        drop(queue);
        let result = call.run_blocking();
        let mut queue = self.lock();
        from(&mut queue).finish(job.mount);
        if queue.idle > 0 {
            // The mount may have another job.
            self.has_jobs.notify_one();
        }
        drop(queue);
        let result = match result {
            // Only the submitter can compare the tables. During its unshare(2) they seem equal, but
            // a file opened then is missing in the copy.
            Ok(CallResult::Opened(fd)) if self.submitter != ThreadId::current() => {
                return self.hand_over(job, call, ForeignFd::new(fd));
            }
            result => result,
        };
        let event = OpEvent::Completed { op: job.op, work: Work::Call(call), result };
        let mut queue = self.lock();
        if queue.is_closed {
            // Outside the lock, because this may run the user's code.
            drop(queue);
            drop((job, event));
            return self.lock();
        }
        queue.done.push((job, event));
        self.notifier.wake_by_ref();
        queue
    }

    /// Waits until the submitter has fetched a descriptor from this thread's table.
    fn hand_over(&self, job: Job, call: CallBox, fd: ForeignFd) -> MutexGuard<'_, Queue> {
        let op = job.op;
        let mut queue = self.lock();
        queue.foreign.push(Foreign { op, fd, job: Some((job, call)) });
        self.notifier.wake_by_ref();
        loop {
            let at = queue.foreign.iter().position(|foreign| foreign.op == op);
            let Some(at) = at else { return queue };
            if queue.is_closed || queue.foreign[at].job.is_none() {
                let foreign = queue.foreign.swap_remove(at);
                drop(queue);
                drop(foreign);
                return self.lock();
            }
            queue = self.is_fetched.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Fetches descriptors into the table of the submitter, the calling thread.
    fn fetch_foreign(&self, queue: &mut Queue, done: &mut Vec<(Job, OpEvent)>) {
        for Foreign { op, fd, job } in &mut queue.foreign {
            if let Some((job, call)) = job.take() {
                let result = fd.fetch().map(CallResult::Opened);
                done.push((job, OpEvent::Completed { op: *op, work: Work::Call(call), result }));
            }
        }
        self.is_fetched.notify_all();
    }
}

/// Uncounts a thread when it ends, also by a panic of a user's `Drop`.
struct ThreadGuard<'a>(&'a Shared, fn(&mut Queue) -> &mut usize);

impl Drop for ThreadGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        *self.1(&mut queue) -= 1;
        let lacks_threads = std::mem::take(&mut queue.lacks_threads);
        drop(queue);
        self.0.has_ended.notify_all();
        if lacks_threads {
            // Only the submitter may start threads.
            self.0.notifier.wake_by_ref();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
