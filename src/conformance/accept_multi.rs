//! Clause C8 for `accept_multi`: one result for each connection, then a last completion.

use super::op_harness::*;
use super::scenarios::{SysCall, new_socket};
use super::util::*;
use crate::event::{Events, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::Source;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockType, setsockopt, sockopt};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A listener, and how to connect to it.
struct Listening {
    name: &'static str,
    source: Source,
    connect: Box<dyn Fn() -> OwnedFd + Send>,
}

impl Listening {
    fn unix() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quintpoll-{}-accept-{number}", std::process::id());
        let name = ok(SocketAddr::from_abstract_name(name));
        let source = Arc::new(ok(UnixListener::bind_addr(&name)));
        let connect = move || ok(UnixStream::connect_addr(&name)).into();
        Listening { name: "unix", source, connect: Box::new(connect) }
    }

    fn tcp() -> Self {
        let listener = Arc::new(ok(TcpListener::bind("127.0.0.1:0")));
        let address = ok(listener.local_addr());
        let connect = move || {
            let made = ok(TcpStream::connect(address));
            // Closing with a reset keeps the ports of closed connections from running out.
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            ok(setsockopt(&made, sockopt::Linger, &reset));
            made.into()
        };
        Listening { name: "TCP", source: listener, connect: Box::new(connect) }
    }

    /// Connects and sends a number that identifies the client.
    fn connect(&self, number: u32) -> OwnedFd {
        let made = (self.connect)();
        assert_eq!(nix::unistd::write(&made, &number.to_ne_bytes()), Ok(4));
        made
    }

    fn all() -> [Listening; 2] {
        [Listening::unix(), Listening::tcp()]
    }
}

/// Returns the socket of one result.
fn socket_of(done: Completion) -> OwnedFd {
    match done {
        Completion { result: Ok(Outcome::Accepted { socket, peer: None }), more: true, .. } => {
            socket
        }
        other => panic!("expected a connection without a peer address, got {other:?}"),
    }
}

/// Returns the number that the client of this connection has sent.
fn client_number(socket: &OwnedFd) -> u32 {
    wait_until_kernel(socket, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
    let mut number = [0; 4];
    assert_eq!(nix::unistd::read(socket, &mut number), Ok(4), "the client's number");
    u32::from_ne_bytes(number)
}

fn accept_all(ops: &mut OpHarness, key: Key, token: usize) -> OpId {
    ops.submit_multishot(Op::accept_multi(key), token)
}

/// Returns the numbers of the next clients; their connections are closed.
fn next_client_numbers(ops: &mut OpHarness, count: usize) -> Vec<u32> {
    ops.collect(count).into_iter().map(|done| client_number(&socket_of(done))).collect()
}

pub(super) fn c8_accept_multi_accepts_each_client_in_order(cx: &TestContext) {
    for listener in Listening::all() {
        let mut ops = OpHarness::new(cx);
        ops.label = listener.name;
        let key = ops.add(listener.source.clone());
        let mut clients: Vec<OwnedFd> = (0..20).map(|number| listener.connect(number)).collect();
        let id = accept_all(&mut ops, key, 1);
        assert!(
            next_client_numbers(&mut ops, 20).into_iter().eq(0..20),
            "{}: queued connections",
            listener.name
        );
        ops.expect_nothing_yet("no connection is left");
        for burst in [20..21, 21..60, 60..90] {
            clients.extend(burst.clone().map(|number| listener.connect(number)));
            let numbers = next_client_numbers(&mut ops, burst.len());
            assert!(numbers.into_iter().eq(burst), "{}: each once, in order", listener.name);
        }
        ops.cancel(id);
        let last = ops.next();
        assert!(last.is_canceled() && !last.more, "{last:?}");
        clients.push(listener.connect(90));
        ops.expect_nothing_yet("accept_multi was cancelled");
        accept_all(&mut ops, key, 2);
        assert_eq!(next_client_numbers(&mut ops, 1), [90], "{}: still queued", listener.name);
    }
}

pub(super) fn c6_accept_multi_sockets_are_nonblock_cloexec(cx: &TestContext) {
    for listener in Listening::all() {
        let mut ops = OpHarness::new(cx);
        let key = ops.add(listener.source.clone());
        let early = listener.connect(0);
        accept_all(&mut ops, key, 1);
        let late = listener.connect(1);
        for done in ops.collect(2) {
            let socket = socket_of(done);
            let status = OFlag::from_bits_retain(ok(fcntl(&socket, FcntlArg::F_GETFL)));
            let fd_flags = FdFlag::from_bits_retain(ok(fcntl(&socket, FcntlArg::F_GETFD)));
            assert!(status.contains(OFlag::O_NONBLOCK), "{}: O_NONBLOCK", listener.name);
            assert!(fd_flags.contains(FdFlag::FD_CLOEXEC), "{}: close-on-exec", listener.name);
        }
        drop((early, late));
    }
}

pub(super) fn c3_accept_multi_keeps_its_queue_order(cx: &TestContext) {
    for listener in Listening::all() {
        let mut ops = OpHarness::new(cx);
        ops.label = listener.name;
        let key = ops.add(listener.source.clone());
        ops.submit(Op::accept(key), 0);
        let many = accept_all(&mut ops, key, 1);
        let queued = accept_all(&mut ops, key, 2);
        ops.submit(Op::accept(key), 3);
        ops.expect_nothing_yet("no connection is pending");
        ops.cancel(queued);
        let last = ops.next();
        assert!(last.id == queued && last.is_canceled(), "{last:?}");
        let clients: Vec<_> = (0..4).map(|number| listener.connect(number)).collect();
        let done = ops.collect(4);
        assert!(done.iter().map(|done| done.token.0).eq([0, 1, 1, 1]), "{done:?}");
        ops.cancel(many);
        let last = ops.next();
        assert!(last.id == many && last.is_canceled(), "{last:?}");
        ops.expect_nothing_yet("no connection is pending");
        let late = listener.connect(4);
        let done = ops.next();
        assert_eq!(done.token, Token(3), "the next operation in the queue: {done:?}");
        ops.expect_all_done("two accepts and two accept_multi");
        drop((clients, late));
    }
}

pub(super) fn c2_listener_shutdown_ends_accept_multi(cx: &TestContext) {
    for make in [Listening::unix, Listening::tcp] {
        for is_first in [true, false] {
            let (mut ops, listener) = (OpHarness::new(cx), make());
            ops.label = listener.name;
            let key = ops.add(listener.source.clone());
            if is_first {
                accept_all(&mut ops, key, 0);
                let client = listener.connect(7);
                assert_eq!(next_client_numbers(&mut ops, 1), [7]);
                ops.expect_nothing_yet("no connection is pending");
                drop(client);
            }
            let done = ops.submit(Op::shutdown(key, Shutdown::Both), 1);
            if !is_first {
                assert_eq!(ops.next().id, done);
                accept_all(&mut ops, key, 0);
            }
            for done in ops.collect(1 + usize::from(is_first)) {
                if done.token == Token(0) {
                    assert_eq!(errno(&done), libc::EINVAL, "{}: {is_first}", listener.name);
                }
            }
            ops.expect_all_done("the listener is shut down");
        }
    }
}

pub(super) fn c2_accept_multi_on_other_files_fails(cx: &TestContext) {
    let (reader, _writer) = pipe();
    let (connected, _peer) = tcp();
    let sources: [Source; 6] = [
        Arc::new(reader),
        Arc::new(ok(std::fs::File::open("/dev/null"))),
        connected,
        Arc::new(ok(UdpSocket::bind("127.0.0.1:0"))),
        Arc::new(new_socket(AddressFamily::Inet, SockType::Stream)),
        Arc::new(new_socket(AddressFamily::Unix, SockType::SeqPacket)),
    ];
    for (at, source) in sources.into_iter().enumerate() {
        let expected = SysCall::Accept.call_directly(&source).map(|_| ());
        let mut ops = OpHarness::new(cx);
        let key = ops.add(source);
        accept_all(&mut ops, key, 1);
        assert_eq!(Err(errno(&ops.next())), expected, "file {at}");
        ops.expect_all_done("accept_multi has failed");
    }
}

pub(super) fn x1_cancelled_accept_multi_loses_no_connection(cx: &TestContext) {
    for listener in Listening::all() {
        for moment in 0..8 {
            let (waits, has_results, is_deregistered) =
                (moment & 1 > 0, moment & 2 > 0, moment & 4 > 0);
            let mut ops = OpHarness::new(cx);
            ops.label = listener.name;
            let key = ops.add(listener.source.clone());
            let id = accept_all(&mut ops, key, 1);
            if waits {
                ops.expect_nothing_yet("no connection is pending");
            }
            let mut clients: Vec<_> = (0..3).map(|number| listener.connect(number)).collect();
            if has_results {
                ops.wait(LONG);
            }
            clients.extend((3..5).map(|number| listener.connect(number)));
            if is_deregistered {
                ops.harness.deregister(key)
            } else {
                ops.cancel(id)
            }
            let mut numbers = Vec::new();
            let last = loop {
                let done = ops.next();
                if !done.more {
                    break done;
                }
                numbers.push(client_number(&socket_of(done)));
            };
            assert!(last.is_canceled(), "{}: {last:?}", listener.name);
            ops.expect_all_done("accept_multi was cancelled");
            let mut other = OpHarness::new(cx);
            let key = other.add(listener.source.clone());
            accept_all(&mut other, key, 2);
            numbers.extend(next_client_numbers(&mut other, 5 - numbers.len()));
            assert_eq!(
                numbers,
                [0, 1, 2, 3, 4],
                "{}, {moment}: each once, in order",
                listener.name
            );
            other.expect_nothing_yet("no connection is left");
        }
    }
}

pub(super) fn x3_accept_multi_ends_at_its_deadline(cx: &TestContext) {
    const TIME: Duration = Duration::from_millis(40);
    for listener in Listening::all() {
        for connects in [false, true] {
            let mut ops = OpHarness::new(cx);
            ops.label = listener.name;
            let key = ops.add(listener.source.clone());
            let client = connects.then(|| listener.connect(1));
            let started = Instant::now();
            ops.submit_multishot(Op::accept_multi(key).deadline(TIME), 1);
            let mut last = ops.next();
            if last.more {
                assert!(connects, "no connection is pending: {last:?}");
                last = ops.next();
            }
            assert!(started.elapsed() >= TIME, "{}: not before the deadline", listener.name);
            let kind = last.result.as_ref().err().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::TimedOut), "{}: {last:?}", listener.name);
            ops.expect_all_done("the deadline has passed");
            drop(client);
        }
    }
}

/// Lowers the limit so that `count` more descriptors can be opened.
fn leave_free_fds(count: usize) {
    let open = open_fds();
    let free = (0..).filter(|number| !open.contains(number)).nth(count);
    let (_, hard) = ok(getrlimit(Resource::RLIMIT_NOFILE));
    // The limit is the first descriptor number that cannot be allocated.
    let soft = u64::try_from(free.unwrap_or(i32::MAX)).unwrap_or(hard);
    ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard));
}

pub(super) fn c8_accept_multi_resumes_after_emfile(cx: &TestContext) {
    for listener in Listening::all() {
        let mut ops = OpHarness::new(cx);
        ops.label = listener.name;
        let key = ops.add(listener.source.clone());
        ops.expect_nothing_yet("nothing was submitted");
        let (limit, _) = ok(getrlimit(Resource::RLIMIT_NOFILE));
        let clients: Vec<OwnedFd> = (0..10).map(|number| listener.connect(number)).collect();
        let mut numbers = Vec::new();
        for round in 0..2 {
            leave_free_fds(4);
            accept_all(&mut ops, key, round);
            let mut done = ops.collect(5);
            let last = done.pop().map(|last| (last.more, errno(&last)));
            assert_eq!(last, Some((false, libc::EMFILE)), "{}, round {round}", listener.name);
            ops.expect_all_done("accept_multi has ended");
            // The next connection is still queued, and a descriptor is free again.
            let sockets = done.into_iter().map(socket_of);
            numbers.extend(sockets.map(|socket| client_number(&socket)));
        }
        let (_, hard) = ok(getrlimit(Resource::RLIMIT_NOFILE));
        ok(setrlimit(Resource::RLIMIT_NOFILE, limit, hard));
        let id = accept_all(&mut ops, key, 2);
        numbers.extend(next_client_numbers(&mut ops, 2));
        assert!(numbers.into_iter().eq(0..10), "{}: each once, in order", listener.name);
        ops.expect_nothing_yet("no connection is left");
        ops.cancel(id);
        assert!(ops.next().is_canceled());
        drop(clients);
    }
}

pub(super) fn d2_untaken_accept_multi_sockets_are_closed(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    for round in 0..60 {
        let listener = if round % 2 == 0 { Listening::unix() } else { Listening::tcp() };
        let mut ops = OpHarness::with_capacity(cx, 4);
        let key = ops.add(listener.source.clone());
        let id = accept_all(&mut ops, key, 1);
        let clients: Vec<OwnedFd> = (0..12).map(|number| listener.connect(number)).collect();
        // Dropped with their completions, and with their `Events`.
        drop(ops.collect(round % 5));
        let mut events = Events::with_capacity(2);
        ok(ops.harness.poller.wait(&mut events, Some(LONG)));
        assert!(events.completed() > 0, "some connections were accepted");
        drop(events);
        // Undelivered connections are closed with the poller, whether or not the operation was
        // cancelled.
        match round % 3 {
            0 => ops.harness.deregister(key),
            1 => ok(ops.harness.poller.cancel(id)),
            _ => {}
        }
        let OpHarness { harness, .. } = ops;
        drop(harness);
        // Closing the listener resets the connections that were not accepted.
        drop(listener);
        for client in clients {
            wait_until_kernel(client, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLHUP));
        }
        assert_eq!(open_fds(), before, "round {round}: no descriptor is left open");
    }
}

/// Limit of open clients; clients connect and close continuously.
const MAX_CLIENTS: usize = 200;

fn run_clients(listener: &Listening, count: u32) {
    let mut clients: VecDeque<OwnedFd> = VecDeque::new();
    let wait_for_reply = |client: OwnedFd| {
        wait_until_kernel(client, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
    };
    for number in 0..count {
        let client = listener.connect(number);
        if number % 8 == 7 {
            // Some clients close before they are accepted.
            continue;
        }
        if clients.len() == MAX_CLIENTS {
            // A client closes once the server has written to it.
            clients.pop_front().into_iter().for_each(wait_for_reply);
        }
        clients.push_back(client);
    }
    clients.into_iter().for_each(wait_for_reply);
}

pub(super) fn c8_accept_multi_accepts_ten_thousand_clients(cx: &TestContext) {
    let listeners: [(fn() -> Listening, u32); 2] =
        [(Listening::unix, 10_000), (Listening::tcp, 2000)];
    drop(cx.poller());
    let before = open_fds();
    for (make, clients) in listeners {
        let (mut ops, listener) = (OpHarness::new(cx), make());
        ops.label = listener.name;
        let key = ops.add(listener.source.clone());
        let id = accept_all(&mut ops, key, 1);
        let name = listener.name;
        let client_thread = thread::spawn(move || run_clients(&listener, clients));
        let (mut next, mut lost) = (0, 0);
        for _ in 0..clients {
            let socket = socket_of(ops.next());
            let mut number = [0; 4];
            wait_until_kernel(&socket, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
            if nix::unistd::read(&socket, &mut number) != Ok(4) {
                // The reset may have discarded the bytes.
                lost += 1;
                continue;
            }
            let number = u32::from_ne_bytes(number);
            assert!(number >= next, "{name}: {number} is repeated or late, after {next}");
            next = number + 1;
            let replied = nix::unistd::write(&socket, b"!");
            assert!(
                replied == Ok(1) || number % 8 == 7,
                "{name}: {number} must still be connected"
            );
        }
        assert!(lost <= clients / 8, "{name}: {lost} connections without data");
        client_thread.join().unwrap_or_else(|_| panic!("the client thread failed"));
        ops.expect_nothing_yet("no connection is left");
        ops.cancel(id);
        assert!(ops.next().is_canceled(), "{name}: the last completion");
        drop(ops);
        assert_eq!(open_fds(), before, "{name}: no descriptor is left open");
    }
}
