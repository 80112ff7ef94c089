//! A selector from outside the crate becomes a `Poller` and passes the suite, with each trigger
//! that a mechanism may have. With a seeded fault it fails, and the failure names the clause.
//!
//! The selector is an epoll of nix that reports hints only, which the reactor verifies.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use quintpoll::conformance::check;
use quintpoll::spi::{ArmOutcome, ArmRequest, Deadline, PollBits, Reactor, Report, Selector, Slot};
use quintpoll::spi::{Trigger, Triggers, WaitOutcome, WakeHandle, above_stdio};
use quintpoll::{Backend, Poller, conformance_tests};
use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;

/// The fault of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Present readiness is neither reported nor left to the reactor.
    IgnoresPresentReadiness,
    /// `remove` leaves the file open.
    KeepsRemovedFile,
    /// Only the first `arm` of a slot counts.
    ArmsOnce,
    /// Reports hints as facts.
    ReportsFalseFacts,
    /// Only the first report of each wait is kept.
    DropsReports,
}

struct Outside {
    epoll: Epoll,
    wake: WakeHandle,
    native: Triggers,
    watched: HashSet<Slot>,
    fault: Fault,
}

const WAKE: u64 = u64::MAX;

fn outside(native: Triggers, fault: Fault) -> io::Result<Box<dyn Poller>> {
    let epoll = above_stdio(|| Ok(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0))?;
    let (epoll, wake) = (Epoll(epoll), WakeHandle::new()?);
    epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    let selector = Outside { epoll, wake, native, watched: HashSet::new(), fault };
    Ok(Box::new(Reactor::new(Backend::Other("outside"), selector)?))
}

impl Selector for Outside {
    fn native(&self) -> Triggers {
        self.native
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let is_watched = self.watched.contains(&slot);
        if is_watched && self.fault == Fault::ArmsOnce {
            return Ok(ArmOutcome::whole(arm.trigger));
        }
        let trigger = match arm.trigger {
            Trigger::Level => EpollFlags::empty(),
            Trigger::Edge => EpollFlags::EPOLLET,
            Trigger::OneShot => EpollFlags::EPOLLONESHOT,
        };
        let bits = EpollFlags::from_bits_retain(i32::from(arm.bits().bits()));
        // EPOLL_CTL_MOD would not find a queue that the file has got since it was added.
        self.disarm(slot, fd);
        match self.epoll.add(fd, EpollEvent::new(bits | trigger, slot.to_bits())) {
            Ok(()) => {}
            // A file without a poll operation cannot be watched; poll(2) reports it as ready.
            Err(Errno::EPERM) => {
                return Ok(ArmOutcome {
                    needs_initial_poll: true,
                    ..ArmOutcome::whole(Trigger::Edge)
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.watched.insert(slot);
        if self.fault == Fault::IgnoresPresentReadiness {
            self.epoll.wait(&mut [EpollEvent::empty(); 8], EpollTimeout::ZERO)?;
        }
        Ok(ArmOutcome::whole(arm.trigger))
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        if self.watched.remove(&slot) {
            self.epoll.delete(fd).expect("a watched slot");
        }
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        if self.fault == Fault::KeepsRemovedFile {
            // As an io_uring poll does that was not cancelled.
            std::mem::forget(fd.try_clone_to_owned().expect("a free descriptor"));
            return;
        }
        self.disarm(slot, fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let mut events = vec![EpollEvent::empty(); self.watched.len() + 1];
        let count = match self.epoll.wait(&mut events, self.timeout(deadline)) {
            Err(Errno::EINTR) => return Ok(WaitOutcome::Interrupted),
            Err(error) => return Err(error.into()),
            Ok(0) => return Ok(WaitOutcome::TimedOut),
            Ok(count) => count,
        };
        for event in &events[..count] {
            let slot = Slot::from_bits(event.data());
            if event.data() == WAKE {
                self.wake.drain();
            } else if self.fault == Fault::ReportsFalseFacts {
                out.push(Report::Fact(slot, PollBits::OUT | PollBits::IN));
            } else {
                out.push(Report::Hint(slot));
            }
        }
        if self.fault == Fault::DropsReports {
            out.truncate(1);
        }
        Ok(WaitOutcome::Events)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

impl Outside {
    /// Returns the timeout in milliseconds, rounded up. Long timeouts are cut: the reactor waits
    /// again.
    fn timeout(&self, deadline: Deadline) -> EpollTimeout {
        let Some(left) = deadline.remaining() else { return EpollTimeout::NONE };
        let rounded_up = left.as_nanos().div_ceil(1_000_000).min(10_000);
        EpollTimeout::from(rounded_up as u16)
    }
}

conformance_tests!(outside_level, || outside(Triggers::LEVEL, Fault::None));
conformance_tests!(outside_edge, || outside(Triggers::EDGE, Fault::None));
conformance_tests!(outside_oneshot, || outside(Triggers::ONESHOT, Fault::None));
conformance_tests!(outside_edge_oneshot, || {
    outside(Triggers::EDGE.union(Triggers::ONESHOT), Fault::None)
});

/// Runs a case on a selector with a fault. The case must fail, and name the clause.
macro_rules! broken {
    ($($name:ident: $native:ident, $fault:ident => $case:literal, $clause:literal;)*) => { $(
        #[test]
        #[should_panic(expected = $clause)]
        fn $name() {
            check($case, "broken", || outside(Triggers::$native, Fault::$fault), "not needed");
        }
    )* };
}

broken! {
    broken_at_arming: EDGE, IgnoresPresentReadiness
        => "r1_register_reports_present_readiness", "broken breaks clause R1";
    broken_at_removal: LEVEL, KeepsRemovedFile
        => "r5_peer_sees_eof_after_deregister_and_drop", "broken breaks clause R5";
    broken_at_modify: EDGE, ArmsOnce
        => "r1_modify_reports_present_readiness", "broken breaks clause R1";
    broken_in_one_shot: ONESHOT, ArmsOnce
        => "o1_event_is_reported_once_until_rearm", "broken breaks clause O1";
    broken_in_level: LEVEL, ReportsFalseFacts
        => "l1_events_follow_each_direction", "broken breaks clause L1";
    broken_in_flags: LEVEL, ReportsFalseFacts
        => "h3_poll_bits_map_to_the_same_readiness", "broken breaks clause H3";
    broken_in_edges: EDGE, DropsReports
        => "e3_unchanged_sources_cause_no_events", "broken breaks clause E3";
    broken_when_busy: EDGE, DropsReports
        => "t1_zero_timeout_collects_all_ready_sources", "broken breaks clause T1";
}
