//! Files of every kind, and random scripts over some of them.

use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket, socketpair};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs::File as Named;
use std::net::{TcpListener, TcpStream, UdpSocket};

/// A file, what it is armed for, whether it signals that, and what has to stay open meanwhile.
type Case = (&'static str, OwnedFd, Interest, bool, Option<OwnedFd>);

fn tcp() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = TcpStream::connect(listener.local_addr().expect("it is bound"));
    let (here, there) = (listener.accept().expect("a peer").0, there.expect("it listens"));
    here.set_nonblocking(true).expect("a socket");
    (here.into(), there.into())
}

fn udp(address: &str) -> Option<OwnedFd> {
    UdpSocket::bind(address).ok().map(OwnedFd::from)
}

fn files_that_signal() -> Vec<Case> {
    // Signals say nothing that only a writer wants to know.
    let (mut cases, all) = (Vec::<Case>::new(), R | W | P);
    for dirs in [R, W, P, R | W, all] {
        let ((reader, writer), (tcp_here, tcp_there)) = (pipe(), tcp());
        cases.push(("pipe to read", reader, dirs, dirs != W, dup(&writer).ok()));
        cases.push(("pipe to write", writer, dirs, dirs != W, None));
        cases.push(("TCP", tcp_here, dirs, dirs != W, Some(tcp_there)));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        cases.push(("listener", listener.into(), dirs, dirs != W, None));
        cases.push(("UDP", udp("127.0.0.1:0").expect("a port"), dirs, dirs != W, None));
        cases.extend(udp("[::1]:0").map(|fd| ("UDP 6", fd, dirs, dirs != W, None)));
        for (name, kind) in [
            ("unix stream", SockType::Stream),
            ("unix datagrams", SockType::Datagram),
            ("unix packets", SockType::SeqPacket),
        ] {
            let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
            let (here, there) = pair.expect("a pair");
            cases.push((name, here, dirs, dirs != W, Some(there)));
        }
    }
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("an inotify");
    cases.push(("inotify", inotify.into(), R, true, None));
    cases
}

fn files_that_do_not() -> Vec<Case> {
    let mut cases = Vec::<Case>::new();
    for dirs in [R, W, P, R | W] {
        let mut push = |name, fd| cases.push((name, fd, dirs, false, None));
        push("eventfd", eventfd(1));
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty());
        push("timerfd", timer.expect("a timer").into());
        let epoll = nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC;
        push("epoll", nix::sys::epoll::Epoll::new(epoll).expect("an epoll").0);
        push("signalfd", sigio().signals.signalfd().try_clone_to_owned().expect("a copy"));
        push("null", Named::open("/dev/null").expect("every Linux has it").into());
        push("regular file", Named::open("/proc/self/exe").expect("it runs").into());
        push("folder", Named::open("/").expect("every Linux has it").into());
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        push("terminal, near", pty.master);
        push("terminal, far", pty.slave);
        let cloexec = SockFlag::SOCK_CLOEXEC;
        let route = SockProtocol::NetlinkRoute;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, cloexec, route);
        push("netlink", netlink.expect("every Linux has it"));
        // These need a privilege.
        if let Ok(packets) = socket(AddressFamily::Packet, SockType::Raw, cloexec, None) {
            push("packet socket", packets);
        }
        let icmp = SockProtocol::Icmp;
        if let Ok(raw) = socket(AddressFamily::Inet, SockType::Raw, cloexec, icmp) {
            push("raw socket", raw);
        }
    }
    cases
}

#[test]
fn each_kind_signals_or_stands_in_the_side_set() {
    for (name, fd, dirs, is_loud, _peer) in
        files_that_signal().into_iter().chain(files_that_do_not())
    {
        let (mut sigio, before, case) = (sigio(), state(&fd), format!("{name} {dirs:?}"));
        for _ in 0..2 {
            let applied = sigio.watch(3, &fd, dirs);
            assert_eq!(applied, if is_loud { LOUD } else { MUTE }, "{case}");
            let beside = if is_loud { dirs & W } else { dirs };
            let entry = (fd.as_raw_fd(), PollBits::asked(beside));
            let entry = (!beside.is_empty()).then_some(entry);
            assert_eq!(sigio.side.entry_of(slot(3)), entry, "{case}");
            assert_eq!(sigio.side.is_empty(), beside.is_empty(), "{case}");
            assert_eq!(state(&fd), if is_loud { sigio.told(before) } else { before }, "{case}");
            sigio.disarm(slot(3), fd.as_fd());
            assert!(sigio.side.is_empty(), "{case}");
            assert_eq!(flags_of(&fd), before.2, "{case}");
        }
        sigio.watch(3, &fd, dirs);
        sigio.remove(slot(3), fd.as_fd());
        assert_eq!(state(&fd), before, "{case}");
        assert!(!sigio.side.knows(slot(3)) && sigio.files.get(slot(3)).is_none(), "{case}");
    }
}

/// Files that were told to signal do so, and of the others the side set tells.
#[test]
fn what_happens_to_a_file_is_heard() {
    let mut sigio = sigio();
    let heard = (WaitOutcome::Events, vec![hint(0)]);
    let ((reader, writer), (here, there), local) = (pipe(), tcp(), stream());
    for (reader, writer) in [(&reader, &writer), (&here, &there), (&local.0, &local.1)] {
        sigio.watch(0, reader, R);
        put(writer);
        assert_eq!(sigio.wait_until(late()), heard);
        sigio.remove(slot(0), reader.as_fd());
    }
    for (writer, reader) in [(&writer, &reader), (&here, &there), (&local.0, &local.1)] {
        nix::fcntl::fcntl(reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("an open file");
        fill(writer);
        assert_eq!(sigio.watch(0, writer, R | W), LOUD);
        sigio.look();
        fill(writer);
        // Of what is on its way through the network some may come late.
        let mut room = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
        while poll(&mut room, PollTimeout::ZERO) == Ok(0) {
            empty(reader);
        }
        let mut found = sigio.wait_until(late());
        found.1.dedup();
        assert_eq!(found, heard, "no fact, though the side set has seen it");
        sigio.remove(slot(0), writer.as_fd());
    }
    let (one, other) = (udp("127.0.0.1:0").expect("a port"), udp("127.0.0.1:0").expect("a port"));
    let (one, other) = (UdpSocket::from(one), UdpSocket::from(other));
    let twin = OwnedFd::from(one.try_clone().expect("a copy"));
    sigio.watch(0, &twin, R);
    other.send_to(b"x", one.local_addr().expect("it is bound")).expect("there is room");
    assert_eq!(sigio.wait_until(late()), heard);
}

#[test]
fn hang_ups_and_notes_are_heard() {
    let _files_are_ours = no_children();
    let mut sigio = sigio();
    let heard = (WaitOutcome::Events, vec![hint(0)]);
    for (reader, writer) in [pipe(), tcp(), stream()] {
        sigio.watch(0, &reader, R);
        drop(writer);
        assert_eq!(sigio.wait_until(late()), heard);
        sigio.remove(slot(0), reader.as_fd());
    }
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("an inotify");
    let file = tempfile::NamedTempFile::new().expect("a place for it");
    inotify.add_watch(file.path(), AddWatchFlags::IN_DELETE_SELF).expect("it was just made");
    let inotify = OwnedFd::from(inotify);
    sigio.watch(0, &inotify, R);
    file.close().expect("it was just made");
    assert_eq!(sigio.wait_until(late()), heard);
}

/// From reading to writing and back.
#[test]
fn a_change_of_directions_moves_a_file() {
    let ends = [stream(), tcp(), {
        let (reader, writer) = pipe();
        (writer, reader)
    }];
    for (here, _there) in &ends {
        let (mut sigio, before) = (sigio(), state(here));
        let room = Some((here.as_raw_fd(), PollBits::asked(W)));
        for (dirs, entry) in [(R, None), (R | W, room), (R | W | P, room), (P, None)] {
            assert_eq!(sigio.watch(0, here, dirs), LOUD);
            assert_eq!(sigio.side.entry_of(slot(0)), entry, "{dirs:?}");
            assert_eq!(state(here), sigio.told(before));
            let due = if entry.is_some() { (WaitOutcome::Events, vec![hint(0)]) } else { quiet() };
            assert_eq!(sigio.look(), due, "{dirs:?}: no fact, because there may be more");
        }
        for _ in 0..2 {
            assert_eq!(sigio.watch(0, here, W), MUTE, "signals say nothing to a writer");
            assert_eq!((flags_of(here), sigio.side.entry_of(slot(0))), (before.2, room));
            assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(0)]));
            assert_eq!(sigio.watch(0, here, R | W), LOUD);
            assert_eq!(state(here), sigio.told(before));
        }
        sigio.disarm(slot(0), here.as_fd());
        assert_eq!((flags_of(here), sigio.side.is_empty()), (before.2, true));
        assert_eq!(sigio.look(), quiet());
        sigio.watch(0, here, R | W);
        sigio.remove(slot(0), here.as_fd());
        assert_eq!((state(here), sigio.side.knows(slot(0))), (before, false));
        assert_eq!(sigio.look(), quiet());
        drop(sigio);
    }
}

/// The side set has both kinds in it: who signals is blurred, who does not is not, and neither is
/// what was reported before.
#[test]
fn only_what_signals_is_blurred() {
    let (mut sigio, (here, _there), side) = (sigio(), stream(), eventfd(1));
    assert_eq!((sigio.watch(0, &here, R | W), sigio.watch(1, &side, R | W)), (LOUD, MUTE));
    let older = Report::Fact(slot(0), PollBits::PRI);
    let mut out = vec![older];
    assert_eq!(sigio.wait(Deadline::Now, &mut out).expect("a wait"), WaitOutcome::Events);
    let out: Vec<_> = out.into_iter().map(plain).collect();
    assert_eq!(out, [older, hint(0), Report::Fact(slot(1), PollBits::IN | PollBits::OUT)]);
}

const SOURCES: usize = 5;

#[derive(Clone, Debug)]
enum Op {
    Arm(usize, Interest),
    Disarm(usize),
    Remove(usize),
    Put(usize),
    Empty(usize),
    Wait,
}

fn any_op() -> impl Strategy<Value = Op> {
    let dirs = (1..4_u8).prop_map(Interest::from_bits_truncate);
    prop_oneof![
        4 => (0..SOURCES, dirs).prop_map(|(at, dirs)| Op::Arm(at, dirs)),
        3 => (0..SOURCES).prop_map(Op::Disarm),
        2 => (0..SOURCES).prop_map(Op::Remove),
        4 => (0..SOURCES).prop_map(Op::Put),
        1 => (0..SOURCES).prop_map(Op::Empty),
        3 => Just(Op::Wait),
    ]
}

/// A file, the one to write to it by, and how it was; what it is armed for, and whether it has
/// signalled.
struct Source {
    file: OwnedFd,
    peer: OwnedFd,
    before: (Owner, i32, OFlag),
    /// Whether it can signal, as an eventfd can not.
    has_voice: bool,
    armed: Option<Interest>,
    has_been_loud: bool,
    is_known: bool,
}

impl Source {
    fn new((file, peer): (OwnedFd, OwnedFd), has_voice: bool) -> Self {
        let before = state(&file);
        Source { file, peer, before, has_voice, armed: None, has_been_loud: false, is_known: false }
    }

    fn is_loud(&self) -> bool {
        self.has_voice && self.armed.is_some_and(|dirs| dirs != W)
    }

    /// The directions for which it is in the side set.
    fn beside(&self) -> Interest {
        let armed = self.armed.unwrap_or_default();
        if self.has_voice { armed & W } else { armed }
    }

    /// What the side set has to say of it.
    fn seen(&self, at: usize) -> Option<Report> {
        let asked = PollBits::asked(self.beside());
        if asked.is_empty() {
            return None;
        }
        let flags = PollFlags::from_bits_truncate(asked.bits() as i16);
        let mut fds = [PollFd::new(self.file.as_fd(), flags)];
        poll(&mut fds, PollTimeout::ZERO).expect("one entry");
        let found = fds[0].revents().expect("known bits").bits() as u16;
        let fact = plain(Report::Fact(slot(at), PollBits::from_bits_retain(found)));
        (found != 0).then_some(if self.has_been_loud { hint(at) } else { fact })
    }

    fn check(&self, at: usize, sigio: &Sigio) {
        let (owner, signal, flags) = state(&self.file);
        match (self.armed, self.has_been_loud) {
            _ if self.is_loud() => assert_eq!((owner, signal, flags), sigio.told(self.before)),
            (_, true) => assert_eq!(flags, self.before.2, "{at}: silent"),
            (_, false) => assert_eq!((owner, signal, flags), self.before, "{at}: untouched"),
        }
        let entry = (self.file.as_raw_fd(), PollBits::asked(self.beside()));
        let entry = (!self.beside().is_empty()).then_some(entry);
        assert_eq!(sigio.side.entry_of(slot(at)), entry, "{at}");
    }
}

proptest! {
    #[test]
    fn files_and_slots_agree(ops in proptest::collection::vec(any_op(), 1..80)) {
        let mut sigio = sigio();
        let twins = |file: OwnedFd| (dup(&file).expect("a copy"), file);
        let mut sources = [
            Source::new(stream(), true),
            Source::new(stream(), true),
            Source::new(pipe(), true),
            Source::new(tcp(), true),
            Source::new(twins(eventfd(0)), false),
        ];
        // Numbers of which signals are queued.
        let mut queued = BTreeSet::new();
        for op in ops {
            match op {
                Op::Arm(at, dirs) => {
                    let source = &mut sources[at];
                    source.armed = Some(dirs);
                    source.is_known = true;
                    let is_loud = source.is_loud();
                    source.has_been_loud |= is_loud;
                    let applied = sigio.watch(at, &source.file, dirs);
                    assert_eq!(applied, if is_loud { LOUD } else { MUTE });
                }
                Op::Disarm(at) => {
                    sources[at].armed = None;
                    sigio.disarm(slot(at), sources[at].file.as_fd());
                }
                Op::Remove(at) => {
                    let source = &mut sources[at];
                    (source.armed, source.is_known) = (None, false);
                    source.has_been_loud = false;
                    sigio.remove(slot(at), source.file.as_fd());
                }
                Op::Put(at) => {
                    put(&sources[at].peer);
                    if flags_of(&sources[at].file).contains(OFlag::O_ASYNC) {
                        queued.insert(at);
                    }
                }
                Op::Empty(at) => {
                    // What fcntl(2) calls blocking may not be read empty.
                    if sources[at].before.2.contains(OFlag::O_NONBLOCK) {
                        empty(&sources[at].file);
                    }
                }
                Op::Wait => {
                    let mut found = sigio.look();
                    found.1.dedup();
                    let heard = |at: &usize| sources[*at].has_been_loud;
                    let mut due: Vec<_> = queued.iter().copied().filter(heard).map(hint).collect();
                    due.extend(sources.iter().enumerate().filter_map(|(at, its)| its.seen(at)));
                    due.sort_by_key(|raw| (raw.slot().index, !matches!(raw, Report::Hint(_))));
                    due.dedup();
                    queued.clear();
                    let is_due = !due.is_empty();
                    let wake = if is_due { WaitOutcome::Events } else { WaitOutcome::TimedOut };
                    assert_eq!(found, (wake, due));
                }
            }
            sources.iter().enumerate().for_each(|(at, source)| source.check(at, &sigio));
        }
        drop(sigio);
        sources.iter().for_each(|source| assert_eq!(state(&source.file), source.before));
    }
}

#[test]
fn whoever_has_heard_something_does_not_sleep_for_more() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut one, mut other, (here, there)) = (sigio(), sigio(), stream());
        other.watch(0, &here, R);
        put(&there);
        let heard = other.wait_until(Deadline::Never);
        raise(Signal::SIGIO).expect("it is blocked");
        let overflows = [one.look(), other.wait_until(Deadline::Never)];
        done.send((heard, overflows)).expect("the test waits for it");
    });
    let found = is_done.recv_timeout(Duration::from_secs(60)).expect("it sleeps on a report");
    let overflow = || (WaitOutcome::Overflow, vec![]);
    assert_eq!(found, ((WaitOutcome::Events, vec![hint(0)]), [overflow(), overflow()]));
}
