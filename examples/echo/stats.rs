//! The counts of a server.

use std::fmt;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    /// Connections served, including open ones.
    pub(crate) connections: u64,
    /// Connections that ended with an error.
    pub(crate) dropped: u64,
    /// Bytes sent back.
    pub(crate) bytes: u64,
    pub(crate) waits: u64,
    pub(crate) events: u64,
    /// Connections that were lost before they were accepted.
    pub(crate) aborted: u64,
    /// Pauses of accepting, for want of descriptors or memory.
    pub(crate) shortages: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "served {} connections ({} dropped), echoed {} bytes, {} waits, {} events, \
             {} accepts aborted, {} pauses for want of descriptors",
            self.connections,
            self.dropped,
            self.bytes,
            self.waits,
            self.events,
            self.aborted,
            self.shortages
        )
    }
}
