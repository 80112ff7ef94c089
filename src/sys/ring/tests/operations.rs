//! Operations: whose their memory is, and until when.

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
        other => panic!("it was no such request: {other:?}"),
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
fn memory_comes_back_with_the_completion_and_not_before() {
    for work in TaskWork::LADDER {
        let (mut ring, (here, there)) = (ring(8, work), pair());
        let io_call = recv(&here, 64);
        ring.begin(io_call.into(), 7).expect("there is room");
        for _ in 0..3 {
            ring.enter(0, None).expect("it waits");
            assert!(ring.take_operations().is_empty(), "{work:?}");
            assert_eq!(ring.in_flight.len(), 1);
        }
        write(&there, b"data").expect("room");
        ring.enter(1, None).expect("it completes");
        assert_eq!(ring.in_flight.len(), 1, "the kernel is done, but nobody knows yet");
        let [(7, buf, Ok(CallResult::Moved(4)))] = &ring.take_operations()[..] else {
            panic!("{work:?}")
        };
        assert_eq!(&buf[..], b"data");
        assert_eq!(ring.in_flight.len(), 0);
    }
}

#[test]
fn one_that_is_stopped_gives_its_memory_back() {
    for work in TaskWork::LADDER {
        let (mut ring, (here, _there)) = (ring(8, work), pair());
        let tag = u64::from(u32::MAX) << 32 | 5;
        ring.begin(recv(&here, 64).into(), tag).expect("there is room");
        ring.enter(0, None).expect("it waits");
        assert!(ring.push(Request::Stop(tag), 5));
        ring.enter(2, None).expect("both complete");
        let (mut told, mut landed) = (vec![], vec![]);
        ring.reap(|completion: Completion| match completion {
            Completion::Request { .. } => told.push(Told::of(completion)),
            completion => landed.push(of_operation(completion)),
        });
        assert_eq!(told, [Told { user_data: 5, result: 0, more: false }]);
        let [(its, buf, Err(error))] = &landed[..] else { panic!("{landed:?}") };
        assert_eq!(*its, tag);
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        assert!(matches!(buf, Buf::Vec(bytes) if bytes.is_empty() && bytes.capacity() == 64));
    }
}

#[test]
fn a_full_ring_takes_no_operation() {
    let (mut ring, (here, _there)) = (ring(2, TaskWork::Deferred), pair());
    for tag in 0..2 {
        assert_eq!(ring.room(), 2 - tag as usize);
        ring.begin(recv(&here, 1).into(), tag).expect("there is room");
    }
    let work = ring.begin(recv(&here, 1).into(), 2).expect_err("there is none");
    assert_eq!(
        (work.into_call().left(), ring.operations(), ring.room()),
        (1, 2, 0),
        "it comes back"
    );
    ring.enter(0, None).expect("they wait");
    ring.settle();
}

/// The kernel has the memory of the one before.
#[test]
fn an_index_has_one_operation_at_a_time() {
    let (mut ring, (here, _there)) = (ring(8, TaskWork::Deferred), pair());
    ring.begin(recv(&here, 1).into(), 7).expect("there is room");
    for tag in [7, 1 << 32 | 7, OPERATION | 7] {
        assert!(ring.begin(recv(&here, 1).into(), tag).is_err(), "{tag:#x}");
    }
    assert_eq!((ring.operations(), ring.room()), (1, 7));
    ring.settle();
}

/// On a socket without room, which blocks: only what receives waits.
#[test]
fn a_send_is_for_now_or_never() {
    for work in TaskWork::LADDER {
        let (mut ring, (here, _there)) = (ring(8, work), pair());
        here.set_nonblocking(true).expect("a socket");
        while write(&here, &[0; 4096]).is_ok() {}
        here.set_nonblocking(false).expect("a socket");
        let send = CallBox::new(here.as_fd(), Call::Send, "data".into(), (0, 4), None);
        ring.begin(send.expect("four bytes").into(), 1).expect("there is room");
        ring.begin(recv(&here, 4).into(), 2).expect("there is room");
        ring.enter(1, None).expect("one completes");
        let landed = ring.take_operations();
        let [(1, _, Err(error))] = &landed[..] else { panic!("{landed:?}") };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(ring.in_flight.len(), 1);
        // Before the other socket goes, lest its memory be counted as left to the kernel.
        ring.settle();
    }
}

impl Ring {
    /// Stops what is in flight.
    fn settle(&mut self) {
        for tag in self.operation_tags().collect::<Vec<_>>() {
            assert!(self.push(Request::Stop(tag), 0));
        }
        while self.in_flight.len() > 0 {
            self.enter(1, None).expect("it goes on");
            self.reap(drop::<Completion>);
        }
    }
}

#[test]
#[should_panic(expected = "it would be taken for an operation")]
fn a_request_does_not_look_like_an_operation() {
    let (mut ring, counter) = (ring(8, TaskWork::Deferred), counter());
    ring.push(poll(&counter), OPERATION | 1);
}

/// Whether the memory at this place is there at all.
fn is_mapped(place: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is always there");
    maps.lines().any(|line| {
        let (range, _) = line.split_once(' ').expect("a range and more");
        let (start, end) = range.split_once('-').expect("two ends");
        let [start, end] = [start, end].map(|end| usize::from_str_radix(end, 16).expect("hex"));
        (start..end).contains(&place)
    })
}

/// So much that the allocator gives it back to the system at once.
const MUCH: usize = 80 << 20;

#[test]
fn what_is_not_over_is_left_to_the_kernel_and_counted() {
    if !is_alone("sys::ring::tests::operations::what_is_not_over_is_left_to_the_kernel_and_counted")
    {
        return;
    }
    let ((here, there), mut places) = (pair(), vec![]);
    let mut ring = ring(8, TaskWork::Deferred);
    for at in 0..3 {
        let bytes = Vec::with_capacity(MUCH);
        places.push(bytes.as_ptr() as usize);
        let io_call = CallBox::new(here.as_fd(), Call::Recv, bytes.into(), (0, MUCH), None);
        ring.begin(io_call.expect("there is memory").into(), at).expect("there is room");
    }
    ring.enter(0, None).expect("they wait");
    write(&there, b"one").expect("room");
    ring.enter(1, None).expect("one completes");
    let mut landed = ring.take_operations();
    let (tag, buf, _) = landed.pop().expect("one");
    drop(buf);
    assert!(!is_mapped(places[tag as usize]), "what has come back is freed");
    assert_eq!(leaked_buffers(), 0);
    drop(ring);
    assert_eq!(leaked_buffers(), 2);
    let left = places.iter().filter(|&&place| is_mapped(place)).count();
    assert_eq!(left, 2, "nobody else gets this memory");
    drop(Ring::open(size(8), &TaskWork::LADDER).expect("this kernel has it"));
    assert_eq!(leaked_buffers(), 2, "of operations, not of rings");
}

/// In a child they are copies, and the parent's goes on.
#[test]
fn a_child_leaves_them_to_its_parent() {
    if !is_alone("sys::ring::tests::operations::a_child_leaves_them_to_its_parent") {
        return;
    }
    let (mut ring, (here, there)) = (ring(8, TaskWork::Deferred), pair());
    ring.begin(recv(&here, 64).into(), 7).expect("there is room");
    ring.enter(0, None).expect("it waits");
    // SAFETY: there is no other thread at work in this process.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let mut ring = ring;
            let is_refused = ring.room() == 0;
            drop(ring);
            let status = i32::from(!is_refused || leaked_buffers() > 0);
            // SAFETY: this ends the process without running anything.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("it is our child");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
    write(&there, b"data").expect("room");
    ring.enter(1, None).expect("it completes");
    let [(7, buf, Ok(_))] = &ring.take_operations()[..] else { panic!("it goes on") };
    assert_eq!(&buf[..], b"data");
}

/// What the kernel writes beside the bytes is as much its own.
#[test]
fn the_name_of_a_sender_comes_with_the_completion() {
    let [here, there] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let mut ring = ring(8, TaskWork::Deferred);
    let bytes = Vec::with_capacity(8);
    let io_call = CallBox::new(here.as_fd(), Call::RecvFrom, bytes.into(), (0, 8), None);
    ring.begin(io_call.expect("there is memory").into(), 7).expect("there is room");
    ring.enter(0, None).expect("it waits");
    there.send_to(b"hello", here.local_addr().expect("it is bound")).expect("room");
    ring.enter(1, None).expect("it completes");
    let mut names = vec![];
    ring.reap(|completion: Completion| {
        if let Completion::Operation { work: Work::Call(call), .. } = completion {
            names.push(crate::op::Address::from_name(call.name()));
        }
    });
    let from = there.local_addr().expect("it is bound");
    let [Some(crate::op::Address::Inet(its))] = names[..] else { panic!("{names:?}") };
    assert_eq!(its, from);
}

/// Of one who has been accepted the number is ours from the completion on.
#[test]
fn an_accepted_socket_is_owned() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut ring = ring(8, TaskWork::Deferred);
    let io_call = CallBox::new(listener.as_fd(), Call::Accept, Buf::None, (0, 0), None);
    ring.begin(io_call.expect("there is memory").into(), 7).expect("there is room");
    ring.enter(0, None).expect("it waits");
    let to = listener.local_addr().expect("it is bound");
    let client = std::net::TcpStream::connect(to).expect("somebody listens");
    ring.enter(1, None).expect("it completes");
    let mut sockets: Vec<OwnedFd> = vec![];
    for (_, _, gain) in ring.take_operations() {
        if let Ok(CallResult::Accepted(socket)) = gain {
            sockets.push(socket);
        }
    }
    let socket = std::net::TcpStream::from(sockets.pop().expect("somebody has come"));
    assert_eq!(socket.peer_addr().ok(), client.local_addr().ok());
}
