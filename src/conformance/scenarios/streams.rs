//! Scenarios of pipes, stream sockets, and connecting.

use super::*;
use nix::poll::PollFlags;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

pub(crate) fn pipes() -> Vec<CallScenario> {
    let mut scenes = Vec::new();
    for what in [SysCall::Read(3), SysCall::Read(100)] {
        let (reader, writer) = pipe();
        scenes.push(scene("pipe, data", reader, what).until(says(writer, b"hello")));
    }
    let ((end, closing), (data, leaver)) = (pipe(), pipe());
    ok(nix::unistd::write(&leaver, b"bye"));
    drop(leaver);
    scenes.push(scene("pipe, end", end, SysCall::Read(5)).until(move || drop(closing)));
    scenes.push(scene("pipe, data and end of file", data, SysCall::Read(5)));
    let no_pipe_does = [
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
    for what in no_pipe_does {
        let (reader, writer) = pipe();
        scenes.push(scene("read end of a pipe", reader, what).keeping(writer));
    }
    for what in [SysCall::Read(5), SysCall::Send(hello()), SysCall::Recv(5)] {
        let (reader, writer) = pipe();
        scenes.push(scene("write end of a pipe", writer, what).keeping(reader));
    }
    for (name, text) in [("pipe with room", hello()), ("more than room", vec![1; 100_000])] {
        let (reader, writer) = pipe();
        scenes.push(scene(name, writer, SysCall::Write(text)).keeping(reader));
    }
    let (_, broken) = pipe();
    scenes.push(scene("pipe without reader", broken, SysCall::Write(hello())));
    let ((emptied, full), (leaving, left)) = (pipe(), pipe());
    [&full, &left].into_iter().for_each(stuff);
    scenes.push(scene("full pipe, emptied", full, SysCall::Write(hello())).until(move || {
        drain(&emptied);
        emptied
    }));
    scenes
        .push(scene("full pipe, no reader", left, SysCall::Write(hello())).until(|| drop(leaving)));
    scenes
}

pub(crate) fn unix_streams() -> Vec<CallScenario> {
    let mut scenes = streams(|| {
        let (here, there) = ok(UnixStream::pair());
        (here.into(), there.into())
    });
    let name = "unix stream";
    for what in
        [SysCall::SendTo(hello(), nowhere()), SysCall::Connect(nowhere()), SysCall::RecvFrom(9)]
    {
        let (here, mut there) = ok(UnixStream::pair());
        ok(std::io::Write::write_all(&mut there, b"hello"));
        scenes.push(scene(name, here, what).keeping(there));
    }
    scenes.extend(unconnected(AddressFamily::Unix));
    scenes
}

pub(crate) fn tcp_streams() -> Vec<CallScenario> {
    let mut scenes = streams(|| {
        let listener = ok(TcpListener::bind("127.0.0.1:0"));
        let here = ok(TcpStream::connect(ok(listener.local_addr())));
        let (there, _) = ok(listener.accept());
        (here.into(), there.into())
    });
    for what in
        [SysCall::SendTo(hello(), inet("127.0.0.1:9")), SysCall::Connect(inet("127.0.0.1:9"))]
    {
        let (listener, here) = tcp_listener_and_client();
        set_blocking(&here, true);
        scenes.push(scene("TCP", ok(here.try_clone()), what).keeping(listener));
    }
    for scene in scenes.iter_mut().filter(|scene| scene.name.starts_with("full")) {
        scene.is_settled = false;
    }
    scenes.extend(unconnected(AddressFamily::Inet));
    scenes
}

/// Waits until the close of the peer, which has sent no data, has arrived.
fn until_over(here: &OwnedFd) {
    wait_until_kernel(here, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
}

fn again(file: &OwnedFd) -> OwnedFd {
    ok(file.try_clone())
}

/// Scenarios of connected stream sockets; both ends are blocking.
fn streams(pair: impl Fn() -> (OwnedFd, OwnedFd)) -> Vec<CallScenario> {
    let mut scenes = Vec::new();
    let receives = [
        SysCall::Recv(3),
        SysCall::Recv(100),
        SysCall::Read(3),
        SysCall::Read(100),
        SysCall::RecvFrom(100),
    ];
    for what in receives {
        let (here, there) = pair();
        let data = scene("stream, data", here, what.clone());
        scenes.push(data.until(says(there, b"hello")));
        let (here, there) = pair();
        scenes.push(scene("stream, end", here, what.clone()).until(move || drop(there)));
        let (here, there) = pair();
        scenes.push(scene("stream, half closed", here, what.clone()).until(move || {
            ok(socket::shutdown(there.as_raw_fd(), socket::Shutdown::Write));
            there
        }));
        let (here, there) = pair();
        ok(nix::unistd::write(&here, b"unread"));
        wait_until_kernel(&there, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        scenes.push(scene("stream, reset", here, what.clone()).until(move || drop(there)));
        let (here, there) = pair();
        ok(socket::shutdown(here.as_raw_fd(), socket::Shutdown::Read));
        scenes.push(scene("stream, reading shut down", here, what).keeping(there));
    }
    for what in [SysCall::Send(hello()), SysCall::Write(hello()), SysCall::Send(Vec::new())] {
        let (here, there) = pair();
        scenes.push(scene("stream, room", here, what.clone()).keeping(there));
        let (here, there) = pair();
        ok(socket::shutdown(here.as_raw_fd(), socket::Shutdown::Write));
        scenes.push(scene("stream, writing shut down", here, what.clone()).keeping(there));
        let (here, there) = pair();
        drop(there);
        until_over(&here);
        scenes.push(scene("stream, closed", here, what.clone()));
        let (here, there) = pair();
        ok(nix::unistd::write(&here, b"unread"));
        wait_until_kernel(&there, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        drop(there);
        until_over(&here);
        scenes.push(scene("stream, was reset", here, what));
    }
    for what in [SysCall::Send(hello()), SysCall::Write(hello())] {
        let (here, there) = pair();
        stuff(&here);
        let emptied = scene("full stream, emptied", here, what.clone());
        scenes.push(emptied.until(move || {
            set_blocking(&there, false);
            drain(&there);
            there
        }));
        let (here, there) = pair();
        stuff(&here);
        let sees = again(&here);
        scenes.push(scene("full stream, reset", here, what).until(move || {
            drop(there);
            until_over(&sees);
        }));
    }
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let (here, there) = pair();
        scenes.push(scene("stream, shut down", here, SysCall::Shutdown(how)).keeping(there));
    }
    let (here, there) = pair();
    scenes.push(scene("stream, accept", here, SysCall::Accept).keeping(there));
    scenes
}

fn unconnected(family: AddressFamily) -> Vec<CallScenario> {
    let all = [
        SysCall::Recv(5),
        SysCall::Read(5),
        SysCall::Send(hello()),
        SysCall::Write(hello()),
        SysCall::SendTo(hello(), nowhere()),
        SysCall::Accept,
        SysCall::Shutdown(Shutdown::Read),
        SysCall::Shutdown(Shutdown::Write),
        SysCall::Shutdown(Shutdown::Both),
    ];
    let new = || new_socket(family, SockType::Stream);
    all.map(|what| scene("stream, never connected", new(), what)).into()
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
    let mut scenes = vec![
        scene("connect over TCP", tcp(), SysCall::Connect(address.clone())),
        scene("connected already", connected, SysCall::Connect(address.clone())),
        scene("TCP, refused", tcp(), SysCall::Connect(refusing)),
        scene("a listener", ok(listener.try_clone()), SysCall::Connect(address.clone())),
        scene("TCP to a path", tcp(), SysCall::Connect(nowhere())),
        scene("unix to TCP", unix(), SysCall::Connect(address)),
        scene("UDP", udp(), SysCall::Connect(to_peer)),
        scene("unix", unix(), SysCall::Connect(at("listener"))),
        scene("unix, no such path", unix(), SysCall::Connect(nowhere())),
        scene("unix, gone", unix(), SysCall::Connect(at("gone"))),
        scene("unix, other type", unix(), SysCall::Connect(at("datagrams"))),
        scene("TCP, no port", tcp(), SysCall::Connect(inet("127.0.0.1:0"))),
    ];
    let shared = Rc::new((directory, listener, silent, peer, unix_listener, datagrams));
    scenes.iter_mut().for_each(|scene| scene.keep.push(Box::new(shared.clone())));
    scenes
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
        scene("TCP", some, SysCall::Accept).until(move || ok(TcpStream::connect(address))),
        scene("unix", unix, SysCall::Accept).until(connecting),
        scene("a listener that was shut down", down, SysCall::Accept),
        scene("UDP", udp, SysCall::Accept),
        scene("a listener reads", listen(), SysCall::Recv(5)),
        scene("a listener writes", listen(), SysCall::Send(hello())),
    ]
}
