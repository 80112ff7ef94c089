//! What the cases about operations are written with: a desk that knows what it has submitted, and
//! checks every completion against that.

use super::util::*;
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::Source;
use crate::sys::buf::Buf;
use crate::sys::staging;
use std::io;
use std::time::Instant;

/// A poller with operations under way.
pub(super) struct OpHarness {
    pub(super) harness: ReadinessHarness,
    /// What it is about, for whoever reads that something does not complete.
    pub(super) about: &'static str,
    /// What was submitted and has not completed.
    under_way: Vec<UnderWay>,
}

#[derive(Debug, PartialEq, Eq)]
struct UnderWay {
    id: OpId,
    token: Token,
    /// There may be results before the last.
    is_stream: bool,
}

impl OpHarness {
    /// With room for more completions at a time than most cases have operations.
    pub(super) fn new(cx: &TestContext) -> Self {
        OpHarness::with_room(cx, 64)
    }

    /// With room for `capacity` completions at a time.
    pub(super) fn with_room(cx: &TestContext, capacity: usize) -> Self {
        OpHarness { harness: cx.harness(capacity), about: "", under_way: Vec::new() }
    }

    /// Registers a source that is not watched.
    pub(super) fn add(&mut self, source: Source) -> Key {
        self.harness.register(source, usize::MAX, Interest::empty(), Mode::Edge)
    }

    /// Submits what must be accepted.
    pub(super) fn submit(&mut self, op: Op, token: usize) -> OpId {
        self.add_under_way(op, token, false)
    }

    /// Submits what must be accepted, and has many results.
    pub(super) fn submit_stream(&mut self, op: Op, token: usize) -> OpId {
        self.add_under_way(op, token, true)
    }

    fn add_under_way(&mut self, op: Op, token: usize, is_stream: bool) -> OpId {
        let submitted = self.harness.poller.submit(op, Token(token));
        let id = submitted.unwrap_or_else(|rejected| panic!("submit {token}: {rejected}"));
        let is_new = self.under_way.iter().all(|other| other.id != id);
        assert!(is_new, "{id:?} is under way already, as another operation");
        self.under_way.push(UnderWay { id, token: Token(token), is_stream });
        id
    }

    /// Submits what must be rejected: gives the buffer back, and the reason.
    pub(super) fn rejected(&mut self, op: Op) -> (Buf, io::Error) {
        match self.harness.poller.submit(op, Token(0)) {
            Ok(id) => panic!("{id:?} was accepted, and had to be rejected"),
            Err(rejected) => {
                let (op, error) = rejected.into_parts();
                expect_words(&error);
                (op.into_buf(), error)
            }
        }
    }

    pub(super) fn cancel(&mut self, id: OpId) {
        self.harness.poller.cancel(id).unwrap_or_else(|error| panic!("cancel: {error}"));
    }

    /// How many operations have not completed.
    pub(super) fn left(&self) -> usize {
        self.under_way.len()
    }

    /// The next `count` completions, in the order in which they came. What came beyond them stays
    /// for the next call. The watchdog gives it a minute.
    pub(super) fn collect(&mut self, count: usize) -> Vec<Completion> {
        let (started, mut collected) = (Instant::now(), Vec::new());
        while collected.len() < count {
            if self.harness.events.completed() == 0 {
                self.wait(LONG.saturating_sub(started.elapsed()));
                // What comes when the watchdog bites was there before, and was overlooked.
                let (waited, have, about) = (started.elapsed(), collected.len(), self.about);
                assert!(waited < LONG, "{about}: {have} of {count} completed in {waited:?}");
            }
            collected.extend(self.take());
        }
        collected
    }

    /// The next completion.
    pub(super) fn one(&mut self) -> Completion {
        self.collect(1).remove(0)
    }

    /// Submits an operation that nothing is in the way of, and waits for its completion, which
    /// must be the next.
    pub(super) fn run(&mut self, op: Op) -> Completion {
        let id = self.submit(op, 4711);
        let done = self.one();
        assert_eq!(done.id, id, "another operation completed: {done:?}");
        done
    }

    /// One wait, which may bring completions: they stay for [`OpHarness::collect`].
    pub(super) fn wait(&mut self, timeout: std::time::Duration) {
        self.harness.wait(Some(timeout));
        let (completed, room) = (self.harness.events.completed(), self.harness.events.capacity());
        assert!(completed <= room, "{completed} completions in room for {room}");
    }

    /// Takes one completion, if there is any, and checks it.
    fn take(&mut self) -> Option<Completion> {
        let done = self.harness.events.completions().next()?;
        let place = self.under_way.iter().position(|operation| operation.id == done.id);
        let Some(place) = place else {
            panic!("a completion of what is not under way, or no more: {done:?}")
        };
        let UnderWay { token, is_stream, .. } = self.under_way[place];
        if !done.more {
            self.under_way.remove(place);
        }
        assert_eq!(done.token, token, "it echoes the token: {done:?}");
        if is_stream {
            check_result(&done);
        } else {
            assert!(
                !done.more,
                "the only completion of an operation says that more come: {done:?}"
            );
        }
        if let Err(error) = &done.result {
            let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
            let is_real = !kinds.contains(&error.kind())
                && error.raw_os_error() != Some(libc::EINPROGRESS)
                && error.raw_os_error() != Some(libc::EALREADY);
            assert!(is_real, "no operation completes with that: {done:?}");
            expect_words(error);
        }
        Some(done)
    }

    /// Fails if anything has completed. (Twice, because what one wait sets going, the next tells.)
    pub(super) fn expect_nothing_yet(&mut self, why: &str) {
        for _ in 0..2 {
            self.wait(ZERO);
            if let Some(done) = self.take() {
                panic!("nothing was to complete yet ({why}): {done:?}");
            }
        }
    }

    /// Waits until it is woken, after a thread has seen it sleep for a while.
    pub(super) fn expect_sleep(&mut self, why: &str) {
        let (waker, waiter) = (self.harness.poller.waker(), staging::Thread::current().id());
        let watcher = std::thread::spawn(move || {
            let rest = CpuUsage::of(waiter);
            waker.wake();
            rest
        });
        self.harness.wait(None);
        let (woken, completed) = (self.harness.events.woken(), self.harness.events.completed());
        assert!(woken && completed == 0 && self.harness.events.is_empty(), "only the wake ends it");
        watcher.join().unwrap_or_else(|_| panic!("the watcher failed")).expect_sleep(why);
    }

    /// Fails unless everything that was submitted has completed, once.
    pub(super) fn expect_all_done(&mut self, why: &str) {
        self.expect_nothing_yet(why);
        assert_eq!(self.under_way, [], "these have not completed ({why})");
    }
}

/// One of many results is a connection, or bytes in a buffer of a pool; the last is neither.
fn check_result(done: &Completion) {
    let is_right = match (&done.result, &done.buf, done.more) {
        (Ok(Outcome::Accepted { .. }), Buf::None, true) => done.transferred == 0,
        (Ok(Outcome::Done), Buf::Pool(bytes), true) => done.transferred == bytes.len(),
        (Ok(Outcome::Done) | Err(_), Buf::None, false) => done.transferred == 0,
        _ => false,
    };
    assert!(is_right, "neither one of many results nor the last: {done:?}");
}

/// The bytes that an operation which succeeded has given back; it is told how many it moved.
pub(super) fn bytes(done: Completion) -> (usize, Vec<u8>) {
    assert!(matches!(done.result, Ok(Outcome::Done | Outcome::Received { .. })), "{done:?}");
    (done.transferred, done.buf.into_vec())
}

/// The number of the error with which an operation has failed.
pub(super) fn errno(done: &Completion) -> i32 {
    match &done.result {
        Ok(_) => panic!("it had to fail: {done:?}"),
        Err(error) => error.raw_os_error().unwrap_or_else(|| panic!("no error number: {done:?}")),
    }
}

/// What a call that sets a case up has given.
pub(super) fn ok<T, E: std::fmt::Display>(answer: Result<T, E>) -> T {
    answer.unwrap_or_else(|error| panic!("setting the case up: {error}"))
}
