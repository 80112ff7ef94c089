//! The queue of each kind of operation, and the size of a source's state.

use super::*;

/// The contract's directions (C3, M1).
#[test]
fn queue_of_kind_matches_direction() {
    use Kind::{Accept, Connect, ReadAt, RecvMulti, SendMsg, Shutdown, Splice, Sync, WriteAt};
    for kind in [Accept, RecvMulti, Splice, Shutdown(std::net::Shutdown::Read)] {
        assert_eq!(Queue::of(kind).dir(), Interest::READABLE, "{kind:?}");
    }
    let shut = [std::net::Shutdown::Write, std::net::Shutdown::Both].map(Shutdown);
    for kind in [Connect, SendMsg, Kind::Write].into_iter().chain(shut) {
        assert_eq!(Queue::of(kind).dir(), Interest::WRITABLE, "{kind:?}");
    }
    for kind in [ReadAt, WriteAt, Sync { data_only: true }] {
        assert_eq!(Queue::of(kind), Queue::Unordered, "{kind:?}");
        assert_eq!(Queue::of(kind).dir(), Interest::empty(), "{kind:?}");
    }
}

/// Each source with operations has one.
#[test]
fn source_ops_are_small() {
    assert!(size_of::<SourceOps>() <= 48, "{}", size_of::<SourceOps>());
}
