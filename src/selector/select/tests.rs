//! The sets and their owners agree after any arming and disarming, with descriptors in many words.

use super::super::testing::{Op, any_op, slot};
use super::*;
use crate::testing::{is_alone, no_children};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{pipe, read, write};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;
/// Descriptors at the ends of words, and beyond `FD_SETSIZE`.
const NUMBERS: [usize; 11] = [63, 64, 65, 127, 128, 200, 700, 1022, 1023, 1024, 1500];
const SOURCES: usize = NUMBERS.len();

fn eventfd(value: u32) -> OwnedFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd").into()
}

fn empty(eventfd: &OwnedFd) {
    // The only error is that it is empty.
    let _ = read(eventfd, &mut [0; 8]);
}

fn hint(at: usize) -> Report {
    Report::Hint(slot(at))
}

fn select() -> Select {
    Select::new().expect("an eventfd")
}

/// Makes an eventfd at each of these descriptors. For tests that run alone.
fn eventfds_at(fds: &[usize]) -> Vec<OwnedFd> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the hard limit");
    let (mut fillers, mut files) = (Vec::new(), Vec::new());
    while files.len() < fds.len() {
        let file = eventfd(0);
        let is_due = raw_fd(file.as_fd()) == fds[files.len()];
        if is_due { files.push(file) } else { fillers.push(file) }
    }
    files
}

impl Select {
    fn put(&mut self, at: usize, fd: impl AsFd, dirs: Interest) -> ArmOutcome {
        let arm = ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Level };
        self.arm(slot(at), fd.as_fd(), arm).expect("an open file")
    }

    fn poll_now(&mut self) -> (WaitOutcome, Vec<Report>) {
        let mut out = Vec::new();
        let wake = self.wait(Deadline::Now, &mut out).expect("a wait");
        out.sort_by_key(|raw| raw.slot().index);
        (wake, out)
    }

    fn members(&self, of: usize) -> BTreeSet<usize> {
        let set = &self.requested[of];
        let is_in = |fd: &usize| set.word(fd / BITS) >> (fd % BITS) & 1 == 1;
        let members: BTreeSet<_> = (0..set.words.len() * BITS).filter(is_in).collect();
        assert_eq!(set.count, members.len(), "members are counted");
        members
    }
}

/// A model of the armed descriptors, without bit sets.
struct Model {
    wake: usize,
    armed: [Option<Interest>; SOURCES],
    fds: [usize; SOURCES],
}

impl Model {
    fn new(select: &Select, files: &[OwnedFd]) -> Self {
        let fds = std::array::from_fn(|at| raw_fd(files[at].as_fd()));
        Model { wake: raw_fd(select.wake.as_fd()), armed: [None; SOURCES], fds }
    }

    fn check(&self, select: &Select) {
        let mut all = BTreeSet::from([self.wake]);
        for (of, direction) in [R, W, P].into_iter().enumerate() {
            let in_set = |&(armed, _): &(&Option<Interest>, _)| {
                armed.is_some_and(|dirs| dirs.contains(direction))
            };
            let armed = self.armed.iter().zip(self.fds).filter(in_set);
            let mut due: BTreeSet<_> = armed.map(|(_, fd)| fd).collect();
            if direction == R {
                due.insert(self.wake);
            }
            assert_eq!(select.members(of), due, "{direction:?}");
            all.extend(due);
        }
        assert_eq!(select.length, all.last().map_or(0, |highest| highest + 1));
    }

    /// Returns the expected reports, by poll(2).
    fn due(&self, files: &[OwnedFd]) -> Vec<Report> {
        let of = |(at, armed): (usize, &Option<Interest>)| {
            let mut flags = PollFlags::empty();
            for (direction, flag) in
                [(R, PollFlags::POLLIN), (W, PollFlags::POLLOUT), (P, PollFlags::POLLPRI)]
            {
                flags.set(flag, (*armed)?.contains(direction));
            }
            let mut fds = [PollFd::new(files[at].as_fd(), flags)];
            let ready = poll(&mut fds, PollTimeout::ZERO).expect("one entry");
            (ready == 1).then_some(hint(at))
        };
        self.armed.iter().enumerate().filter_map(of).collect()
    }
}

fn sets_and_owners_agree_in(ops: Vec<Op>, files: &[OwnedFd]) {
    let (mut select, mut notified) = (select(), false);
    let mut model = Model::new(&select, files);
    files.iter().for_each(empty);
    for op in ops {
        match op {
            Op::Arm(at, dirs) => {
                let needs_poll_each_wait = !dirs.contains(R);
                let due = ArmOutcome { needs_poll_each_wait, ..ArmOutcome::whole(Trigger::Level) };
                assert_eq!(select.put(at, &files[at], dirs), due);
                model.armed[at] = Some(dirs);
            }
            Op::Disarm(at) => {
                select.disarm(slot(at), files[at].as_fd());
                model.armed[at] = None;
            }
            Op::Remove(at) => {
                select.remove(slot(at), files[at].as_fd());
                assert_eq!(select.owner(model.fds[at]), NO_SLOT);
                model.armed[at] = None;
            }
            Op::Add(at) => {
                write(&files[at], &1_u64.to_ne_bytes()).expect("an eventfd that is not full");
            }
            Op::Take(at) => empty(&files[at]),
            Op::Notify => {
                select.wake_handle().notify();
                notified = true;
            }
            Op::Wait => {
                let due = model.due(files);
                let is_quiet = !std::mem::take(&mut notified) && due.is_empty();
                let wake = if is_quiet { WaitOutcome::TimedOut } else { WaitOutcome::Events };
                assert_eq!(select.poll_now(), (wake, due));
                for (answer, requested) in select.answer.iter().zip(&select.requested) {
                    let words = if requested.count == 0 { 0 } else { select.length.div_ceil(BITS) };
                    assert_eq!(answer.len(), words, "as many words as the kernel reads");
                }
            }
        }
        model.check(&select);
    }
}

/// Alone, to have these descriptors.
#[test]
fn sets_and_owners_agree() {
    if !is_alone("selector::select::tests::sets_and_owners_agree") {
        return;
    }
    let files = eventfds_at(&NUMBERS);
    proptest!(|(ops in proptest::collection::vec(any_op(SOURCES, R | W | P), 1..80))| {
        sets_and_owners_agree_in(ops, &files);
    });
    // The eventfd has the highest descriptor.
    let high = eventfds_at(&[1600]);
    drop(files);
    let files: Vec<_> = (0..SOURCES).map(|_| eventfd(0)).collect();
    let fillers: Vec<_> = std::iter::repeat_with(|| eventfd(0))
        .take_while(|file| raw_fd(file.as_fd()) < raw_fd(high[0].as_fd()))
        .collect();
    assert!(raw_fd(select().wake.as_fd()) > 1600 && !fillers.is_empty());
    proptest!(|(ops in proptest::collection::vec(any_op(SOURCES, R | W | P), 1..40))| {
        sets_and_owners_agree_in(ops, &files);
    });
}

/// Notes e and P5. Alone, so that no other test reuses the descriptor.
#[test]
fn closed_descriptor_makes_all_slots_hints() {
    if !is_alone("selector::select::tests::closed_descriptor_makes_all_slots_hints") {
        return;
    }
    let mut files = eventfds_at(&[64, 127, 128, 700]);
    let (mut select, mut out) = (select(), Vec::new());
    for (at, dirs) in [R, W, P, R | W].into_iter().enumerate() {
        select.put(at, &files[at], dirs);
    }
    let idle = eventfd(1);
    select.put(4, &idle, R);
    select.disarm(slot(4), idle.as_fd());
    drop(files.remove(1));
    for deadline in [Deadline::Now, Deadline::Never] {
        out.clear();
        assert_eq!(select.wait(deadline, &mut out).expect("no error"), WaitOutcome::Events);
        assert_eq!(out.len(), 4, "each armed slot once: {out:?}");
        assert!((0..4).all(|at| out.contains(&hint(at))), "{out:?}");
    }
    select.wake_handle().notify();
    assert_eq!(select.poll_now().0, WaitOutcome::Events);
    let mut wake = [PollFd::new(select.wake.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wake, PollTimeout::ZERO), Ok(0), "the notification was drained");
    // The descriptor is another file now, which was never armed: the next wait reports it.
    let [again] = <[OwnedFd; 1]>::try_from(eventfds_at(&[127])).expect("one");
    assert_eq!(
        select.poll_now(),
        (WaitOutcome::Events, vec![hint(1), hint(3)]),
        "both are writable"
    );
    select.remove(slot(1), again.as_fd());
    assert_eq!(select.poll_now(), (WaitOutcome::Events, vec![hint(3)]));
}

/// Note g. Alone, because of the limit.
#[test]
fn descriptors_beyond_rlimit_nofile_work() {
    if !is_alone("selector::select::tests::descriptors_beyond_rlimit_nofile_work") {
        return;
    }
    let (files, mut select) = (eventfds_at(&[1500]), select());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("a lower limit");
    select.put(0, &files[0], W);
    assert_eq!(select.poll_now(), (WaitOutcome::Events, vec![hint(0)]));
    let refused = Select::new().expect_err("no descriptor is free");
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
}

#[test]
fn reused_descriptor_has_a_new_owner() {
    let (mut select, file) = (select(), eventfd(1));
    let (old, new) = (slot(0), Slot { generation: 8, ..slot(0) });
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Level };
    select.put(0, &file, R | W);
    select.remove(old, file.as_fd());
    assert_eq!(select.poll_now(), (WaitOutcome::TimedOut, vec![]));
    select.arm(new, file.as_fd(), arm).expect("an open file");
    assert_eq!(select.poll_now(), (WaitOutcome::Events, vec![Report::Hint(new)]));
    assert_eq!(select.members(1), BTreeSet::new(), "the old slot has no descriptor");
}

#[test]
fn refused_file_enters_no_set() {
    let (mut select, file) = (select(), eventfd(1));
    let path = nix::fcntl::open("/dev/null", OFlag::O_PATH, nix::sys::stat::Mode::empty());
    let path = path.expect("/dev/null exists");
    let length = select.length;
    for dirs in [R, W, P] {
        let arm = ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Level };
        let refused = select.arm(slot(3), path.as_fd(), arm).expect_err("O_PATH is refused");
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        assert_eq!(select.owner(raw_fd(path.as_fd())), NO_SLOT);
    }
    assert_eq!((select.poll_now(), select.length), ((WaitOutcome::TimedOut, vec![]), length));
    select.put(0, &file, R);
    let members = [raw_fd(select.wake.as_fd()), raw_fd(file.as_fd())];
    assert_eq!(select.members(0), BTreeSet::from(members));
}

/// Notes c and d.
#[test]
fn hang_ups_are_visible_to_readers_only() {
    let _files_are_ours = no_children();
    let (reader, writer) = pipe().expect("a pipe");
    drop(writer);
    for (dirs, is_seen) in [(R, true), (W, false), (P, false), (R | P, true), (W | P, false)] {
        let mut select = select();
        assert_eq!(select.put(0, &reader, dirs).needs_poll_each_wait, !is_seen, "{dirs:?}");
        let due = if is_seen { vec![hint(0)] } else { vec![] };
        assert_eq!(select.poll_now().1, due, "{dirs:?}");
        select.disarm(slot(0), reader.as_fd());
        assert_eq!(
            select.poll_now(),
            (WaitOutcome::TimedOut, vec![]),
            "a disarmed file reports no hang-up"
        );
    }
}

#[test]
fn urgent_data_is_an_exception() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = std::net::TcpStream::connect(listener.local_addr().expect("a bound socket"));
    let (peer, (local, _)) = (peer.expect("a connection"), listener.accept().expect("a peer"));
    let mut select = select();
    select.put(0, &local, P);
    assert_eq!(select.poll_now(), (WaitOutcome::TimedOut, vec![]), "writable is no exception");
    let flags = nix::sys::socket::MsgFlags::MSG_OOB;
    nix::sys::socket::send(raw_fd(peer.as_fd()) as i32, b"!", flags).expect("an empty queue");
    let mut out = Vec::new();
    let seen = Report::Partial(slot(0), PollBits::PRI);
    assert_eq!(select.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, [seen], "the exception set means PRI");
    select.put(0, &local, R | W | P);
    assert_eq!(
        select.poll_now(),
        (WaitOutcome::Events, vec![seen]),
        "one report, although it is writable too"
    );
    select.put(0, &local, R | W);
    assert_eq!(
        select.poll_now(),
        (WaitOutcome::Events, vec![hint(0)]),
        "PRIORITY is not requested"
    );
    let neighbour = eventfd(1);
    select.put(0, &local, P);
    select.put(1, &neighbour, R | P);
    assert_eq!(select.poll_now().1, [seen, hint(1)], "each descriptor has its own exception");
}

#[test]
fn source_ready_twice_is_one_report() {
    let (mut select, file) = (select(), eventfd(1));
    select.put(0, &file, R | W | P);
    let mut out = Vec::new();
    select.wait(Deadline::Now, &mut out).expect("a wait");
    assert_eq!(out, [hint(0)]);
}

#[test]
fn notification_is_no_report_and_comes_once() {
    let (mut select, file) = (select(), eventfd(1));
    select.put(0, &file, R);
    select.wake_handle().notify();
    select.wake_handle().notify();
    let mut out = Vec::new();
    assert_eq!(select.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, [hint(0)]);
    select.disarm(slot(0), file.as_fd());
    assert_eq!(select.poll_now(), (WaitOutcome::TimedOut, vec![]));
    select.wake_handle().notify();
    out.clear();
    assert_eq!(select.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, []);
}

#[test]
fn notification_ends_a_sleeping_wait() {
    let mut select = select();
    let (handle, (mut local, mut peer)) = (select.wake_handle(), UnixStream::pair().expect("two"));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            peer.read_exact(&mut [0]).expect("a byte");
            handle.notify();
        });
        local.write_all(b"x").expect("an empty queue");
        let wake = select.wait(Deadline::Never, &mut Vec::new()).expect("a wait");
        assert_eq!(wake, WaitOutcome::Events);
    });
}

#[test]
fn reports_are_appended() {
    let (mut select, file) = (select(), eventfd(1));
    select.put(0, &file, R | W);
    let before = Report::Hint(slot(5));
    let mut out = vec![before];
    select.wait(Deadline::Now, &mut out).expect("a wait");
    assert_eq!(out, [before, hint(0)]);
}

#[test]
fn wait_lasts_until_its_deadline() {
    let (mut select, file) = (select(), eventfd(0));
    select.put(0, &file, R);
    let moment = Instant::now() + Duration::from_millis(2);
    let mut wake = WaitOutcome::Interrupted;
    while wake == WaitOutcome::Interrupted {
        wake = select.wait(Deadline::At(moment), &mut Vec::new()).expect("a wait");
    }
    assert_eq!(wake, WaitOutcome::TimedOut);
    assert!(Instant::now() >= moment);
}
