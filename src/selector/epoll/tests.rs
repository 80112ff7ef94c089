//! What the selector believes of the kernel, and what it does when that proves wrong.

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

    fn look(&mut self) -> (WaitOutcome, Vec<Report>) {
        let mut out = Vec::new();
        let wake = self.wait(Deadline::Now, &mut out).expect("a look");
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
fn a_full_buffer_is_not_the_end() {
    for trigger in TRIGGERS {
        for (room, sources, woken) in
            (1..5).flat_map(|room| (0..14).flat_map(move |n| [(room, n, false), (room, n, true)]))
        {
            let (mut epoll, file) = (epoll(), eventfd(1));
            epoll.buffer.truncate(room);
            let copies: Vec<_> = (0..sources).map(|_| dup(&file).expect("a copy")).collect();
            for (at, copy) in copies.iter().enumerate() {
                epoll.watch(at, copy, R, trigger);
            }
            if woken {
                epoll.wake_handle().notify();
            }
            let (wake, mut out) = epoll.look();
            let (case, reports) = (format!("{trigger:?} {room} {sources} {woken}"), out.len());
            let is_quiet = sources == 0 && !woken;
            assert_eq!(
                wake,
                if is_quiet { WaitOutcome::TimedOut } else { WaitOutcome::Events },
                "{case}"
            );
            out.sort_by_key(|raw| raw.slot().index);
            out.dedup();
            assert_eq!(out, (0..sources).map(readable).collect::<Vec<_>>(), "{case}");
            assert!(trigger == Trigger::Level || reports == sources, "{case}: once each");
            let again = if trigger == Trigger::Level { sources } else { 0 };
            assert!(epoll.look().1.len() >= again, "{case}: whoever is level repeats");
        }
    }
}

#[test]
fn limited_look_leaves_the_rest() {
    let (mut epoll, file) = (epoll(), eventfd(1));
    let copies: Vec<_> = (0..5).map(|_| dup(&file).expect("a copy")).collect();
    for (at, copy) in copies.iter().enumerate() {
        epoll.watch(at, copy, R, Trigger::OneShot);
    }
    epoll.set_max_reports(2);
    let looks = [(); 4].map(|()| (epoll.look().1.len(), epoll.has_more()));
    assert_eq!(looks, [(2, true), (2, true), (1, false), (0, false)]);
}

#[test]
fn room_is_not_made_for_repetitions() {
    let (mut epoll, file) = (epoll(), eventfd(1));
    epoll.buffer.truncate(4);
    let copies: Vec<_> = (0..100).map(|_| dup(&file).expect("a copy")).collect();
    for (at, copy) in copies.iter().enumerate() {
        epoll.watch(at, copy, R, Trigger::Level);
    }
    let mut seen: Vec<_> = epoll.look().1.into_iter().map(|raw| format!("{raw:?}")).collect();
    assert_eq!(seen.len(), 4 + 8 + 16 + 32 + 64, "more than there are, so all have come");
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), epoll.buffer.len()), (100, 64));
}

#[test]
fn whoever_has_reports_does_not_sleep_for_more() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut epoll, file) = (epoll(), eventfd(1));
        epoll.buffer.truncate(1);
        epoll.watch(0, &file, R, Trigger::Edge);
        let mut out = Vec::new();
        let wake = epoll.wait(Deadline::Never, &mut out);
        done.send((wake.expect("a wait"), out)).expect("the test waits for it");
    });
    let found = is_done.recv_timeout(Duration::from_secs(60)).expect("it sleeps on a report");
    assert_eq!(found, (WaitOutcome::Events, vec![readable(0)]));
}

#[test]
fn a_notification_is_no_report_and_comes_once() {
    let mut epoll = epoll();
    for _ in 0..3 {
        epoll.wake_handle().notify();
        assert_eq!(
            epoll.look(),
            (WaitOutcome::Events, vec![]),
            "also while an older one is unread (g)"
        );
        assert_eq!(epoll.look(), quiet());
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
fn each_trigger_is_the_kernels_own() {
    for trigger in TRIGGERS {
        let (mut epoll, file) = (epoll(), eventfd(1));
        let applied = epoll.watch(0, &file, R, trigger);
        assert_eq!(applied, ArmOutcome::whole(trigger));
        assert_eq!(epoll.look().1, [readable(0)]);
        let again = if trigger == Trigger::Level { vec![readable(0)] } else { vec![] };
        assert_eq!(epoll.look().1, again, "{trigger:?}");
        nix::unistd::write(&file, &1_u64.to_ne_bytes()).expect("it is not full");
        let after_news = if trigger == Trigger::OneShot { vec![] } else { vec![readable(0)] };
        assert_eq!(epoll.look().1, after_news, "{trigger:?}");
        epoll.watch(0, &file, R, trigger);
        assert_eq!(epoll.look().1, [readable(0)], "arming reads readiness again (d)");
    }
}

#[test]
fn a_disarmed_source_does_not_show_its_hang_up() {
    let _files_are_ours = no_children();
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(writer);
    let mut epoll = epoll();
    epoll.watch(0, &reader, R, Trigger::Level);
    assert_eq!(epoll.look().1, [Report::Fact(slot(0), PollBits::HUP)]);
    epoll.disarm(slot(0), reader.as_fd());
    assert_eq!(epoll.look(), quiet());
    epoll.disarm(slot(0), reader.as_fd());
    epoll.remove(slot(0), reader.as_fd());
    assert_eq!(epoll.watched, 0);
}

#[test]
fn a_file_that_is_always_ready_is_an_edge_without_events() {
    let null = OwnedFd::from(File::open("/dev/null").expect("every Linux has it"));
    let mut epoll = epoll();
    for trigger in TRIGGERS {
        let applied = epoll.watch(2, &null, R, trigger);
        assert_eq!(applied, ArmOutcome { look: true, ..ArmOutcome::whole(Trigger::Edge) });
        assert_eq!((epoll.entries[2], epoll.watched), (Entry::AlwaysReady, 0));
        assert_eq!(epoll.look(), quiet());
    }
    epoll.disarm(slot(2), null.as_fd());
    assert_eq!((epoll.entries[2], epoll.watched), (Entry::Absent, 0));
}

#[test]
fn a_refusal_leaves_what_was_watched() {
    let path = nix::fcntl::OFlag::O_PATH;
    let path = nix::fcntl::open("/dev/null", path, nix::sys::stat::Mode::empty());
    let path = path.expect("every Linux has it");
    let (mut epoll, file) = (epoll(), eventfd(1));
    epoll.watch(0, &file, R, Trigger::Level);
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Level };
    let error = epoll.arm(slot(1), path.as_fd(), arm).expect_err("for naming only");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!((epoll.entries[1], epoll.watched), (Entry::Absent, 1));
    assert_eq!(epoll.look().1, [readable(0)]);
}

/// Note f: the number stays, and the file behind it changes.
#[test]
fn an_entry_that_went_with_its_file_is_added_again() {
    let (mut epoll, mut number) = (epoll(), eventfd(0));
    epoll.watch(0, &number, R, Trigger::Level);
    let (_old, new) = (dup(&number).expect("a copy"), eventfd(1));
    dup2(&new, &mut number).expect("two open files");
    assert_eq!(epoll.look(), quiet(), "the kernel still watches the old file");
    epoll.watch(0, &number, R, Trigger::Level);
    assert_eq!(epoll.look().1, [readable(0)], "MOD said ENOENT");
    assert_eq!(epoll.watched, 1);
}

/// Note f, the other way: the old file comes back to its number.
#[test]
fn an_entry_that_came_back_with_its_file_is_modified() {
    let (mut epoll, mut number) = (epoll(), eventfd(1));
    epoll.watch(0, &number, W, Trigger::Level);
    let (old, new) = (dup(&number).expect("a copy"), eventfd(0));
    dup2(&new, &mut number).expect("two open files");
    epoll.remove(slot(0), number.as_fd());
    dup2(&old, &mut number).expect("two open files");
    epoll.watch(0, &number, R, Trigger::Level);
    assert_eq!(epoll.look().1, [readable(0)], "ADD said EEXIST");
    assert_eq!(epoll.watched, 1);
}

/// Note i: a device that has reported nothing but errors is added anew when it is armed, once.
#[test]
fn entry_is_proven_by_a_report_without_error() {
    let _files_are_ours = no_children();
    let (mut epoll, idle, ready) = (epoll(), eventfd(0), eventfd(1));
    let entry = |epoll: &Epoll, at: usize| epoll.entries[at];
    for expected in [Entry::Unproven, Entry::Watched] {
        epoll.watch(0, &idle, R, Trigger::Edge);
        assert_eq!(entry(&epoll, 0), expected, "it has its queue from the beginning");
    }
    epoll.watch(1, &ready, R, Trigger::Edge);
    assert_eq!(epoll.look().1, [readable(1)]);
    assert_eq!(entry(&epoll, 1), Entry::Watched);
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(reader);
    epoll.watch(2, &writer, W, Trigger::Edge);
    let said = epoll.look().1;
    let is_error =
        |raw: &Report| matches!(raw, Report::Fact(_, bits) if bits.contains(PollBits::ERR));
    assert!(said.len() == 1 && said.iter().all(is_error), "{said:?}");
    assert_eq!(entry(&epoll, 2), Entry::Unproven, "an error proves nothing");
    let (here, _there) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let here = OwnedFd::from(here);
    for expected in [Entry::Unproven, Entry::Watched] {
        epoll.watch(3, &here, R, Trigger::Edge);
        assert_eq!(entry(&epoll, 3), expected, "a socket has its queue from the beginning");
    }
    assert_eq!(epoll.watched, 4);
}

/// What is added anew is the last in the kernel's order, and would be left out again (Q2).
#[test]
fn arming_keeps_the_order_of_what_was_not_reported() {
    let _files_are_ours = no_children();
    let (mut epoll, files) = (epoll(), [eventfd(1), eventfd(1)]);
    for (at, file) in files.iter().enumerate() {
        epoll.watch(at, file, R, Trigger::Level);
    }
    epoll.watch(0, &files[0], R, Trigger::Level);
    epoll.set_max_reports(1);
    assert_eq!([epoll.look().1, epoll.look().1], [[readable(0)], [readable(1)]]);
}

proptest! {
    /// On the count of entries depends when a wait may stop to look for more.
    #[test]
    fn entries_are_counted(ops in proptest::collection::vec((0..4_usize, 0..4_u8), 1..60)) {
        let mut epoll = epoll();
        let null = OwnedFd::from(File::open("/dev/null").expect("every Linux has it"));
        let files = [eventfd(1), eventfd(1), eventfd(1), null];
        for (at, dirs) in ops {
            match Interest::from_bits_truncate(dirs) {
                dirs if dirs.is_empty() => epoll.disarm(slot(at), files[at].as_fd()),
                dirs => drop(epoll.watch(at, &files[at], dirs, Trigger::Level)),
            }
            let watched = epoll.entries.iter().filter(|entry| entry.is_added()).count();
            assert_eq!(epoll.watched, watched);
            assert_eq!(epoll.look().1.len(), watched, "each of them is ready");
        }
    }
}

#[test]
fn a_wait_lasts_until_its_deadline() {
    let mut epoll = epoll();
    let moment = Instant::now() + Duration::from_millis(2);
    let mut wake = WaitOutcome::Interrupted;
    while wake == WaitOutcome::Interrupted {
        wake = epoll.wait(Deadline::At(moment), &mut Vec::new()).expect("a wait");
    }
    assert_eq!(wake, WaitOutcome::TimedOut);
    assert!(Instant::now() >= moment);
}
