//! Files of every type, and random scripts over some of them.

use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket, socketpair};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs::File as Named;
use std::net::{TcpListener, TcpStream, UdpSocket};

/// A file, the directions to arm, whether it signals them, and a descriptor to keep open.
type Case = (&'static str, OwnedFd, Interest, bool, Option<OwnedFd>);

fn tcp() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = TcpStream::connect(listener.local_addr().expect("a bound socket"));
    let (local, peer) = (listener.accept().expect("a peer").0, peer.expect("a connection"));
    local.set_nonblocking(true).expect("a socket");
    (local.into(), peer.into())
}

fn udp(address: &str) -> Option<OwnedFd> {
    UdpSocket::bind(address).ok().map(OwnedFd::from)
}

fn files_that_signal() -> Vec<Case> {
    // Signals are not relied on for writability.
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
            let (local, peer) = pair.expect("a pair");
            cases.push((name, local, dirs, dirs != W, Some(peer)));
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
        push("null", Named::open("/dev/null").expect("every Linux has one").into());
        push("regular file", Named::open("/proc/self/exe").expect("it runs").into());
        push("folder", Named::open("/").expect("every Linux has one").into());
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        push("terminal, master", pty.master);
        push("terminal, slave", pty.slave);
        let cloexec = SockFlag::SOCK_CLOEXEC;
        let route = SockProtocol::NetlinkRoute;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, cloexec, route);
        push("netlink", netlink.expect("every Linux has one"));
        // These sockets require privileges.
        if let Ok(packets) = socket(AddressFamily::Packet, SockType::Raw, cloexec, None) {
            push("packet socket", packets);
        }
        let icmp = SockProtocol::Icmp;
        if let Ok(report) = socket(AddressFamily::Inet, SockType::Raw, cloexec, icmp) {
            push("raw socket", report);
        }
    }
    cases
}

#[test]
fn file_types_signal_or_use_the_fallback_set() {
    for (name, fd, dirs, signals, _peer) in
        files_that_signal().into_iter().chain(files_that_do_not())
    {
        let (mut sigio, before, case) = (sigio(), state(&fd), format!("{name} {dirs:?}"));
        for _ in 0..2 {
            let applied = sigio.watch(3, &fd, dirs);
            assert_eq!(applied, if signals { SIGNALS } else { FALLBACK }, "{case}");
            let fallback_dirs = if signals { dirs & W } else { dirs };
            let entry = (fd.as_raw_fd(), PollBits::asked(fallback_dirs));
            let entry = (!fallback_dirs.is_empty()).then_some(entry);
            assert_eq!(sigio.fallback.entry_of(slot(3)), entry, "{case}");
            assert_eq!(sigio.fallback.is_empty(), fallback_dirs.is_empty(), "{case}");
            assert_eq!(state(&fd), if signals { sigio.claimed(before) } else { before }, "{case}");
            sigio.disarm(slot(3), fd.as_fd());
            assert!(sigio.fallback.is_empty(), "{case}");
            assert_eq!(flags_of(&fd), before.2, "{case}");
        }
        sigio.watch(3, &fd, dirs);
        sigio.remove(slot(3), fd.as_fd());
        assert_eq!(state(&fd), before, "{case}");
        assert!(!sigio.fallback.is_known(slot(3)) && sigio.files.get(slot(3)).is_none(), "{case}");
    }
}

/// Claimed files signal, and the fallback set reports the others.
#[test]
fn readiness_of_each_file_type_is_reported() {
    let mut sigio = sigio();
    let signalled = (WaitOutcome::Events, vec![hint(0)]);
    let ((reader, writer), (local, peer), unix) = (pipe(), tcp(), stream());
    for (reader, writer) in [(&reader, &writer), (&local, &peer), (&unix.0, &unix.1)] {
        sigio.watch(0, reader, R);
        put(writer);
        assert_eq!(sigio.wait_until(late()), signalled);
        sigio.remove(slot(0), reader.as_fd());
    }
    for (writer, reader) in [(&writer, &reader), (&local, &peer), (&unix.0, &unix.1)] {
        nix::fcntl::fcntl(reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("an open file");
        fill(writer);
        assert_eq!(sigio.watch(0, writer, R | W), SIGNALS);
        sigio.poll_now();
        fill(writer);
        // Bytes in transit may arrive late.
        let mut room = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
        while poll(&mut room, PollTimeout::ZERO) == Ok(0) {
            empty(reader);
        }
        let mut found = sigio.wait_until(late());
        found.1.dedup();
        assert_eq!(found, signalled, "a hint, although the fallback set has polled it");
        sigio.remove(slot(0), writer.as_fd());
    }
    let (one, other) = (udp("127.0.0.1:0").expect("a port"), udp("127.0.0.1:0").expect("a port"));
    let (one, other) = (UdpSocket::from(one), UdpSocket::from(other));
    let duplicate = OwnedFd::from(one.try_clone().expect("a copy"));
    sigio.watch(0, &duplicate, R);
    other.send_to(b"x", one.local_addr().expect("a bound socket")).expect("an empty queue");
    assert_eq!(sigio.wait_until(late()), signalled);
}

#[test]
fn hang_ups_and_inotify_events_are_reported() {
    let _files_are_ours = no_children();
    let mut sigio = sigio();
    let signalled = (WaitOutcome::Events, vec![hint(0)]);
    for (reader, writer) in [pipe(), tcp(), stream()] {
        sigio.watch(0, &reader, R);
        drop(writer);
        assert_eq!(sigio.wait_until(late()), signalled);
        sigio.remove(slot(0), reader.as_fd());
    }
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("an inotify");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    inotify.add_watch(file.path(), AddWatchFlags::IN_DELETE_SELF).expect("the new file");
    let inotify = OwnedFd::from(inotify);
    sigio.watch(0, &inotify, R);
    file.close().expect("the new file");
    assert_eq!(sigio.wait_until(late()), signalled);
}

/// Between reading and writing.
#[test]
fn changed_directions_move_a_file_between_sets() {
    let ends = [stream(), tcp(), {
        let (reader, writer) = pipe();
        (writer, reader)
    }];
    for (local, _peer) in &ends {
        let (mut sigio, before) = (sigio(), state(local));
        let room = Some((local.as_raw_fd(), PollBits::asked(W)));
        for (dirs, entry) in [(R, None), (R | W, room), (R | W | P, room), (P, None)] {
            assert_eq!(sigio.watch(0, local, dirs), SIGNALS);
            assert_eq!(sigio.fallback.entry_of(slot(0)), entry, "{dirs:?}");
            assert_eq!(state(local), sigio.claimed(before));
            let due = if entry.is_some() { (WaitOutcome::Events, vec![hint(0)]) } else { quiet() };
            assert_eq!(
                sigio.poll_now(),
                due,
                "{dirs:?}: a hint, because the file may be ready for more"
            );
        }
        for _ in 0..2 {
            assert_eq!(
                sigio.watch(0, local, W),
                FALLBACK,
                "signals are not relied on for writability"
            );
            assert_eq!((flags_of(local), sigio.fallback.entry_of(slot(0))), (before.2, room));
            assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![hint(0)]));
            assert_eq!(sigio.watch(0, local, R | W), SIGNALS);
            assert_eq!(state(local), sigio.claimed(before));
        }
        sigio.disarm(slot(0), local.as_fd());
        assert_eq!((flags_of(local), sigio.fallback.is_empty()), (before.2, true));
        assert_eq!(sigio.poll_now(), quiet());
        sigio.watch(0, local, R | W);
        sigio.remove(slot(0), local.as_fd());
        assert_eq!((state(local), sigio.fallback.is_known(slot(0))), (before, false));
        assert_eq!(sigio.poll_now(), quiet());
        drop(sigio);
    }
}

/// The fallback set contains both types: reports of signalling files become hints, and those of
/// others and earlier reports do not.
#[test]
fn only_facts_of_signalling_files_become_hints() {
    let (mut sigio, (local, _peer), fallback) = (sigio(), stream(), eventfd(1));
    assert_eq!(
        (sigio.watch(0, &local, R | W), sigio.watch(1, &fallback, R | W)),
        (SIGNALS, FALLBACK)
    );
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

/// A file with its peer, its original state, and the expected state of its slot.
struct Source {
    file: OwnedFd,
    peer: OwnedFd,
    before: (Owner, i32, OFlag),
    /// False for an eventfd, which cannot signal.
    can_signal: bool,
    armed: Option<Interest>,
    has_signalled: bool,
    is_known: bool,
}

impl Source {
    fn new((file, peer): (OwnedFd, OwnedFd), can_signal: bool) -> Self {
        let before = state(&file);
        Source {
            file,
            peer,
            before,
            can_signal,
            armed: None,
            has_signalled: false,
            is_known: false,
        }
    }

    fn signals(&self) -> bool {
        self.can_signal && self.armed.is_some_and(|dirs| dirs != W)
    }

    /// Returns the directions for which it is in the fallback set.
    fn fallback_dirs(&self) -> Interest {
        let armed = self.armed.unwrap_or_default();
        if self.can_signal { armed & W } else { armed }
    }

    /// Returns the expected report of the fallback set.
    fn seen(&self, at: usize) -> Option<Report> {
        let asked = PollBits::asked(self.fallback_dirs());
        if asked.is_empty() {
            return None;
        }
        let flags = PollFlags::from_bits_truncate(asked.bits() as i16);
        let mut fds = [PollFd::new(self.file.as_fd(), flags)];
        poll(&mut fds, PollTimeout::ZERO).expect("one entry");
        let found = fds[0].revents().expect("known bits").bits() as u16;
        let fact = plain(Report::Fact(slot(at), PollBits::from_bits_retain(found)));
        (found != 0).then_some(if self.has_signalled { hint(at) } else { fact })
    }

    fn check(&self, at: usize, sigio: &Sigio) {
        let (owner, signal, flags) = state(&self.file);
        match (self.armed, self.has_signalled) {
            _ if self.signals() => assert_eq!((owner, signal, flags), sigio.claimed(self.before)),
            (_, true) => assert_eq!(flags, self.before.2, "{at}: without O_ASYNC"),
            (_, false) => assert_eq!((owner, signal, flags), self.before, "{at}: untouched"),
        }
        let entry = (self.file.as_raw_fd(), PollBits::asked(self.fallback_dirs()));
        let entry = (!self.fallback_dirs().is_empty()).then_some(entry);
        assert_eq!(sigio.fallback.entry_of(slot(at)), entry, "{at}");
    }
}

proptest! {
    #[test]
    fn files_and_slots_agree(ops in proptest::collection::vec(any_op(), 1..80)) {
        let mut sigio = sigio();
        let duplicates = |file: OwnedFd| (dup(&file).expect("a copy"), file);
        let mut sources = [
            Source::new(stream(), true),
            Source::new(stream(), true),
            Source::new(pipe(), true),
            Source::new(tcp(), true),
            Source::new(duplicates(eventfd(0)), false),
        ];
        // Sources with queued signals.
        let mut queued = BTreeSet::new();
        for op in ops {
            match op {
                Op::Arm(at, dirs) => {
                    let source = &mut sources[at];
                    source.armed = Some(dirs);
                    source.is_known = true;
                    let signals = source.signals();
                    source.has_signalled |= signals;
                    let applied = sigio.watch(at, &source.file, dirs);
                    assert_eq!(applied, if signals { SIGNALS } else { FALLBACK });
                }
                Op::Disarm(at) => {
                    sources[at].armed = None;
                    sigio.disarm(slot(at), sources[at].file.as_fd());
                }
                Op::Remove(at) => {
                    let source = &mut sources[at];
                    (source.armed, source.is_known) = (None, false);
                    source.has_signalled = false;
                    sigio.remove(slot(at), source.file.as_fd());
                }
                Op::Put(at) => {
                    put(&sources[at].peer);
                    if flags_of(&sources[at].file).contains(OFlag::O_ASYNC) {
                        queued.insert(at);
                    }
                }
                Op::Empty(at) => {
                    // A read of an empty blocking file would block.
                    if sources[at].before.2.contains(OFlag::O_NONBLOCK) {
                        empty(&sources[at].file);
                    }
                }
                Op::Wait => {
                    let mut found = sigio.poll_now();
                    found.1.dedup();
                    let has_signalled = |at: &usize| sources[*at].has_signalled;
                    let queued_slots = queued.iter().copied().filter(has_signalled);
                    let mut due: Vec<_> = queued_slots.map(hint).collect();
                    let sources = sources.iter().enumerate();
                    due.extend(sources.filter_map(|(at, source)| source.seen(at)));
                    let order = |report: &Report| {
                        (report.slot().index, !matches!(report, Report::Hint(_)))
                    };
                    due.sort_by_key(order);
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
fn wait_returns_immediately_when_signals_are_pending() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut one, mut other, (local, peer)) = (sigio(), sigio(), stream());
        other.watch(0, &local, R);
        put(&peer);
        let signalled = other.wait_until(Deadline::Never);
        raise(Signal::SIGIO).expect("a blocked signal");
        let overflows = [one.poll_now(), other.wait_until(Deadline::Never)];
        done.send((signalled, overflows)).expect("the test receives");
    });
    let found =
        is_done.recv_timeout(Duration::from_secs(60)).expect("a wait with pending reports returns");
    let overflow = || (WaitOutcome::Overflow, vec![]);
    assert_eq!(found, ((WaitOutcome::Events, vec![hint(0)]), [overflow(), overflow()]));
}
