//! A few threads for what has to wait for a disk, where the mechanism has nothing of its own for
//! it.

use crate::key::OpSlot;
use crate::selector::Landed;
use crate::sys::file::Held;
use crate::sys::prepared::Prepared;
use crate::sys::signals::spawn_undisturbed;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// So many calls can wait for disks at a time, of one poller.
const MOST_THREADS: usize = 4;
/// How long dropping it waits for the threads.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The threads of one poller. There are none before they are needed.
pub(super) struct Disk {
    shared: Arc<Shared>,
    /// How many operations are with it.
    count: usize,
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
    done: Vec<(Job, Landed)>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
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
        Disk { shared: Arc::new(Shared { desk, has_work, is_done, bell }), count: 0 }
    }

    /// Has an operation done. Without a thread, for want of memory or by a limit, at once.
    pub(super) fn begin(&mut self, op: OpSlot, prepared: Prepared, files: Vec<Held>) {
        self.count += 1;
        let mut desk = self.shared.lock();
        desk.to_do.push_back(Job { op, files, prepared: Some(prepared) });
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

    /// Takes an operation back, unless a thread is at it, or was.
    pub(super) fn withdraw(&mut self, op: OpSlot) -> Option<Prepared> {
        let mut desk = self.shared.lock();
        let at = desk.to_do.iter().position(|job| job.op == op)?;
        let job = desk.to_do.remove(at);
        drop(desk);
        self.count -= 1;
        job?.prepared
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
    }

    /// Lets go of it; not in a forked child, where the threads are the parent's and so may be the
    /// lock. A call that is not over within a second goes on, with its buffer and file.
    pub(super) fn close(&mut self) {
        let deadline = Instant::now() + LAST_WAIT;
        let mut desk = self.shared.lock();
        desk.is_closed = true;
        let to_do = std::mem::take(&mut desk.to_do);
        self.shared.has_work.notify_all();
        while desk.threads > 0 {
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
        drop((to_do, done));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        // Nobody panics while he has it.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the poller is gone.
    fn work(&self) {
        let _leaving = Leaving(self);
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

    fn do_first<'a>(&'a self, mut desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        let Some(mut job) = desk.to_do.pop_front() else { return desk };
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

/// A thread at work, which ends somehow: to drop what the user gave may panic.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.is_done.notify_all();
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
