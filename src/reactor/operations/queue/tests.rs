//! Which queue each kind of operation is in, and what it awaits.

use super::*;

/// What the contract says of directions (C3, M1).
#[test]
fn queue_of_a_kind_is_its_direction() {
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

/// There is one for each source that has operations.
#[test]
fn operations_of_a_source_are_small() {
    assert!(size_of::<SourceOps>() <= 48, "{}", size_of::<SourceOps>());
}
