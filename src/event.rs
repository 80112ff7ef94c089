//! Value types of readiness.

use crate::key::Key;
use crate::op::Completion;
use bitflags::bitflags;
use std::collections::VecDeque;

/// The user's own number for a source. The poller echoes it in every [`Event`] and gives no meaning
/// to it: every value is allowed, and several sources may share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub usize);

bitflags! {
    /// The directions a registration asks for.
    ///
    /// The empty set is legal: such a registration is silent, hang-up included (clause R8).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Interest: u8 {
        /// A read, `accept` or `recv` would not block (end of file and errors included).
        const READABLE = 1;
        /// A write, `send`, or the outcome of a `connect` would not block.
        ///
        /// A unix datagram socket without a peer is always writable, also while the queue of a
        /// receiver is full: connect(2) it, or submit `Op::send_to`.
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
    /// In every wait, as long as it is ready.
    Level,
    /// When it becomes ready. After the I/O call said `WouldBlock`, call
    /// [`drained`](crate::Poller::drained): that is what makes all backends report the next change.
    Edge,
    /// Once. Then nothing, hang-up included, until [`rearm`](crate::Poller::rearm) or
    /// [`modify`](crate::Poller::modify).
    OneShot,
}

bitflags! {
    /// What a source was found ready for.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Readiness: u8 {
        /// A read would not block: data, end of file, or an error to collect.
        const READABLE = 1;
        /// A write would not block: room, or an error to collect.
        const WRITABLE = 1 << 1;
        /// Exceptional data is there.
        const PRIORITY = 1 << 2;
        /// A hint: the peer will send no more. Data may still be waiting.
        const READ_CLOSED = 1 << 3;
        /// A hint: the peer will read no more.
        const WRITE_CLOSED = 1 << 4;
        /// The source has an error to collect, by the next I/O call or `SO_ERROR`.
        const ERROR = 1 << 5;
    }
}

/// One source found ready. There is at most one per source and wait, with everything merged into
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The token given at `register` or by the last `modify`.
    pub token: Token,
    /// The registration.
    pub key: Key,
    /// What it is ready for; never empty, never a direction that was not asked for.
    pub readiness: Readiness,
}

/// Receives what one [`wait`](crate::Poller::wait) found, and is reused by the next.
///
/// Readiness is forgotten by the next wait. Completions stay until they are taken (clause Q3).
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

/// Room made at once; a larger capacity is a limit, and its memory is taken when it is first
/// needed.
const PREALLOCATED: usize = 1024;

impl Events {
    /// Makes room for `capacity` readiness events, and as many completions. What does not fit is
    /// kept by the poller and comes first in the next waits (clauses Q1, Q2). With a capacity of
    /// 0, `wait` fails with `InvalidInput`.
    ///
    /// 64 suits servers. With more, the memory of what a wait has brought is no longer in the
    /// processor's cache when the program comes to it.
    pub fn with_capacity(capacity: usize) -> Self {
        let ready = Vec::with_capacity(capacity.min(PREALLOCATED));
        Events { ready, completions: VecDeque::new(), capacity, woken: false }
    }

    /// The most readiness events one wait puts here, and the most completions there can be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The sources found ready. Their order means nothing.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.ready.iter()
    }

    /// How many sources were found ready.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether no source was found ready. A wait that was woken may well be empty.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Takes the completions, the oldest first. Those that are not taken stay, and while there are
    /// any no wait blocks.
    pub fn completions(&mut self) -> Completions<'_> {
        Completions(&mut self.completions)
    }

    /// How many completions there are to take.
    pub fn completed(&self) -> usize {
        self.completions.len()
    }

    /// Whether a [`Waker`](crate::Waker) ended, or would have ended, this wait. A wake is not an
    /// event and takes no capacity.
    pub fn woken(&self) -> bool {
        self.woken
    }

    /// Forgets what was ready and the wake, as `wait` does by itself. Completions stay.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.woken = false;
    }

    pub(crate) fn room(&self) -> usize {
        self.capacity - self.ready.len()
    }

    pub(crate) fn push(&mut self, event: Event) {
        debug_assert!(self.room() > 0, "the reactor delivers no more than there is room for");
        debug_assert!(!event.readiness.is_empty(), "an event says at least one thing");
        self.ready.push(event);
    }

    pub(crate) fn set_woken(&mut self) {
        self.woken = true;
    }

    pub(crate) fn completion_room(&self) -> usize {
        self.capacity.saturating_sub(self.completions.len())
    }

    /// Takes the first completions of a queue.
    pub(crate) fn complete(&mut self, queue: &mut VecDeque<Completion>, count: usize) {
        debug_assert!(count <= self.completion_room(), "no more than there is room for");
        if self.completions.is_empty() && queue.len() == count {
            std::mem::swap(&mut self.completions, queue);
        } else {
            self.completions.extend(queue.drain(..count));
        }
    }

    /// Whether a wait has something to come back with.
    pub(crate) fn has_news(&self) -> bool {
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
