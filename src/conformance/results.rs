//! Clause C2: an operation returns the result of the plain system call in the same state.

use super::op_harness::*;
use super::scenarios::{self, CallScenario, SysCall};
use super::util::*;
use crate::event::Token;
use crate::op::{Address, Completion, Op, Outcome};
use crate::sys::staging::Thread;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{Backlog, listen};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;

/// Count of bytes moved, with the bytes received; or the error number.
type Answer = Result<(usize, Vec<u8>), i32>;

fn answer(done: Completion, call: &SysCall) -> Answer {
    match done.result {
        Ok(_) if call.receives() => Ok((done.transferred, done.buf.into_vec())),
        Ok(_) => Ok((done.transferred, Vec::new())),
        Err(error) => {
            assert_eq!(done.transferred, 0, "bytes were moved with an error: {error}");
            Err(error.raw_os_error().unwrap_or_else(|| panic!("no error number: {error}")))
        }
    }
}

/// Fails unless the operation returns what the plain call returns on a twin, whether it can proceed
/// when submitted or has to wait.
fn same_as_the_call(cx: &TestContext, make: fn() -> Vec<CallScenario>) {
    let count = make().len();
    for at in 0..count {
        let mut scenario = make().remove(at);
        let name = scenario.name;
        let _kept = scenario.trigger();
        let expected = scenario.call.call_directly(&scenario.source);
        for waits in [false, true] {
            let mut ops = OpHarness::new(cx);
            let mut scenario = make().remove(at);
            if waits && (scenario.is_ready() || !scenario.is_settled) {
                continue;
            }
            ops.label = name;
            let key = ops.add(scenario.source.clone());
            let mut kept = Vec::new();
            if !waits {
                kept = scenario.trigger();
            }
            ops.submit(scenario.call.op(key), 1);
            if waits {
                ops.expect_nothing_yet(name);
                kept = scenario.trigger();
            }
            let done = ops.next();
            let given = answer(done, &scenario.call);
            assert_eq!(given, expected, "{name}: operation and plain call differ (waits: {waits})");
            ops.expect_all_done(name);
            drop(kept);
        }
    }
}

pub(super) fn c2_pipe_operations_match_system_calls(cx: &TestContext) {
    same_as_the_call(cx, scenarios::pipes);
}

pub(super) fn c2_stream_operations_match_system_calls(cx: &TestContext) {
    same_as_the_call(cx, scenarios::unix_streams);
    same_as_the_call(cx, scenarios::tcp_streams);
}

pub(super) fn c2_datagram_operations_match_system_calls(cx: &TestContext) {
    same_as_the_call(cx, scenarios::unix_datagrams);
    same_as_the_call(cx, scenarios::udp);
    same_as_the_call(cx, scenarios::sequences);
}

pub(super) fn c2_connect_and_accept_match_system_calls(cx: &TestContext) {
    same_as_the_call(cx, scenarios::connects);
    same_as_the_call(cx, scenarios::accepts);
}

pub(super) fn c2_device_operations_match_system_calls(cx: &TestContext) {
    same_as_the_call(cx, scenarios::counters);
    same_as_the_call(cx, scenarios::terminals);
    same_as_the_call(cx, scenarios::files);
}

pub(super) fn c2_read_of_unreadable_file_matches_call(cx: &TestContext) {
    same_as_the_call(cx, scenarios::unreadable_files);
}

/// Returns true if an address equals the one that the standard library returns.
fn is_unix(from: Option<&Address>, expected: &UnixAddress) -> bool {
    let Some(Address::Unix(from)) = from else {
        // The kernel returns no address for an unnamed sender.
        return from.is_none() && expected.is_unnamed();
    };
    from.as_pathname() == expected.as_pathname()
        && from.as_abstract_name() == expected.as_abstract_name()
        && from.is_unnamed() == expected.is_unnamed()
}

fn sender(done: &Completion) -> Option<&Address> {
    match &done.result {
        Ok(Outcome::Received { from }) => from.as_ref(),
        other => panic!("expected a datagram with a sender, got {other:?}"),
    }
}

pub(super) fn c2_recv_from_returns_inet_sender(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(local) = UdpSocket::bind(at) else { continue };
        let to: SocketAddr = ok(local.local_addr());
        let key = ops.add(Arc::new(local));
        let senders: Vec<_> = (0..3).map(|_| ok(UdpSocket::bind(at))).collect();
        for late in [false, true] {
            for (token, peer) in senders.iter().enumerate() {
                if late {
                    ops.submit(Op::recv_from(key, Vec::new(), 2), token);
                    ops.expect_nothing_yet("no datagram was sent");
                }
                ok(peer.send_to(b"abc", to));
                if !late {
                    ops.submit(Op::recv_from(key, Vec::new(), 2), token);
                }
                let done = ops.next();
                let expected = ok(peer.local_addr());
                let from = sender(&done);
                let is_right = matches!(from, Some(Address::Inet(from)) if *from == expected);
                assert!(is_right, "{from:?} for {expected}");
                assert_eq!(bytes(done), (2, b"ab".to_vec()), "truncated to the requested length");
                // Reply by an operation.
                assert_eq!(bytes(ops.run(Op::send_to(key, "hello", 1..4, expected))).0, 3);
                let mut back = [0; 9];
                assert_eq!(ok(peer.recv_from(&mut back)), (3, to));
                assert_eq!(&back[..3], b"ell");
            }
        }
        if let SocketAddr::V6(v6) = to {
            assert_eq!(*v6.ip(), Ipv6Addr::LOCALHOST);
        }
    }
}

pub(super) fn c2_recv_from_returns_unix_sender(cx: &TestContext) {
    let directory = TempDir::new();
    let name = format!("quintpoll-from-{}", directory.0.display());
    let address = ok(UnixAddress::from_pathname(directory.0.join("here")));
    let mut ops = OpHarness::new(cx);
    let key = ops.add(Arc::new(ok(UnixDatagram::bind_addr(&address))));
    let path = ok(UnixAddress::from_pathname(directory.0.join("there")));
    let senders = [
        ok(UnixDatagram::bind_addr(&path)),
        ok(UnixDatagram::bind_addr(&ok(UnixAddress::from_abstract_name(&name)))),
        ok(UnixDatagram::bind_addr(&ok(UnixAddress::from_abstract_name(b"\0a\0quintpoll\0")))),
        ok(UnixDatagram::unbound()),
    ];
    for (token, peer) in senders.iter().enumerate() {
        ops.submit(Op::recv_from(key, vec![9], 100), token);
        ok(peer.send_to_addr(b"abc", &address));
        let (done, expected) = (ops.next(), ok(peer.local_addr()));
        assert!(is_unix(sender(&done), &expected), "{:?} for {expected:?}", done.result);
        assert_eq!(bytes(done), (3, b"\x09abc".to_vec()));
        if !expected.is_unnamed() {
            assert_eq!(bytes(ops.run(Op::send_to(key, "back", .., expected))).0, 4);
            let (mut back, addr) =
                ([0; 9], ok(UnixAddress::from_pathname(directory.0.join("here"))));
            let (count, from) = ok(peer.recv_from(&mut back));
            assert_eq!((count, from.as_pathname()), (4, addr.as_pathname()));
        }
    }
}

pub(super) fn c2_eventfd_write_waits_instead_of_overflowing(cx: &TestContext) {
    for blocking in [false, true] {
        let mut ops = OpHarness::new(cx);
        let counter = Arc::new(ok(EventFd::new()));
        let flags = if blocking { OFlag::empty() } else { OFlag::O_NONBLOCK };
        ok(fcntl(&*counter, FcntlArg::F_SETFL(flags)));
        let key = ops.add(counter.clone());
        ok(counter.write(u64::MAX - 3));
        ops.submit(Op::write(key, 3_u64.to_ne_bytes().to_vec(), ..), 1);
        ops.submit(Op::write(key, 5_u64.to_ne_bytes().to_vec(), ..), 2);
        ops.expect_nothing_yet("the write would overflow, though poll(2) reports POLLOUT");
        assert_eq!(ok(counter.read()), u64::MAX - 3);
        let done = ops.collect(2);
        assert_eq!([done[0].token, done[1].token], [Token(1), Token(2)]);
        done.into_iter().for_each(|done| assert_eq!(bytes(done).0, 8));
        assert_eq!(ok(counter.read()), 8, "both writes, each once");
        ops.expect_all_done("two writes");
    }
}

pub(super) fn c2_connect_waits_while_backlog_is_full(cx: &TestContext) {
    let directory = TempDir::new();
    let address = ok(UnixAddress::from_pathname(directory.0.join("listener")));
    let listener = ok(UnixListener::bind_addr(&address));
    ok(listen(&listener, ok(Backlog::new(0))));
    let _first = ok(UnixStream::connect_addr(&address));
    let mut ops = OpHarness::new(cx);
    for blocking in [false, true] {
        let socket = Arc::new(scenarios::unconnected_unix_stream(blocking));
        let key = ops.add(socket);
        ops.submit(Op::connect(key, address.clone()), 1);
        ops.submit(Op::send_all(key, "hello", ..), 2);
        ops.expect_nothing_yet("the listen backlog is full");
        drop(ok(listener.accept()));
        let done = ops.collect(2);
        assert_eq!([done[0].token, done[1].token], [Token(1), Token(2)]);
        let results: Vec<_> = done.into_iter().map(|done| bytes(done).0).collect();
        assert_eq!(results, [0, 5]);
    }
    let (last, _) = ok(listener.accept());
    assert_eq!(take(&last, 9), 5);
}

/// Returns a datagram socket with a full receive queue, and its address.
fn full_queue(directory: &TempDir) -> (UnixDatagram, UnixAddress) {
    let address = ok(UnixAddress::from_pathname(directory.0.join("full")));
    let full = ok(UnixDatagram::bind_addr(&address));
    ok(full.set_nonblocking(true));
    let filler = ok(UnixDatagram::unbound());
    ok(filler.set_nonblocking(true));
    while filler.send_to_addr(b"x", &address).is_ok() {}
    (full, address)
}

/// An unconnected socket is always POLLOUT: poll(2) does not check the queue of the destination.
pub(super) fn c2_datagram_waits_while_receiver_queue_is_full(cx: &TestContext) {
    for (blocking, connected) in [(false, false), (true, false), (false, true), (true, true)] {
        let directory = TempDir::new();
        let (full, address) = full_queue(&directory);
        let local = ok(UnixDatagram::unbound());
        ok(local.set_nonblocking(!blocking));
        if connected {
            ok(local.connect_addr(&address));
        }
        let mut ops = OpHarness::new(cx);
        let key = ops.add(Arc::new(local));
        for (token, text) in [(1, "first"), (2, "second")] {
            let to = address.clone();
            let plain = if token == 1 { Op::send(key, text, ..) } else { Op::write(key, text, ..) };
            let op = if connected { plain } else { Op::send_to(key, text, .., to) };
            ops.submit(op, token);
        }
        ops.expect_nothing_yet("the receive queue is full");
        let thread = Thread::current();
        let reader = std::thread::spawn(move || {
            let usage = CpuUsage::of(thread.id());
            ok(full.set_nonblocking(false));
            let mut texts = Vec::new();
            while texts.last().is_none_or(|last| last != b"second") {
                let mut text = [0; 16];
                let count = ok(full.recv(&mut text));
                texts.push(text[..count].to_vec());
            }
            (usage, texts)
        });
        let done = ops.collect(2);
        assert_eq!([done[0].token, done[1].token], [Token(1), Token(2)]);
        let sent: Vec<_> = done.into_iter().map(|done| bytes(done).0).collect();
        let (usage, texts) = reader.join().unwrap_or_else(|_| panic!("the reading thread failed"));
        usage.expect_sleep("a datagram that waits for room");
        let mine: Vec<_> = texts.into_iter().filter(|text| text != b"x").collect();
        let expected = [&b"first"[..], b"second"];
        assert_eq!(
            mine, expected,
            "one datagram each, connected: {connected}, blocking: {blocking}"
        );
        assert_eq!(sent, [5, 6], "connected: {connected}, blocking: {blocking}");
    }
}

/// No wake-up reaches the waiting socket when another sender's datagram is read.
pub(super) fn c2_each_datagram_waits_for_queue_space(cx: &TestContext) {
    let directory = TempDir::new();
    let (full, address) = full_queue(&directory);
    let local = ok(UnixDatagram::unbound());
    ok(local.set_nonblocking(true));
    let mut ops = OpHarness::new(cx);
    let key = ops.add(Arc::new(local));
    for token in 0..4 {
        ops.submit(Op::send_to(key, "mine", .., address.clone()), token);
    }
    for token in 0..4 {
        ops.expect_nothing_yet("the receive queue is full");
        let mut text = [0; 16];
        assert_eq!((ok(full.recv(&mut text)), text[0]), (1, b'x'), "another sender's");
        let done = ops.next();
        assert_eq!((done.token, bytes(done).0), (Token(token), 4));
    }
    ops.expect_all_done("four datagrams");
}

/// When a queue filled by other senders gets room, no wake-up reaches this socket, which is always
/// POLLOUT. The case also covers a datagram that really had to wait before.
pub(super) fn c2_datagram_is_sent_after_foreign_datagrams_drain(cx: &TestContext) {
    let directory = TempDir::new();
    let (full, to_full) = full_queue(&directory);
    let to_other = ok(UnixAddress::from_pathname(directory.0.join("other")));
    let other = ok(UnixDatagram::bind_addr(&to_other));
    ok(other.set_nonblocking(true));
    let local = ok(UnixDatagram::unbound());
    ok(local.set_nonblocking(true));
    while local.send_to_addr(&[0; 50_000], &to_other).is_ok() {}
    let mut ops = OpHarness::new(cx);
    let key = ops.add(Arc::new(local));
    ops.submit(Op::send_to(key, "one", .., to_other), 1);
    ops.expect_nothing_yet("the send buffer is full");
    while other.recv(&mut [0; 50_000]).is_ok() {}
    assert_eq!(bytes(ops.next()).0, 3);
    ops.submit(Op::send_to(key, "two", .., to_full), 2);
    ops.expect_nothing_yet("the receive queue is full");
    assert_eq!(ok(full.recv(&mut [0; 16])), 1, "another sender's");
    assert_eq!(bytes(ops.next()).0, 3);
}

fn broken_ends() -> Vec<(&'static str, CallScenario)> {
    let broken = |scenario: CallScenario| (scenario.name, scenario);
    let scenarios = [
        scenarios::pipes(),
        scenarios::unix_streams(),
        scenarios::tcp_streams(),
        scenarios::sequences(),
    ];
    scenarios
        .into_iter()
        .flatten()
        .filter(|scenario| !scenario.call.receives())
        .map(broken)
        .collect()
}

/// Every kind of write to a closed reader, in a process that SIGPIPE would end.
pub(super) fn c2_operations_raise_no_sigpipe(cx: &TestContext) {
    let_sigpipe_end_the_process();
    let mut broken = 0;
    for (name, mut scenario) in broken_ends() {
        let mut ops = OpHarness::new(cx);
        let key = ops.add(scenario.source.clone());
        let _kept = scenario.trigger();
        for again in [false, true] {
            ops.submit(scenario.call.op(key), 1);
            let done = ops.next();
            broken += i32::from(done.result.is_err() && errno(&done) == libc::EPIPE);
            assert!(!done.is_canceled(), "{name}, {again}");
            if done.result.is_ok() {
                // There may be no room for a second one.
                break;
            }
        }
    }
    assert!(broken > 8, "only {broken} operations failed with EPIPE");
    let (local, peer) = stream();
    let mut ops = OpHarness::new(cx);
    let key = ops.add(local);
    fill(ok(peer.try_clone()));
    ops.submit(Op::shutdown(key, Shutdown::Write), 1);
    for (token, op) in [Op::send_all(key, "x", ..), Op::write(key, "x", ..)].into_iter().enumerate()
    {
        ops.submit(op, token + 2);
    }
    let done = ops.collect(3);
    assert!(done[0].result.is_ok(), "{:?}", done[0]);
    assert_eq!([errno(&done[1]), errno(&done[2])], [libc::EPIPE; 2]);
    let listener = ok(TcpListener::bind("127.0.0.1:0"));
    let key = ops.add(Arc::new(listener));
    assert_eq!(errno(&ops.run(Op::write(key, "x", ..))), libc::EPIPE, "a listener");
    let (local, peer) = stream();
    drop(peer);
    let key = ops.add(local);
    assert_eq!(
        errno(&ops.run(Op::write_at(key, "", .., 0))),
        libc::ESPIPE,
        "a socket has no offsets"
    );
    assert_eq!(
        errno(&ops.run(Op::write(key, "", ..))),
        libc::EPIPE,
        "an empty write to a closed peer"
    );
}
