//! Provided buffers: their number, their owner, and the time of their return.

use super::super::groups::{BufGroups, PERIOD};
use super::*;
use crate::sys::buf::Buf;
use crate::sys::io_call::{CallArgs, CallBox, Transfer, leaked_buffers};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Two sockets that preserve message boundaries.
fn records() -> (OwnedFd, OwnedFd) {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
    socketpair(AddressFamily::Unix, kind, None, flags).expect("a pair of sockets")
}

fn write(socket: &OwnedFd, bytes: &[u8]) {
    let sent = send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
    assert_eq!(sent, Ok(bytes.len()), "there is room");
}

fn pool(size: usize, limit: usize) -> BufferPool {
    BufferPool::new(size, limit).expect("a valid size and limit")
}

/// Counts the buffers in use.
fn in_use(pool: &BufferPool) -> usize {
    pool.allocated() - pool.available()
}

/// A completion of a multishot receive.
#[derive(Debug)]
enum ReceiveEvent {
    Partial(CallResult),
    Last(io::Result<CallResult>),
}

impl Ring {
    fn begin_recv(&mut self, socket: &OwnedFd, pool: &BufferPool) -> u64 {
        assert!(self.provides(pool), "this kernel has it");
        self.begin_promised_recv(socket, pool)
    }

    /// Begins a receive for which the ring has promised buffers before.
    fn begin_promised_recv(&mut self, socket: &OwnedFd, pool: &BufferPool) -> u64 {
        let work = Work::Receive { fd: socket.as_raw_fd(), pool: pool.clone() };
        let tag = (7..).find(|&tag| !self.has_operation(tag)).expect("one is free");
        self.begin(work, tag).expect("there is room");
        tag
    }

    /// Returns all completions that are available.
    fn events(&mut self) -> Vec<ReceiveEvent> {
        let mut all = Vec::new();
        loop {
            self.enter(0, None).expect("an open ring");
            let before = all.len();
            self.reap(|completion: Completion| match completion {
                Completion::Partial { result } => all.push(ReceiveEvent::Partial(result)),
                Completion::Operation { result, .. } => all.push(ReceiveEvent::Last(result)),
                Completion::Request { .. } => {}
            });
            if all.len() == before && !self.has_more() {
                return all;
            }
        }
    }

    /// Cancels a receive.
    fn cancel(&mut self, tag: u64) -> Vec<ReceiveEvent> {
        assert!(self.push(Request::CancelOp(tag), 1));
        let mut all = Vec::new();
        while self.in_flight.len() > 0 {
            all.extend(self.events());
        }
        all
    }
}

/// Returns the bytes of a result that is not the last.
fn bytes_of(event: &ReceiveEvent) -> &[u8] {
    match event {
        ReceiveEvent::Partial(CallResult::Received(buf)) => buf,
        other => panic!("not an intermediate result: {other:?}"),
    }
}

#[test]
fn received_buffer_is_replaced() {
    for work in TaskWork::LADDER {
        let (mut ring, (local, peer), pool) = (ring(8, work), records(), pool(4, 8));
        let tag = ring.begin_recv(&local, &pool);
        assert_eq!(in_use(&pool), 4, "half of the limit is provided");
        assert!(ring.events().is_empty(), "{work:?}");
        for record in [&b"abc"[..], b"d", b"longer"] {
            write(&peer, record);
        }
        let mut events = ring.events();
        let got: Vec<_> = events.iter().map(bytes_of).collect();
        assert_eq!(got, [&b"abc"[..], b"d", b"long"], "{work:?}: cut at the buffer's size");
        assert_eq!(in_use(&pool), 4, "three taken, one provided");
        ring.refill();
        assert_eq!(in_use(&pool), 4, "no more: half of the limit is for other uses");
        events.truncate(1);
        ring.refill();
        assert_eq!(in_use(&pool), 4, "two were returned and provided again");
        drop(events);
        ring.refill();
        assert_eq!((in_use(&pool), pool.allocated()), (4, 4), "buffers are reused");
        let ended = ring.cancel(tag);
        let [ReceiveEvent::Last(Err(error))] = &ended[..] else { panic!("{ended:?}") };
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        drop(ring);
        assert_eq!(in_use(&pool), 0, "the drop of the ring returns them");
    }
}

#[test]
fn eof_and_errors_take_no_buffer() {
    let _still = crate::testing::no_children();
    let (mut ring, pool) = (ring(8, TaskWork::Deferred), pool(4, 8));
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    let local = OwnedFd::from(local);
    ring.begin_recv(&local, &pool);
    nix::unistd::write(&peer, b"last").expect("room");
    drop(peer);
    let events = ring.events();
    assert_eq!(bytes_of(&events[0]), b"last");
    assert!(matches!(events[1..], [ReceiveEvent::Last(Ok(CallResult::Moved(0)))]), "{events:?}");
    drop(events);
    assert_eq!((in_use(&pool), ring.in_flight.len()), (3, 0));
    let (reader, _writer) = nix::unistd::pipe().expect("a pipe");
    ring.begin_recv(&reader, &pool);
    let events = ring.events();
    let [ReceiveEvent::Last(Err(error))] = &events[..] else {
        panic!("it is no socket: {events:?}")
    };
    assert_eq!((error.raw_os_error(), in_use(&pool)), (Some(libc::ENOTSOCK), 4));
}

/// Each shortage doubles the provided buffers, up to half of the limit.
#[test]
fn shortage_doubles_target_up_to_half() {
    let limits =
        [(400, &[64, 128, 200, 200][..]), (300, &[64, 128, 150]), (8, &[4, 4]), (64, &[32])];
    for (limit, steps) in limits {
        let (mut ring, (local, peer), pool) =
            (ring(64, TaskWork::Deferred), records(), pool(2, limit));
        for &out in steps {
            ring.begin_recv(&local, &pool);
            ring.refill();
            assert_eq!(in_use(&pool), out, "of {limit}");
            // In batches: a socket queues only so many records.
            let mut events = Vec::new();
            while events.len() < out {
                let count = (out - events.len()).min(4);
                (0..count).for_each(|_| write(&peer, b"x"));
                events.extend(ring.events());
            }
            write(&peer, b"y");
            events.extend(ring.events());
            let Some(ReceiveEvent::Last(Err(error))) = events.pop() else { panic!("no ENOBUFS") };
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
            assert_eq!((events.len(), ring.in_flight.len()), (out, 0), "every buffer was used");
            assert!(events.iter().all(|event| bytes_of(event) == b"x"));
            drop(events);
            assert_eq!(in_use(&pool), 0);
            let mut byte = [0];
            assert_eq!(nix::unistd::read(&local, &mut byte), Ok(1), "it stayed in the socket");
            assert_eq!(&byte, b"y");
        }
    }
}

/// A burst takes many buffers at once; the traffic after it takes one at a time.
#[test]
fn group_shrinks_after_quiet_periods() {
    shrinks(512, &[256, 128, 64]);
    // Half of the limit is no power of two.
    shrinks(300, &[150, 75, 64]);
}

fn shrinks(limit: usize, targets: &[usize]) {
    let (mut ring, (local, peer), pool) = (ring(64, TaskWork::Deferred), records(), pool(4, limit));
    for _ in 0..2 {
        ring.begin_recv(&local, &pool);
        let mut events = Vec::new();
        while !matches!(events.last(), Some(ReceiveEvent::Last(Err(_)))) {
            write(&peer, b"x");
            events.extend(ring.events());
        }
        // The receive may have ended before the last record was written.
        while nix::unistd::read(&local, &mut [0]).is_ok() {}
    }
    ring.begin_recv(&local, &pool);
    ring.refill();
    assert_eq!(in_use(&pool), targets[0]);
    let mut take_one = || {
        write(&peer, b"x");
        ring.refill();
        assert_eq!(ring.events().len(), 1);
        ring.refill();
        in_use(&pool)
    };
    for &expected in &targets[1..] {
        let steps = (0..9 * PERIOD).find(|_| take_one() == expected).expect("the target shrinks");
        assert!(steps > PERIOD / 2, "not at once: {steps}");
    }
    assert!((0..3 * PERIOD).all(|_| take_one() == 64), "the minimum");
    // The pool then frees the idle buffers, except an eighth of those needed.
    let most = (64 + 1) * 8 / 7 + 1;
    let steps = (0..20_000).find(|_| take_one() == 64 && pool.allocated() <= most);
    assert!(steps.is_some(), "{} are left", pool.allocated());
}

/// The tail has 16 bits, and the ring fewer entries: both wrap.
#[test]
fn buffer_ring_wraps() {
    let (mut ring, (local, peer), pool) = (ring(64, TaskWork::Deferred), records(), pool(4, 16));
    ring.begin_recv(&local, &pool);
    let (mut sent, mut got) = (0_u32, 0_u32);
    while got < 70_000 {
        for _ in 0..4 {
            write(&peer, &sent.to_ne_bytes());
            sent += 1;
        }
        for event in ring.events() {
            assert_eq!(bytes_of(&event), got.to_ne_bytes(), "each once and in order");
            got += 1;
        }
        assert_eq!(got, sent);
        ring.refill();
        assert_eq!((in_use(&pool), pool.allocated()), (8, 8));
    }
}

#[test]
fn unused_group_returns_its_buffers() {
    let (mut ring, (local, peer), pool) = (ring(8, TaskWork::Deferred), records(), pool(4, 8));
    for _ in 0..3 {
        let tag = ring.begin_recv(&local, &pool);
        ring.refill();
        assert_eq!(in_use(&pool), 4);
        write(&peer, b"data");
        let events = ring.events();
        assert_eq!((events.len(), bytes_of(&events[0])), (1, &b"data"[..]));
        drop(events);
        assert_eq!(ring.cancel(tag).len(), 1);
        ring.refill();
        assert_eq!(in_use(&pool), 0, "the buffers are for other uses");
    }
}

/// With a full queue, a receive that was promised buffers begins in a later enter.
/// The kernel takes the last provided buffers after the pool asked for them.
#[test]
fn released_group_without_buffers_provides_again() {
    let (mut ring, (local, peer), pool) = (ring(8, TaskWork::Deferred), records(), pool(4, 4));
    ring.begin_recv(&local, &pool);
    assert!(ring.events().is_empty());
    assert!(ring.groups.release(&pool), "two are provided");
    (0..2).for_each(|_| write(&peer, b"x"));
    let events = ring.events();
    let last = events.last();
    assert!(matches!(last, Some(ReceiveEvent::Last(Err(_)))), "no buffer was left: {last:?}");
    assert_eq!((in_use(&pool), ring.in_flight.len()), (2, 0), "none is provided");
    drop(events);
    assert!(!ring.provides(&pool), "the group is marked");
    ring.refill();
    assert!(ring.provides(&pool), "the mark is gone");
}

#[test]
fn receive_after_unregister_finds_buffers() {
    for work in TaskWork::LADDER {
        let (mut ring, (local, peer), pool) = (ring(8, work), records(), pool(4, 8));
        assert!(ring.provides(&pool));
        ring.refill();
        assert_eq!(in_use(&pool), 0, "the group has no users yet");
        let tag = ring.begin_promised_recv(&local, &pool);
        ring.refill();
        assert!(ring.events().is_empty(), "{work:?}: it waits, because there are buffers");
        write(&peer, b"abc");
        assert_eq!(ring.events().iter().map(bytes_of).collect::<Vec<_>>(), [b"abc"], "{work:?}");
        ring.cancel(tag);
        drop(ring);
        assert_eq!(in_use(&pool), 0, "they are returned");
    }
}

#[test]
fn pool_of_one_buffer_provides_none() {
    let mut ring = ring(8, TaskWork::Deferred);
    let pool = pool(8, 1);
    assert!(!ring.provides(&pool), "the buffer is for other uses");
    assert_eq!(pool.allocated(), 0);
    assert!(pool.is_last_handle(0));
}

/// While none can be provided, a receive would end as soon as it begins.
#[test]
fn exhausted_pool_provides_none_until_buffers_return() {
    let (mut ring, pool) = (ring(8, TaskWork::Deferred), pool(8, 4));
    let mut taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    for left in [4, 3, 2] {
        taken.truncate(left);
        assert!(!ring.provides(&pool), "{left} of four are in use");
    }
    taken.truncate(1);
    assert!(ring.provides(&pool));
    assert_eq!((in_use(&pool), ring.groups.find(&pool)), (2, Some(0)), "one in use, one provided");
}

/// Operations in flight are leaked, together with the buffers that they may take.
#[test]
fn buffers_of_leaked_operations_never_return() {
    const TEST: &str = "buffers_of_leaked_operations_never_return";
    if !is_alone(&format!("sys::ring::tests::groups::{TEST}")) {
        return;
    }
    let (mut ring, (local, peer), pool) = (ring(8, TaskWork::Deferred), records(), pool(4, 8));
    ring.begin_recv(&local, &pool);
    write(&peer, b"one");
    let events = ring.events();
    assert_eq!((bytes_of(&events[0]), leaked_buffers()), (&b"one"[..], 0));
    drop(ring);
    assert_eq!((in_use(&pool), leaked_buffers()), (4, 3));
    drop(events);
    assert_eq!(in_use(&pool), 3, "the received one is returned");
    assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 5, "the others");
}

/// The kernel has another group of this ID, so that it refuses the registration (`EEXIST`).
#[test]
fn failed_registration_provides_none() {
    let (mut ring, others, pool) = (ring(8, TaskWork::Deferred), pool(4, 8), pool(4, 8));
    let mut groups = BufGroups::default();
    assert!(groups.provide(&ring.ring, &others));
    assert!(!ring.provides(&pool));
    assert_eq!(pool.allocated(), 0);
    assert!(!ring.provides(&pool), "the second time");
    groups.refill(&ring.ring);
    assert_eq!(in_use(&others), 0, "the other group is gone");
    assert!(ring.provides(&pool), "a failure is not for good");
}

/// The child has copies, and the parent's group continues.
#[test]
fn forked_child_leaves_groups_to_parent() {
    if !is_alone("sys::ring::tests::groups::forked_child_leaves_groups_to_parent") {
        return;
    }
    let (mut ring, (local, peer), pool) = (ring(8, TaskWork::Deferred), records(), pool(4, 8));
    ring.begin_recv(&local, &pool);
    assert!(ring.events().is_empty());
    // SAFETY: no other thread runs in this process.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let mut ring = ring;
            let mut is_in_order = !ring.provides(&pool);
            // These pages may lie where the array was in the parent.
            let mut pages: Vec<Vec<u8>> = (0..16).map(|_| vec![7; 1 << 16]).collect();
            drop(ring);
            pages.iter_mut().flatten().for_each(|byte| *byte += 1);
            is_in_order &= pages.iter().flatten().all(|&byte| byte == 8);
            // SAFETY: _exit ends the process without running exit handlers.
            unsafe { libc::_exit(i32::from(!is_in_order)) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("it is our child");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
    for _ in 0..20 {
        write(&peer, b"data");
        let events = ring.events();
        assert_eq!((events.len(), bytes_of(&events[0])), (1, &b"data"[..]));
        drop(events);
        ring.refill();
    }
}

/// When the completion queue is full, the kernel ends a multishot request with a CQE that still
/// carries a result.
#[test]
fn final_result_on_overflow_is_delivered() {
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    let (local, pool) = (OwnedFd::from(local), pool(1, 64));
    let size = Size { requests: 2, completions: 4 };
    let mut ring = Ring::open(size, &[TaskWork::Deferred]).expect("this kernel has it");
    nix::unistd::write(&peer, b"0123456789").expect("room");
    let (mut got, mut begun) = (Vec::<u8>::new(), 0);
    while got.len() < 10 {
        ring.begin_recv(&local, &pool);
        begun += 1;
        let mut was_last = false;
        while !was_last && got.len() < 10 {
            for event in ring.events() {
                was_last |= matches!(event, ReceiveEvent::Last(_));
                match event {
                    ReceiveEvent::Partial(CallResult::Received(buf)) => got.extend(&*buf),
                    ReceiveEvent::Last(Ok(CallResult::Received(buf))) => got.extend(&*buf),
                    other => panic!("{other:?}"),
                }
            }
            ring.refill();
        }
    }
    assert_eq!(got, b"0123456789", "each once and in order");
    assert!(begun > 1, "the queue holds four");
}

#[test]
fn final_connection_on_overflow_is_delivered() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("it is bound");
    let clients: Vec<_> = (0..10).map(|_| TcpStream::connect(to).expect("a queue")).collect();
    let size = Size { requests: 2, completions: 4 };
    let mut ring = Ring::open(size, &[TaskWork::Deferred]).expect("this kernel has it");
    let (mut accepted, mut begun) = (Vec::new(), 0);
    while accepted.len() < clients.len() {
        let fd = Some(listener.as_fd());
        let (part, with) = (Transfer::Nothing, CallArgs::Nothing);
        let io_call = CallBox::with(fd, Call::AcceptMulti, Buf::None, part, with);
        ring.begin(io_call.expect("in order").into(), 7).expect("there is room");
        begun += 1;
        let mut was_last = false;
        while !was_last && accepted.len() < clients.len() {
            for event in ring.events() {
                was_last |= matches!(event, ReceiveEvent::Last(_));
                match event {
                    ReceiveEvent::Partial(CallResult::Accepted(socket)) => accepted.push(socket),
                    ReceiveEvent::Last(Ok(CallResult::Accepted(socket))) => accepted.push(socket),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert!(begun > 1, "the queue holds four");
    let names = accepted.into_iter().map(|socket| TcpStream::from(socket).peer_addr().ok());
    let ours = clients.iter().map(|client| client.local_addr().ok());
    assert!(names.eq(ours), "each once and in order");
}
