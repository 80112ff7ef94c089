//! Operations: order, results, cancellation and deadlines, the same on every backend.
//!
//! # The life of an operation
//!
//! An operation is in one `OpState`, and nothing else says what it is doing.
//!
//! 1. `submit` makes a call of it and enqueues it (`Queued`).
//! 2. At the head of its queues it becomes `Runnable`, and enters the run queue.
//! 3. `run` takes it from there: the driver gets it (`Submitted`), or the call is attempted. What
//!    would block waits for readiness, a buffer, a time, or a thread.
//! 4. A report, a buffer, a timer, or a predecessor that completes only makes it runnable again.
//!    A result of the driver or of a thread (`events`) goes to the interpreter that attempts use
//!    too (`result`).
//! 5. `complete` takes it out of its queues and of the table, makes its successors runnable, and
//!    queues its completion, which the reactor delivers.
//!
//! This module knows neither registry nor kernel: it asks for both through [`Io`]. Each file calls
//! methods of those below it alone: `machine` (every transition of a state), `result` and `cancel`,
//! `attempt` (what an attempt comes to), `receive`, `advance` and `splice` (attempts), `events`,
//! `run`, `send_now` and `submit_now`, then `submit` and `remove`.

mod advance;
mod attempt;
mod buffer_wait;
mod cancel;
mod entry;
mod events;
mod io;
mod machine;
mod prepare;
mod queue;
mod receive;
mod remove;
mod result;
mod run;
mod send_now;
mod silent;
mod splice;
mod submit;
mod submit_now;
mod table;
#[cfg(test)]
mod tests;
mod thread_pool;
mod timers;
#[cfg(any(test, feature = "spi"))]
mod verify;

pub(super) use entry::Why;
pub(super) use io::Io;
pub(super) use machine::Operations;
pub(super) use submit::direction_of;
pub(super) use thread_pool::ThreadPool;
#[cfg(any(test, feature = "spi"))]
pub(super) use verify::Causes;
