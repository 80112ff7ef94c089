//! Operations: order, results, cancellation and deadlines, the same on every backend.
//!
//! # The life of an operation
//!
//! An operation is in one `OpState`, and nothing else says what it is doing.
//!
//! 1. `submit` checks it, makes a call of it and enqueues it (`OpState::Queued`).
//! 2. At the head of its queues it becomes [`OpState::Runnable`], and enters the run queue.
//! 3. [`Operations::run`] takes it from there and advances it: the driver gets it
//!    ([`OpState::Submitted`]), or the call is attempted. What would block awaits readiness, a
//!    buffer, a time, or a thread.
//! 4. Whatever happens (readiness, a result of the driver or of a thread, a buffer, a timer) only
//!    marks the operation runnable (`run.rs`), or brings a result (`events.rs`), of which there is
//!    one interpreter (`result.rs`).
//! 5. [`Operations::complete`] takes it out of its queues, makes its successors runnable, and
//!    queues its completion ([`OpState::Completed`]), which `deliver` hands out.
//!
//! This module knows neither registry nor kernel: it asks for both through [`Io`].

mod advance;
mod buffer_wait;
mod cancel;
mod events;
mod io;
mod machine;
mod queue;
mod remove;
mod result;
mod run;
mod splice;
mod submit;
mod table;
mod thread_pool;
mod timers;
#[cfg(any(test, feature = "spi"))]
mod verify;
mod wait;

pub(super) use io::Io;
pub(super) use machine::Operations;
pub(super) use submit::direction_of;
pub(super) use table::{Delivery, Why};
pub(super) use thread_pool::ThreadPool;
