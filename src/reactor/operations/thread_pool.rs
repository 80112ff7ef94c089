//! Threads for calls that wait for a disk, where the mechanism does not make them itself.
//!
//! A thread has the credentials, and the file descriptor table, that its parent had when it was
//! started. The poller's thread may change both for itself later. So an open that may wait is made
//! by a thread that was started for it, and a call on an open file by a thread that shares the
//! table of the poller's thread at that moment: else the number may stand for another file.
//!
//! A server that does not answer keeps the threads that wait for it. So one mount gets at most half
//! of them, and the others are for the rest of the world.

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

/// The most threads of one poller that take job after job, and the most that have one each, unless
/// the program says otherwise.
const DEFAULT_MAX_THREADS: usize = 16;
/// How long a thread that has nothing to do waits for a job.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a drop waits for the threads.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// The threads of one poller, which are started when they are needed.
pub(in crate::reactor) struct ThreadPool {
    shared: Arc<Shared>,
    /// Counts the jobs that were given and not collected.
    count: usize,
    /// Every job has a thread of its own: whether one that is older shares the table is unknown.
    has_no_reuse: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The thread of the poller.
    submitter: ThreadId,
    has_jobs: Condvar,
    /// A thread has ended.
    has_ended: Condvar,
    /// A descriptor was fetched, or is not needed any more.
    is_fetched: Condvar,
    notifier: Waker,
    keep_alive: Duration,
}

struct Queue {
    /// The most threads of each of the two kinds.
    max_threads: usize,
    jobs: FairQueue,
    /// Jobs that wait for the start of a thread of their own.
    unstarted: FairQueue,
    /// Jobs with a thread of their own that has not begun with them.
    own_jobs: Vec<Job>,
    done: Vec<(Job, OpEvent)>,
    /// Descriptors that were opened in another table than that of the submitter.
    foreign: Vec<Foreign>,
    /// Threads that take job after job, and those among them that wait for one or are starting.
    threads: usize,
    idle: usize,
    /// Threads that have a job of their own.
    own_threads: usize,
    /// The submitter has to start threads when the next one ends.
    lacks_threads: bool,
    /// A thread could not tell whether it shares the table of the submitter.
    is_sharing_unknown: bool,
    is_closed: bool,
}

/// An operation, and the files that it needs open.
struct Job {
    op: OpSlot,
    files: Vec<SourceFd>,
    /// What it may wait for; `None` if that is not known.
    mount: Option<MountId>,
    /// `None` while a thread makes the call.
    call: Option<CallBox>,
}

/// A descriptor on its way to the table of the submitter. The thread that has opened it waits until
/// it can drop it.
struct Foreign {
    op: OpSlot,
    fd: ForeignFd,
    /// `None` once the submitter has fetched the descriptor.
    job: Option<(Job, CallBox)>,
}

impl ThreadPool {
    /// Makes the pool of a poller on the calling thread.
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

    /// Sets the most threads of each of the two kinds.
    pub(in crate::reactor) fn set_max_threads(&mut self, max: usize) {
        self.shared.lock().max_threads = max.max(1);
        // Those that are too many end when they are idle.
        self.shared.has_jobs.notify_all();
        self.start_threads();
    }

    /// Makes the call of an operation on a thread; on this one, at once, if none can be started.
    pub(in crate::reactor) fn submit(&mut self, op: OpSlot, call: CallBox, files: Vec<SourceFd>) {
        self.count += 1;
        let needs_own_thread = self.has_no_reuse || call.call() == Call::Open;
        let mount = call.mount();
        let job = Job { op, files, mount, call: Some(call) };
        let mut queue = self.shared.lock();
        match needs_own_thread {
            true => queue.unstarted.push_back(job),
            false => queue.jobs.push_back(job),
        }
        drop(queue);
        if !needs_own_thread {
            self.shared.has_jobs.notify_one();
        }
        self.start_threads();
    }

    /// Returns the number of jobs that were given and not collected.
    #[cfg(any(test, feature = "spi"))]
    pub(in crate::reactor) fn len(&self) -> usize {
        self.count
    }

    /// Takes an operation back unless a thread has begun with it.
    pub(in crate::reactor) fn withdraw(&mut self, op: OpSlot) -> Option<CallBox> {
        let mut queue = self.shared.lock();
        let is_it = |job: &Job| job.op == op;
        let job = if let Some(at) = queue.own_jobs.iter().position(is_it) {
            let job = queue.own_jobs.remove(at);
            queue.unstarted.finish(job.mount);
            Some(job)
        } else {
            queue.unstarted.remove(is_it).or_else(|| queue.jobs.remove(is_it))
        };
        drop(queue);
        let call = job?.call;
        self.count -= 1;
        call
    }

    /// Collects what is done, with the files that it needed, and starts threads that are lacking.
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
        for (job, landed) in done {
            files.extend(job.files);
            out.push(landed);
        }
        self.start_threads();
    }

    /// Starts as many threads as there are jobs for and as there may be.
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

    /// Lets go of the threads. A call that takes longer than a second goes on, and keeps its buffer
    /// and file. Not to be called in a forked child, which has neither the threads nor the lock.
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

    /// Returns how many threads of each kind may wait for one mount.
    fn share(&self) -> usize {
        self.max_threads.div_ceil(2)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if a thread that takes job after job is to be started, and counts it.
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

    /// Returns the operation for which a thread is to be started, and counts it.
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

    /// Runs on a thread that takes job after job, until the poller has gone, the submitter has left
    /// the table that this thread has, or there was nothing to do for a while.
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
                // Another thread takes it, which the submitter starts if none is idle.
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

    /// Runs on a thread that was started for one operation, which may have been withdrawn.
    fn run_own_job(&self, op: OpSlot) {
        let _guard = ThreadGuard(self, |queue| &mut queue.own_threads);
        let mut queue = self.lock();
        if let Some(at) = queue.own_jobs.iter().position(|job| job.op == op) {
            let job = queue.own_jobs.remove(at);
            drop(self.run(queue, job, |queue| &mut queue.unstarted));
        }
    }

    /// Runs a job on the submitter, where no thread could be started. Returns false if none is
    /// left, or if a thread takes it.
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
            // Only the submitter can tell whether the tables are the same. While it is in
            // unshare(2) they seem to be, and what is opened then is missing in its copy.
            Ok(CallResult::Opened(fd)) if self.submitter != ThreadId::current() => {
                return self.hand_over(job, call, ForeignFd::new(fd));
            }
            result => result,
        };
        let landed = OpEvent::Completed { op: job.op, work: Work::Call(call), result };
        let mut queue = self.lock();
        if queue.is_closed {
            // Not under the lock, because this may run the user's code.
            drop(queue);
            drop((job, landed));
            return self.lock();
        }
        queue.done.push((job, landed));
        self.notifier.wake_by_ref();
        queue
    }

    /// Waits until the submitter has fetched a descriptor from the table of this thread.
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

    /// Fetches descriptors into the table of the calling thread, the submitter.
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

/// Counts a thread out when it ends, also by a panic: to drop what the user gave may do that.
struct ThreadGuard<'a>(&'a Shared, fn(&mut Queue) -> &mut usize);

impl Drop for ThreadGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        *self.1(&mut queue) -= 1;
        let lacks_threads = std::mem::take(&mut queue.lacks_threads);
        drop(queue);
        self.0.has_ended.notify_all();
        if lacks_threads {
            // Only the submitter may start one.
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
