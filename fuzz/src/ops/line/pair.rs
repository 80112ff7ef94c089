//! How pairs are made.

use super::super::script::Kind;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::pipe2;
use quintpoll::Address;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The send buffer of a unix socket, and the capacity of a pipe, so that little fills them.
const SMALL: usize = 8192;

/// A pair of this kind: the near end, the far one, and the address of that.
pub(super) fn pair(kind: Kind) -> (OwnedFd, OwnedFd, Option<Address>) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let sockets = |of| socketpair(AddressFamily::Unix, of, None, flags).expect("socketpair");
    let (near, far) = match kind {
        Kind::PipeRead => {
            let (near, far) = pipe();
            return (near, far, None);
        }
        Kind::PipeWrite => {
            let (far, near) = pipe();
            return (near, far, None);
        }
        Kind::Tcp => {
            let (near, far) = tcp();
            return (near, far, None);
        }
        Kind::Udp => return udp(),
        Kind::Named => return named(),
        Kind::Stream => sockets(SockType::Stream),
        Kind::Packet => sockets(SockType::SeqPacket),
        Kind::Datagram => sockets(SockType::Datagram),
    };
    for end in [&near, &far] {
        setsockopt(end, sockopt::SndBuf, &SMALL).expect("SO_SNDBUF");
    }
    (near, far, None)
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("pipe2");
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(SMALL as i32)).expect("F_SETPIPE_SZ");
    (read, write)
}

fn tcp() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let address = listener.local_addr().expect("getsockname");
    let near = TcpStream::connect(address).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    near.set_nodelay(true).expect("TCP_NODELAY");
    far.set_nodelay(true).expect("TCP_NODELAY");
    (near.into(), far.into())
}

fn udp() -> (OwnedFd, OwnedFd, Option<Address>) {
    let socket = || UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    let (near, far) = (socket(), socket());
    let address = |socket: &UdpSocket| socket.local_addr().expect("getsockname");
    near.connect(address(&far)).expect("connect");
    far.connect(address(&near)).expect("connect");
    let address = address(&far).into();
    (near.into(), far.into(), Some(address))
}

fn named() -> (OwnedFd, OwnedFd, Option<Address>) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = || {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("quintpoll-pair-{}-{number}", std::process::id());
        SocketAddr::from_abstract_name(name).expect("a short name")
    };
    let (here, there) = (name(), name());
    let bind = |name: &SocketAddr| UnixDatagram::bind_addr(name).expect("bind");
    let (near, far) = (bind(&here), bind(&there));
    near.connect_addr(&there).expect("connect");
    far.connect_addr(&here).expect("connect");
    let (near, far): (OwnedFd, OwnedFd) = (near.into(), far.into());
    for end in [&near, &far] {
        setsockopt(end, sockopt::SndBuf, &SMALL).expect("SO_SNDBUF");
    }
    (near, far, Some(there.into()))
}
