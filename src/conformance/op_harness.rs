//! A harness for cases about operations: it records each submission and checks each completion.

use super::util::*;
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::Source;
use crate::sys::buf::Buf;
use crate::sys::staging;
use std::io;
use std::time::Instant;

/// A poller with operations in flight.
pub(super) struct OpHarness {
    pub(super) harness: ReadinessHarness,
    /// A label for the message when an operation does not complete.
    pub(super) label: &'static str,
    /// Submitted operations that have not completed.
    in_flight: Vec<InFlight>,
}

#[derive(Debug, PartialEq, Eq)]
struct InFlight {
    id: OpId,
    token: Token,
    /// True for a multishot operation.
    is_multishot: bool,
}

impl OpHarness {
    /// Creates a harness whose `Events` hold more completions than most cases have operations.
    pub(super) fn new(cx: &TestContext) -> Self {
        OpHarness::with_capacity(cx, 64)
    }

    /// Creates a harness whose `Events` hold `capacity` completions.
    pub(super) fn with_capacity(cx: &TestContext, capacity: usize) -> Self {
        OpHarness { harness: cx.harness(capacity), label: "", in_flight: Vec::new() }
    }

    /// Registers a source with an empty interest.
    pub(super) fn add(&mut self, source: Source) -> Key {
        self.harness.register(source, usize::MAX, Interest::empty(), Mode::Edge)
    }

    /// Submits an operation that must be accepted.
    pub(super) fn submit(&mut self, op: Op, token: usize) -> OpId {
        self.add_in_flight(op, token, false)
    }

    /// Submits a multishot operation that must be accepted.
    pub(super) fn submit_multishot(&mut self, op: Op, token: usize) -> OpId {
        self.add_in_flight(op, token, true)
    }

    fn add_in_flight(&mut self, op: Op, token: usize, is_multishot: bool) -> OpId {
        let submitted = self.harness.poller.submit(op, Token(token));
        let id = submitted.unwrap_or_else(|rejected| panic!("submit {token}: {rejected}"));
        let is_new = self.in_flight.iter().all(|other| other.id != id);
        assert!(is_new, "{id:?} is the id of another operation in flight");
        self.in_flight.push(InFlight { id, token: Token(token), is_multishot });
        id
    }

    /// Submits an operation that must be rejected; returns its buffer and the error.
    pub(super) fn rejected(&mut self, op: Op) -> (Buf, io::Error) {
        match self.harness.poller.submit(op, Token(0)) {
            Ok(id) => panic!("{id:?} was accepted and must be rejected"),
            Err(rejected) => {
                let (op, error) = rejected.into_parts();
                expect_cause(&error);
                (op.into_buf(), error)
            }
        }
    }

    pub(super) fn cancel(&mut self, id: OpId) {
        self.harness.poller.cancel(id).unwrap_or_else(|error| panic!("cancel: {error}"));
    }

    /// Returns the count of operations in flight.
    pub(super) fn left(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the next `count` completions in order, within [`LONG`]. Later ones stay for the next
    /// call.
    pub(super) fn collect(&mut self, count: usize) -> Vec<Completion> {
        let (started, mut collected) = (Instant::now(), Vec::new());
        while collected.len() < count {
            if self.harness.events.completed() == 0 {
                self.wait(LONG.saturating_sub(started.elapsed()));
                // A completion that arrives only at the timeout was overlooked before: a lost
                // wake-up.
                let (waited, have, label) = (started.elapsed(), collected.len(), self.label);
                assert!(waited < LONG, "{label}: {have} of {count} completed in {waited:?}");
            }
            collected.extend(self.take());
        }
        collected
    }

    /// Returns the next completion.
    pub(super) fn next(&mut self) -> Completion {
        self.collect(1).remove(0)
    }

    /// Submits an operation that can complete, and returns its completion, which must be the next.
    pub(super) fn run(&mut self, op: Op) -> Completion {
        let id = self.submit(op, 4711);
        let done = self.next();
        assert_eq!(done.id, id, "another operation completed: {done:?}");
        done
    }

    /// Waits once. Completions stay for [`OpHarness::collect`].
    pub(super) fn wait(&mut self, timeout: std::time::Duration) {
        self.harness.wait(Some(timeout));
        let (completed, capacity) =
            (self.harness.events.completed(), self.harness.events.capacity());
        assert!(completed <= capacity, "{completed} completions exceed the capacity {capacity}");
    }

    /// Takes and checks one completion, if there is one.
    fn take(&mut self) -> Option<Completion> {
        let done = self.harness.events.completions().next()?;
        let at = self.in_flight.iter().position(|operation| operation.id == done.id);
        let Some(at) = at else { panic!("a completion of an operation not in flight: {done:?}") };
        let InFlight { token, is_multishot, .. } = self.in_flight[at];
        if !done.more {
            self.in_flight.remove(at);
        }
        assert_eq!(done.token, token, "another token: {done:?}");
        if is_multishot {
            check_result(&done);
        } else {
            assert!(!done.more, "`more` on a single-shot operation: {done:?}");
        }
        if let Err(error) = &done.result {
            let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
            let is_real = !kinds.contains(&error.kind())
                && error.raw_os_error() != Some(libc::EINPROGRESS)
                && error.raw_os_error() != Some(libc::EALREADY);
            assert!(is_real, "no operation may complete with this error: {done:?}");
            expect_cause(error);
        }
        Some(done)
    }

    /// Fails if an operation completes. Waits twice: the first wait may submit what the second
    /// reports.
    pub(super) fn expect_nothing_yet(&mut self, why: &str) {
        for _ in 0..2 {
            self.wait(ZERO);
            if let Some(done) = self.take() {
                panic!("an operation completed too early ({why}): {done:?}");
            }
        }
    }

    /// Fails unless a wait sleeps until another thread, which observes it, wakes it.
    pub(super) fn expect_sleep(&mut self, why: &str) {
        let (waker, waiter) = (self.harness.poller.waker(), staging::Thread::current().id());
        let watcher = std::thread::spawn(move || {
            let usage = CpuUsage::of(waiter);
            waker.wake();
            usage
        });
        self.harness.wait(None);
        let (woken, completed) = (self.harness.events.woken(), self.harness.events.completed());
        assert!(
            woken && completed == 0 && self.harness.events.is_empty(),
            "the wait ended without the wake"
        );
        watcher.join().unwrap_or_else(|_| panic!("the watcher failed")).expect_sleep(why);
    }

    /// Fails unless every submitted operation has completed, once.
    pub(super) fn expect_all_done(&mut self, why: &str) {
        self.expect_nothing_yet(why);
        assert_eq!(self.in_flight, [], "operations still in flight ({why})");
    }
}

/// Checks the shape of a multishot result: a socket or a pool buffer, and neither in the last.
fn check_result(done: &Completion) {
    let is_right = match (&done.result, &done.buf, done.more) {
        (Ok(Outcome::Accepted { .. }), Buf::None, true) => done.transferred == 0,
        (Ok(Outcome::Done), Buf::Pool(bytes), true) => done.transferred == bytes.len(),
        (Ok(Outcome::Done) | Err(_), Buf::None, false) => done.transferred == 0,
        _ => false,
    };
    assert!(is_right, "neither a multishot result nor a last completion: {done:?}");
}

/// Returns the transferred count and the buffer of a successful operation.
pub(super) fn bytes(done: Completion) -> (usize, Vec<u8>) {
    assert!(matches!(done.result, Ok(Outcome::Done | Outcome::Received { .. })), "{done:?}");
    (done.transferred, done.buf.into_vec())
}

/// Returns the error number of a failed operation.
pub(super) fn errno(done: &Completion) -> i32 {
    match &done.result {
        Ok(_) => panic!("the operation must fail: {done:?}"),
        Err(error) => {
            error.raw_os_error().unwrap_or_else(|| panic!("no OS error number: {done:?}"))
        }
    }
}

/// Unwraps the result of a call that sets a case up.
pub(super) fn ok<T, E: std::fmt::Display>(answer: Result<T, E>) -> T {
    answer.unwrap_or_else(|error| panic!("setting up the case: {error}"))
}
