//! Scenarios of pipes, stream sockets, and connecting.

use super::*;
use nix::poll::PollFlags;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

pub(crate) fn pipes() -> Vec<CallScenario> {
    let mut list = Vec::new();
    for call in [SysCall::Read(3), SysCall::Read(100)] {
        let (reader, writer) = pipe();
        list.push(scenario("pipe, data", reader, call).unblocked_by(write_later(writer, b"hello")));
    }
    let ((end, closing), (data, leaver)) = (pipe(), pipe());
    ok(nix::unistd::write(&leaver, b"bye"));
    drop(leaver);
    list.push(scenario("pipe, end", end, SysCall::Read(5)).unblocked_by(move || drop(closing)));
    list.push(scenario("pipe, data and end of file", data, SysCall::Read(5)));
    let unsupported = [
        SysCall::Recv(5),
        SysCall::RecvFrom(5),
        SysCall::Accept,
        SysCall::Connect(inet("127.0.0.1:9")),
        SysCall::Shutdown(Shutdown::Read),
        SysCall::Shutdown(Shutdown::Write),
        SysCall::Shutdown(Shutdown::Both),
        SysCall::Send(hello()),
        SysCall::SendTo(hello(), inet("127.0.0.1:9")),
        SysCall::Write(hello()),
    ];
    for call in unsupported {
        let (reader, writer) = pipe();
        list.push(scenario("read end of a pipe", reader, call).keeping(writer));
    }
    for call in [SysCall::Read(5), SysCall::Send(hello()), SysCall::Recv(5)] {
        let (reader, writer) = pipe();
        list.push(scenario("write end of a pipe", writer, call).keeping(reader));
    }
    for (name, text) in [("pipe with room", hello()), ("more than room", vec![1; 100_000])] {
        let (reader, writer) = pipe();
        list.push(scenario(name, writer, SysCall::Write(text)).keeping(reader));
    }
    let (_, broken) = pipe();
    list.push(scenario("pipe without reader", broken, SysCall::Write(hello())));
    let ((emptied, full), (leaving, left)) = (pipe(), pipe());
    [&full, &left].into_iter().for_each(fill_restoring_mode);
    list.push(scenario("full pipe, emptied", full, SysCall::Write(hello())).unblocked_by(
        move || {
            drain(&emptied);
            emptied
        },
    ));
    list.push(
        scenario("full pipe, no reader", left, SysCall::Write(hello()))
            .unblocked_by(|| drop(leaving)),
    );
    list
}

pub(crate) fn unix_streams() -> Vec<CallScenario> {
    let mut list = streams(|| {
        let (local, peer) = ok(UnixStream::pair());
        (local.into(), peer.into())
    });
    let name = "unix stream";
    for call in [
        SysCall::SendTo(hello(), missing_address()),
        SysCall::Connect(missing_address()),
        SysCall::RecvFrom(9),
    ] {
        let (local, mut peer) = ok(UnixStream::pair());
        ok(std::io::Write::write_all(&mut peer, b"hello"));
        list.push(scenario(name, local, call).keeping(peer));
    }
    list.extend(unconnected(AddressFamily::Unix));
    list
}

pub(crate) fn tcp_streams() -> Vec<CallScenario> {
    let mut list = streams(|| {
        let listener = ok(TcpListener::bind("127.0.0.1:0"));
        let local = ok(TcpStream::connect(ok(listener.local_addr())));
        let (peer, _) = ok(listener.accept());
        (local.into(), peer.into())
    });
    for call in
        [SysCall::SendTo(hello(), inet("127.0.0.1:9")), SysCall::Connect(inet("127.0.0.1:9"))]
    {
        let (listener, local) = tcp_listener_and_client();
        set_blocking(&local, true);
        list.push(scenario("TCP", ok(local.try_clone()), call).keeping(listener));
    }
    for scenario in list.iter_mut().filter(|scenario| scenario.name.starts_with("full")) {
        scenario.is_settled = false;
    }
    list.extend(unconnected(AddressFamily::Inet));
    list
}

/// Waits until the close of the peer, which has sent no data, has arrived.
fn wait_until_closed(local: &OwnedFd) {
    wait_until_kernel(local, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
}

fn duplicate(file: &OwnedFd) -> OwnedFd {
    ok(file.try_clone())
}

/// Scenarios of connected stream sockets; both ends are blocking.
fn streams(pair: impl Fn() -> (OwnedFd, OwnedFd)) -> Vec<CallScenario> {
    let mut list = Vec::new();
    let receives = [
        SysCall::Recv(3),
        SysCall::Recv(100),
        SysCall::Read(3),
        SysCall::Read(100),
        SysCall::RecvFrom(100),
    ];
    for call in receives {
        let (local, peer) = pair();
        let data = scenario("stream, data", local, call.clone());
        list.push(data.unblocked_by(write_later(peer, b"hello")));
        let (local, peer) = pair();
        list.push(scenario("stream, end", local, call.clone()).unblocked_by(move || drop(peer)));
        let (local, peer) = pair();
        list.push(scenario("stream, half closed", local, call.clone()).unblocked_by(move || {
            ok(socket::shutdown(peer.as_raw_fd(), socket::Shutdown::Write));
            peer
        }));
        let (local, peer) = pair();
        ok(nix::unistd::write(&local, b"unread"));
        wait_until_kernel(&peer, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        list.push(scenario("stream, reset", local, call.clone()).unblocked_by(move || drop(peer)));
        let (local, peer) = pair();
        ok(socket::shutdown(local.as_raw_fd(), socket::Shutdown::Read));
        list.push(scenario("stream, reading shut down", local, call).keeping(peer));
    }
    for call in [SysCall::Send(hello()), SysCall::Write(hello()), SysCall::Send(Vec::new())] {
        let (local, peer) = pair();
        list.push(scenario("stream, room", local, call.clone()).keeping(peer));
        let (local, peer) = pair();
        ok(socket::shutdown(local.as_raw_fd(), socket::Shutdown::Write));
        list.push(scenario("stream, writing shut down", local, call.clone()).keeping(peer));
        let (local, peer) = pair();
        drop(peer);
        wait_until_closed(&local);
        list.push(scenario("stream, closed", local, call.clone()));
        let (local, peer) = pair();
        ok(nix::unistd::write(&local, b"unread"));
        wait_until_kernel(&peer, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        drop(peer);
        wait_until_closed(&local);
        list.push(scenario("stream, was reset", local, call));
    }
    for call in [SysCall::Send(hello()), SysCall::Write(hello())] {
        let (local, peer) = pair();
        fill_restoring_mode(&local);
        let emptied = scenario("full stream, emptied", local, call.clone());
        list.push(emptied.unblocked_by(move || {
            set_blocking(&peer, false);
            drain(&peer);
            peer
        }));
        let (local, peer) = pair();
        fill_restoring_mode(&local);
        let sees = duplicate(&local);
        list.push(scenario("full stream, reset", local, call).unblocked_by(move || {
            drop(peer);
            wait_until_closed(&sees);
        }));
    }
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let (local, peer) = pair();
        list.push(scenario("stream, shut down", local, SysCall::Shutdown(how)).keeping(peer));
    }
    let (local, peer) = pair();
    list.push(scenario("stream, accept", local, SysCall::Accept).keeping(peer));
    list
}

fn unconnected(family: AddressFamily) -> Vec<CallScenario> {
    let all = [
        SysCall::Recv(5),
        SysCall::Read(5),
        SysCall::Send(hello()),
        SysCall::Write(hello()),
        SysCall::SendTo(hello(), missing_address()),
        SysCall::Accept,
        SysCall::Shutdown(Shutdown::Read),
        SysCall::Shutdown(Shutdown::Write),
        SysCall::Shutdown(Shutdown::Both),
    ];
    let new = || new_socket(family, SockType::Stream);
    all.map(|call| scenario("stream, never connected", new(), call)).into()
}

pub(crate) fn connects() -> Vec<CallScenario> {
    let tcp = || new_socket(AddressFamily::Inet, SockType::Stream);
    let unix = || new_socket(AddressFamily::Unix, SockType::Stream);
    let directory = TempDir::new();
    let at = |name: &str| {
        let address = std::os::unix::net::SocketAddr::from_pathname(directory.0.join(name));
        Address::from(ok(address))
    };
    let listener = ok(TcpListener::bind("127.0.0.1:0"));
    let address = Address::from(ok(listener.local_addr()));
    // Bound and not listening, so that no other process gets the port.
    let silent = tcp();
    ok(socket::bind(silent.as_raw_fd(), &socket::SockaddrIn::new(127, 0, 0, 1, 0)));
    let refusing: socket::SockaddrIn = ok(socket::getsockname(silent.as_raw_fd()));
    let refusing = inet(&refusing.to_string());
    let udp = || ok(UdpSocket::bind("127.0.0.1:0"));
    let peer = udp();
    let to_peer = Address::from(ok(peer.local_addr()));
    let unix_listener = ok(UnixListener::bind(directory.0.join("listener")));
    drop(ok(UnixListener::bind(directory.0.join("gone"))));
    let datagrams = ok(std::os::unix::net::UnixDatagram::bind(directory.0.join("datagrams")));
    let connected = ok(TcpStream::connect(ok(listener.local_addr())));
    let mut list = vec![
        scenario("connect over TCP", tcp(), SysCall::Connect(address.clone())),
        scenario("connected already", connected, SysCall::Connect(address.clone())),
        scenario("TCP, refused", tcp(), SysCall::Connect(refusing)),
        scenario("a listener", ok(listener.try_clone()), SysCall::Connect(address.clone())),
        scenario("TCP to a path", tcp(), SysCall::Connect(missing_address())),
        scenario("unix to TCP", unix(), SysCall::Connect(address)),
        scenario("UDP", udp(), SysCall::Connect(to_peer)),
        scenario("unix", unix(), SysCall::Connect(at("listener"))),
        scenario("unix, no such path", unix(), SysCall::Connect(missing_address())),
        scenario("unix, gone", unix(), SysCall::Connect(at("gone"))),
        scenario("unix, other type", unix(), SysCall::Connect(at("datagrams"))),
        scenario("TCP, no port", tcp(), SysCall::Connect(inet("127.0.0.1:0"))),
    ];
    let shared = Rc::new((directory, listener, silent, peer, unix_listener, datagrams));
    list.iter_mut().for_each(|scenario| scenario.keep.push(Box::new(shared.clone())));
    list
}

pub(crate) fn accepts() -> Vec<CallScenario> {
    let listen = || ok(TcpListener::bind("127.0.0.1:0"));
    let (some, down) = (listen(), listen());
    let address = ok(some.local_addr());
    ok(socket::shutdown(down.as_raw_fd(), socket::Shutdown::Read));
    let directory = TempDir::new();
    let path = directory.0.join("listener");
    let unix = ok(UnixListener::bind(&path));
    let connecting = move || (ok(UnixStream::connect(path)), directory);
    let udp = ok(UdpSocket::bind("127.0.0.1:0"));
    vec![
        scenario("TCP", some, SysCall::Accept)
            .unblocked_by(move || ok(TcpStream::connect(address))),
        scenario("unix", unix, SysCall::Accept).unblocked_by(connecting),
        scenario("a listener that was shut down", down, SysCall::Accept),
        scenario("UDP", udp, SysCall::Accept),
        scenario("a listener reads", listen(), SysCall::Recv(5)),
        scenario("a listener writes", listen(), SysCall::Send(hello())),
    ]
}
