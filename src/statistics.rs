//! The counters of a poller.

/// The counters of a poller since it was made.
///
/// `submitted` is the sum of `completed`, `silent` and `pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The overflows of a queue of kernel reports, after which the poller checked every source
    /// (P5). With SIGIO that is the queue of signals (`RLIMIT_SIGPENDING`). Nothing was lost, but
    /// each overflow costs a check of all sources: raise the limit if this keeps growing.
    pub overflows: u64,
    /// Operations that [`submit`](crate::Poller::submit) accepted.
    pub submitted: u64,
    /// Operations whose only or last completion was delivered.
    pub completed: u64,
    /// Operations that have ended without a completion
    /// ([`Op::skip_success`](crate::Op::skip_success)).
    pub silent: u64,
    /// Operations that are unfinished, or whose last completion was not delivered yet.
    pub pending: u64,
}
