//! Ending a wait from elsewhere: a flag first, an eventfd only when someone sleeps.

use crate::selector::WakeHandle;
use crate::sys::fork::Stamp;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task;

/// Nobody waits and no wake is pending.
const AWAKE: u8 = 0;
/// The poller sleeps or is about to: a wake has to reach it through the kernel.
const ASLEEP: u8 = 1;
/// A wake is pending; more of them add nothing.
const WOKEN: u8 = 2;

/// Ends the current or the next [`wait`](crate::Poller::wait) of its poller, from any thread or
/// signal handler.
///
/// Wakes are sticky and coalesce: one made while nobody waits ends the next wait, and many before
/// one wait end that wait only. A waker outlives its poller harmlessly. In a forked child it does
/// nothing. See clauses W1 to W3.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::{Backend, Events};
/// let mut poller = Backend::best().open()?;
/// let waker = poller.waker();
/// let thread = std::thread::spawn(move || waker.wake());
/// let mut events = Events::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// assert!(events.woken() && events.is_empty());
/// # thread.join().expect("the thread only wakes");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

struct Shared {
    state: AtomicU8,
    /// The poller has something to do that is no wake: a buffer or a disk's answer has come.
    has_rung: AtomicBool,
    handle: WakeHandle,
    stamp: Stamp,
}

impl Waker {
    /// Wakes the poller. While a wake is pending already, or the poller is not waiting, this costs
    /// no system call; else a write(2) on an [eventfd(2)], once kcmp(2) has told that its number
    /// means the same on this thread. Async-signal-safe, and errno is kept.
    ///
    /// [eventfd(2)]: https://man7.org/linux/man-pages/man2/eventfd.2.html
    pub fn wake(&self) {
        let shared = &*self.0;
        if shared.stamp.is_foreign() {
            return;
        }
        // Release what the waking thread did before, for the poller that acquires it in
        // `get_up`.
        if shared.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            shared.handle.notify();
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("pending", &self.0.is_pending()).finish_non_exhaustive()
    }
}

/// For buffers that come home, and for threads that are done: it ends no wait, but has the poller
/// look. It does not keep the eventfd open when the poller has gone.
struct Bell(Weak<Shared>);

impl task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(shared) = self.0.upgrade() else { return };
        if shared.stamp.is_foreign() || shared.has_rung.swap(true, Ordering::SeqCst) {
            return;
        }
        // Either this sees that the poller sleeps, or the poller sees, before it does, that this
        // has rung.
        if shared.state.load(Ordering::SeqCst) == ASLEEP {
            shared.handle.notify();
        }
    }
}

impl Shared {
    fn is_pending(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WOKEN
    }
}

/// The poller's side of its wakers.
#[derive(Debug)]
pub(super) struct Bed(Waker);

impl Bed {
    pub(super) fn new(handle: WakeHandle) -> io::Result<Self> {
        let (state, has_rung) = (AtomicU8::new(AWAKE), AtomicBool::new(false));
        Ok(Bed(Waker(Arc::new(Shared { state, has_rung, handle, stamp: Stamp::here()? }))))
    }

    pub(super) fn waker(&self) -> Waker {
        self.0.clone()
    }

    /// What is rung by those who have something for the poller.
    pub(super) fn bell(&self) -> task::Waker {
        Arc::new(Bell(Arc::downgrade(&self.0.0))).into()
    }

    /// Whether it was rung since the last time.
    pub(super) fn has_rung(&self) -> bool {
        self.0.0.has_rung.swap(false, Ordering::SeqCst)
    }

    pub(super) fn is_in_foreign_process(&self) -> bool {
        self.0.0.stamp.is_foreign()
    }

    /// Before a wait: from now on wakes come through the kernel. False if one is pending, or the
    /// bell has rung: then don't sleep.
    ///
    /// A wake that sees ASLEEP writes the eventfd, perhaps after the poller is up again for another
    /// reason. The next wait then finds the eventfd readable and no wake pending, which is why
    /// only the flag counts.
    pub(super) fn lie_down(&self) -> bool {
        let Shared { state, has_rung, .. } = &*self.0.0;
        let order = (Ordering::SeqCst, Ordering::Acquire);
        state.compare_exchange(AWAKE, ASLEEP, order.0, order.1).is_ok()
            && !has_rung.load(Ordering::SeqCst)
    }

    /// After a wait: takes the pending wake, if any.
    pub(super) fn get_up(&self) -> bool {
        self.0.0.state.swap(AWAKE, Ordering::AcqRel) == WOKEN
    }

    /// Leaves a taken wake for the next wait, because this one fails.
    pub(super) fn put_back(&self) {
        // Not a store: what a wake that came in between has released must stay acquirable.
        self.0.0.state.swap(WOKEN, Ordering::AcqRel);
    }
}

impl Drop for Bed {
    /// For wakers that outlive the poller a wake is pending for ever, so they never write again.
    fn drop(&mut self) {
        self.put_back();
    }
}

#[cfg(test)]
mod tests;
