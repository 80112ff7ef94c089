//! Ends a wait from elsewhere: a flag first, an eventfd only if the poller sleeps.

use crate::selector::WakeHandle;
use crate::sys::fork::ForkGeneration;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task;

/// The poller does not wait, and no wake is pending.
const EMPTY: u8 = 0;
/// The poller sleeps or is about to: a wake has to reach it through the kernel.
const PARKED: u8 = 1;
/// A wake is pending; more of them add nothing.
const NOTIFIED: u8 = 2;

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
    /// A buffer was returned, or a thread has made a call: the poller can make progress.
    has_notifications: AtomicBool,
    handle: WakeHandle,
    generation: ForkGeneration,
}

impl Waker {
    /// Wakes the poller. While a wake is pending already, or the poller is not waiting, this costs
    /// no system call; else a write(2) on an [eventfd(2)], once kcmp(2) has told that its number
    /// means the same on this thread. Async-signal-safe, and errno is kept.
    ///
    /// [eventfd(2)]: https://man7.org/linux/man-pages/man2/eventfd.2.html
    pub fn wake(&self) {
        let shared = &*self.0;
        if shared.generation.is_forked_child() {
            return;
        }
        // Release what the waking thread did before, for the poller that acquires it in
        // `finish_park`.
        if shared.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
            shared.handle.notify();
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("pending", &self.0.is_pending()).finish_non_exhaustive()
    }
}

/// Notifies the poller of a buffer or of a result: interrupts its system call, and ends no wait.
/// Does not keep the eventfd open when the poller has gone.
struct Notifier(Weak<Shared>);

impl task::Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(shared) = self.0.upgrade() else { return };
        if shared.generation.is_forked_child()
            || shared.has_notifications.swap(true, Ordering::SeqCst)
        {
            return;
        }
        // Either this sees that the poller sleeps, or the poller sees this before it sleeps.
        if shared.state.load(Ordering::SeqCst) == PARKED {
            shared.handle.notify();
        }
    }
}

impl Shared {
    fn is_pending(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }
}

/// The poller's side of its wakers.
#[derive(Debug)]
pub(crate) struct Parker(Waker);

impl Parker {
    pub(crate) fn new(handle: WakeHandle) -> io::Result<Self> {
        let (state, has_notifications) = (AtomicU8::new(EMPTY), AtomicBool::new(false));
        Ok(Parker(Waker(Arc::new(Shared {
            state,
            has_notifications,
            handle,
            generation: ForkGeneration::current()?,
        }))))
    }

    pub(crate) fn waker(&self) -> Waker {
        self.0.clone()
    }

    /// Returns what notifies this poller.
    pub(crate) fn notifier(&self) -> task::Waker {
        Arc::new(Notifier(Arc::downgrade(&self.0.0))).into()
    }

    /// Returns true if the poller was notified since the last call.
    pub(crate) fn take_notifications(&self) -> bool {
        // Mostly there is none, and a load takes no cache line from others.
        let flag = &self.0.0.has_notifications;
        flag.load(Ordering::SeqCst) && flag.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn is_in_foreign_process(&self) -> bool {
        self.0.0.generation.is_forked_child()
    }

    /// Clause P1.
    pub(crate) fn check_process(&self) -> io::Result<()> {
        match self.is_in_foreign_process() {
            false => Ok(()),
            true => Err(io::Error::other(
                "this poller belongs to the process that this one was forked from",
            )),
        }
    }

    /// Makes wakes come through the kernel from now on. Returns false if a wake or a notification
    /// is pending: then the poller must not sleep.
    ///
    /// A wake that sees PARKED writes the eventfd, perhaps after the poller was unparked for
    /// another reason. The next wait then finds the eventfd readable and no wake pending, which is
    /// why only the flag counts.
    pub(crate) fn prepare_park(&self) -> bool {
        let Shared { state, has_notifications, .. } = &*self.0.0;
        let order = (Ordering::SeqCst, Ordering::Acquire);
        state.compare_exchange(EMPTY, PARKED, order.0, order.1).is_ok()
            && !has_notifications.load(Ordering::SeqCst)
    }

    /// Takes the pending wake after a wait. Returns true if there was one.
    pub(crate) fn finish_park(&self) -> bool {
        // A poller that was not parked has mostly nothing to take.
        let state = &self.0.0.state;
        state.load(Ordering::Relaxed) != EMPTY && state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED
    }

    /// Leaves a wake that was taken to the next wait, because this one fails.
    pub(crate) fn restore_wake(&self) {
        // Not a store: what a wake in between has released must stay acquirable.
        self.0.0.state.swap(NOTIFIED, Ordering::AcqRel);
    }
}

impl Drop for Parker {
    /// Leaves a wake pending for good, so that wakers that outlive the poller write no more.
    fn drop(&mut self) {
        self.restore_wake();
    }
}

#[cfg(test)]
mod tests;
