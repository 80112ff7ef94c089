//! Files of each kind, and descriptors that are refused.

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

/// A descriptor that is not open, far above those in use.
fn closed_fd() -> BorrowedFd<'static> {
    // SAFETY: unsound in general; the descriptor is passed to system calls only.
    unsafe { BorrowedFd::borrow_raw(1 << 30) }
}

#[test]
fn socket_kind_follows_family_and_protocol() {
    let types = [SockType::Stream, SockType::Datagram, SockType::SeqPacket];
    for socket_type in types {
        let pair = socketpair(AddressFamily::Unix, socket_type, None, SockFlag::SOCK_CLOEXEC);
        let (local, peer) = pair.expect("a pair");
        assert_eq!([kind(&local), kind(&peer)], [FdKind::UnixSocket; 2], "{socket_type:?}");
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for socket_type in [SockType::Stream, SockType::Datagram] {
            match socket(family, socket_type, SockFlag::SOCK_CLOEXEC, None) {
                Ok(made) => assert_eq!(kind(&made), FdKind::InternetSocket, "{socket_type:?}"),
                // The kernel has no IPv6.
                Err(error) => assert_eq!((error, family), (nix::Error::EAFNOSUPPORT, family)),
            }
        }
    }
}

#[test]
fn other_protocols_are_not_internet_sockets() {
    let netlink = SockProtocol::NetlinkRoute;
    let cloexec = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, cloexec, netlink);
    assert_eq!(kind(&netlink.expect("every Linux has it")), FdKind::OtherSocket);
    // Some need a privilege or a module.
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
fn other_kinds_follow_the_mode() {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    assert_eq!([kind(&reader), kind(&writer)], [FdKind::Pipe; 2]);
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).expect("a timer");
    assert_eq!(kind(&EventFd::new().expect("an eventfd")), FdKind::Anonymous);
    assert_eq!(kind(&timer), FdKind::Anonymous);
    assert_eq!(kind(&Inotify::init(InitFlags::empty()).expect("an inotify")), FdKind::Inotify);
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll");
    assert_eq!(kind(&epoll.0), FdKind::Anonymous);
    let file_types = [
        ("/dev/null", FileType::Named),
        ("/", FileType::Named),
        ("/dev/ptmx", FileType::Named),
        ("/proc/self/status", FileType::Regular),
        ("/proc/self/exe", FileType::Regular),
    ];
    for (path, file_type) in file_types {
        let file = opened(path, OFlag::O_RDONLY);
        assert_eq!(kind(&file), FdKind::Named, "{path}");
        assert_eq!(FileType::of(file.as_fd()).expect("an open file"), file_type, "{path}");
    }
    let refused = FdKind::of(closed_fd()).expect_err("it is not open");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
}

/// In the table of the process's first thread these descriptors mean other files, or none.
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
            // SAFETY: this table is the thread's own; `old` keeps its owner, for another file.
            assert_eq!(unsafe { libc::dup3(new, old, libc::O_CLOEXEC) }, old);
        };
        replace(&inotify, &EventFd::new().expect("an eventfd"));
        replace(&eventfd, &new_inotify());
        // The replaced files are closed in the other table, where they are still open.
        ([kind(&inotify), kind(&eventfd)], inotify, eventfd)
    });
    let (kinds, inotify, eventfd) = thread.join().expect("it does not panic");
    assert_eq!(kinds, [FdKind::Anonymous, FdKind::Inotify]);
    assert_eq!([kind(&inotify), kind(&eventfd)], [FdKind::Inotify, FdKind::Anonymous]);
}

#[test]
fn performance_counter_is_detected() {
    /// The head of struct perf_event_attr in its first size: type `PERF_TYPE_SOFTWARE` and size,
    /// and config `PERF_COUNT_SW_DUMMY`.
    const DUMMY: [u64; 8] = [1 | 64 << 32, 9, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads as many bytes as the size field says, the size of `DUMMY`.
    let raw_fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, DUMMY.as_ptr(), 0, -1, -1, 8 /* CLOEXEC */)
    };
    if raw_fd == -1 {
        return println!("skipped: perf_event_open: {}", io::Error::last_os_error());
    }
    // SAFETY: the call has just made the descriptor, and nothing else owns it.
    let counter = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw_fd as i32) };
    assert_eq!(kind(&counter), FdKind::Anonymous);
    assert!(is_counter(counter.as_raw_fd()));
    assert!(!is_counter(EventFd::new().expect("an eventfd").as_fd().as_raw_fd()));
}

#[test]
fn fifo_is_a_pipe() {
    let folder = tempfile::tempdir().expect("a place for it");
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a place for it");
    let made = open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    assert_eq!(kind(&made.expect("it was just made")), FdKind::Pipe);
}

/// After a socket has made another connection, the reset of the first no longer matters.
#[test]
fn reconnected_socket_has_not_lost_its_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let local = std::net::TcpStream::connect(listener.local_addr().expect("it has one"));
    let local = local.expect("the listener listens");
    let (peer, _) = listener.accept().expect("a connection");
    let is_last = || has_not_connected_again(local.as_fd());
    assert!(!is_last());
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&peer, nix::sys::socket::sockopt::Linger, &at_once)
        .expect("an option");
    drop(peer);
    // SAFETY: there is room for one byte.
    let received = unsafe { libc::recv(local.as_raw_fd(), [0_u8].as_mut_ptr().cast(), 1, 0) };
    assert_eq!((received, nix::errno::Errno::last()), (-1, nix::errno::Errno::ECONNRESET));
    assert!(is_last(), "it was reset");
    let unspecified = libc::sockaddr { sa_family: libc::AF_UNSPEC as _, sa_data: [0; 14] };
    let size = size_of_val(&unspecified) as libc::socklen_t;
    // SAFETY: the address outlives the call and has that size.
    assert_eq!(unsafe { libc::connect(local.as_raw_fd(), &raw const unspecified, size) }, 0);
    let address = listener.local_addr().expect("it has one");
    let address = nix::sys::socket::SockaddrStorage::from(address);
    nix::sys::socket::connect(local.as_raw_fd(), &address).expect("the listener listens");
    assert!(!is_last(), "it has another connection");
    drop(listener.accept().expect("a connection"));
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut &local, &mut byte).ok(), Some(0));
    assert!(!is_last(), "the other connection ended in order");
    let (unix, other) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    drop(other);
    assert!(has_not_connected_again(unix.as_fd()), "a unix socket connects once");
}

#[test]
fn socket_options_match_the_socket() {
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
fn closed_and_o_path_fds_are_refused() {
    for path in ["/dev/null", "/"] {
        let refused = check_pollable(opened(path, OFlag::O_PATH).as_fd()).expect_err("O_PATH");
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        check_pollable(opened(path, OFlag::O_RDONLY).as_fd()).expect("it is open");
    }
    let refused = check_pollable(closed_fd()).expect_err("it is not open");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    let every = OFlag::O_ASYNC | OFlag::O_NONBLOCK | OFlag::O_APPEND;
    fcntl(&writer, FcntlArg::F_SETFL(every)).expect("an open file");
    for open in [&reader, &writer] {
        check_pollable(open.as_fd()).expect("it is open");
    }
}

/// A source that counts calls of `as_fd`.
struct CountingSource {
    file: OwnedFd,
    calls: AtomicUsize,
}

impl AsFd for CountingSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.file.as_fd()
    }
}

#[test]
fn source_fd_calls_as_fd_once() {
    let (file, _writer) = nix::unistd::pipe().expect("a pipe");
    let raw_fd = file.as_raw_fd();
    let source = Arc::new(CountingSource { file, calls: AtomicUsize::new(0) });
    let source_fd = SourceFd::new(source.clone());
    assert_eq!(
        [source_fd.raw_fd(), source_fd.fd().as_raw_fd(), source_fd.fd().as_raw_fd()],
        [raw_fd; 3]
    );
    assert_eq!(source.calls.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&source), 2);
    assert_eq!(format!("{source_fd:?}"), format!("SourceFd {{ raw_fd: {raw_fd}, handles: 2 }}"));
    drop(source_fd);
    let source = Arc::into_inner(source).expect("the other handle was dropped");
    assert_eq!(source.file.as_raw_fd(), raw_fd);
}
