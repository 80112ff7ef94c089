//! A few threads for what has to wait for a disk, where the mechanism has nothing of its own for
//! it.
//!
//! A thread has the rights of the one that has started it, at that moment. Who gives some up may
//! still read what is open, and not open what is out of bounds since: so an open is done by a
//! thread that is started for it alone.

use crate::key::OpSlot;
use crate::selector::Landed;
use crate::sys::file::Held;
use crate::sys::prepared::{Call, Prepared};
use crate::sys::signals::spawn_undisturbed;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// So many calls on open files can wait for disks at a time, of one poller, and so many opens.
const MOST_THREADS: usize = 4;
/// How long dropping it waits for the threads.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The threads of one poller. There are none before they are needed.
pub(super) struct Disk {
    shared: Arc<Shared>,
    /// How many operations are with it.
    count: usize,
    /// Opens for which no thread was started yet.
    opens: VecDeque<Job>,
}

struct Shared {
    desk: Mutex<Desk>,
    /// There is something to do, or nothing any more.
    has_work: Condvar,
    /// A thread has ended.
    is_done: Condvar,
    /// Tells the poller.
    bell: Waker,
}

#[derive(Default)]
struct Desk {
    to_do: VecDeque<Job>,
    /// Opens whose threads have not got to them.
    to_open: Vec<Job>,
    done: Vec<(Job, Landed)>,
    /// Those that open are not among them.
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    /// Threads that open.
    openers: usize,
    /// There are as many as there may be, and more to be opened.
    lacks_openers: bool,
    /// The poller is gone.
    is_closed: bool,
}

/// An operation, and the files that it needs open.
struct Job {
    op: OpSlot,
    files: Vec<Held>,
    /// Not while a thread makes the call.
    prepared: Option<Prepared>,
}

impl Disk {
    pub(super) fn new(bell: Waker) -> Self {
        let (desk, has_work, is_done) = Default::default();
        let shared = Arc::new(Shared { desk, has_work, is_done, bell });
        Disk { shared, count: 0, opens: VecDeque::new() }
    }

    /// Has an operation done. Without a thread, for want of memory or by a limit, at once.
    pub(super) fn begin(&mut self, op: OpSlot, prepared: Prepared, files: Vec<Held>) {
        self.count += 1;
        let is_open = prepared.call() == Call::Open;
        let job = Job { op, files, prepared: Some(prepared) };
        if is_open {
            self.opens.push_back(job);
            return self.begin_opens();
        }
        let mut desk = self.shared.lock();
        desk.to_do.push_back(job);
        let wants_thread = desk.idle < desk.to_do.len() && desk.threads < MOST_THREADS;
        desk.threads += usize::from(wants_thread);
        drop(desk);
        if !wants_thread {
            return self.shared.has_work.notify_one();
        }
        let shared = self.shared.clone();
        if spawn_undisturbed("quintpoll-disk", move || shared.work()).is_err() {
            let mut desk = self.shared.lock();
            desk.threads -= 1;
            if desk.threads == 0 {
                desk = self.shared.do_first(desk);
            }
            drop(desk);
        }
    }

    /// Starts threads for opens, as many as there may be.
    fn begin_opens(&mut self) {
        while !self.opens.is_empty() {
            let mut desk = self.shared.lock();
            desk.lacks_openers = desk.openers == MOST_THREADS;
            if desk.lacks_openers {
                break;
            }
            let Some(job) = self.opens.pop_front() else { break };
            let op = job.op;
            desk.openers += 1;
            desk.to_open.push(job);
            drop(desk);
            let shared = self.shared.clone();
            if spawn_undisturbed("quintpoll-open", move || shared.open(op)).is_err() {
                self.shared.open(op);
            }
        }
    }

    /// Takes an operation back, unless a thread is at it, or was.
    pub(super) fn withdraw(&mut self, op: OpSlot) -> Option<Prepared> {
        let mut desk = self.shared.lock();
        let Desk { to_do, to_open, .. } = &mut *desk;
        let is_it = |job: &Job| job.op == op;
        let job = if let Some(at) = self.opens.iter().position(is_it) {
            self.opens.remove(at)
        } else if let Some(at) = to_open.iter().position(is_it) {
            Some(to_open.remove(at))
        } else {
            to_do.iter().position(is_it).and_then(|at| to_do.remove(at))
        };
        drop(desk);
        let prepared = job?.prepared;
        self.count -= 1;
        prepared
    }

    /// Those that are done, and the files that they needed.
    pub(super) fn take(&mut self, out: &mut Vec<Landed>, files: &mut Vec<Held>) {
        if self.count == 0 {
            return;
        }
        let done = std::mem::take(&mut self.shared.lock().done);
        self.count -= done.len();
        for (job, landed) in done {
            files.extend(job.files);
            out.push(landed);
        }
        self.begin_opens();
    }

    /// Lets go of it; not in a forked child, where the threads are the parent's and so may be the
    /// lock. A call that is not over within a second goes on, with its buffer and file.
    pub(super) fn close(&mut self) {
        let deadline = Instant::now() + LAST_WAIT;
        let mut desk = self.shared.lock();
        desk.is_closed = true;
        let to_do = (std::mem::take(&mut desk.to_do), std::mem::take(&mut desk.to_open));
        self.shared.has_work.notify_all();
        while desk.threads + desk.openers > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.is_done.wait_timeout(desk, left);
            desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let done = std::mem::take(&mut desk.done);
        drop(desk);
        // Outside the lock, for this may run the user's code.
        drop((to_do, std::mem::take(&mut self.opens), done));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        // Nobody panics while he has it.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the poller is gone.
    fn work(&self) {
        let _leaving = Leaving(self, |desk| &mut desk.threads);
        let mut desk = self.lock();
        while !desk.is_closed {
            if !desk.to_do.is_empty() {
                desk = self.do_first(desk);
                continue;
            }
            desk.idle += 1;
            desk = self.has_work.wait(desk).unwrap_or_else(PoisonError::into_inner);
            desk.idle -= 1;
        }
    }

    /// What a thread does that is started for one open, unless that was taken back.
    fn open(&self, op: OpSlot) {
        let _leaving = Leaving(self, |desk| &mut desk.openers);
        let mut desk = self.lock();
        let at = desk.to_open.iter().position(|job| job.op == op);
        let job = at.map(|at| desk.to_open.remove(at));
        match job {
            Some(job) => drop(self.perform(desk, job)),
            None => drop(desk),
        }
    }

    fn do_first<'a>(&'a self, mut desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        match desk.to_do.pop_front() {
            Some(job) => self.perform(desk, job),
            None => desk,
        }
    }

    fn perform<'a>(&'a self, desk: MutexGuard<'a, Desk>, mut job: Job) -> MutexGuard<'a, Desk> {
        let Some(mut prepared) = job.prepared.take() else { return desk };
        drop(desk);
        let result = prepared.perform();
        let mut desk = self.lock();
        let landed = Landed::Over { op: job.op, prepared, result };
        if desk.is_closed {
            // Nobody takes it any more; not under the lock, for this may run the user's code.
            drop(desk);
            drop((job, landed));
            desk = self.lock();
        } else {
            desk.done.push((job, landed));
            self.bell.wake_by_ref();
        }
        desk
    }
}

/// A thread at work, which ends somehow, and how those like it are counted: to drop what the user
/// gave may panic.
struct Leaving<'a>(&'a Shared, fn(&mut Desk) -> &mut usize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut desk = self.0.lock();
        *self.1(&mut desk) -= 1;
        let lacks_openers = std::mem::take(&mut desk.lacks_openers);
        drop(desk);
        self.0.is_done.notify_all();
        if lacks_openers {
            // Only the poller's thread may start one.
            self.0.bell.wake_by_ref();
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
