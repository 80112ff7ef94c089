//! One file of each kind, and what is refused.

use super::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, getsockopt, socket, socketpair, sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

fn kind(fd: &impl AsFd) -> FdKind {
    FdKind::of(fd.as_fd()).expect("an open file")
}

fn opened(path: &str, flags: OFlag) -> OwnedFd {
    open(path, flags | OFlag::O_CLOEXEC, Mode::empty()).expect("every Linux has it")
}

/// A number that is not open, far above those that are given out.
fn closed() -> BorrowedFd<'static> {
    // SAFETY: not sound in general; nobody has the number, and it only meets system calls.
    unsafe { BorrowedFd::borrow_raw(1 << 30) }
}

#[test]
fn sockets_are_told_by_family_and_protocol() {
    let types = [SockType::Stream, SockType::Datagram, SockType::SeqPacket];
    for socket_type in types {
        let pair = socketpair(AddressFamily::Unix, socket_type, None, SockFlag::SOCK_CLOEXEC);
        let (here, there) = pair.expect("a pair");
        assert_eq!([kind(&here), kind(&there)], [FdKind::UnixSocket; 2], "{socket_type:?}");
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for socket_type in [SockType::Stream, SockType::Datagram] {
            match socket(family, socket_type, SockFlag::SOCK_CLOEXEC, None) {
                Ok(made) => assert_eq!(kind(&made), FdKind::InternetSocket, "{socket_type:?}"),
                // A kernel without IPv6.
                Err(error) => assert_eq!((error, family), (nix::Error::EAFNOSUPPORT, family)),
            }
        }
    }
}

#[test]
fn other_protocols_are_no_internet_sockets() {
    let netlink = SockProtocol::NetlinkRoute;
    let cloexec = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, cloexec, netlink);
    assert_eq!(kind(&netlink.expect("every Linux has it")), FdKind::OtherSocket);
    // Some need a privilege, some a module.
    let made = [
        socket(AddressFamily::Inet, SockType::Raw, cloexec, SockProtocol::Icmp),
        socket(AddressFamily::Inet, SockType::Datagram, cloexec, SockProtocol::Icmp),
        socket(AddressFamily::Packet, SockType::Raw, cloexec, None),
        socket(AddressFamily::Vsock, SockType::Stream, cloexec, None),
    ];
    for made in made.into_iter().flatten() {
        let socket_type = getsockopt(&made, sockopt::SockType).expect("a socket");
        assert_eq!(kind(&made), FdKind::OtherSocket, "{socket_type:?}");
    }
}

#[test]
fn the_rest_is_told_by_the_mode() {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    assert_eq!([kind(&reader), kind(&writer)], [FdKind::Pipe; 2]);
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).expect("a timer");
    assert_eq!(kind(&EventFd::new().expect("an eventfd")), FdKind::Anonymous);
    assert_eq!(kind(&timer), FdKind::Anonymous);
    assert_eq!(kind(&Inotify::init(InitFlags::empty()).expect("an inotify")), FdKind::Inotify);
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll");
    assert_eq!(kind(&epoll.0), FdKind::Anonymous);
    let shapes = [
        ("/dev/null", FileType::Named),
        ("/", FileType::Named),
        ("/dev/ptmx", FileType::Named),
        ("/proc/self/status", FileType::Regular),
        ("/proc/self/exe", FileType::Regular),
    ];
    for (path, shape) in shapes {
        let file = opened(path, OFlag::O_RDONLY);
        assert_eq!(kind(&file), FdKind::Named, "{path}");
        assert_eq!(FileType::of(file.as_fd()).expect("an open file"), shape, "{path}");
    }
    let refused = FdKind::of(closed()).expect_err("it is not open");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
}

/// The first thread of the process has other files under the same numbers, or none.
#[test]
fn kind_is_that_of_the_callers_table() {
    let thread = std::thread::spawn(|| {
        let new_inotify = || Inotify::init(InitFlags::IN_CLOEXEC).expect("an inotify");
        let inotify = new_inotify();
        let eventfd = EventFd::new().expect("an eventfd");
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        let replace = |old: &dyn AsFd, new: &dyn AsFd| {
            let (old, new) = (old.as_fd().as_raw_fd(), new.as_fd().as_raw_fd());
            // SAFETY: this table is the thread's own, in which `old` stands for another file of
            // the same owner from now on.
            assert_eq!(unsafe { libc::dup3(new, old, libc::O_CLOEXEC) }, old);
        };
        replace(&inotify, &EventFd::new().expect("an eventfd"));
        replace(&eventfd, &new_inotify());
        // What was replaced is closed in the other table, where it is still open.
        ([kind(&inotify), kind(&eventfd)], inotify, eventfd)
    });
    let (kinds, inotify, eventfd) = thread.join().expect("it only looks");
    assert_eq!(kinds, [FdKind::Anonymous, FdKind::Inotify]);
    assert_eq!([kind(&inotify), kind(&eventfd)], [FdKind::Inotify, FdKind::Anonymous]);
}

#[test]
fn a_performance_counter_is_one() {
    /// The beginning of struct perf_event_attr, of the first published size: type
    /// `PERF_TYPE_SOFTWARE` and size, and config `PERF_COUNT_SW_DUMMY`.
    const DUMMY: [u64; 8] = [1 | 64 << 32, 9, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads as many bytes as the size field says, which is what there is.
    let number = unsafe {
        libc::syscall(libc::SYS_perf_event_open, DUMMY.as_ptr(), 0, -1, -1, 8 /* CLOEXEC */)
    };
    if number == -1 {
        return println!("skipped: perf_event_open: {}", io::Error::last_os_error());
    }
    // SAFETY: the call has just made this number, and nobody else knows it.
    let counter = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number as i32) };
    assert_eq!(kind(&counter), FdKind::Anonymous);
    assert!(is_counter(counter.as_raw_fd()));
    assert!(!is_counter(EventFd::new().expect("an eventfd").as_fd().as_raw_fd()));
}

#[test]
fn a_named_pipe_is_a_pipe() {
    let folder = tempfile::tempdir().expect("a place for it");
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a place for it");
    let made = open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    assert_eq!(kind(&made.expect("it was just made")), FdKind::Pipe);
}

/// Of a socket that has lost one connection and made another, the first is no matter any more.
#[test]
fn whoever_has_connected_again_has_lost_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let here = std::net::TcpStream::connect(listener.local_addr().expect("it has one"));
    let here = here.expect("it listens");
    let (there, _) = listener.accept().expect("it came");
    let is_last = || has_not_connected_again(here.as_fd());
    assert!(!is_last());
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&there, nix::sys::socket::sockopt::Linger, &at_once)
        .expect("an option");
    drop(there);
    // SAFETY: there is room for a byte.
    let heard = unsafe { libc::recv(here.as_raw_fd(), [0_u8].as_mut_ptr().cast(), 1, 0) };
    assert_eq!((heard, nix::errno::Errno::last()), (-1, nix::errno::Errno::ECONNRESET));
    assert!(is_last(), "it was reset");
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as _, sa_data: [0; 14] };
    let size = size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: the address outlives the call and has that size.
    assert_eq!(unsafe { libc::connect(here.as_raw_fd(), &raw const nobody, size) }, 0);
    let address = listener.local_addr().expect("it has one");
    let address = nix::sys::socket::SockaddrStorage::from(address);
    nix::sys::socket::connect(here.as_raw_fd(), &address).expect("it listens");
    assert!(!is_last(), "it has another");
    drop(listener.accept().expect("it came"));
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut &here, &mut byte).ok(), Some(0));
    assert!(!is_last(), "which has ended in order");
    let (unix, other) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    drop(other);
    assert!(has_not_connected_again(unix.as_fd()), "it can't make another");
}

#[test]
fn options_are_those_of_the_socket() {
    let cloexec = SockFlag::SOCK_CLOEXEC;
    let udp = socket(AddressFamily::Inet, SockType::Datagram, cloexec, None).expect("a socket");
    let option = |name| socket_option(udp.as_fd(), name).expect("a socket");
    assert_eq!(option(libc::SO_TYPE), libc::SOCK_DGRAM);
    assert_eq!(option(libc::SO_DOMAIN), libc::AF_INET);
    let (pipe, _writer) = nix::unistd::pipe().expect("a pipe");
    let refused = socket_option(pipe.as_fd(), libc::SO_TYPE).expect_err("it is no socket");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOTSOCK));
}

#[test]
fn what_is_not_open_or_for_naming_only_is_refused() {
    for path in ["/dev/null", "/"] {
        let refused = check_pollable(opened(path, OFlag::O_PATH).as_fd()).expect_err("O_PATH");
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        check_pollable(opened(path, OFlag::O_RDONLY).as_fd()).expect("it is open");
    }
    let refused = check_pollable(closed()).expect_err("it is not open");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    let every = OFlag::O_ASYNC | OFlag::O_NONBLOCK | OFlag::O_APPEND;
    fcntl(&writer, FcntlArg::F_SETFL(every)).expect("an open file");
    for open in [&reader, &writer] {
        check_pollable(open.as_fd()).expect("it is open");
    }
}

/// A source whose `as_fd` is counted.
struct Asked {
    file: OwnedFd,
    times: AtomicUsize,
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.file.as_fd()
    }
}

#[test]
fn a_handle_is_asked_once_and_held() {
    let (file, _writer) = nix::unistd::pipe().expect("a pipe");
    let number = file.as_raw_fd();
    let source = Arc::new(Asked { file, times: AtomicUsize::new(0) });
    let held = SourceFd::new(source.clone());
    assert_eq!([held.number(), held.fd().as_raw_fd(), held.fd().as_raw_fd()], [number; 3]);
    assert_eq!(source.times.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&source), 2);
    assert_eq!(format!("{held:?}"), format!("Held {{ number: {number}, handles: 2 }}"));
    drop(held);
    let source = Arc::into_inner(source).expect("it was let go of");
    assert_eq!(source.file.as_raw_fd(), number);
}
