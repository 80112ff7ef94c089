//! What the selector asks of the kernel, and what it makes of the answers.

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

/// Rings as programs get them, and such that hold little, on every kernel's way to work.
fn rings() -> impl Iterator<Item = Uring> {
    let sizes = [SIZE.requests, 2].into_iter();
    let each = sizes.flat_map(|entries| TaskWork::LADDER.map(|work| (entries, work)));
    each.map(|(entries, work)| Uring::with(entries, work).expect("this kernel has it"))
}

fn ring() -> Uring {
    Uring::new().expect("this kernel has it")
}

fn eventfd(value: u32) -> EventFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd")
}

fn named(path: &str) -> OwnedFd {
    open(path, OFlag::O_CLOEXEC | OFlag::O_RDONLY, Mode::empty()).expect("every Linux has it")
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe")
}

/// Whether the other end of a pipe's writer is closed, as poll(2) sees it at once.
fn has_no_reader(writer: &OwnedFd) -> bool {
    let mut entry = [PollFd::new(writer.as_fd(), PollFlags::empty())];
    poll(&mut entry, PollTimeout::ZERO).expect("a look");
    entry[0].revents().is_some_and(|bits| bits.contains(PollFlags::POLLERR))
}

const WHOLE: ArmOutcome =
    ArmOutcome { trigger: Trigger::Edge, level: Interest::empty(), look: false, blind: false };
const LOOK: ArmOutcome = ArmOutcome { look: true, ..WHOLE };

impl Uring {
    fn watch_for(&mut self, at: usize, fd: &impl AsFd, dirs: Interest) -> ArmOutcome {
        let arm = ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Edge };
        self.arm(slot(at), fd.as_fd(), arm).expect("an open file")
    }

    /// Takes all that the kernel has to tell.
    fn look(&mut self) -> (WaitOutcome, Vec<Report>) {
        self.wait_for_all(Deadline::Now)
    }

    fn wait_for_all(&mut self, deadline: Deadline) -> (WaitOutcome, Vec<Report>) {
        let mut out = Vec::new();
        let mut wake = self.wait(deadline, &mut out).expect("a look");
        while self.has_more() {
            let again = self.wait(Deadline::Now, &mut out).expect("a look");
            wake = if again == WaitOutcome::TimedOut { wake } else { again };
        }
        out.sort_by_key(|raw| raw.slot().index);
        out.dedup();
        (wake, out)
    }

    fn poll_of(&mut self, at: usize) -> Id {
        self.watch(slot(at)).and_then(|watch| watch.poll).expect("it is watched")
    }
}

fn hints(places: impl IntoIterator<Item = usize>) -> (WaitOutcome, Vec<Report>) {
    (WaitOutcome::Events, places.into_iter().map(|at| Report::Hint(slot(at))).collect())
}

fn quiet() -> (WaitOutcome, Vec<Report>) {
    (WaitOutcome::TimedOut, vec![])
}

#[test]
fn arming_asks_the_kernel_nothing_before_the_wait() {
    let (mut ring, files) = (ring(), [eventfd(1), eventfd(0), eventfd(1)]);
    let turns = ring.polls.turns();
    for (at, file) in files.iter().enumerate() {
        assert_eq!(ring.watch_for(at, file, R), WHOLE);
    }
    ring.disarm(slot(2), files[2].as_fd());
    assert_eq!(ring.polls.turns(), turns);
    assert_eq!(ring.look(), hints([0]));
    assert_eq!(ring.polls.turns(), turns + 1);
}

#[test]
fn what_is_armed_as_it_was_is_to_be_looked_at() {
    let (mut ring, file) = (ring(), eventfd(1));
    assert_eq!(ring.watch_for(0, &file, R), WHOLE);
    ring.look();
    assert_eq!(ring.watch_for(0, &file, R), LOOK);
    assert!(!ring.polls.has_queued());
    assert_eq!(ring.watch_for(0, &file, R | W), WHOLE, "and what is new is told");
    assert_eq!(ring.look(), hints([0]));
    file.write(1).expect("room");
    assert_eq!(ring.look(), hints([0]), "the new poll goes on");
}

#[test]
fn what_was_changed_before_it_was_asked_is_asked_once() {
    let (mut ring, file) = (ring(), eventfd(1));
    for _ in 0..1000 {
        ring.watch_for(0, &file, W);
        ring.watch_for(0, &file, R);
        assert!(ring.polls.queued() <= 64, "what was never asked is forgotten");
    }
    assert_eq!(ring.look(), hints([0]));
    assert_eq!(ring.polls.len(), 2, "that, and the wake handle's");
}

#[test]
fn everything_is_told_however_little_room_there_is() {
    for mut ring in rings() {
        let files: Vec<_> = (0..200).map(|_| eventfd(1)).collect();
        for (at, file) in files.iter().enumerate() {
            ring.watch_for(at, file, R);
        }
        assert_eq!(ring.look(), hints(0..200));
        for _ in 0..5 {
            for file in &files {
                file.write(1).expect("room");
            }
            ring.wake.notify();
            assert_eq!(ring.look(), hints(0..200), "{ring:?}");
            assert_eq!(ring.look(), quiet());
        }
        for (at, file) in files.iter().enumerate().filter(|(at, _)| at % 2 == 0) {
            ring.watch_for(at, file, R | W);
        }
        assert_eq!(ring.look(), hints((0..200).step_by(2)), "behind what was cancelled");
        ring.look();
        assert_eq!(ring.polls.len(), 201);
    }
}

#[test]
fn files_without_events_are_the_reactors() {
    for mut ring in rings() {
        for (at, path) in ["/proc/self/exe", "/", "/dev/null", "/dev/zero"].into_iter().enumerate()
        {
            for dirs in [R, W, P, R | W | P] {
                let file = named(path);
                assert_eq!(ring.watch_for(at, &file, dirs), WHOLE);
                let (wake, told) = ring.look();
                let slots: Vec<_> = told.iter().map(|raw| raw.slot()).collect();
                assert_eq!((wake, slots), (WaitOutcome::Events, vec![slot(at)]), "{path} {dirs:?}");
                let turns = ring.polls.turns();
                assert_eq!(ring.look(), quiet(), "{path}: it is told once");
                assert_eq!(ring.watch_for(at, &file, dirs), WHOLE);
                assert_eq!(ring.look().1.len(), 1, "{path}: and when it is armed again");
                assert_eq!((ring.look(), ring.polls.len()), (quiet(), 1));
                assert!(ring.polls.turns() - turns <= 6, "{path}: no more is tried");
                ring.remove(slot(at), file.as_fd());
            }
        }
    }
}

#[test]
fn a_file_that_can_wait_is_not_taken_for_one_that_can_not() {
    // Ready as it is armed, in a ring that is full all the time.
    let mut ring = Uring::with(2, TaskWork::Deferred).expect("this kernel has it");
    let files: Vec<_> = (0..20).map(|_| eventfd(1)).collect();
    for round in 0..200 {
        for (at, file) in files.iter().enumerate() {
            ring.watch_for(at, file, if round % 2 == 0 { R } else { R | W });
            file.write(1).expect("room");
        }
        ring.look();
    }
    let mut watches = ring.watches.iter_mut().map(|(_, watch)| watch);
    assert!(watches.all(|watch| !watch.is_still() && watch.poll.is_some()));
}

/// A wake-up by another ring may look like that, and now and then several in a row do.
#[test]
fn to_end_as_it_began_is_an_accident_unless_it_goes_on() {
    let (here, _there) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let (mut ring, file) = (ring(), eventfd(0));
    ring.watch_for(0, &file, R);
    ring.watch_for(1, &here, R);
    ring.look();
    let ended = |ring: &mut Uring, at: usize, times: usize| {
        for _ in 0..times {
            end_as(ring, at, 1, End::AtOnce);
            assert_eq!(ring.look(), hints([at]));
        }
        ring.watch(slot(at)).expect("it is watched").poll.is_some()
    };
    assert!(ended(&mut ring, 0, 15));
    file.write(1).expect("room");
    assert_eq!(ring.look(), hints([0]), "it goes on, and so all was an accident");
    file.read().expect("it was written");
    assert!(ended(&mut ring, 0, 15));
    assert!(!ended(&mut ring, 0, 1), "that is too often");
    file.write(1).expect("room");
    assert_eq!(ring.look(), quiet(), "nobody listens");
    assert_eq!(ring.watch_for(0, &file, R), WHOLE);
    assert_eq!(ring.look(), hints([0]), "unless the program asks again");
    assert!(ended(&mut ring, 1, 40), "a socket always has something to wait on");
    // In a turn that waits nothing is certain: that it ends is no more and no less likely.
    let null = named("/dev/null");
    ring.watch_for(2, &null, R);
    ring.look();
    let turns = ring.polls.turns();
    ring.watch_for(2, &null, R);
    ring.wait_for_all(Deadline::Never);
    assert!(ring.polls.turns() - turns <= 3 && ring.polls.len() == 3, "no sixteen turns");
}

#[test]
fn a_poll_that_ends_by_itself_is_armed_again() {
    for mut ring in rings() {
        let file = eventfd(0);
        ring.watch_for(0, &file, R);
        ring.look();
        let poll = ring.poll_of(0);
        ring.polls.cancel_behind_our_back(poll);
        ring.look();
        assert_ne!(ring.poll_of(0), poll);
        file.write(1).expect("room");
        assert_eq!(ring.look(), hints([0]));
        let poll = ring.poll_of(0);
        ring.polls.cancel_behind_our_back(poll);
        assert_eq!(ring.look(), hints([0]), "what it may have missed is told");
    }
}

#[test]
fn the_wake_handle_is_heard_again_and_again() {
    for mut ring in rings() {
        for _ in 0..50 {
            ring.wake.notify();
            ring.wake.notify();
            let (wake, told) = ring.look();
            assert_eq!((wake, told), (WaitOutcome::Events, vec![]));
            assert_eq!(ring.look(), quiet());
        }
        ring.start_over();
        assert_eq!(ring.look().0, WaitOutcome::Overflow);
        ring.wake.notify();
        assert_eq!(ring.wait(Deadline::Never, &mut vec![]).expect("a wait"), WaitOutcome::Events);
    }
}

#[test]
fn lost_completions_have_everything_looked_at_and_armed_anew() {
    for mut ring in rings() {
        let files = [eventfd(0), eventfd(0)];
        for (at, file) in files.iter().enumerate() {
            ring.watch_for(at, file, R);
        }
        ring.look();
        let old = [ring.poll_of(0), ring.poll_of(1)];
        ring.start_over();
        assert_eq!(ring.look().0, WaitOutcome::Overflow);
        assert_eq!(ring.polls.len(), 3, "the old polls have ended");
        assert!(!old.contains(&ring.poll_of(0)) && !old.contains(&ring.poll_of(1)));
        ring.look();
        files[1].write(1).expect("room");
        assert_eq!(ring.look(), hints([1]));
    }
}

/// Has the poll end, and the next turn tell that it did so with this result.
fn end_with(ring: &mut Uring, at: usize, result: i32) {
    end_as(ring, at, result, End::Later);
}

fn end_as(ring: &mut Uring, at: usize, result: i32, end: End) {
    let (id, owner) = (ring.poll_of(at), Owner::Slot(slot(at)));
    ring.polls.cancel(id);
    let others = ring.polls.len() - 1;
    ring.settle_until(|ring| ring.polls.len() == others);
    ring.watch(slot(at)).expect("it is watched").polls += 1;
    ring.polls.tell(PollEvent { id, owner, result, end: Some(end) });
}

#[test]
fn a_refusal_is_an_error_once_and_is_tried_again() {
    let (mut ring, file, other) = (ring(), eventfd(1), eventfd(0));
    ring.watch_for(0, &file, R);
    ring.look();
    end_with(&mut ring, 0, -libc::ENOMEM);
    let mut out = vec![];
    let error = ring.wait(Deadline::Now, &mut out).expect_err("it is told");
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    assert_eq!(out, [Report::Hint(slot(0))], "what it has missed is to be looked at");
    assert_eq!(ring.look(), hints([0]), "armed again, it tells");
    end_with(&mut ring, 0, -libc::ENOMEM);
    ring.wait(Deadline::Now, &mut vec![]).expect_err("it is told, for in between all was well");
    ring.watch_for(1, &other, R);
    other.write(1).expect("room");
    for _ in 0..3 {
        ring.look();
        end_with(&mut ring, 0, -libc::ENOMEM);
        ring.watch(slot(0)).expect("it is watched").is_refused = true;
        assert_eq!(ring.look().1.first(), Some(&Report::Hint(slot(0))), "that was told already");
    }
}

#[test]
fn a_file_that_can_not_be_polled_is_an_error_once() {
    let (mut ring, file) = (ring(), eventfd(1));
    ring.watch_for(0, &file, R);
    ring.look();
    end_with(&mut ring, 0, -libc::EINVAL);
    let error = ring.wait(Deadline::Now, &mut vec![]).expect_err("it is told");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("two queues"), "{error}");
    assert_eq!((ring.look(), ring.polls.len()), (quiet(), 1), "and not tried for ever");
    assert_eq!(ring.watch_for(0, &file, R), WHOLE);
    assert_eq!(ring.look(), hints([0]), "but when it is asked for");
}

#[test]
fn a_number_that_was_closed_is_left_to_looks() {
    let (mut ring, file) = (ring(), eventfd(1));
    ring.watch_for(0, &file, R);
    ring.look();
    end_with(&mut ring, 0, -libc::EBADF);
    assert_eq!(ring.look(), hints([0]));
    assert_eq!((ring.look(), ring.polls.len()), (quiet(), 1));
}

#[test]
fn news_that_a_look_uses_up_are_passed_on() {
    let (mut ring, file) = (ring(), named("/proc/self/mountinfo"));
    ring.watch_for(0, &file, P);
    ring.look();
    let (id, owner) = (ring.poll_of(0), Owner::Slot(slot(0)));
    ring.polls.tell(PollEvent { id, owner, result: i32::from(PollBits::PRI.bits()), end: None });
    ring.wake.notify();
    assert_eq!(ring.look(), (WaitOutcome::Events, vec![Report::Partial(slot(0), PollBits::PRI)]));
    assert_eq!(ring.look(), quiet());
}

#[test]
fn who_is_removed_is_let_go_at_once() {
    let _still = no_children();
    for mut ring in rings() {
        let pipes: Vec<_> = (0..40).map(|_| pipe()).collect();
        for (at, (reader, _)) in pipes.iter().enumerate() {
            ring.watch_for(at, reader, R);
            for _ in 0..at {
                ring.watch_for(at, reader, R | P);
                if at % 3 == 0 {
                    ring.look();
                }
                ring.watch_for(at, reader, R);
            }
        }
        for (at, (reader, writer)) in pipes.into_iter().enumerate() {
            nix::unistd::write(&writer, b"late").expect("room");
            ring.remove(slot(at), reader.as_fd());
            drop(reader);
            assert!(has_no_reader(&writer), "{at}: {ring:?}");
        }
        assert_eq!(ring.look(), quiet(), "and nobody hears of them");
        assert_eq!(ring.polls.len(), 1);
    }
}

#[test]
fn a_ring_that_goes_lets_go_of_all() {
    let _still = no_children();
    for mut ring in rings() {
        let (readers, writers): (Vec<_>, Vec<_>) = (0..300).map(|_| pipe()).unzip();
        for (at, reader) in readers.iter().enumerate() {
            ring.watch_for(at, reader, R);
            if at == 200 {
                ring.look();
            }
        }
        drop(ring);
        drop(readers);
        assert!(writers.iter().all(has_no_reader));
    }
}

/// What was refused is tried again by the next wait, and by nobody else.
#[test]
fn a_ring_that_goes_arms_nothing_any_more() {
    let _still = no_children();
    let (mut ring, (reader, writer)) = (ring(), pipe());
    ring.watch_for(0, &reader, R);
    ring.look();
    end_with(&mut ring, 0, -libc::ENOMEM);
    ring.wait(Deadline::Now, &mut vec![]).expect_err("it is told");
    drop(ring);
    drop(reader);
    assert!(has_no_reader(&writer));
}

#[test]
fn who_is_removed_is_refused_no_longer() {
    let (mut ring, file) = (ring(), eventfd(0));
    ring.watch_for(0, &file, R);
    ring.look();
    end_with(&mut ring, 0, -libc::ENOMEM);
    ring.take_note();
    ring.remove(slot(0), file.as_fd());
    assert_eq!(ring.look(), quiet());
}

#[test]
fn what_can_not_be_watched_is_refused_and_leaves_nothing() {
    let mut ring = ring();
    let path = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).expect("the root");
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Edge };
    let error = ring.arm(slot(0), path.as_fd(), arm).expect_err("it names, it does not open");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert!(ring.watches.len() == 0 && !ring.polls.has_queued());
}
