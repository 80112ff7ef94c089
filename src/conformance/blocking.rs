//! Clause C7: no operation blocks the thread, even on blocking files; file status flags are
//! restored on deregistration.
//!
//! A submission or a zero-timeout wait that blocks is caught by the case's watchdog, since only
//! later steps could end it.

use super::op_harness::*;
use super::scenarios::{
    self, CallScenario, SysCall, fill_restoring_mode, new_socket, set_blocking,
};
use super::util::*;
use crate::op::{Op, Outcome};
use crate::poller::Source;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Backlog, SockType, listen};
use nix::sys::stat::Mode as Permissions;
use nix::sys::termios;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::sync::Arc;

/// Returns the file status flags without `O_ASYNC`, which a poller may set on registered files.
fn flags_of(file: impl AsFd) -> OFlag {
    OFlag::from_bits_retain(ok(fcntl(file, FcntlArg::F_GETFL))) - OFlag::O_ASYNC
}

/// Scenarios on blocking files in which the call has to wait.
fn waiting() -> Vec<CallScenario> {
    let all = [
        scenarios::pipes,
        scenarios::unix_streams,
        scenarios::tcp_streams,
        scenarios::unix_datagrams,
        scenarios::udp,
        scenarios::sequences,
        scenarios::accepts,
        scenarios::counters,
        scenarios::terminals,
    ];
    let mut scenarios: Vec<_> = all.into_iter().flat_map(|some| some()).collect();
    scenarios.retain(|scenario| !scenario.is_ready() && scenario.is_settled);
    scenarios.iter().for_each(|scenario| set_blocking(&scenario.source, true));
    scenarios
}

fn is_socket(source: &Source) -> bool {
    nix::sys::stat::fstat(source).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFSOCK)
}

/// Runs all scenarios, then ends the registrations with `end`.
fn run_all(cx: &TestContext, end: impl Fn(OpHarness, &[crate::key::Key])) {
    let mut ops = OpHarness::with_capacity(cx, 1000);
    let (mut scenarios, mut keys, mut kept) = (waiting(), Vec::new(), Vec::new());
    let sources: Vec<_> = scenarios.iter().map(|scenario| scenario.source.clone()).collect();
    for (token, scenario) in scenarios.iter().enumerate() {
        let key = ops.add(scenario.source.clone());
        ops.submit(scenario.call.op(key), token);
        keys.push(key);
    }
    ops.expect_nothing_yet("every call would block");
    for scenario in &scenarios {
        let is_plain = is_socket(&scenario.source) && !matches!(scenario.call, SysCall::Accept);
        let flags = flags_of(&scenario.source);
        let is_kept = !flags.contains(OFlag::O_NONBLOCK);
        assert!(!is_plain || is_kept, "{}: sockets need no O_NONBLOCK", scenario.name);
    }
    for (token, scenario) in scenarios.iter_mut().enumerate() {
        kept.push(scenario.trigger());
        ops.label = scenario.name;
        assert_eq!(ops.next().token.0, token, "{}", scenario.name);
    }
    ops.expect_all_done("every call can proceed");
    // In flight or completed while the registrations end.
    for (token, (scenario, key)) in scenarios.iter().zip(&keys).enumerate() {
        ops.submit(scenario.call.op(*key), token);
    }
    ops.wait(ZERO);
    end(ops, &keys);
    for (scenario, source) in scenarios.iter().zip(&sources) {
        let flags = flags_of(source);
        assert!(
            !flags.contains(OFlag::O_NONBLOCK),
            "{}: O_NONBLOCK was not restored",
            scenario.name
        );
    }
}

pub(super) fn c7_blocking_files_do_not_block_operations(cx: &TestContext) {
    run_all(cx, |mut ops, keys| {
        keys.iter().for_each(|&key| ops.harness.deregister(key));
    });
}

pub(super) fn c7_poller_drop_restores_file_status_flags(cx: &TestContext) {
    run_all(cx, |ops, _| drop(ops));
}

pub(super) fn c7_nonblocking_files_stay_nonblocking(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let listener = Arc::new(ok(TcpListener::bind("127.0.0.1:0")));
    let (reader, writer) = pipe();
    let reader = Arc::new(reader);
    ok(listener.set_nonblocking(true));
    let before = [flags_of(&*listener), flags_of(&*reader)];
    let keys = [ops.add(listener.clone()), ops.add(reader.clone())];
    ops.submit(Op::accept(keys[0]), 0);
    ops.submit(Op::read(keys[1], vec![], 9), 1);
    ops.expect_nothing_yet("no connection and no data");
    let _client = ok(TcpStream::connect(ok(listener.local_addr())));
    ok(nix::unistd::write(&writer, b"x"));
    ops.collect(2);
    keys.into_iter().for_each(|key| ops.harness.deregister(key));
    assert_eq!(
        [flags_of(&*listener), flags_of(&*reader)],
        before,
        "the program had set O_NONBLOCK"
    );
}

pub(super) fn c7_blocking_fifo_does_not_block_operations(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("fifo");
    ok(nix::unistd::mkfifo(&path, Permissions::S_IRWXU));
    let open = || ok(std::fs::File::options().read(true).write(true).open(&path));
    let (local, peer) = (Arc::new(open()), open());
    let mut ops = OpHarness::new(cx);
    let key = ops.add(local.clone());
    ops.submit(Op::read(key, vec![], 9), 1);
    ops.expect_nothing_yet("nothing was written");
    ok(nix::unistd::write(&peer, b"hello"));
    assert_eq!(bytes(ops.next()).1, b"hello");
    fill_restoring_mode(&ok(peer.as_fd().try_clone_to_owned()));
    ops.submit(Op::write(key, "more", ..), 2);
    ops.expect_nothing_yet("the FIFO is full");
    // Make the calls on the other description non-blocking too.
    set_blocking(&peer, false);
    drain(&peer);
    assert_eq!(bytes(ops.next()).0, 4);
    ops.harness.deregister(key);
    assert!(!flags_of(&*local).contains(OFlag::O_NONBLOCK), "O_NONBLOCK was not restored");
}

/// FIFOs and terminals are often shared with other processes, such as a shell, which `O_NONBLOCK`
/// would disturb even after this process has exited. Waiting sets no flag. `deregister` closes
/// whatever the poller opened.
pub(super) fn c7_shared_fifos_and_terminals_stay_blocking(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("fifo");
    ok(nix::unistd::mkfifo(&path, Permissions::S_IRWXU));
    let open = |reads: bool, writes: bool, flags: OFlag| {
        let mut options = std::fs::File::options();
        options.read(reads).write(writes).custom_flags(flags.bits());
        Arc::new(ok(options.open(&path)))
    };
    let both = open(true, true, OFlag::empty());
    let [reader, writer] = [(true, false), (false, true)].map(|(r, w)| open(r, w, OFlag::empty()));
    let other = open(false, true, OFlag::O_NONBLOCK);
    let terminal = ok(nix::pty::openpty(None, None));
    let slave = Arc::new(terminal.slave);
    let (socket, peer) = stream();
    let mut ops = OpHarness::new(cx);
    ops.label = "a FIFO or a terminal";
    let keys = [&both, &reader, &writer].map(|file| ops.add(file.clone()));
    let [key_of_slave, key_of_socket] = [ops.add(slave.clone()), ops.add(socket)];
    let before = open_fds();
    let sources: [&dyn AsFd; 4] = [&both, &reader, &writer, &slave];
    let flags = sources.map(flags_of);
    let expect_same = |what: &str| assert_eq!(sources.map(flags_of), flags, "{what}");
    for round in 0..2 {
        for (token, op) in [Op::read(keys[0], vec![], 4), Op::read(keys[1], vec![], 4)]
            .into_iter()
            .chain([Op::read(key_of_slave, vec![], 4)])
            .enumerate()
        {
            ops.submit(op, token);
            ops.expect_nothing_yet("nothing was written");
            expect_same("a read that waits");
            let to: &dyn AsFd = if token == 2 { &terminal.master } else { &other };
            ok(nix::unistd::write(to, b"abc\n"));
            let done = ops.next();
            assert_eq!((done.token.0, bytes(done).1), (token, b"abc\n".to_vec()), "round {round}");
        }
        fill(&other);
        ops.submit(Op::write(keys[2], b"more".to_vec(), ..), 3);
        ops.submit(Op::splice(key_of_socket, keys[0], 100), 4);
        ops.expect_nothing_yet("the FIFO is full and the socket empty");
        put(&peer, b"data");
        expect_same("a write that waits, and a splice");
        ops.submit(Op::splice(keys[1], key_of_socket, 1 << 20), 5);
        ops.collect(3);
        expect_same("all operations have completed");
        let emptied = open(true, false, OFlag::O_NONBLOCK);
        while nix::unistd::read(&*emptied, &mut [0; 4096]).is_ok() {}
        drop(emptied);
        drain(&peer);
    }
    keys.into_iter().chain([key_of_slave]).for_each(|key| ops.harness.deregister(key));
    assert_eq!(open_fds(), before, "a descriptor was left open");
    expect_same("nothing is registered");
}

pub(super) fn c7_huge_send_does_not_block(cx: &TestContext) {
    const LENGTH: usize = 1 << 24;
    let (listener, local) = tcp_listener_and_client();
    let (peer, _) = ok(listener.accept());
    set_blocking(&local, true);
    let mut ops = OpHarness::new(cx);
    let key = ops.add(local.clone());
    ops.submit(Op::send_all(key, vec![1; LENGTH], ..), 1);
    ops.expect_nothing_yet("the send buffer is full");
    assert!(!flags_of(&*local).contains(OFlag::O_NONBLOCK), "sockets need no O_NONBLOCK");
    let reader = std::thread::spawn(move || {
        let mut peer = peer;
        let mut all = vec![0; LENGTH];
        ok(std::io::Read::read_exact(&mut peer, &mut all));
    });
    assert_eq!(bytes(ops.next()).0, LENGTH);
    assert!(reader.join().is_ok(), "all bytes were received");
    assert!(!flags_of(&*local).contains(OFlag::O_NONBLOCK), "O_NONBLOCK was not restored");
}

pub(super) fn c7_connect_on_blocking_socket_does_not_block(cx: &TestContext) {
    let directory = TempDir::new();
    let address = ok(UnixAddress::from_pathname(directory.0.join("listener")));
    let listener = ok(UnixListener::bind_addr(&address));
    ok(listen(&listener, ok(Backlog::new(0))));
    let _first = ok(UnixStream::connect_addr(&address));
    let mut ops = OpHarness::new(cx);
    let local = Arc::new(new_socket(AddressFamily::Unix, SockType::Stream));
    let key = ops.add(local.clone());
    ops.submit(Op::connect(key, address), 1);
    ops.expect_nothing_yet("the listen backlog is full");
    drop(ok(listener.accept()));
    assert_eq!(bytes(ops.next()).0, 0);
    ops.harness.deregister(key);
    assert!(!flags_of(&*local).contains(OFlag::O_NONBLOCK), "O_NONBLOCK was not restored");
    drop(ok(listener.accept()));
}

/// A terminal accepts what its buffer holds, and the rest when the other end reads.
pub(super) fn c7_full_terminal_does_not_block_writes(cx: &TestContext) {
    const LENGTH: usize = 1 << 16;
    let pair = ok(nix::pty::openpty(None, None));
    let mut raw = ok(termios::tcgetattr(&pair.slave));
    termios::cfmakeraw(&mut raw);
    ok(termios::tcsetattr(&pair.slave, termios::SetArg::TCSANOW, &raw));
    let local = Arc::new(pair.slave);
    let mut ops = OpHarness::new(cx);
    let key = ops.add(local.clone());
    ops.submit(Op::read(key, Vec::new(), 8), 1);
    let (mut written, mut tries) = (0, 0);
    let waiting = loop {
        tries += 1;
        assert!(tries < LENGTH, "the terminal never fills");
        let id = ops.submit(Op::write(key, vec![b'x'; LENGTH], ..), 2);
        ops.wait(ZERO);
        if ops.left() == 2 && ops.harness.events.completed() == 0 {
            break id;
        }
        written += bytes(ops.next()).0;
    };
    ops.cancel(waiting);
    assert_eq!(errno(&ops.next()), libc::ECANCELED);
    let mut reader = std::fs::File::from(pair.master);
    ok(std::io::Read::read_exact(&mut reader, &mut vec![0; written]));
    ok(std::io::Write::write_all(&mut reader, b"line"));
    assert_eq!(bytes(ops.next()), (4, b"line".to_vec()));
    ops.harness.deregister(key);
    assert!(!flags_of(&*local).contains(OFlag::O_NONBLOCK), "O_NONBLOCK was not restored");
}

/// Flags restored by one poller must still work for another.
pub(super) fn c7_pollers_may_share_a_blocking_file(cx: &TestContext) {
    for by_drop in [false, true] {
        let listener = Arc::new(ok(TcpListener::bind("127.0.0.1:0")));
        let address = ok(listener.local_addr());
        let (reader, writer) = ok(nix::unistd::pipe());
        let reader = Arc::new(reader);
        let mut harnesses = [OpHarness::new(cx), OpHarness::new(cx)];
        let mut keys = Vec::new();
        for ops in &mut harnesses {
            let accepts = ops.add(listener.clone());
            let reads = ops.add(reader.clone());
            ops.submit(Op::accept(accepts), 1);
            ops.submit(Op::read(reads, vec![], 1), 2);
            ops.expect_nothing_yet("no connection and no data");
            keys.push([accepts, reads]);
        }
        let [mut one, mut other] = harnesses;
        if by_drop {
            drop(one);
        } else {
            keys[0].into_iter().for_each(|key| one.harness.deregister(key));
            assert!(one.collect(2).iter().all(|done| done.is_canceled()));
        }
        // Another reader takes the data first, unless the kernel has already completed the
        // operation.
        ok(nix::unistd::write(&writer, b"a"));
        let stolen_byte =
            take_nonblocking(&*reader, || nix::unistd::read(&reader, &mut [0; 1]).is_ok());
        let first = ok(TcpStream::connect(address));
        let stolen = take_nonblocking(&*listener, || listener.accept().is_ok());
        if stolen_byte && stolen {
            other.expect_nothing_yet("the data was taken by another reader");
        }
        let second = stolen_byte.then(|| ok(nix::unistd::write(&writer, b"b")));
        let third = stolen.then(|| ok(TcpStream::connect(address)));
        let done = other.collect(2);
        let results: Vec<_> = done.iter().map(|done| &done.result).collect();
        assert!(results.iter().all(|result| result.is_ok()), "{results:?}");
        let accepted = done.iter().any(|done| matches!(done.result, Ok(Outcome::Accepted { .. })));
        assert!(accepted, "{done:?}");
        drop((first, second, third));
        keys[1].into_iter().for_each(|key| other.harness.deregister(key));
        for file in [listener.as_fd(), reader.as_fd()] {
            assert!(!flags_of(file).contains(OFlag::O_NONBLOCK), "O_NONBLOCK was not restored");
        }
    }
}

/// Takes data without blocking and restores blocking mode; returns true on success.
fn take_nonblocking(file: impl AsFd, take: impl FnOnce() -> bool) -> bool {
    set_blocking(&file, false);
    let taken = take();
    set_blocking(&file, true);
    taken
}
