//! Clause C2 where something ends: a reset, a refusal, a shutdown. Who waits is told what the plain
//! call, which waits too, would be told.

use super::bench::*;
use super::kit::*;
use super::scenes::new_socket;
use crate::event::{Interest, Mode, Token};
use crate::op::Op;
use crate::poller::Source;
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockType};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;

/// The kernel tells of a reset once. A reader who is told that the stream has ended would take what
/// he has for all there is.
pub(super) fn c2_a_reset_is_no_end(stage: &Stage) {
    // Who is submitted first; and at last a send that is submitted when the reset has come.
    for order in [[1, 2], [2, 1], [1, 3]] {
        let (here, there) = tcp();
        let mut bench = Bench::new(stage);
        let key = bench.add(here.clone());
        let submit = |bench: &mut Bench, what: usize| {
            let op = match what {
                1 => Op::recv(key, Vec::new(), 8),
                _ => Op::send_all(key, vec![0; 1 << 24], ..),
            };
            bench.submit(op, what);
        };
        submit(&mut bench, order[0]);
        if order[1] != 3 {
            submit(&mut bench, order[1]);
        }
        bench.expect_nothing_yet("nobody reads, and nobody sends");
        if order[1] == 3 {
            // What it has not read makes it a reset.
            assert_eq!(nix::unistd::write(&*here, b"x"), Ok(1));
            fence(&there, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        }
        drop(there);
        if order[1] == 3 {
            fence(&*here, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLHUP));
            submit(&mut bench, 3);
        }
        let mut done = bench.collect(2);
        done.sort_by_key(|done| done.token);
        assert_eq!(errno(&done[0]), libc::ECONNRESET, "the reader, {order:?}");
        let of_writer = errno(&done[1]);
        let is_right = [libc::EPIPE, libc::ECONNRESET].contains(&of_writer);
        assert!(is_right, "the writer, {order:?}: {of_writer}");
    }
}

/// A receive that waits for the connection must not take its error away.
pub(super) fn c2_a_refusal_is_told_to_the_connect(stage: &Stage) {
    let nobody = ok(ok(TcpListener::bind("127.0.0.1:0")).local_addr());
    for receives in [false, true] {
        let mut bench = Bench::new(stage);
        let key = bench.add(Arc::new(new_socket(AddressFamily::Inet, SockType::Stream)));
        bench.submit(Op::connect(key, nobody), 1);
        if receives {
            bench.submit(Op::recv(key, Vec::new(), 8), 2);
        }
        let done = bench.collect(1 + usize::from(receives));
        let refused = done.iter().find(|done| done.token == Token(1)).map(errno);
        assert_eq!(refused, Some(libc::ECONNREFUSED), "beside a receive: {receives}");
    }
}

/// A blocking receive ends when reading is shut down, also one of datagrams, of which a receive
/// that does not block is told to come again.
pub(super) fn c2_to_shut_down_reading_ends_receives(stage: &Stage) {
    let (a, b) = (ok(UdpSocket::bind("127.0.0.1:0")), ok(UdpSocket::bind("127.0.0.1:0")));
    ok(a.connect(ok(b.local_addr())));
    let (stream, _there) = ok(UnixStream::pair());
    let (datagram, _other) = ok(UnixDatagram::pair());
    let (tcp, _peer) = tcp();
    let sources: [Source; 4] = [Arc::new(a), Arc::new(stream), Arc::new(datagram), tcp];
    for (at, source) in sources.into_iter().enumerate() {
        let mut bench = Bench::new(stage);
        let key = bench.add(source);
        // The second time the kernel watches already.
        for round in 0..2 {
            bench.submit(Op::recv(key, Vec::new(), 8), 1);
            bench.submit(Op::recv_from(key, Vec::new(), 8), 2);
            if round == 0 {
                bench.expect_nothing_yet("nothing was sent");
                bench.submit(Op::shutdown(key, Shutdown::Read), 3);
            }
            let count = if round == 0 { 3 } else { 2 };
            let done = bench.collect(count).into_iter().filter(|done| done.token != Token(3));
            for done in done {
                assert_eq!(bytes(done).0, 0, "file {at}, round {round}: the end");
            }
        }
    }
}

pub(super) fn c2_to_shut_a_listener_down_ends_accepts(stage: &Stage) {
    let directory = TempDir::new();
    let unix = ok(UnixListener::bind(directory.0.join("listener")));
    let sources: [Source; 2] = [Arc::new(unix), Arc::new(ok(TcpListener::bind("127.0.0.1:0")))];
    for (at, source) in sources.into_iter().enumerate() {
        let mut bench = Bench::new(stage);
        let key = bench.add(source);
        bench.submit(Op::accept(key), 0);
        bench.submit(Op::accept(key), 1);
        bench.expect_nothing_yet("nobody connects");
        bench.submit(Op::shutdown(key, Shutdown::Both), 2);
        for done in bench.collect(3).iter().filter(|done| done.token != Token(2)) {
            assert_eq!(errno(done), libc::EINVAL, "file {at}");
        }
    }
}

/// A receive that waits in the kernel would take a lone urgent byte for itself.
pub(super) fn l1_urgent_data_is_told_of_beside_a_receive(stage: &Stage) {
    for watches_first in [true, false] {
        let (here, there) = tcp();
        let mut bench = Bench::new(stage);
        let interest = if watches_first { Interest::PRIORITY } else { Interest::empty() };
        let key = bench.desk.register(here.clone(), 7, interest, Mode::Level);
        bench.submit(Op::recv(key, Vec::new(), 8), 1);
        bench.expect_nothing_yet("nothing was sent");
        bench.desk.modify(key, 7, Interest::PRIORITY, Mode::Level);
        put_urgent(&there);
        fence(&*here, PollFlags::POLLPRI, |bits| bits.contains(PollFlags::POLLPRI));
        for _ in 0..2 {
            bench.wait(LONG);
            let tokens: Vec<_> = bench.desk.events.iter().map(|event| event.token).collect();
            assert_eq!(tokens, [Token(7)], "again and again, until it is read");
        }
        assert_eq!(nix::unistd::write(&there, b"news"), Ok(4));
        assert_eq!(bytes(bench.one()), (4, b"news".to_vec()), "the receive goes on");
    }
}

/// To write nothing is not the same everywhere.
pub(super) fn c2_nothing_is_written_as_by_the_call(stage: &Stage) {
    let (_reader, writer) = pipe();
    let full = ok(std::fs::File::options().write(true).open("/dev/full"));
    let counter = ok(EventFd::new());
    let sources: [Source; 3] = [Arc::new(writer), Arc::new(full), Arc::new(counter)];
    for source in sources {
        let mut bench = Bench::new(stage);
        let expected = nix::unistd::write(&*source, &[]);
        let key = bench.add(source);
        let done = bench.run(Op::write(key, Vec::new(), ..));
        match expected {
            Ok(count) => assert_eq!(bytes(done).0, count),
            Err(error) => assert_eq!(errno(&done), error as i32),
        }
    }
}
