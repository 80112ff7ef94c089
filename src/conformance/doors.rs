//! Clause C8 where it accepts: one operation brings connection after connection, and then its last.

use super::bench::*;
use super::kit::*;
use super::scenes::{Do, new_socket};
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
struct Door {
    name: &'static str,
    source: Source,
    connect: Box<dyn Fn() -> OwnedFd + Send>,
}

impl Door {
    fn unix() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quintpoll-{}-doors-{number}", std::process::id());
        let name = ok(SocketAddr::from_abstract_name(name));
        let source = Arc::new(ok(UnixListener::bind_addr(&name)));
        let connect = move || ok(UnixStream::connect_addr(&name)).into();
        Door { name: "unix", source, connect: Box::new(connect) }
    }

    fn tcp() -> Self {
        let listener = Arc::new(ok(TcpListener::bind("127.0.0.1:0")));
        let address = ok(listener.local_addr());
        let connect = move || {
            let made = ok(TcpStream::connect(address));
            // Ports are not to be used up by connections that nobody has any more.
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            ok(setsockopt(&made, sockopt::Linger, &reset));
            made.into()
        };
        Door { name: "TCP", source: listener, connect: Box::new(connect) }
    }

    /// Somebody who knocks, and says which number he has.
    fn knock(&self, number: u32) -> OwnedFd {
        let made = (self.connect)();
        assert_eq!(nix::unistd::write(&made, &number.to_ne_bytes()), Ok(4));
        made
    }

    fn all() -> [Door; 2] {
        [Door::unix(), Door::tcp()]
    }
}

/// The socket that one result has brought.
fn socket_of(done: Completion) -> OwnedFd {
    match done {
        Completion { result: Ok(Outcome::Accepted { socket, peer: None }), more: true, .. } => {
            socket
        }
        other => panic!("one result is a connection, and its peer is not named: {other:?}"),
    }
}

/// What the client of this connection has said.
fn number_of(socket: &OwnedFd) -> u32 {
    fence(socket, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
    let mut number = [0; 4];
    assert_eq!(nix::unistd::read(socket, &mut number), Ok(4), "its number");
    u32::from_ne_bytes(number)
}

fn accept_all(bench: &mut Bench, key: Key, token: usize) -> OpId {
    bench.submit_stream(Op::accept_multi(key), token)
}

/// The numbers of the next clients, who are let go.
fn next_numbers(bench: &mut Bench, count: usize) -> Vec<u32> {
    bench.collect(count).into_iter().map(|done| number_of(&socket_of(done))).collect()
}

pub(super) fn c8_every_client_comes_once_and_in_order(stage: &Stage) {
    for door in Door::all() {
        let mut bench = Bench::new(stage);
        bench.about = door.name;
        let key = bench.add(door.source.clone());
        let mut clients: Vec<OwnedFd> = (0..20).map(|number| door.knock(number)).collect();
        let id = accept_all(&mut bench, key, 1);
        assert!(next_numbers(&mut bench, 20).into_iter().eq(0..20), "{}: early ones", door.name);
        bench.expect_nothing_yet("these were all");
        for burst in [20..21, 21..60, 60..90] {
            clients.extend(burst.clone().map(|number| door.knock(number)));
            let numbers = next_numbers(&mut bench, burst.len());
            assert!(numbers.into_iter().eq(burst), "{}: each once, in order", door.name);
        }
        bench.cancel(id);
        let last = bench.one();
        assert!(last.is_canceled() && !last.more, "{last:?}");
        clients.push(door.knock(90));
        bench.expect_nothing_yet("it is over");
        accept_all(&mut bench, key, 2);
        assert_eq!(next_numbers(&mut bench, 1), [90], "{}: it waits for the next", door.name);
    }
}

pub(super) fn c6_each_of_many_neither_blocks_nor_outlives_exec(stage: &Stage) {
    for door in Door::all() {
        let mut bench = Bench::new(stage);
        let key = bench.add(door.source.clone());
        let early = door.knock(0);
        accept_all(&mut bench, key, 1);
        let late = door.knock(1);
        for done in bench.collect(2) {
            let socket = socket_of(done);
            let status = OFlag::from_bits_retain(ok(fcntl(&socket, FcntlArg::F_GETFL)));
            let of_number = FdFlag::from_bits_retain(ok(fcntl(&socket, FcntlArg::F_GETFD)));
            assert!(status.contains(OFlag::O_NONBLOCK), "{}: it does not block", door.name);
            assert!(of_number.contains(FdFlag::FD_CLOEXEC), "{}: close-on-exec", door.name);
        }
        drop((early, late));
    }
}

pub(super) fn c3_who_accepts_many_takes_his_turn(stage: &Stage) {
    for door in Door::all() {
        let mut bench = Bench::new(stage);
        bench.about = door.name;
        let key = bench.add(door.source.clone());
        bench.submit(Op::accept(key), 0);
        let many = accept_all(&mut bench, key, 1);
        let queued = accept_all(&mut bench, key, 2);
        bench.submit(Op::accept(key), 3);
        bench.expect_nothing_yet("nobody knocks");
        bench.cancel(queued);
        let last = bench.one();
        assert!(last.id == queued && last.is_canceled(), "{last:?}");
        let clients: Vec<_> = (0..4).map(|number| door.knock(number)).collect();
        let done = bench.collect(4);
        assert!(done.iter().map(|done| done.token.0).eq([0, 1, 1, 1]), "{done:?}");
        bench.cancel(many);
        let last = bench.one();
        assert!(last.id == many && last.is_canceled(), "{last:?}");
        bench.expect_nothing_yet("nobody knocks");
        let late = door.knock(4);
        let done = bench.one();
        assert_eq!(done.token, Token(3), "who stands behind it: {done:?}");
        bench.expect_all_done("two, and two of many");
        drop((clients, late));
    }
}

pub(super) fn c2_to_shut_a_listener_down_ends_it(stage: &Stage) {
    for make in [Door::unix, Door::tcp] {
        for is_first in [true, false] {
            let (mut bench, door) = (Bench::new(stage), make());
            bench.about = door.name;
            let key = bench.add(door.source.clone());
            if is_first {
                accept_all(&mut bench, key, 0);
                let client = door.knock(7);
                assert_eq!(next_numbers(&mut bench, 1), [7]);
                bench.expect_nothing_yet("nobody knocks");
                drop(client);
            }
            let done = bench.submit(Op::shutdown(key, Shutdown::Both), 1);
            if !is_first {
                assert_eq!(bench.one().id, done);
                accept_all(&mut bench, key, 0);
            }
            for done in bench.collect(1 + usize::from(is_first)) {
                if done.token == Token(0) {
                    assert_eq!(errno(&done), libc::EINVAL, "{}: {is_first}", door.name);
                }
            }
            bench.expect_all_done("nobody can connect any more");
        }
    }
}

pub(super) fn c2_what_is_no_listener_says_so(stage: &Stage) {
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
        let expected = Do::Accept.plainly(&source).map(|_| ());
        let mut bench = Bench::new(stage);
        let key = bench.add(source);
        accept_all(&mut bench, key, 1);
        assert_eq!(Err(errno(&bench.one())), expected, "file {at}");
        bench.expect_all_done("it has failed");
    }
}

pub(super) fn x1_who_knocks_is_accepted_or_still_there(stage: &Stage) {
    for door in Door::all() {
        for moment in 0..8 {
            let (waits, has_come, is_deregistered) =
                (moment & 1 > 0, moment & 2 > 0, moment & 4 > 0);
            let mut bench = Bench::new(stage);
            bench.about = door.name;
            let key = bench.add(door.source.clone());
            let id = accept_all(&mut bench, key, 1);
            if waits {
                bench.expect_nothing_yet("nobody knocks");
            }
            let mut clients: Vec<_> = (0..3).map(|number| door.knock(number)).collect();
            if has_come {
                bench.wait(LONG);
            }
            clients.extend((3..5).map(|number| door.knock(number)));
            match is_deregistered {
                true => bench.desk.deregister(key),
                false => bench.cancel(id),
            }
            let mut numbers = Vec::new();
            let last = loop {
                let done = bench.one();
                if !done.more {
                    break done;
                }
                numbers.push(number_of(&socket_of(done)));
            };
            assert!(last.is_canceled(), "{}: {last:?}", door.name);
            bench.expect_all_done("it was stopped");
            let mut other = Bench::new(stage);
            let key = other.add(door.source.clone());
            accept_all(&mut other, key, 2);
            numbers.extend(next_numbers(&mut other, 5 - numbers.len()));
            assert_eq!(numbers, [0, 1, 2, 3, 4], "{}, {moment}: each once, in order", door.name);
            other.expect_nothing_yet("these were all");
        }
    }
}

pub(super) fn x3_accepting_ends_at_its_deadline(stage: &Stage) {
    const TIME: Duration = Duration::from_millis(40);
    for door in Door::all() {
        for knocks in [false, true] {
            let mut bench = Bench::new(stage);
            bench.about = door.name;
            let key = bench.add(door.source.clone());
            let client = knocks.then(|| door.knock(1));
            let started = Instant::now();
            bench.submit_stream(Op::accept_multi(key).deadline(TIME), 1);
            let mut last = bench.one();
            if last.more {
                assert!(knocks, "nobody knocks: {last:?}");
                last = bench.one();
            }
            assert!(started.elapsed() >= TIME, "{}: not before the deadline", door.name);
            let kind = last.result.as_ref().err().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::TimedOut), "{}: {last:?}", door.name);
            bench.expect_all_done("its time has passed");
            drop(client);
        }
    }
}

/// So many more numbers can be opened.
fn leave_numbers(count: usize) {
    let open = open_numbers();
    let free = (0..).filter(|number| !open.contains(number)).nth(count);
    let (_, hard) = ok(getrlimit(Resource::RLIMIT_NOFILE));
    // The limit is the first number that can't be.
    let soft = u64::try_from(free.unwrap_or(i32::MAX)).unwrap_or(hard);
    ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard));
}

pub(super) fn c8_out_of_numbers_and_on_again(stage: &Stage) {
    for door in Door::all() {
        let mut bench = Bench::new(stage);
        bench.about = door.name;
        let key = bench.add(door.source.clone());
        bench.expect_nothing_yet("nothing is under way");
        let (limit, _) = ok(getrlimit(Resource::RLIMIT_NOFILE));
        let clients: Vec<OwnedFd> = (0..10).map(|number| door.knock(number)).collect();
        let mut numbers = Vec::new();
        for round in 0..2 {
            leave_numbers(4);
            accept_all(&mut bench, key, round);
            let mut done = bench.collect(5);
            let last = done.pop().map(|last| (last.more, errno(&last)));
            assert_eq!(last, Some((false, libc::EMFILE)), "{}, round {round}", door.name);
            bench.expect_all_done("it has ended");
            // Who knocks is still there, and a number is free again.
            let sockets = done.into_iter().map(socket_of);
            numbers.extend(sockets.map(|socket| number_of(&socket)));
        }
        let (_, hard) = ok(getrlimit(Resource::RLIMIT_NOFILE));
        ok(setrlimit(Resource::RLIMIT_NOFILE, limit, hard));
        let id = accept_all(&mut bench, key, 2);
        numbers.extend(next_numbers(&mut bench, 2));
        assert!(numbers.into_iter().eq(0..10), "{}: each once, in order", door.name);
        bench.expect_nothing_yet("these were all");
        bench.cancel(id);
        assert!(bench.one().is_canceled());
        drop(clients);
    }
}

pub(super) fn d2_of_many_those_that_nobody_takes_are_closed(stage: &Stage) {
    drop(stage.poller());
    let before = open_numbers();
    for round in 0..60 {
        let door = if round % 2 == 0 { Door::unix() } else { Door::tcp() };
        let mut bench = Bench::with_room(stage, 4);
        let key = bench.add(door.source.clone());
        let id = accept_all(&mut bench, key, 1);
        let clients: Vec<OwnedFd> = (0..12).map(|number| door.knock(number)).collect();
        // With their completions, and with their Events.
        drop(bench.collect(round % 5));
        let mut events = Events::with_capacity(2);
        ok(bench.desk.poller.wait(&mut events, Some(LONG)));
        assert!(events.completed() > 0, "there are connections");
        drop(events);
        // What was not delivered goes with its poller, whatever has become of the operation.
        match round % 3 {
            0 => bench.desk.deregister(key),
            1 => ok(bench.desk.poller.cancel(id)),
            _ => {}
        }
        let Bench { desk, .. } = bench;
        drop(desk);
        // Who was not accepted is gone with the door.
        drop(door);
        for client in clients {
            fence(client, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLHUP));
        }
        assert_eq!(open_numbers(), before, "round {round}: no number is left open");
    }
}

/// Clients come and go; at most so many are there at a time.
const GUESTS: usize = 200;

fn visit(door: &Door, count: u32) {
    let mut guests: VecDeque<OwnedFd> = VecDeque::new();
    let until_greeted = |guest: OwnedFd| {
        fence(guest, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
    };
    for number in 0..count {
        let guest = door.knock(number);
        if number % 8 == 7 {
            // Some leave before anybody opens.
            continue;
        }
        if guests.len() == GUESTS {
            // Whoever was greeted goes.
            guests.pop_front().into_iter().for_each(until_greeted);
        }
        guests.push_back(guest);
    }
    guests.into_iter().for_each(until_greeted);
}

pub(super) fn c8_ten_thousand_clients_of_one_operation(stage: &Stage) {
    let doors: [(fn() -> Door, u32); 2] = [(Door::unix, 10_000), (Door::tcp, 2000)];
    drop(stage.poller());
    let before = open_numbers();
    for (make, clients) in doors {
        let (mut bench, door) = (Bench::new(stage), make());
        bench.about = door.name;
        let key = bench.add(door.source.clone());
        let id = accept_all(&mut bench, key, 1);
        let name = door.name;
        let visitors = thread::spawn(move || visit(&door, clients));
        let (mut next, mut lost) = (0, 0);
        for _ in 0..clients {
            let socket = socket_of(bench.one());
            let mut number = [0; 4];
            fence(&socket, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
            if nix::unistd::read(&socket, &mut number) != Ok(4) {
                // A reset may have taken it away.
                lost += 1;
                continue;
            }
            let number = u32::from_ne_bytes(number);
            assert!(number >= next, "{name}: {number} comes again, or too late, after {next}");
            next = number + 1;
            let greeted = nix::unistd::write(&socket, b"!");
            assert!(greeted == Ok(1) || number % 8 == 7, "{name}: {number} is still there");
        }
        assert!(lost <= clients / 8, "{name}: {lost} had gone");
        visitors.join().unwrap_or_else(|_| panic!("the visitors failed"));
        bench.expect_nothing_yet("these were all");
        bench.cancel(id);
        assert!(bench.one().is_canceled(), "{name}: it is the last");
        drop(bench);
        assert_eq!(open_numbers(), before, "{name}: no connection is left over");
    }
}
