//! Operations: order, results, cancellation and deadlines, the same on every backend.
//!
//! # The life of an operation
//!
//! An operation has one `OpState`; no other field says what it is doing.
//!
//! 1. `submit` prepares a call and enqueues it (`Queued`).
//! 2. At the head of its queues it becomes `Runnable`, and enters the run queue.
//! 3. `run` submits it to the driver (`Submitted`) or attempts the call. A call that would block
//!    awaits readiness, a buffer, a time or a thread.
//! 4. A report, a buffer, a timer or a completed predecessor makes it runnable again. A result of
//!    the driver or a thread (`events`) is interpreted like that of an attempt (`result`).
//! 5. `complete` removes it from its queues and the table, makes its successors runnable, and
//!    queues its completion.
//!
//! This module knows neither registry nor kernel; it uses both through [`Io`]. Each file calls only
//! methods of those before it: `machine` (every transition of a state), `result` and `cancel`,
//! `attempt` (outcomes), `receive`, `advance` and `splice` (attempts), `events`, `run`, `send_now`
//! and `submit_now`, then `submit` and `remove`.

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

pub(super) use entry::CancelReason;
pub(super) use io::Io;
pub(super) use machine::Operations;
pub(super) use submit::direction_of;
pub(super) use thread_pool::ThreadPool;
#[cfg(any(test, feature = "spi"))]
pub(super) use verify::Causes;
