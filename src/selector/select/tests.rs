//! The sets and their owners, which must agree after any arming and disarming, with numbers in many
//! words of them.

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
/// Around the ends of words, and beyond `FD_SETSIZE`.
const NUMBERS: [usize; 11] = [63, 64, 65, 127, 128, 200, 700, 1022, 1023, 1024, 1500];
const SOURCES: usize = NUMBERS.len();

fn eventfd(value: u32) -> OwnedFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(value, flags).expect("an eventfd").into()
}

fn empty(eventfd: &OwnedFd) {
    // The only failure is that it is empty.
    let _ = read(eventfd, &mut [0; 8]);
}

fn hint(at: usize) -> Report {
    Report::Hint(slot(at))
}

fn select() -> Select {
    Select::new().expect("an eventfd")
}

/// An eventfd of its own under each of the numbers. For a test that is alone.
fn files_under(numbers: &[usize]) -> Vec<OwnedFd> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("as much as is allowed");
    let (mut fillers, mut files) = (Vec::new(), Vec::new());
    while files.len() < numbers.len() {
        let file = eventfd(0);
        let is_due = number_of(file.as_fd()) == numbers[files.len()];
        if is_due { files.push(file) } else { fillers.push(file) }
    }
    files
}

impl Select {
    fn put(&mut self, at: usize, fd: impl AsFd, dirs: Interest) -> ArmOutcome {
        let arm = ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Level };
        self.arm(slot(at), fd.as_fd(), arm).expect("an open file")
    }

    fn look(&mut self) -> (WaitOutcome, Vec<Report>) {
        let mut out = Vec::new();
        let wake = self.wait(Deadline::Now, &mut out).expect("a look");
        out.sort_by_key(|raw| raw.slot().index);
        (wake, out)
    }

    fn members(&self, of: usize) -> BTreeSet<usize> {
        let set = &self.asked[of];
        let is_in = |number: &usize| set.word(number / BITS) >> (number % BITS) & 1 == 1;
        let members: BTreeSet<_> = (0..set.words.len() * BITS).filter(is_in).collect();
        assert_eq!(set.count, members.len(), "members are counted");
        members
    }
}

/// What is armed under which number, by a model that has no bits.
struct Model {
    wake: usize,
    armed: [Option<Interest>; SOURCES],
    numbers: [usize; SOURCES],
}

impl Model {
    fn new(select: &Select, files: &[OwnedFd]) -> Self {
        let numbers = std::array::from_fn(|at| number_of(files[at].as_fd()));
        Model { wake: number_of(select.wake.as_fd()), armed: [None; SOURCES], numbers }
    }

    fn check(&self, select: &Select) {
        let mut all = BTreeSet::from([self.wake]);
        for (of, direction) in [R, W, P].into_iter().enumerate() {
            let in_set = |&(armed, _): &(&Option<Interest>, _)| {
                armed.is_some_and(|dirs| dirs.contains(direction))
            };
            let armed = self.armed.iter().zip(self.numbers).filter(in_set);
            let mut due: BTreeSet<_> = armed.map(|(_, number)| number).collect();
            if direction == R {
                due.insert(self.wake);
            }
            assert_eq!(select.members(of), due, "{direction:?}");
            all.extend(due);
        }
        assert_eq!(select.length, all.last().map_or(0, |highest| highest + 1));
    }

    /// By poll(2): whoever is ready for what it is armed for.
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
                let blind = !dirs.contains(R);
                let due = ArmOutcome { blind, ..ArmOutcome::whole(Trigger::Level) };
                assert_eq!(select.put(at, &files[at], dirs), due);
                model.armed[at] = Some(dirs);
            }
            Op::Disarm(at) => {
                select.disarm(slot(at), files[at].as_fd());
                model.armed[at] = None;
            }
            Op::Remove(at) => {
                select.remove(slot(at), files[at].as_fd());
                assert_eq!(select.owner(model.numbers[at]), NOBODY);
                model.armed[at] = None;
            }
            Op::Add(at) => {
                write(&files[at], &1_u64.to_ne_bytes()).expect("it is never full");
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
                assert_eq!(select.look(), (wake, due));
                for (answer, asked) in select.answer.iter().zip(&select.asked) {
                    let words = if asked.count == 0 { 0 } else { select.length.div_ceil(BITS) };
                    assert_eq!(answer.len(), words, "no more than the kernel reads");
                }
            }
        }
        model.check(&select);
    }
}

/// Alone, to have these very numbers.
#[test]
fn sets_and_owners_agree() {
    if !is_alone("selector::select::tests::sets_and_owners_agree") {
        return;
    }
    let files = files_under(&NUMBERS);
    proptest!(|(ops in proptest::collection::vec(any_op(SOURCES, R | W | P), 1..80))| {
        sets_and_owners_agree_in(ops, &files);
    });
    // The eventfd above them all.
    let high = files_under(&[1600]);
    drop(files);
    let files: Vec<_> = (0..SOURCES).map(|_| eventfd(0)).collect();
    let fillers: Vec<_> = std::iter::repeat_with(|| eventfd(0))
        .take_while(|file| number_of(file.as_fd()) < number_of(high[0].as_fd()))
        .collect();
    assert!(number_of(select().wake.as_fd()) > 1600 && !fillers.is_empty());
    proptest!(|(ops in proptest::collection::vec(any_op(SOURCES, R | W | P), 1..40))| {
        sets_and_owners_agree_in(ops, &files);
    });
}

/// Notes e and P5. Alone, so that nobody opens a file under the number.
#[test]
fn a_closed_number_has_everyone_looked_at() {
    if !is_alone("selector::select::tests::a_closed_number_has_everyone_looked_at") {
        return;
    }
    let mut files = files_under(&[64, 127, 128, 700]);
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
        assert_eq!(out.len(), 4, "each once, and not who is disarmed: {out:?}");
        assert!((0..4).all(|at| out.contains(&hint(at))), "{out:?}");
    }
    select.wake_handle().notify();
    assert_eq!(select.look().0, WaitOutcome::Events);
    let mut wake = [PollFd::new(select.wake.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wake, PollTimeout::ZERO), Ok(0), "a notification does not stay");
    // Under the number there is a file again, which was never armed: the next report tells of it.
    let [again] = <[OwnedFd; 1]>::try_from(files_under(&[127])).expect("one");
    assert_eq!(select.look(), (WaitOutcome::Events, vec![hint(1), hint(3)]), "both have room");
    select.remove(slot(1), again.as_fd());
    assert_eq!(select.look(), (WaitOutcome::Events, vec![hint(3)]));
}

/// Note g. Alone, because of the limit.
#[test]
fn a_limit_below_the_numbers_does_not_matter() {
    if !is_alone("selector::select::tests::a_limit_below_the_numbers_does_not_matter") {
        return;
    }
    let (files, mut select) = (files_under(&[1500]), select());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("less is allowed");
    select.put(0, &files[0], W);
    assert_eq!(select.look(), (WaitOutcome::Events, vec![hint(0)]));
    let refused = Select::new().expect_err("no number is free");
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
}

#[test]
fn a_number_that_is_used_again_has_a_new_owner() {
    let (mut select, file) = (select(), eventfd(1));
    let (old, new) = (slot(0), Slot { generation: 8, ..slot(0) });
    let arm = ArmRequest { dirs: R, ends: PollBits::empty(), trigger: Trigger::Level };
    select.put(0, &file, R | W);
    select.remove(old, file.as_fd());
    assert_eq!(select.look(), (WaitOutcome::TimedOut, vec![]));
    select.arm(new, file.as_fd(), arm).expect("an open file");
    assert_eq!(select.look(), (WaitOutcome::Events, vec![Report::Hint(new)]));
    assert_eq!(select.members(1), BTreeSet::new(), "nothing is left of the old one");
}

#[test]
fn a_refused_file_enters_no_set() {
    let (mut select, file) = (select(), eventfd(1));
    let path = nix::fcntl::open("/dev/null", OFlag::O_PATH, nix::sys::stat::Mode::empty());
    let path = path.expect("every Linux has it");
    let length = select.length;
    for dirs in [R, W, P] {
        let arm = ArmRequest { dirs, ends: PollBits::empty(), trigger: Trigger::Level };
        let refused = select.arm(slot(3), path.as_fd(), arm).expect_err("for naming only");
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        assert_eq!(select.owner(number_of(path.as_fd())), NOBODY);
    }
    assert_eq!((select.look(), select.length), ((WaitOutcome::TimedOut, vec![]), length));
    select.put(0, &file, R);
    let members = [number_of(select.wake.as_fd()), number_of(file.as_fd())];
    assert_eq!(select.members(0), BTreeSet::from(members));
}

/// Notes c and d: which set shows what.
#[test]
fn hang_ups_show_to_readers_alone() {
    let _files_are_ours = no_children();
    let (reader, writer) = pipe().expect("a pipe");
    drop(writer);
    for (dirs, is_seen) in [(R, true), (W, false), (P, false), (R | P, true), (W | P, false)] {
        let mut select = select();
        assert_eq!(select.put(0, &reader, dirs).blind, !is_seen, "{dirs:?}");
        let due = if is_seen { vec![hint(0)] } else { vec![] };
        assert_eq!(select.look().1, due, "{dirs:?}");
        select.disarm(slot(0), reader.as_fd());
        assert_eq!(select.look(), (WaitOutcome::TimedOut, vec![]), "not even its hang-up");
    }
}

#[test]
fn urgent_data_is_an_exception() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = std::net::TcpStream::connect(listener.local_addr().expect("it is bound"));
    let (there, (here, _)) = (there.expect("it listens"), listener.accept().expect("a peer"));
    let mut select = select();
    select.put(0, &here, P);
    assert_eq!(
        select.look(),
        (WaitOutcome::TimedOut, vec![]),
        "it is writable, which is no exception"
    );
    let flags = nix::sys::socket::MsgFlags::MSG_OOB;
    nix::sys::socket::send(number_of(there.as_fd()) as i32, b"!", flags).expect("there is room");
    let mut out = Vec::new();
    let seen = Report::Partial(slot(0), PollBits::PRI);
    assert_eq!(select.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, [seen], "the set says what it is");
    select.put(0, &here, R | W | P);
    assert_eq!(select.look(), (WaitOutcome::Events, vec![seen]), "once, though it is writable too");
    select.put(0, &here, R | W);
    assert_eq!(select.look(), (WaitOutcome::Events, vec![hint(0)]), "nobody asks for it");
    let neighbour = eventfd(1);
    select.put(0, &here, P);
    select.put(1, &neighbour, R | P);
    assert_eq!(select.look().1, [seen, hint(1)], "each number has its own exception");
}

#[test]
fn a_source_ready_twice_is_one_report() {
    let (mut select, file) = (select(), eventfd(1));
    select.put(0, &file, R | W | P);
    let mut out = Vec::new();
    select.wait(Deadline::Now, &mut out).expect("a wait");
    assert_eq!(out, [hint(0)]);
}

#[test]
fn a_notification_is_no_report_and_comes_once() {
    let (mut select, file) = (select(), eventfd(1));
    select.put(0, &file, R);
    select.wake_handle().notify();
    select.wake_handle().notify();
    let mut out = Vec::new();
    assert_eq!(select.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, [hint(0)]);
    select.disarm(slot(0), file.as_fd());
    assert_eq!(select.look(), (WaitOutcome::TimedOut, vec![]));
    select.wake_handle().notify();
    out.clear();
    assert_eq!(select.wait(Deadline::Never, &mut out).expect("a wait"), WaitOutcome::Events);
    assert_eq!(out, []);
}

#[test]
fn a_notification_ends_a_wait_that_has_begun() {
    let mut select = select();
    let (handle, (mut here, mut there)) = (select.wake_handle(), UnixStream::pair().expect("two"));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            there.read_exact(&mut [0]).expect("a byte");
            handle.notify();
        });
        here.write_all(b"x").expect("there is room");
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
fn a_wait_lasts_until_its_deadline() {
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
