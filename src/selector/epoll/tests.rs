//! The selector's record of kernel entries, and its recovery when that proves wrong.

use super::*;
use crate::event::Interest;
use crate::testing::no_children;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{dup, dup2};
use proptest::prelude::*;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::OneShot];

fn eventfd(value: u32) -> OwnedFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd").into()
}

fn slot(index: usize) -> Slot {
    Slot { index: index as u32, generation: 7 }
}

fn epoll() -> Epoll {
    Epoll::new().expect("epoll")
}

impl Epoll {
    fn watch(&mut self, at: usize, fd: &OwnedFd, dirs: Interest, trigger: Trigger) -> ArmOutcome {
        self.arm(slot(at), fd.as_fd(), ArmRequest { dirs, ends: PollBits::empty(), trigger })
            .expect("an open file")
    }

    fn poll_now(&mut self) -> (WaitOutcome, Vec<Report>) {
        let mut out = Vec::new();
        let wake = self.wait(Deadline::Now, &mut out).expect("a wait");
        (wake, out)
    }
}

fn readable(at: usize) -> Report {
    Report::Fact(slot(at), PollBits::IN)
}

fn quiet() -> (WaitOutcome, Vec<Report>) {
    (WaitOutcome::TimedOut, vec![])
}

#[test]
fn full_buffer_continues_with_next_call() {
    for trigger in TRIGGERS {
        for (space, sources, woken) in (1..5)
            .flat_map(|space| (0..14).flat_map(move |n| [(space, n, false), (space, n, true)]))
        {
            let (mut epoll, file) = (epoll(), eventfd(1));
            epoll.buffer.truncate(space);
            let copies: Vec<_> = (0..sources).map(|_| dup(&file).expect("a copy")).collect();
            for (at, copy) in copies.iter().enumerate() {
                epoll.watch(at, copy, R, trigger);
            }
            if woken {
                epoll.wake_handle().notify();
            }
            let (wake, mut out) = epoll.poll_now();
            let (case, reports) = (format!("{trigger:?} {space} {sources} {woken}"), out.len());
            let is_quiet = sources == 0 && !woken;
            assert_eq!(
                wake,
                if is_quiet { WaitOutcome::TimedOut } else { WaitOutcome::Events },
                "{case}"
            );
            out.sort_by_key(|report| report.slot().index);
            out.dedup();
            assert_eq!(out, (0..sources).map(readable).collect::<Vec<_>>(), "{case}");
            assert!(trigger == Trigger::Level || reports == sources, "{case}: once each");
            let again = if trigger == Trigger::Level { sources } else { 0 };
            assert!(epoll.poll_now().1.len() >= again, "{case}: level entries repeat");
        }
    }
}

#[test]
fn limited_wait_leaves_the_rest() {
    let (mut epoll, file) = (epoll(), eventfd(1));
    let copies: Vec<_> = (0..5).map(|_| dup(&file).expect("a copy")).collect();
    for (at, copy) in copies.iter().enumerate() {
        epoll.watch(at, copy, R, Trigger::OneShot);
    }
    epoll.set_max_reports(2);
    let looks = [(); 4].map(|()| (epoll.poll_now().1.len(), epoll.has_more()));
    assert_eq!(looks, [(2, true), (2, true), (1, false), (0, false)]);
}

#[test]
fn buffer_does_not_grow_for_repetitions() {
    let (mut epoll, file) = (epoll(), eventfd(1));
    epoll.buffer.truncate(4);
    let copies: Vec<_> = (0..100).map(|_| dup(&file).expect("a copy")).collect();
    for (at, copy) in copies.iter().enumerate() {
        epoll.watch(at, copy, R, Trigger::Level);
    }
    let mut seen: Vec<_> =
        epoll.poll_now().1.into_iter().map(|report| format!("{report:?}")).collect();
    assert_eq!(seen.len(), 4 + 8 + 16 + 32 + 64, "more reports than entries include all");
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), epoll.buffer.len()), (100, 64));
}

#[test]
fn wait_with_reports_does_not_sleep() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut epoll, file) = (epoll(), eventfd(1));
        epoll.buffer.truncate(1);
        epoll.watch(0, &file, R, Trigger::Edge);
        let mut out = Vec::new();
        let wake = epoll.wait(Deadline::Never, &mut out);
        done.send((wake.expect("a wait"), out)).expect("the test receives");
    });
    let found =
        is_done.recv_timeout(Duration::from_secs(60)).expect("a wait with pending reports returns");
    assert_eq!(found, (WaitOutcome::Events, vec![readable(0)]));
}

#[test]
fn notification_is_no_report_and_comes_once() {
    let mut epoll = epoll();
    for _ in 0..3 {
        epoll.wake_handle().notify();
        assert_eq!(
            epoll.poll_now(),
            (WaitOutcome::Events, vec![]),
            "also while an older one is unread (g)"
        );
        assert_eq!(epoll.poll_now(), quiet());
    }
}

#[test]
fn reports_are_appended() {
    let (mut epoll, file) = (epoll(), eventfd(1));
    epoll.watch(0, &file, R | W, Trigger::Level);
    let before = Report::Hint(slot(5));
    let mut out = vec![before];
    epoll.wait(Deadline::Now, &mut out).expect("a wait");
    assert_eq!(out, [before, Report::Fact(slot(0), PollBits::IN | PollBits::OUT)]);
}

#[test]
fn triggers_are_native() {
    for trigger in TRIGGERS {
        let (mut epoll, file) = (epoll(), eventfd(1));
        let applied = epoll.watch(0, &file, R, trigger);
        assert_eq!(applied, ArmOutcome::whole(trigger));
        assert_eq!(epoll.poll_now().1, [readable(0)]);
        let again = if trigger == Trigger::Level { vec![readable(0)] } else { vec![] };
        assert_eq!(epoll.poll_now().1, again, "{trigger:?}");
        nix::unistd::write(&file, &1_u64.to_ne_bytes()).expect("an eventfd that is not full");
        let after_news = if trigger == Trigger::OneShot { vec![] } else { vec![readable(0)] };
        assert_eq!(epoll.poll_now().1, after_news, "{trigger:?}");
        epoll.watch(0, &file, R, trigger);
        assert_eq!(epoll.poll_now().1, [readable(0)], "arming checks readiness again (d)");
    }
}

#[test]
fn disarmed_source_reports_no_hang_up() {
    let _files_are_ours = no_children();
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(writer);
    let mut epoll = epoll();
    epoll.watch(0, &reader, R, Trigger::Level);
    assert_eq!(epoll.poll_now().1, [Report::Fact(slot(0), PollBits::HUP)]);
    epoll.disarm(slot(0), reader.as_fd());
    assert_eq!(epoll.poll_now(), quiet());
    epoll.disarm(slot(0), reader.as_fd());
    epoll.remove(slot(0), reader.as_fd());
    assert_eq!(epoll.watched, 0);
}

#[test]
fn always_ready_file_is_edge_without_events() {
    let null = OwnedFd::from(File::open("/dev/null").expect("/dev/null exists"));
    let mut epoll = epoll();
    for trigger in TRIGGERS {
        let applied = epoll.watch(2, &null, R, trigger);
        assert_eq!(
            applied,
            ArmOutcome { needs_initial_poll: true, ..ArmOutcome::whole(Trigger::Edge) }
        );
        assert_eq!((epoll.entries[2], epoll.watched), (Entry::AlwaysReady, 0));
        assert_eq!(epoll.poll_now(), quiet());
    }
    epoll.disarm(slot(2), null.as_fd());
    assert_eq!((epoll.entries[2], epoll.watched), (Entry::Absent, 0));
}

#[test]
fn refused_arm_keeps_other_entries() {
    let path = nix::fcntl::OFlag::O_PATH;
    let path = nix::fcntl::open("/dev/null", path, nix::sys::stat::Mode::empty());
    let path = path.expect("/dev/null exists");
    let (mut epoll, file) = (epoll(), eventfd(1));
    epoll.watch(0, &file, R, Trigger::Level);
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Level };
    let error = epoll.arm(slot(1), path.as_fd(), arm).expect_err("O_PATH is refused");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!((epoll.entries[1], epoll.watched), (Entry::Absent, 1));
    assert_eq!(epoll.poll_now().1, [readable(0)]);
}

/// Note f: the descriptor stays, and its file changes.
#[test]
fn entry_lost_with_its_file_is_added_again() {
    let (mut epoll, mut fd) = (epoll(), eventfd(0));
    epoll.watch(0, &fd, R, Trigger::Level);
    let (_old, new) = (dup(&fd).expect("a copy"), eventfd(1));
    dup2(&new, &mut fd).expect("two open files");
    assert_eq!(epoll.poll_now(), quiet(), "the kernel still watches the old file");
    epoll.watch(0, &fd, R, Trigger::Level);
    assert_eq!(epoll.poll_now().1, [readable(0)], "MOD returns ENOENT");
    assert_eq!(epoll.watched, 1);
}

/// Note f, reversed: the old file returns to its descriptor.
#[test]
fn entry_returned_with_its_file_is_modified() {
    let (mut epoll, mut fd) = (epoll(), eventfd(1));
    epoll.watch(0, &fd, W, Trigger::Level);
    let (old, new) = (dup(&fd).expect("a copy"), eventfd(0));
    dup2(&new, &mut fd).expect("two open files");
    epoll.remove(slot(0), fd.as_fd());
    dup2(&old, &mut fd).expect("two open files");
    epoll.watch(0, &fd, R, Trigger::Level);
    assert_eq!(epoll.poll_now().1, [readable(0)], "ADD returns EEXIST");
    assert_eq!(epoll.watched, 1);
}

/// Note i: arming adds a device that has reported only errors anew, once.
#[test]
fn entry_is_proven_by_a_report_without_error() {
    let _files_are_ours = no_children();
    let (mut epoll, idle, ready) = (epoll(), eventfd(0), eventfd(1));
    let entry = |epoll: &Epoll, at: usize| epoll.entries[at];
    for expected in [Entry::Unproven, Entry::Watched] {
        epoll.watch(0, &idle, R, Trigger::Edge);
        assert_eq!(entry(&epoll, 0), expected, "the file has its queue from the beginning");
    }
    epoll.watch(1, &ready, R, Trigger::Edge);
    assert_eq!(epoll.poll_now().1, [readable(1)]);
    assert_eq!(entry(&epoll, 1), Entry::Watched);
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(reader);
    epoll.watch(2, &writer, W, Trigger::Edge);
    let reports = epoll.poll_now().1;
    let is_error =
        |report: &Report| matches!(report, Report::Fact(_, bits) if bits.contains(PollBits::ERR));
    assert!(reports.len() == 1 && reports.iter().all(is_error), "{reports:?}");
    assert_eq!(entry(&epoll, 2), Entry::Unproven, "an error proves nothing");
    let (local, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let local = OwnedFd::from(local);
    for expected in [Entry::Unproven, Entry::Watched] {
        epoll.watch(3, &local, R, Trigger::Edge);
        assert_eq!(entry(&epoll, 3), expected, "a socket has its queue from the beginning");
    }
    assert_eq!(epoll.watched, 4);
}

/// An entry that is added anew is the last in the kernel's order, and would be left out again (Q2).
#[test]
fn arming_keeps_order_of_unreported_entries() {
    let _files_are_ours = no_children();
    let (mut epoll, files) = (epoll(), [eventfd(1), eventfd(1)]);
    for (at, file) in files.iter().enumerate() {
        epoll.watch(at, file, R, Trigger::Level);
    }
    epoll.watch(0, &files[0], R, Trigger::Level);
    epoll.set_max_reports(1);
    assert_eq!([epoll.poll_now().1, epoll.poll_now().1], [[readable(0)], [readable(1)]]);
}

proptest! {
    /// The count of entries decides when a wait stops.
    #[test]
    fn entries_are_counted(ops in proptest::collection::vec((0..4_usize, 0..4_u8), 1..60)) {
        let mut epoll = epoll();
        let null = OwnedFd::from(File::open("/dev/null").expect("/dev/null exists"));
        let files = [eventfd(1), eventfd(1), eventfd(1), null];
        for (at, dirs) in ops {
            match Interest::from_bits_truncate(dirs) {
                dirs if dirs.is_empty() => epoll.disarm(slot(at), files[at].as_fd()),
                dirs => drop(epoll.watch(at, &files[at], dirs, Trigger::Level)),
            }
            let watched = epoll.entries.iter().filter(|entry| entry.is_added()).count();
            assert_eq!(epoll.watched, watched);
            assert_eq!(epoll.poll_now().1.len(), watched, "all entries are ready");
        }
    }
}

#[test]
fn wait_lasts_until_its_deadline() {
    let mut epoll = epoll();
    let moment = Instant::now() + Duration::from_millis(2);
    let mut wake = WaitOutcome::Interrupted;
    while wake == WaitOutcome::Interrupted {
        wake = epoll.wait(Deadline::At(moment), &mut Vec::new()).expect("a wait");
    }
    assert_eq!(wake, WaitOutcome::TimedOut);
    assert!(Instant::now() >= moment);
}
