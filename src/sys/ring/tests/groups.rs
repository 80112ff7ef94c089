//! Buffers of pools that are set out in a ring: whose they are, how many, and for how long.

use super::super::groups::PERIOD;
use super::*;
use crate::sys::buf::Buf;
use crate::sys::io_call::{CallArgs, CallBox, Part, leaked_buffers};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Two sockets that keep what is written apart.
fn records() -> (OwnedFd, OwnedFd) {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
    socketpair(AddressFamily::Unix, kind, None, flags).expect("a pair of sockets")
}

fn write(socket: &OwnedFd, bytes: &[u8]) {
    let sent = send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
    assert_eq!(sent, Ok(bytes.len()), "there is room");
}

fn pool(size: usize, limit: usize) -> BufferPool {
    BufferPool::new(size, limit).expect("there is something in it")
}

/// How many are not at home.
fn lent(pool: &BufferPool) -> usize {
    pool.made() - pool.idle()
}

/// What a ring's operation has come to.
#[derive(Debug)]
enum Came {
    One(CallResult),
    Over(io::Result<CallResult>),
}

impl Ring {
    fn begin_recv(&mut self, socket: &OwnedFd, pool: &BufferPool) -> u64 {
        assert!(self.serves(pool), "this kernel has it");
        self.begin_promised_recv(socket, pool)
    }

    /// The ring has said before that it serves the pool.
    fn begin_promised_recv(&mut self, socket: &OwnedFd, pool: &BufferPool) -> u64 {
        let work = Work::Receive { number: socket.as_raw_fd(), pool: pool.clone() };
        let tag = (7..).find(|&tag| !self.has_operation(tag)).expect("one is free");
        self.begin(work, tag).expect("there is room");
        tag
    }

    /// Everything that there is now.
    fn came(&mut self) -> Vec<Came> {
        let mut all = Vec::new();
        loop {
            self.enter(0, None).expect("nothing goes wrong");
            let before = all.len();
            self.reap(|completion: Completion| match completion {
                Completion::One { gain } => all.push(Came::One(gain)),
                Completion::Operation { result, .. } => all.push(Came::Over(result)),
                Completion::Request { .. } => {}
            });
            if all.len() == before && !self.has_more() {
                return all;
            }
        }
    }

    /// Ends the one that is under way.
    fn stop(&mut self, tag: u64) -> Vec<Came> {
        assert!(self.push(Request::Stop(tag), 1));
        let mut all = Vec::new();
        while self.in_flight.len() > 0 {
            all.extend(self.came());
        }
        all
    }
}

/// The bytes of one that goes on.
fn one(came: &Came) -> &[u8] {
    match came {
        Came::One(CallResult::Received(buf)) => buf,
        other => panic!("not one of many: {other:?}"),
    }
}

#[test]
fn each_comes_in_a_buffer_and_another_is_set_out() {
    for work in TaskWork::LADDER {
        let (mut ring, (here, there), pool) = (ring(8, work), records(), pool(4, 8));
        let tag = ring.begin_recv(&here, &pool);
        assert_eq!(lent(&pool), 4, "half of them are set out");
        assert!(ring.came().is_empty(), "{work:?}");
        for record in [&b"abc"[..], b"d", b"longer"] {
            write(&there, record);
        }
        let mut came = ring.came();
        let got: Vec<_> = came.iter().map(one).collect();
        assert_eq!(got, [&b"abc"[..], b"d", b"long"], "{work:?}: as much as there is room for");
        assert_eq!(lent(&pool), 4, "the three, and one in its place");
        ring.supply();
        assert_eq!(lent(&pool), 4, "no more while the program has them: half are for others");
        came.truncate(1);
        ring.supply();
        assert_eq!(lent(&pool), 4, "two are back, and set out in their place");
        drop(came);
        ring.supply();
        assert_eq!((lent(&pool), pool.made()), (4, 4), "the same ones again");
        let ended = ring.stop(tag);
        let [Came::Over(Err(error))] = &ended[..] else { panic!("{ended:?}") };
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        drop(ring);
        assert_eq!(lent(&pool), 0, "they come home with the ring");
    }
}

#[test]
fn the_end_and_what_fails_takes_no_buffer() {
    let _still = crate::testing::no_children();
    let (mut ring, pool) = (ring(8, TaskWork::Deferred), pool(4, 8));
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    let here = OwnedFd::from(here);
    ring.begin_recv(&here, &pool);
    nix::unistd::write(&there, b"last").expect("room");
    drop(there);
    let came = ring.came();
    assert_eq!(one(&came[0]), b"last");
    assert!(matches!(came[1..], [Came::Over(Ok(CallResult::Moved(0)))]), "{came:?}");
    drop(came);
    assert_eq!((lent(&pool), ring.in_flight.len()), (3, 0));
    let (reader, _writer) = nix::unistd::pipe().expect("a pipe");
    ring.begin_recv(&reader, &pool);
    let came = ring.came();
    let [Came::Over(Err(error))] = &came[..] else { panic!("it is no socket: {came:?}") };
    assert_eq!((error.raw_os_error(), lent(&pool)), (Some(libc::ENOTSOCK), 4));
}

/// Each time that there was none, twice as many are set out, but never more than half of all.
#[test]
fn a_shortage_has_more_set_out_up_to_half_of_all() {
    for (limit, steps) in [(400, &[64, 128, 200, 200][..]), (8, &[4, 4]), (64, &[32, 32])] {
        let (mut ring, (here, there), pool) =
            (ring(64, TaskWork::Deferred), records(), pool(2, limit));
        for &out in steps {
            ring.begin_recv(&here, &pool);
            ring.supply();
            assert_eq!(lent(&pool), out, "of {limit}");
            // Not all of them at once: a socket keeps only so many records.
            let mut came = Vec::new();
            while came.len() < out {
                let count = (out - came.len()).min(4);
                (0..count).for_each(|_| write(&there, b"x"));
                came.extend(ring.came());
            }
            write(&there, b"y");
            came.extend(ring.came());
            let Some(Came::Over(Err(error))) = came.pop() else { panic!("there is none left") };
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
            assert_eq!((came.len(), ring.in_flight.len()), (out, 0), "and all went to good use");
            assert!(came.iter().all(|came| one(came) == b"x"));
            drop(came);
            assert_eq!(lent(&pool), 0);
            let mut byte = [0];
            assert_eq!(nix::unistd::read(&here, &mut byte), Ok(1), "it was left there");
            assert_eq!(&byte, b"y");
        }
    }
}

/// A burst takes many once. What follows takes one at a time, and needs few.
#[test]
fn group_gives_back_buffers_after_quiet_periods() {
    let (mut ring, (here, there), pool) = (ring(64, TaskWork::Deferred), records(), pool(4, 512));
    for _ in 0..2 {
        ring.begin_recv(&here, &pool);
        let mut came = Vec::new();
        while !matches!(came.last(), Some(Came::Over(Err(_)))) {
            write(&there, b"x");
            came.extend(ring.came());
        }
        // It may have ended before the last record was written.
        while nix::unistd::read(&here, &mut [0]).is_ok() {}
    }
    ring.begin_recv(&here, &pool);
    ring.supply();
    assert_eq!(lent(&pool), 256);
    let mut take_one = || {
        write(&there, b"x");
        ring.supply();
        assert_eq!(ring.came().len(), 1);
        ring.supply();
        lent(&pool)
    };
    for expected in [128, 64] {
        let steps = (0..).find(|_| take_one() == expected).expect("it comes to that");
        assert!(steps > PERIOD / 2, "not at once: {steps}");
    }
    assert!((0..3 * PERIOD).all(|_| take_one() == 64), "and to no less");
    // The group's part is idle then, and the pool frees it: all but an eighth of what is needed.
    let most = (64 + 1) * 8 / 7 + 1;
    let steps = (0..20_000).find(|_| take_one() == 64 && pool.made() <= most);
    assert!(steps.is_some(), "{} are left", pool.made());
}

/// The array has a tail of 16 bits, and fewer entries than that: both wrap.
#[test]
fn arrays_wrap() {
    let (mut ring, (here, there), pool) = (ring(64, TaskWork::Deferred), records(), pool(4, 16));
    ring.begin_recv(&here, &pool);
    let (mut sent, mut got) = (0_u32, 0_u32);
    while got < 70_000 {
        for _ in 0..4 {
            write(&there, &sent.to_ne_bytes());
            sent += 1;
        }
        for came in ring.came() {
            assert_eq!(one(&came), got.to_ne_bytes(), "each once and in order");
            got += 1;
        }
        assert_eq!(got, sent);
        ring.supply();
        assert_eq!((lent(&pool), pool.made()), (8, 8));
    }
}

#[test]
fn where_nobody_receives_any_more_they_come_home() {
    let (mut ring, (here, there), pool) = (ring(8, TaskWork::Deferred), records(), pool(4, 8));
    for _ in 0..3 {
        let tag = ring.begin_recv(&here, &pool);
        ring.supply();
        assert_eq!(lent(&pool), 4);
        write(&there, b"data");
        let came = ring.came();
        assert_eq!((came.len(), one(&came[0])), (1, &b"data"[..]));
        drop(came);
        assert_eq!(ring.stop(tag).len(), 1);
        ring.supply();
        assert_eq!(lent(&pool), 0, "others may need them");
    }
}

/// There may be so much to ask of the kernel that what was promised some begins in a later call.
#[test]
fn who_begins_after_they_were_taken_back_finds_some_all_the_same() {
    for work in TaskWork::LADDER {
        let (mut ring, (here, there), pool) = (ring(8, work), records(), pool(4, 8));
        assert!(ring.serves(&pool));
        ring.supply();
        assert_eq!(lent(&pool), 0, "nobody may take them yet");
        let tag = ring.begin_promised_recv(&here, &pool);
        ring.supply();
        assert!(ring.came().is_empty(), "{work:?}: it waits, for there are buffers");
        write(&there, b"abc");
        assert_eq!(ring.came().iter().map(one).collect::<Vec<_>>(), [b"abc"], "{work:?}");
        ring.stop(tag);
        drop(ring);
        assert_eq!(lent(&pool), 0, "they come home");
    }
}

#[test]
fn a_pool_without_a_second_buffer_is_not_served() {
    let mut ring = ring(8, TaskWork::Deferred);
    let pool = pool(8, 1);
    assert!(!ring.serves(&pool), "the one may be somebody else's");
    assert_eq!(pool.made(), 0);
    assert!(pool.is_last_handle(0));
}

/// Where none is set out, because the program has them, a receive would end as soon as it begins.
#[test]
fn a_pool_that_has_none_left_is_not_served_until_some_are_home() {
    let (mut ring, pool) = (ring(8, TaskWork::Deferred), pool(8, 4));
    let mut mine: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    for left in [4, 3, 2] {
        mine.truncate(left);
        assert!(!ring.serves(&pool), "{left} of four are the program's");
    }
    mine.truncate(1);
    assert!(ring.serves(&pool));
    assert_eq!((lent(&pool), ring.groups.find(&pool)), (2, Some(0)), "one of each");
}

/// What is not over is the kernel's for good, and so is what it may take for that.
#[test]
fn what_may_still_be_written_to_never_comes_home() {
    const TEST: &str = "what_may_still_be_written_to_never_comes_home";
    if !is_alone(&format!("sys::ring::tests::groups::{TEST}")) {
        return;
    }
    let (mut ring, (here, there), pool) = (ring(8, TaskWork::Deferred), records(), pool(4, 8));
    ring.begin_recv(&here, &pool);
    write(&there, b"one");
    let came = ring.came();
    assert_eq!((one(&came[0]), leaked_buffers()), (&b"one"[..], 0));
    drop(ring);
    assert_eq!((lent(&pool), leaked_buffers()), (4, 3));
    drop(came);
    assert_eq!(lent(&pool), 3, "but what has come is the program's");
    assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 5, "nor is it lent");
}

#[test]
fn where_nothing_may_be_registered_it_is_not_served() {
    const TEST: &str = "where_nothing_may_be_registered_it_is_not_served";
    if !is_alone(&format!("sys::ring::tests::groups::{TEST}")) {
        return;
    }
    if !Uid::effective().is_root() {
        return println!("skipped: the limit counts what all processes of this user have locked");
    }
    let mut ring = ring(8, TaskWork::Deferred);
    // A user of whom there is nothing else here. Root is not limited.
    setuid(Uid::from_raw(64_997)).expect("root may be anybody");
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).expect("it is lowered");
    let pool = pool(4, 8);
    if ring.serves(&pool) {
        return println!("skipped: this kernel counts otherwise");
    }
    assert_eq!((pool.made(), ring.groups.find(&pool)), (0, None));
    assert!(pool.is_last_handle(0));
    assert!(!ring.serves(&pool), "nor the next time");
}

/// In a child they are copies, and the parent's go on.
#[test]
fn a_child_leaves_them_to_its_parent() {
    if !is_alone("sys::ring::tests::groups::a_child_leaves_them_to_its_parent") {
        return;
    }
    let (mut ring, (here, there), pool) = (ring(8, TaskWork::Deferred), records(), pool(4, 8));
    ring.begin_recv(&here, &pool);
    assert!(ring.came().is_empty());
    // SAFETY: there is no other thread at work in this process.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let mut ring = ring;
            let mut is_in_order = !ring.serves(&pool);
            // What was the array's memory may now be any of these.
            let mut pages: Vec<Vec<u8>> = (0..16).map(|_| vec![7; 1 << 16]).collect();
            drop(ring);
            pages.iter_mut().flatten().for_each(|byte| *byte += 1);
            is_in_order &= pages.iter().flatten().all(|&byte| byte == 8);
            // SAFETY: this ends the process without running anything.
            unsafe { libc::_exit(i32::from(!is_in_order)) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("it is our child");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
    for _ in 0..20 {
        write(&there, b"data");
        let came = ring.came();
        assert_eq!((came.len(), one(&came[0])), (1, &b"data"[..]));
        drop(came);
        ring.supply();
    }
}

/// The kernel ends what goes on when there is no room for another completion, and says so with one
/// that is a result nevertheless.
#[test]
fn a_result_that_is_the_last_for_want_of_room_is_a_result() {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    let (here, pool) = (OwnedFd::from(here), pool(1, 64));
    let size = Size { requests: 2, completions: 4 };
    let mut ring = Ring::open(size, &[TaskWork::Deferred]).expect("this kernel has it");
    nix::unistd::write(&there, b"0123456789").expect("room");
    let (mut got, mut begun) = (Vec::<u8>::new(), 0);
    while got.len() < 10 {
        ring.begin_recv(&here, &pool);
        begun += 1;
        let mut was_last = false;
        while !was_last && got.len() < 10 {
            for came in ring.came() {
                was_last |= matches!(came, Came::Over(_));
                match came {
                    Came::One(CallResult::Received(buf)) => got.extend(&*buf),
                    Came::Over(Ok(CallResult::Received(buf))) => got.extend(&*buf),
                    other => panic!("{other:?}"),
                }
            }
            ring.supply();
        }
    }
    assert_eq!(got, b"0123456789", "each once and in order");
    assert!(begun > 1, "four fit in");
}

#[test]
fn so_is_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("it is bound");
    let clients: Vec<_> = (0..10).map(|_| TcpStream::connect(to).expect("a queue")).collect();
    let size = Size { requests: 2, completions: 4 };
    let mut ring = Ring::open(size, &[TaskWork::Deferred]).expect("this kernel has it");
    let (mut accepted, mut begun) = (Vec::new(), 0);
    while accepted.len() < clients.len() {
        let fd = Some(listener.as_fd());
        let (part, with) = (Part::Nothing, CallArgs::Nothing);
        let io_call = CallBox::with(fd, Call::AcceptMulti, Buf::None, part, with);
        ring.begin(io_call.expect("in order").into(), 7).expect("there is room");
        begun += 1;
        let mut was_last = false;
        while !was_last && accepted.len() < clients.len() {
            for came in ring.came() {
                was_last |= matches!(came, Came::Over(_));
                match came {
                    Came::One(CallResult::Accepted(socket)) => accepted.push(socket),
                    Came::Over(Ok(CallResult::Accepted(socket))) => accepted.push(socket),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert!(begun > 1, "four fit in");
    let names = accepted.into_iter().map(|socket| TcpStream::from(socket).peer_addr().ok());
    let ours = clients.iter().map(|client| client.local_addr().ok());
    assert!(names.eq(ours), "each once, and in the order in which they came");
}
