//! Clauses T1 and E1 where a backend may miss a report, or get no further ones.

use super::util::*;
use crate::event::Readiness;
use crate::poller::Source;
use crate::sys::staging::OtherRing;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

fn counter() -> Arc<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let counter = EventFd::from_flags(flags);
    Arc::new(counter.unwrap_or_else(|error| panic!("eventfd: {error}")))
}

fn count(counter: &EventFd) {
    counter.write(1).unwrap_or_else(|error| panic!("write: {error}"));
}

/// Hundreds of spurious reports are queued before the source that is ready.
pub(super) fn t1_spurious_reports_do_not_hide_ready_fds(cx: &TestContext) {
    const SPURIOUS: usize = 300;
    for mode in MODES {
        let mut harness = cx.harness(8);
        let counters: Vec<_> = (0..SPURIOUS).map(|_| counter()).collect();
        for counter in &counters {
            harness.register(counter.clone(), 1, READ, mode);
        }
        let late = counter();
        harness.register(late.clone(), 2, READ, mode);
        harness.expect_silence("every counter is zero");
        for counter in &counters {
            count(counter);
            count(counter);
            counter.read().unwrap_or_else(|error| panic!("read: {error}"));
        }
        count(&late);
        harness.expect_now(&[(2, Readiness::READABLE)], &format!("{mode:?}"));
    }
}

/// A wake-up by an io_uring may be the last that another io_uring gets, unless it re-arms its poll.
pub(super) fn e1_source_woken_by_io_uring_is_reported_again(cx: &TestContext) {
    for mode in MODES {
        for sort in 0..3 {
            let mut harness = cx.harness(4);
            // Without io_uring there are no such wake-ups.
            let Ok(mut ring) = OtherRing::new() else { return };
            let (notified, epoll) = (counter(), Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC));
            let epoll = epoll.unwrap_or_else(|error| panic!("epoll: {error}"));
            let watched: Source = match sort {
                0 => Arc::new(duplicate(ring.as_fd())),
                1 => notified.clone(),
                _ => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
                    epoll.add(&*notified, event).unwrap_or_else(|e| panic!("epoll_ctl: {e}"));
                    Arc::new(duplicate(epoll.0.as_fd()))
                }
            };
            ring.notify(notified.as_fd());
            let key = harness.register(watched, 1, READ, mode);
            for round in 0..6 {
                let waker = thread::spawn({
                    let waiter = crate::sys::staging::Thread::current().id();
                    move || {
                        wait_until_asleep(waiter);
                        ring.complete();
                        ring
                    }
                });
                let reported = harness.next("a completion");
                assert_eq!(reported, [(1, Readiness::READABLE)], "{mode:?}, {sort}, round {round}");
                ring = waker.join().unwrap_or_else(|_| panic!("the waking thread failed"));
                ring.take();
                notified.read().unwrap_or_else(|error| panic!("read: {error}"));
                harness.drained(key, READ);
                harness.rearm(key, READ);
                harness.expect_silence("the completion was taken");
            }
        }
    }
}

/// Duplicates a descriptor.
fn duplicate(file: impl AsFd) -> OwnedFd {
    let copy = file.as_fd().try_clone_to_owned();
    copy.unwrap_or_else(|error| panic!("dup: {error}"))
}
