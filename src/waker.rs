//! Ends a wait from elsewhere: a flag first, an eventfd only if the poller sleeps.

use crate::selector::WakeHandle;
use crate::sys::fork::ForkGeneration;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task;

/// The poller is not waiting, and no wake is pending.
const EMPTY: u8 = 0;
/// The poller sleeps or is about to: a wake must write the eventfd.
const PARKED: u8 = 1;
/// A wake is pending; further wakes add nothing.
const NOTIFIED: u8 = 2;

/// Ends the current or the next [`wait`](crate::Poller::wait) of its poller, from any thread or
/// signal handler.
///
/// Wakes are sticky and coalesce: a wake outside a wait ends the next one, and many wakes before a
/// wait end only that wait. A waker may outlive its poller. In a forked child it does nothing. See
/// clauses W1 to W3.
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
#[doc(alias("eventfd", "notify"))]
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

struct Shared {
    state: AtomicU8,
    /// A buffer was returned or a thread has finished a call, so the poller can make progress.
    has_notifications: AtomicBool,
    handle: WakeHandle,
    generation: ForkGeneration,
}

impl Waker {
    /// Wakes the poller. Makes no system call if a wake is pending or the poller is not waiting.
    /// Otherwise writes an [eventfd(2)], after kcmp(2) has confirmed that this thread shares the
    /// descriptor table. Async-signal-safe; errno is preserved.
    ///
    /// [eventfd(2)]: https://man7.org/linux/man-pages/man2/eventfd.2.html
    pub fn wake(&self) {
        let shared = &*self.0;
        if shared.generation.is_forked_child() {
            return;
        }
        // Releases what this thread did before; the poller acquires it in `finish_park`.
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

/// Notifies the poller of a returned buffer or a result: interrupts its system call, but ends no
/// wait. Does not keep the eventfd open after the drop of the poller.
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
        // Either this load sees PARKED, or the poller sees the flag before it sleeps.
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

    /// Returns the notifier of this poller.
    pub(crate) fn notifier(&self) -> task::Waker {
        Arc::new(Notifier(Arc::downgrade(&self.0.0))).into()
    }

    /// Returns true if the poller was notified since the last call.
    pub(crate) fn take_notifications(&self) -> bool {
        // There is mostly none, and a load takes no cache line from other processors.
        let flag = &self.0.0.has_notifications;
        flag.load(Ordering::SeqCst) && flag.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn is_in_foreign_process(&self) -> bool {
        self.0.0.generation.is_forked_child()
    }

    /// Returns an error in a forked child (P1).
    pub(crate) fn check_process(&self) -> io::Result<()> {
        if self.is_in_foreign_process() {
            let why = "this poller belongs to the process that this one was forked from";
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    /// Makes wakes write the eventfd. Returns false if a wake or a notification is pending: the
    /// poller must not sleep then.
    ///
    /// A wake that sees PARKED may write the eventfd after the poller was unparked for another
    /// reason. The next wait then finds the eventfd readable and no wake pending, so only the flag
    /// counts.
    pub(crate) fn prepare_park(&self) -> bool {
        let Shared { state, has_notifications, .. } = &*self.0.0;
        let order = (Ordering::SeqCst, Ordering::Acquire);
        state.compare_exchange(EMPTY, PARKED, order.0, order.1).is_ok()
            && !has_notifications.load(Ordering::SeqCst)
    }

    /// Takes the pending wake after a wait. Returns true if there was one.
    pub(crate) fn finish_park(&self) -> bool {
        // A poller that was not parked mostly has no wake to take.
        let state = &self.0.0.state;
        state.load(Ordering::Relaxed) != EMPTY && state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED
    }

    /// Restores a wake that was taken for the next wait, because this one fails.
    pub(crate) fn restore_wake(&self) {
        // Not a store: the next `finish_park` must acquire what a wake since has released.
        self.0.0.state.swap(NOTIFIED, Ordering::AcqRel);
    }
}

impl Drop for Parker {
    /// Leaves a wake pending for good, so that wakers never write after the drop.
    fn drop(&mut self) {
        self.restore_wake();
    }
}

#[cfg(test)]
mod tests;
