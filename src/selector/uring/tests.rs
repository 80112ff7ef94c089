//! The SQEs of the selector, and its handling of CQEs.

mod random;

use super::super::testing::slot;
use super::*;
use crate::testing::no_children;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use poll_slab::Id;
use std::os::fd::OwnedFd;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;

/// Returns rings of the usual size and small ones, in every mode of task work.
fn rings() -> impl Iterator<Item = Uring> {
    let sizes = [SIZE.requests, 2].into_iter();
    let each = sizes.flat_map(|entries| TaskWork::LADDER.map(|work| (entries, work)));
    each.map(|(entries, work)| Uring::with(entries, work).expect("io_uring"))
}

fn ring() -> Uring {
    Uring::new().expect("io_uring")
}

fn eventfd(value: u32) -> EventFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd")
}

fn open_file(path: &str) -> OwnedFd {
    open(path, OFlag::O_CLOEXEC | OFlag::O_RDONLY, Mode::empty()).expect("every Linux has it")
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe")
}

/// Returns true if the read end of a pipe is closed.
fn has_no_reader(writer: &OwnedFd) -> bool {
    let mut entry = [PollFd::new(writer.as_fd(), PollFlags::empty())];
    poll(&mut entry, PollTimeout::ZERO).expect("a wait");
    entry[0].revents().is_some_and(|bits| bits.contains(PollFlags::POLLERR))
}

const WHOLE: ArmOutcome = ArmOutcome {
    trigger: Trigger::Edge,
    level: Interest::empty(),
    needs_initial_poll: false,
    needs_poll_each_wait: false,
};
const NEEDS_POLL: ArmOutcome = ArmOutcome { needs_initial_poll: true, ..WHOLE };

impl Uring {
    fn watch_for(&mut self, at: usize, fd: &impl AsFd, dirs: Interest) -> ArmOutcome {
        let arm = ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Edge };
        self.arm(slot(at), fd.as_fd(), arm).expect("an open file")
    }

    /// Takes all pending reports.
    fn poll_now(&mut self) -> (WaitOutcome, Vec<Report>) {
        self.wait_for_all(Deadline::Now)
    }

    fn wait_for_all(&mut self, deadline: Deadline) -> (WaitOutcome, Vec<Report>) {
        let mut out = Vec::new();
        let mut wake = self.wait(deadline, &mut out).expect("a wait");
        while self.has_more() {
            let again = self.wait(Deadline::Now, &mut out).expect("a wait");
            wake = if again == WaitOutcome::TimedOut { wake } else { again };
        }
        out.sort_by_key(|report| report.slot().index);
        out.dedup();
        (wake, out)
    }

    fn poll_of(&mut self, at: usize) -> Id {
        self.watch(slot(at)).and_then(|watch| watch.poll).expect("a watched slot")
    }
}

fn hints(indices: impl IntoIterator<Item = usize>) -> (WaitOutcome, Vec<Report>) {
    (WaitOutcome::Events, indices.into_iter().map(|at| Report::Hint(slot(at))).collect())
}

fn quiet() -> (WaitOutcome, Vec<Report>) {
    (WaitOutcome::TimedOut, vec![])
}

#[test]
fn arm_enters_no_kernel_before_the_wait() {
    let (mut ring, files) = (ring(), [eventfd(1), eventfd(0), eventfd(1)]);
    let enter_count = ring.polls.enter_count();
    for (at, file) in files.iter().enumerate() {
        assert_eq!(ring.watch_for(at, file, R), WHOLE);
    }
    ring.disarm(slot(2), files[2].as_fd());
    assert_eq!(ring.polls.enter_count(), enter_count);
    assert_eq!(ring.poll_now(), hints([0]));
    assert_eq!(ring.polls.enter_count(), enter_count + 1);
}

#[test]
fn rearming_unchanged_requests_a_poll() {
    let (mut ring, file) = (ring(), eventfd(1));
    assert_eq!(ring.watch_for(0, &file, R), WHOLE);
    ring.poll_now();
    assert_eq!(ring.watch_for(0, &file, R), NEEDS_POLL);
    assert!(!ring.polls.has_queued());
    assert_eq!(ring.watch_for(0, &file, R | W), WHOLE, "a new request is armed");
    assert_eq!(ring.poll_now(), hints([0]));
    file.write(1).expect("buffer space");
    assert_eq!(ring.poll_now(), hints([0]), "the new poll stays armed");
}

#[test]
fn changes_before_submission_submit_one_poll() {
    let (mut ring, file) = (ring(), eventfd(1));
    for _ in 0..1000 {
        ring.watch_for(0, &file, W);
        ring.watch_for(0, &file, R);
        assert!(ring.polls.queued() <= 64, "obsolete SQEs are dropped");
    }
    assert_eq!(ring.poll_now(), hints([0]));
    assert_eq!(ring.polls.len(), 2, "that poll, and the wake handle's");
}

#[test]
fn small_rings_report_everything() {
    for mut ring in rings() {
        let files: Vec<_> = (0..200).map(|_| eventfd(1)).collect();
        for (at, file) in files.iter().enumerate() {
            ring.watch_for(at, file, R);
        }
        assert_eq!(ring.poll_now(), hints(0..200));
        for _ in 0..5 {
            for file in &files {
                file.write(1).expect("buffer space");
            }
            ring.wake.notify();
            assert_eq!(ring.poll_now(), hints(0..200), "{ring:?}");
            assert_eq!(ring.poll_now(), quiet());
        }
        for (at, file) in files.iter().enumerate().filter(|(at, _)| at % 2 == 0) {
            ring.watch_for(at, file, R | W);
        }
        assert_eq!(ring.poll_now(), hints((0..200).step_by(2)), "after the cancelled polls");
        ring.poll_now();
        assert_eq!(ring.polls.len(), 201);
    }
}

#[test]
fn files_without_wait_queue_are_reported_once() {
    for mut ring in rings() {
        for (at, path) in ["/proc/self/exe", "/", "/dev/null", "/dev/zero"].into_iter().enumerate()
        {
            for dirs in [R, W, P, R | W | P] {
                let file = open_file(path);
                assert_eq!(ring.watch_for(at, &file, dirs), WHOLE);
                let (wake, events) = ring.poll_now();
                let slots: Vec<_> = events.iter().map(|report| report.slot()).collect();
                assert_eq!((wake, slots), (WaitOutcome::Events, vec![slot(at)]), "{path} {dirs:?}");
                let enter_count = ring.polls.enter_count();
                assert_eq!(ring.poll_now(), quiet(), "{path}: one report");
                assert_eq!(ring.watch_for(at, &file, dirs), WHOLE);
                assert_eq!(ring.poll_now().1.len(), 1, "{path}: one report when it is armed again");
                assert_eq!((ring.poll_now(), ring.polls.len()), (quiet(), 1));
                assert!(ring.polls.enter_count() - enter_count <= 6, "{path}: no further polls");
                ring.remove(slot(at), file.as_fd());
            }
        }
    }
}

#[test]
fn files_with_wait_queue_stay_armed() {
    // The files are ready when they are armed, and the CQ is always full.
    let mut ring = Uring::with(2, TaskWork::Deferred).expect("io_uring");
    let files: Vec<_> = (0..20).map(|_| eventfd(1)).collect();
    for round in 0..200 {
        for (at, file) in files.iter().enumerate() {
            ring.watch_for(at, file, if round % 2 == 0 { R } else { R | W });
            file.write(1).expect("buffer space");
        }
        ring.poll_now();
    }
    let mut watches = ring.watches.iter_mut().map(|(_, watch)| watch);
    assert!(watches.all(|watch| !watch.is_disabled() && watch.poll.is_some()));
}

/// A wake-up by another ring ends a poll too, and sometimes several in a row do.
#[test]
fn immediate_ends_disable_a_poll_after_sixteen() {
    let (local, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let (mut ring, file) = (ring(), eventfd(0));
    ring.watch_for(0, &file, R);
    ring.watch_for(1, &local, R);
    ring.poll_now();
    let ended = |ring: &mut Uring, at: usize, times: usize| {
        for _ in 0..times {
            end_as(ring, at, 1, PollEnd::Immediate);
            assert_eq!(ring.poll_now(), hints([at]));
        }
        ring.watch(slot(at)).expect("a watched slot").poll.is_some()
    };
    assert!(ended(&mut ring, 0, 15));
    file.write(1).expect("buffer space");
    assert_eq!(ring.poll_now(), hints([0]), "a poll that continues resets the count");
    file.read().expect("a written eventfd");
    assert!(ended(&mut ring, 0, 15));
    assert!(!ended(&mut ring, 0, 1), "sixteen immediate ends disable the poll");
    file.write(1).expect("buffer space");
    assert_eq!(ring.poll_now(), quiet(), "no poll is armed");
    assert_eq!(ring.watch_for(0, &file, R), WHOLE);
    assert_eq!(ring.poll_now(), hints([0]), "arming enables the poll again");
    assert!(ended(&mut ring, 1, 40), "a socket always has a wait queue");
    // An enter that waits is ambiguous, so the end of the poll is not counted.
    let null = open_file("/dev/null");
    ring.watch_for(2, &null, R);
    ring.poll_now();
    let enter_count = ring.polls.enter_count();
    ring.watch_for(2, &null, R);
    ring.wait_for_all(Deadline::Never);
    assert!(
        ring.polls.enter_count() - enter_count <= 3 && ring.polls.len() == 3,
        "fewer than sixteen enters"
    );
}

#[test]
fn ended_poll_is_armed_again() {
    for mut ring in rings() {
        let file = eventfd(0);
        ring.watch_for(0, &file, R);
        ring.poll_now();
        let poll = ring.poll_of(0);
        ring.polls.cancel_unexpectedly(poll);
        ring.poll_now();
        assert_ne!(ring.poll_of(0), poll);
        file.write(1).expect("buffer space");
        assert_eq!(ring.poll_now(), hints([0]));
        let poll = ring.poll_of(0);
        ring.polls.cancel_unexpectedly(poll);
        assert_eq!(ring.poll_now(), hints([0]), "the new poll reports what the old one missed");
    }
}

#[test]
fn wake_handle_notifies_repeatedly() {
    for mut ring in rings() {
        for _ in 0..50 {
            ring.wake.notify();
            ring.wake.notify();
            let (wake, events) = ring.poll_now();
            assert_eq!((wake, events), (WaitOutcome::Events, vec![]));
            assert_eq!(ring.poll_now(), quiet());
        }
        ring.restart_all();
        assert_eq!(ring.poll_now().0, WaitOutcome::Overflow);
        ring.wake.notify();
        assert_eq!(ring.wait(Deadline::Never, &mut vec![]).expect("a wait"), WaitOutcome::Events);
    }
}

#[test]
fn lost_cqes_rearm_and_check_everything() {
    for mut ring in rings() {
        let files = [eventfd(0), eventfd(0)];
        for (at, file) in files.iter().enumerate() {
            ring.watch_for(at, file, R);
        }
        ring.poll_now();
        let old = [ring.poll_of(0), ring.poll_of(1)];
        ring.restart_all();
        assert_eq!(ring.poll_now().0, WaitOutcome::Overflow);
        assert_eq!(ring.polls.len(), 3, "the old polls have ended");
        assert!(!old.contains(&ring.poll_of(0)) && !old.contains(&ring.poll_of(1)));
        ring.poll_now();
        files[1].write(1).expect("buffer space");
        assert_eq!(ring.poll_now(), hints([1]));
    }
}

/// Ends the poll, and adds an end event with this result.
fn end_with(ring: &mut Uring, at: usize, result: i32) {
    end_as(ring, at, result, PollEnd::AfterArming);
}

fn end_as(ring: &mut Uring, at: usize, result: i32, end: PollEnd) {
    let (id, owner) = (ring.poll_of(at), Owner::Slot(slot(at)));
    ring.polls.cancel_poll(id);
    let others = ring.polls.len() - 1;
    ring.enter_until(|ring| ring.polls.len() == others);
    ring.watch(slot(at)).expect("a watched slot").polls += 1;
    ring.polls.push_event(PollEvent { id, owner, result, end: Some(end) });
}

#[test]
fn refused_poll_is_reported_once_and_retried() {
    let (mut ring, file, other) = (ring(), eventfd(1), eventfd(0));
    ring.watch_for(0, &file, R);
    ring.poll_now();
    end_with(&mut ring, 0, -libc::ENOMEM);
    let mut out = vec![];
    let error = ring.wait(Deadline::Now, &mut out).expect_err("the refusal is reported");
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    assert_eq!(out, [Report::Hint(slot(0))], "the reactor must poll the file");
    assert_eq!(ring.poll_now(), hints([0]), "the new poll reports");
    end_with(&mut ring, 0, -libc::ENOMEM);
    ring.wait(Deadline::Now, &mut vec![])
        .expect_err("the refusal is reported again after a success");
    ring.watch_for(1, &other, R);
    other.write(1).expect("buffer space");
    for _ in 0..3 {
        ring.poll_now();
        end_with(&mut ring, 0, -libc::ENOMEM);
        ring.watch(slot(0)).expect("a watched slot").is_refused = true;
        assert_eq!(
            ring.poll_now().1.first(),
            Some(&Report::Hint(slot(0))),
            "the refusal was reported already"
        );
    }
}

#[test]
fn unpollable_file_is_reported_once() {
    let (mut ring, file) = (ring(), eventfd(1));
    ring.watch_for(0, &file, R);
    ring.poll_now();
    end_with(&mut ring, 0, -libc::EINVAL);
    let error = ring.wait(Deadline::Now, &mut vec![]).expect_err("the refusal is reported");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("two queues"), "{error}");
    assert_eq!((ring.poll_now(), ring.polls.len()), (quiet(), 1), "and is not retried");
    assert_eq!(ring.watch_for(0, &file, R), WHOLE);
    assert_eq!(ring.poll_now(), hints([0]), "arming retries it");
}

#[test]
fn closed_descriptor_is_left_to_the_reactor() {
    let (mut ring, file) = (ring(), eventfd(1));
    ring.watch_for(0, &file, R);
    ring.poll_now();
    end_with(&mut ring, 0, -libc::EBADF);
    assert_eq!(ring.poll_now(), hints([0]));
    assert_eq!((ring.poll_now(), ring.polls.len()), (quiet(), 1));
}

#[test]
fn bits_that_a_poll_clears_are_reported() {
    let (mut ring, file) = (ring(), open_file("/proc/self/mountinfo"));
    ring.watch_for(0, &file, P);
    ring.poll_now();
    let (id, owner) = (ring.poll_of(0), Owner::Slot(slot(0)));
    ring.polls.push_event(PollEvent {
        id,
        owner,
        result: i32::from(PollBits::PRI.bits()),
        end: None,
    });
    ring.wake.notify();
    assert_eq!(
        ring.poll_now(),
        (WaitOutcome::Events, vec![Report::Partial(slot(0), PollBits::PRI)])
    );
    assert_eq!(ring.poll_now(), quiet());
}

#[test]
fn remove_releases_the_file_at_once() {
    let _still = no_children();
    for mut ring in rings() {
        let pipes: Vec<_> = (0..40).map(|_| pipe()).collect();
        for (at, (reader, _)) in pipes.iter().enumerate() {
            ring.watch_for(at, reader, R);
            for _ in 0..at {
                ring.watch_for(at, reader, R | P);
                if at % 3 == 0 {
                    ring.poll_now();
                }
                ring.watch_for(at, reader, R);
            }
        }
        for (at, (reader, writer)) in pipes.into_iter().enumerate() {
            nix::unistd::write(&writer, b"late").expect("buffer space");
            ring.remove(slot(at), reader.as_fd());
            drop(reader);
            assert!(has_no_reader(&writer), "{at}: {ring:?}");
        }
        assert_eq!(ring.poll_now(), quiet(), "removed files have no reports");
        assert_eq!(ring.polls.len(), 1);
    }
}

#[test]
fn drop_releases_all_files() {
    let _still = no_children();
    for mut ring in rings() {
        let (readers, writers): (Vec<_>, Vec<_>) = (0..300).map(|_| pipe()).unzip();
        for (at, reader) in readers.iter().enumerate() {
            ring.watch_for(at, reader, R);
            if at == 200 {
                ring.poll_now();
            }
        }
        drop(ring);
        drop(readers);
        assert!(writers.iter().all(has_no_reader));
    }
}

/// Only the next wait retries a refused poll.
#[test]
fn drop_arms_nothing() {
    let _still = no_children();
    let (mut ring, (reader, writer)) = (ring(), pipe());
    ring.watch_for(0, &reader, R);
    ring.poll_now();
    end_with(&mut ring, 0, -libc::ENOMEM);
    ring.wait(Deadline::Now, &mut vec![]).expect_err("the refusal is reported");
    drop(ring);
    drop(reader);
    assert!(has_no_reader(&writer));
}

#[test]
fn remove_discards_a_refusal() {
    let (mut ring, file) = (ring(), eventfd(0));
    ring.watch_for(0, &file, R);
    ring.poll_now();
    end_with(&mut ring, 0, -libc::ENOMEM);
    ring.collect_events();
    ring.remove(slot(0), file.as_fd());
    assert_eq!(ring.poll_now(), quiet());
}

#[test]
fn refused_descriptor_leaves_no_state() {
    let mut ring = ring();
    let path = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).expect("the root");
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Edge };
    let error = ring.arm(slot(0), path.as_fd(), arm).expect_err("O_PATH is refused");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert!(ring.watches.len() == 0 && !ring.polls.has_queued());
}
