//! The selector interface, for mechanisms from outside this crate (feature `spi`, outside semver).
//!
//! Implement [`Selector`], make a poller of it with [`Reactor::new`] and
//! [`Backend::Other`](crate::Backend::Other), and run the conformance suite on that poller. The
//! crate's own selectors are exported too, so that tests can wrap them.

pub use crate::key::{OpSlot, Slot};
pub use crate::poll_bits::PollBits;
pub use crate::reactor::Reactor;
pub use crate::selector::epoll::Epoll;
pub use crate::selector::poll::Poll;
pub use crate::selector::select::Select;
pub use crate::selector::sigio::Sigio;
pub use crate::selector::uring::Uring;
pub use crate::selector::{
    ArmOutcome, ArmRequest, Deadline, OpDriver, OpEvent, Report, Selector, Trigger, Triggers,
    WaitOutcome, WakeHandle,
};
pub use crate::sys::io_call::{Call, CallBox, CallResult, IoCall, Work};
pub use crate::sys::own_fd::above_stdio;
pub use crate::sys::ring::TaskWork;
