//! Clauses R5 and R6: letting go.

use super::kit::*;
use crate::event::Readiness;
use crate::sys::staging;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

pub(super) fn r5_nothing_is_reported_after_deregister(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(8);
        let (here, there) = stream();
        let (other, other_there) = stream();
        let key = desk.register(here.clone(), 1, BOTH, mode);
        desk.register(other.clone(), 2, READ, mode);
        put(&there, b"x");
        desk.deregister(key);
        desk.expect_silence("the kernel had it queued, nobody had asked");
        put(&there, b"y");
        drop(there);
        put(&other_there, b"z");
        desk.expect_now(&[(2, Readiness::READABLE)], "the others are untouched");
    }
}

pub(super) fn r5_what_waits_for_room_is_dropped_too(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(1);
        let pairs: Vec<_> = (0..5).map(|_| stream()).collect();
        let mut keys = Vec::new();
        for (token, (here, there)) in pairs.iter().enumerate() {
            put(there, b"x");
            keys.push(desk.register(here.clone(), token, READ, mode));
        }
        let first = desk.now();
        assert_eq!(first.len(), 1);
        for (token, key) in keys.into_iter().enumerate() {
            if token != first[0].0 {
                desk.deregister(key);
            }
        }
        for _ in 0..5 {
            let said = desk.now();
            assert!(said.iter().all(|event| event.0 == first[0].0), "{mode:?}: {said:?}");
        }
    }
}

pub(super) fn r5_the_peer_sees_end_of_file_at_once(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (here, mut there) = stream();
        let key = desk.register(here.clone(), 1, BOTH, mode);
        desk.now();
        drop(here);
        assert!(there.read(&mut [0; 8]).is_err(), "the poller keeps the source open");
        desk.deregister(key);
        let read = there.read(&mut [0; 8]);
        assert_eq!(read.unwrap_or_else(|error| panic!("no end of file: {error}")), 0);
    }
}

pub(super) fn r5_a_number_used_again_gets_no_old_event(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (here, there) = stream();
        // A duplicate keeps the old file open, and its news coming.
        let _duplicate = here.try_clone().unwrap_or_else(|error| panic!("dup: {error}"));
        let number = here.as_raw_fd();
        let (reader, _writer) = pipe();
        let key = desk.register(here, 1, BOTH, mode);
        put(&there, b"x");
        desk.deregister(key);
        let reader = staging::duplicate_onto(reader.as_fd(), number);
        let reader = reader.unwrap_or_else(|error| panic!("dup3: {error}"));
        let key = desk.register(Arc::new(reader), 2, READ, mode);
        put(&there, b"y");
        desk.expect_silence("the old file's news are not the new one's");
        drop(there);
        desk.expect_silence("nor is its end");
        desk.deregister(key);
    }
}

/// A source whose last drop panics.
struct Grenade(UnixStream);

impl AsFd for Grenade {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("a user's drop panics, as this case wants it to");
    }
}

pub(super) fn r5_a_panicking_drop_leaves_the_poller_in_order(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (here, there) = UnixStream::pair().unwrap_or_else(|error| panic!("{error}"));
        let (other, other_there) = stream();
        let key = desk.register(Arc::new(Grenade(here)), 1, BOTH, mode);
        desk.register(other, 2, READ, mode);
        let drop = panic::catch_unwind(AssertUnwindSafe(|| desk.deregister(key)));
        assert!(drop.is_err(), "the panic comes through");
        let again = desk.poller.deregister(key);
        assert_eq!(refusal(again), io::ErrorKind::NotFound, "the work was done before");
        put(&other_there, b"x");
        desk.expect_now(&[(2, Readiness::READABLE)], "the poller goes on");
        let _ = (&there).read(&mut [0; 8]);
    }
}

pub(super) fn r6_dropping_the_poller_releases_everything(stage: &Stage) {
    let before = open_numbers();
    for mode in MODES {
        let mut desk = stage.desk(4);
        let pairs: Vec<_> = (0..50).map(|_| stream()).collect();
        for (token, (here, there)) in pairs.iter().enumerate() {
            desk.register(here.clone(), token, BOTH, mode);
            put(there, b"x");
        }
        desk.now();
        drop(desk);
        for (here, there) in pairs {
            assert_eq!(Arc::strong_count(&here), 1, "the poller has let go of the source");
            drop(here);
            let ended = oracle(&there, nix::poll::PollFlags::POLLIN);
            assert!(ended.contains(nix::poll::PollFlags::POLLHUP), "the peer sees the end");
        }
    }
    for _ in 0..100 {
        drop(stage.poller());
    }
    assert_eq!(open_numbers(), before, "the poller's own files are closed");
}
