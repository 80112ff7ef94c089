//! A selector from outside the crate: it becomes a `Poller` and passes the suite, with each of the
//! triggers that a mechanism may have. Broken on purpose it fails, and the failure names the
//! clause.
//!
//! It is an epoll of nix that gives hints only: what is true is for the reactor's probe to find.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use quintpoll::conformance::check;
use quintpoll::spi::{ArmOutcome, ArmRequest, Deadline, PollBits, Reactor, Report, Selector, Slot};
use quintpoll::spi::{Trigger, Triggers, WaitOutcome, WakeHandle, above_stdio};
use quintpoll::{Backend, Poller, conformance_tests};
use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;

/// What is wrong with a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Present readiness is neither reported nor left to the reactor.
    ForgetsPresentReadiness,
    /// `remove` leaves the file open.
    KeepsWhatWasRemoved,
    /// Only the first `arm` of a slot counts.
    ArmsOnce,
    /// Facts that nobody checked.
    VouchesForAnything,
    /// Only the first report of each wait gets through.
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
        // To modify it would not find a queue that the file has got since it was added.
        self.disarm(slot, fd);
        match self.epoll.add(fd, EpollEvent::new(bits | trigger, slot.to_bits())) {
            Ok(()) => {}
            // No file without a poll operation can be watched; poll(2) calls them always ready.
            Err(Errno::EPERM) => {
                return Ok(ArmOutcome { look: true, ..ArmOutcome::whole(Trigger::Edge) });
            }
            Err(error) => return Err(error.into()),
        }
        self.watched.insert(slot);
        if self.fault == Fault::ForgetsPresentReadiness {
            self.epoll.wait(&mut [EpollEvent::empty(); 8], EpollTimeout::ZERO)?;
        }
        Ok(ArmOutcome::whole(arm.trigger))
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        if self.watched.remove(&slot) {
            self.epoll.delete(fd).expect("it is watched");
        }
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        if self.fault == Fault::KeepsWhatWasRemoved {
            // As an io_uring request does that nobody cancelled.
            std::mem::forget(fd.try_clone_to_owned().expect("a number is left"));
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
            } else if self.fault == Fault::VouchesForAnything {
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
    /// nix waits in milliseconds. The reactor asks again if that was too short, so long waits are
    /// cut.
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

/// The suite's case on a broken selector: it has to fail, and to say which clause.
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
    broken_at_arming: EDGE, ForgetsPresentReadiness
        => "r1_register_reports_present_readiness", "broken breaks clause R1";
    broken_at_removal: LEVEL, KeepsWhatWasRemoved
        => "r5_peer_sees_eof_after_deregister_and_drop", "broken breaks clause R5";
    broken_at_modify: EDGE, ArmsOnce
        => "r1_modify_reports_present_readiness", "broken breaks clause R1";
    broken_in_one_shot: ONESHOT, ArmsOnce
        => "o1_event_is_reported_once_until_rearm", "broken breaks clause O1";
    broken_in_level: LEVEL, VouchesForAnything
        => "l1_events_follow_each_direction", "broken breaks clause L1";
    broken_in_flags: LEVEL, VouchesForAnything
        => "h3_poll_bits_map_to_the_same_readiness", "broken breaks clause H3";
    broken_in_edges: EDGE, DropsReports
        => "e3_unchanged_sources_cause_no_events", "broken breaks clause E3";
    broken_when_busy: EDGE, DropsReports
        => "t1_zero_timeout_collects_all_ready_sources", "broken breaks clause T1";
}
