//! Operations: the owner of their memory, and the time of its return.

use super::*;
use crate::sys::buf::Buf;
use crate::sys::io_call::{Call, CallBox, leaked_buffers};
use nix::unistd::write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

fn recv(fd: &impl AsFd, most: usize) -> CallBox {
    let bytes = Vec::with_capacity(most);
    CallBox::new(fd.as_fd(), Call::Recv, bytes.into(), (0, most), None).expect("there is memory")
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a pair of sockets")
}

fn of_operation(completion: Completion) -> (u64, Buf, io::Result<CallResult>) {
    match completion {
        Completion::Operation { tag, work, result } => (tag, work.into_call().into_buf(), result),
        other => panic!("not an operation: {other:?}"),
    }
}

impl Ring {
    fn take_operations(&mut self) -> Vec<(u64, Buf, io::Result<CallResult>)> {
        let mut all = Vec::new();
        self.reap(|completion: Completion| all.push(of_operation(completion)));
        all
    }
}

#[test]
fn memory_returns_with_the_completion() {
    for work in TaskWork::LADDER {
        let (mut ring, (local, peer)) = (ring(8, work), pair());
        let io_call = recv(&local, 64);
        ring.begin(io_call.into(), 7).expect("there is room");
        for _ in 0..3 {
            ring.enter(0, None).expect("it waits");
            assert!(ring.take_operations().is_empty(), "{work:?}");
            assert_eq!(ring.in_flight.len(), 1);
        }
        write(&peer, b"data").expect("room");
        ring.enter(1, None).expect("it completes");
        assert_eq!(ring.in_flight.len(), 1, "the CQE was not reaped yet");
        let [(7, buf, Ok(CallResult::Moved(4)))] = &ring.take_operations()[..] else {
            panic!("{work:?}")
        };
        assert_eq!(&buf[..], b"data");
        assert_eq!(ring.in_flight.len(), 0);
    }
}

#[test]
fn cancelled_operation_returns_its_memory() {
    for work in TaskWork::LADDER {
        let (mut ring, (local, _peer)) = (ring(8, work), pair());
        let tag = u64::from(u32::MAX) << 32 | 5;
        ring.begin(recv(&local, 64).into(), tag).expect("there is room");
        ring.enter(0, None).expect("it waits");
        assert!(ring.push(Request::CancelOp(tag), 5));
        ring.enter(2, None).expect("both complete");
        let (mut completed, mut completed_ops) = (vec![], vec![]);
        ring.reap(|completion: Completion| match completion {
            Completion::Request { .. } => completed.push(RequestResult::of(completion)),
            completion => completed_ops.push(of_operation(completion)),
        });
        assert_eq!(completed, [RequestResult { user_data: 5, result: 0, more: false }]);
        let [(its, buf, Err(error))] = &completed_ops[..] else { panic!("{completed_ops:?}") };
        assert_eq!(*its, tag);
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        assert!(matches!(buf, Buf::Vec(bytes) if bytes.is_empty() && bytes.capacity() == 64));
    }
}

#[test]
fn full_ring_refuses_operations() {
    let (mut ring, (local, _peer)) = (ring(2, TaskWork::Deferred), pair());
    for tag in 0..2 {
        assert_eq!(ring.room(), 2 - tag as usize);
        ring.begin(recv(&local, 1).into(), tag).expect("there is room");
    }
    let work = ring.begin(recv(&local, 1).into(), 2).expect_err("there is none");
    assert_eq!(
        (work.into_call().left(), ring.operations(), ring.room()),
        (1, 2, 0),
        "the work is returned"
    );
    ring.enter(0, None).expect("they wait");
    ring.cancel_all();
}

/// The kernel has the memory of the first operation.
#[test]
fn index_has_one_operation_at_a_time() {
    let (mut ring, (local, _peer)) = (ring(8, TaskWork::Deferred), pair());
    ring.begin(recv(&local, 1).into(), 7).expect("there is room");
    for tag in [7, 1 << 32 | 7, OPERATION | 7] {
        assert!(ring.begin(recv(&local, 1).into(), tag).is_err(), "{tag:#x}");
    }
    assert_eq!((ring.operations(), ring.room()), (1, 7));
    ring.cancel_all();
}

/// On a blocking socket whose buffer is full; only receives wait.
#[test]
fn send_returns_eagain_instead_of_waiting() {
    for work in TaskWork::LADDER {
        let (mut ring, (local, _peer)) = (ring(8, work), pair());
        local.set_nonblocking(true).expect("a socket");
        while write(&local, &[0; 4096]).is_ok() {}
        local.set_nonblocking(false).expect("a socket");
        let send = CallBox::new(local.as_fd(), Call::Send, "data".into(), (0, 4), None);
        ring.begin(send.expect("four bytes").into(), 1).expect("there is room");
        ring.begin(recv(&local, 4).into(), 2).expect("there is room");
        ring.enter(1, None).expect("one completes");
        let completed_ops = ring.take_operations();
        let [(1, _, Err(error))] = &completed_ops[..] else { panic!("{completed_ops:?}") };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(ring.in_flight.len(), 1);
        // Ended before the sockets are closed, so that no memory counts as leaked.
        ring.cancel_all();
    }
}

impl Ring {
    /// Cancels all operations in flight.
    fn cancel_all(&mut self) {
        for tag in self.operation_tags().collect::<Vec<_>>() {
            assert!(self.push(Request::CancelOp(tag), 0));
        }
        while self.in_flight.len() > 0 {
            self.enter(1, None).expect("it goes on");
            self.reap(drop::<Completion>);
        }
    }
}

#[test]
#[should_panic(expected = "the topmost bit marks operations")]
fn request_with_operation_bit_panics() {
    let (mut ring, counter) = (ring(8, TaskWork::Deferred), counter());
    ring.push(poll(&counter), OPERATION | 1);
}

/// Returns true if memory is mapped at this address.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is always there");
    maps.lines().any(|line| {
        let (range, _) = line.split_once(' ').expect("a range and more");
        let (start, end) = range.split_once('-').expect("two ends");
        let [start, end] = [start, end].map(|end| usize::from_str_radix(end, 16).expect("hex"));
        (start..end).contains(&address)
    })
}

/// An allocation so large that the allocator unmaps it when it is freed.
const MUCH: usize = 80 << 20;

#[test]
fn operations_in_flight_are_leaked_and_counted() {
    if !is_alone("sys::ring::tests::operations::operations_in_flight_are_leaked_and_counted") {
        return;
    }
    let ((local, peer), mut addresses) = (pair(), vec![]);
    let mut ring = ring(8, TaskWork::Deferred);
    for at in 0..3 {
        let bytes = Vec::with_capacity(MUCH);
        addresses.push(bytes.as_ptr() as usize);
        let io_call = CallBox::new(local.as_fd(), Call::Recv, bytes.into(), (0, MUCH), None);
        ring.begin(io_call.expect("there is memory").into(), at).expect("there is room");
    }
    ring.enter(0, None).expect("they wait");
    write(&peer, b"one").expect("room");
    ring.enter(1, None).expect("one completes");
    let mut completed_ops = ring.take_operations();
    let (tag, buf, _) = completed_ops.pop().expect("one");
    drop(buf);
    assert!(!is_mapped(addresses[tag as usize]), "returned memory is freed");
    assert_eq!(leaked_buffers(), 0);
    drop(ring);
    assert_eq!(leaked_buffers(), 2);
    let left = addresses.iter().filter(|&&address| is_mapped(address)).count();
    assert_eq!(left, 2, "the memory is not reused");
    drop(Ring::open(size(8), &TaskWork::LADDER).expect("this kernel has it"));
    assert_eq!(leaked_buffers(), 2, "a ring without operations leaks nothing");
}

/// The child has copies, and the parent's operations continue.
#[test]
fn forked_child_leaves_operations_to_parent() {
    if !is_alone("sys::ring::tests::operations::forked_child_leaves_operations_to_parent") {
        return;
    }
    let (mut ring, (local, peer)) = (ring(8, TaskWork::Deferred), pair());
    ring.begin(recv(&local, 64).into(), 7).expect("there is room");
    ring.enter(0, None).expect("it waits");
    // SAFETY: no other thread runs in this process.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let mut ring = ring;
            let is_refused = ring.room() == 0;
            drop(ring);
            let status = i32::from(!is_refused || leaked_buffers() > 0);
            // SAFETY: _exit ends the process without running exit handlers.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("it is our child");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
    write(&peer, b"data").expect("room");
    ring.enter(1, None).expect("it completes");
    let [(7, buf, Ok(_))] = &ring.take_operations()[..] else { panic!("no completion") };
    assert_eq!(&buf[..], b"data");
}

/// The address that the kernel writes is owned like the bytes.
#[test]
fn sender_address_comes_with_the_completion() {
    let [local, peer] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let mut ring = ring(8, TaskWork::Deferred);
    let bytes = Vec::with_capacity(8);
    let io_call = CallBox::new(local.as_fd(), Call::RecvFrom, bytes.into(), (0, 8), None);
    ring.begin(io_call.expect("there is memory").into(), 7).expect("there is room");
    ring.enter(0, None).expect("it waits");
    peer.send_to(b"hello", local.local_addr().expect("it is bound")).expect("room");
    ring.enter(1, None).expect("it completes");
    let mut names = vec![];
    ring.reap(|completion: Completion| {
        if let Completion::Operation { work: Work::Call(call), .. } = completion {
            names.push(crate::op::Address::from_name(call.name()));
        }
    });
    let from = peer.local_addr().expect("it is bound");
    let [Some(crate::op::Address::Inet(its))] = names[..] else { panic!("{names:?}") };
    assert_eq!(its, from);
}

/// The completion's `OwnedFd` closes an accepted socket.
#[test]
fn accepted_socket_is_owned() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut ring = ring(8, TaskWork::Deferred);
    let io_call = CallBox::new(listener.as_fd(), Call::Accept, Buf::None, (0, 0), None);
    ring.begin(io_call.expect("there is memory").into(), 7).expect("there is room");
    ring.enter(0, None).expect("it waits");
    let to = listener.local_addr().expect("it is bound");
    let client = std::net::TcpStream::connect(to).expect("the listener listens");
    ring.enter(1, None).expect("it completes");
    let mut sockets: Vec<OwnedFd> = vec![];
    for (_, _, result) in ring.take_operations() {
        if let Ok(CallResult::Accepted(socket)) = result {
            sockets.push(socket);
        }
    }
    let socket = std::net::TcpStream::from(sockets.pop().expect("a connection"));
    assert_eq!(socket.peer_addr().ok(), client.local_addr().ok());
}
