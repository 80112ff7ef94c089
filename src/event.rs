//! Value types of readiness.

use crate::key::Key;
use crate::op::Completion;
use bitflags::bitflags;
use std::collections::VecDeque;

/// The user's number for a source or an operation. The poller returns it in every [`Event`] and
/// [`Completion`] and does not interpret it. Every value is allowed, and several may share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub usize);

bitflags! {
    /// The directions that a registration watches.
    ///
    /// The empty set is legal: such a registration is silent, hang-up included (clause R8).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[doc(alias("POLLIN", "POLLOUT", "EPOLLIN", "EPOLLOUT"))]
    pub struct Interest: u8 {
        /// A read, `accept` or `recv` would not block (end of file and errors included).
        const READABLE = 1;
        /// A write, `send`, or the outcome of a `connect` would not block.
        ///
        /// A unix datagram socket without a peer is always writable, even while the receiver's
        /// queue is full: connect(2) it, or submit `Op::send_to`.
        const WRITABLE = 1 << 1;
        /// Exceptional data, such as a TCP urgent byte (`POLLPRI` in [poll(2)]).
        ///
        /// [poll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
        const PRIORITY = 1 << 2;
    }
}

/// When a ready source is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In every wait while it is ready.
    Level,
    /// When it becomes ready. After an I/O call returned `WouldBlock`, call
    /// [`drained`](crate::Poller::drained), so that every backend reports the next change.
    #[doc(alias = "EPOLLET")]
    Edge,
    /// Once. Then nothing is reported, hang-up included, until [`rearm`](crate::Poller::rearm) or
    /// [`modify`](crate::Poller::modify).
    #[doc(alias = "EPOLLONESHOT")]
    OneShot,
}

bitflags! {
    /// The flags of a ready source.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[doc(alias("revents", "POLLHUP", "POLLERR", "POLLRDHUP"))]
    pub struct Readiness: u8 {
        /// A read would not block: data, end of file, or an error to collect.
        const READABLE = 1;
        /// A write would not block: buffer space, or an error to collect.
        const WRITABLE = 1 << 1;
        /// Exceptional data is available.
        const PRIORITY = 1 << 2;
        /// A hint: the peer has ended its sending. Unread data may remain.
        const READ_CLOSED = 1 << 3;
        /// A hint: the peer has ended its reading.
        const WRITE_CLOSED = 1 << 4;
        /// The source has an error to collect, by the next I/O call or `SO_ERROR`.
        const ERROR = 1 << 5;
    }
}

/// One ready source. A wait has at most one event for each source, with all flags merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The token given to `register` or to the last `modify`.
    pub token: Token,
    /// The registration.
    pub key: Key,
    /// The readiness; never empty, and without directions outside the interest.
    pub readiness: Readiness,
}

/// The results of a [`wait`](crate::Poller::wait), reused by the next.
///
/// The next wait discards readiness. Completions stay until they are taken (clause Q3).
///
/// ```
/// let events = quintpoll::Events::with_capacity(64);
/// assert!(events.is_empty() && !events.woken());
/// ```
#[derive(Debug)]
pub struct Events {
    ready: Vec<Event>,
    completions: VecDeque<Completion>,
    capacity: usize,
    woken: bool,
}

/// The capacity that is allocated at once; the rest is allocated when it is needed.
const PREALLOCATED: usize = 1024;

impl Events {
    /// Makes a set for `capacity` readiness events and as many completions. The poller keeps the
    /// rest, and returns it first in the next waits (clauses Q1, Q2). With a capacity of 0, `wait`
    /// fails with `InvalidInput`.
    ///
    /// 64 suits servers. With more, the results of a wait may have left the processor's cache
    /// before the program handles them.
    pub fn with_capacity(capacity: usize) -> Self {
        let ready = Vec::with_capacity(capacity.min(PREALLOCATED));
        Events { ready, completions: VecDeque::new(), capacity, woken: false }
    }

    /// Returns the largest number of readiness events, and of completions.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the events of ready sources, in no particular order.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.ready.iter()
    }

    /// Returns the number of ready sources.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Returns true if no source is ready. A wait that was woken may be empty.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Takes the completions, the oldest first. The rest stays, and no wait blocks while there are
    /// any.
    pub fn completions(&mut self) -> Completions<'_> {
        Completions(&mut self.completions)
    }

    /// Returns the number of completions that were not taken.
    pub fn completed(&self) -> usize {
        self.completions.len()
    }

    /// Returns true if a [`Waker`](crate::Waker) ended, or would have ended, this wait. A wake is
    /// not an event and takes no capacity.
    pub fn woken(&self) -> bool {
        self.woken
    }

    /// Discards readiness and the wake, as the next `wait` does. Completions stay.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.woken = false;
    }

    pub(crate) fn remaining(&self) -> usize {
        self.capacity - self.ready.len()
    }

    pub(crate) fn push(&mut self, event: Event) {
        debug_assert!(self.remaining() > 0, "the reactor delivers at most the capacity");
        debug_assert!(!event.readiness.is_empty(), "an event has a flag");
        self.ready.push(event);
    }

    pub(crate) fn set_woken(&mut self) {
        self.woken = true;
    }

    pub(crate) fn remaining_completions(&self) -> usize {
        self.capacity.saturating_sub(self.completions.len())
    }

    /// Moves the first completions of a queue here.
    pub(crate) fn complete(&mut self, queue: &mut VecDeque<Completion>, count: usize) {
        debug_assert!(count <= self.remaining_completions(), "at most the capacity");
        if self.completions.is_empty() && queue.len() == count {
            std::mem::swap(&mut self.completions, queue);
        } else {
            self.completions.extend(queue.drain(..count));
        }
    }

    /// Returns true if a wait has something to return.
    pub(crate) fn has_results(&self) -> bool {
        !self.ready.is_empty() || !self.completions.is_empty() || self.woken
    }
}

/// Takes completions out of [`Events`], one by one.
#[derive(Debug)]
pub struct Completions<'a>(&'a mut VecDeque<Completion>);

impl Iterator for Completions<'_> {
    type Item = Completion;

    fn next(&mut self) -> Option<Completion> {
        self.0.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for Completions<'_> {}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
