//! Scenarios of datagrams and sequenced packets.

use super::*;
use nix::poll::PollFlags;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;

fn receives() -> Vec<SysCall> {
    let of = |max| [SysCall::Recv(max), SysCall::RecvFrom(max), SysCall::Read(max)];
    [of(3), of(100)].concat()
}

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    ok(socket::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC))
}

/// Scenarios that datagram and seqpacket pairs have in common.
fn pairs(kind: SockType) -> Vec<CallScenario> {
    let mut list = Vec::new();
    for call in receives() {
        let (local, peer) = pair(kind);
        list.push(
            scenario("a packet", local, call.clone()).unblocked_by(write_later(peer, b"hello")),
        );
        let (local, peer) = pair(kind);
        ok(nix::unistd::write(&peer, b"one"));
        ok(nix::unistd::write(&peer, b"two"));
        list.push(scenario("two packets", local, call.clone()).keeping(peer));
        let (local, peer) = pair(kind);
        list.push(scenario("an empty packet", local, call).unblocked_by(move || {
            assert_eq!(ok(socket::send(peer.as_raw_fd(), b"", MsgFlags::empty())), 0);
            peer
        }));
    }
    for call in [SysCall::Send(hello()), SysCall::Write(hello()), SysCall::Send(Vec::new())] {
        let (local, peer) = pair(kind);
        list.push(scenario("room", local, call.clone()).keeping(peer));
        let (local, peer) = pair(kind);
        drop(peer);
        list.push(scenario("closed", local, call.clone()));
        let (local, peer) = pair(kind);
        fill_restoring_mode(&local);
        list.push(scenario("full, emptied", local, call).unblocked_by(move || {
            set_blocking(&peer, false);
            drain(&peer);
            peer
        }));
    }
    let (local, peer) = pair(kind);
    list.push(scenario("too large", local, SysCall::Send(vec![0; 1 << 24])).keeping(peer));
    for call in [
        SysCall::SendTo(hello(), missing_address()),
        SysCall::Accept,
        SysCall::Shutdown(Shutdown::Both),
    ] {
        let (local, peer) = pair(kind);
        list.push(scenario("a pair", local, call).keeping(peer));
    }
    list
}

pub(crate) fn unix_datagrams() -> Vec<CallScenario> {
    let mut list = pairs(SockType::Datagram);
    let directory = TempDir::new();
    let [peer, gone] = ["there", "gone"].map(|name| directory.0.join(name));
    let receiver = ok(UnixDatagram::bind(&peer));
    drop(ok(UnixDatagram::bind(&gone)));
    let [peer, gone] = [peer, gone]
        .map(|path| Address::from(ok(std::os::unix::net::SocketAddr::from_pathname(path))));
    let all = [
        ("not connected", SysCall::Send(hello())),
        ("not connected", SysCall::Write(hello())),
        ("not connected", SysCall::Connect(gone.clone())),
        ("not connected", SysCall::Connect(peer.clone())),
        ("to a missing path", SysCall::SendTo(hello(), missing_address())),
        ("to a closed socket", SysCall::SendTo(hello(), gone)),
        ("to a bound socket", SysCall::SendTo(hello(), peer)),
        ("to another family", SysCall::SendTo(hello(), inet("127.0.0.1:9"))),
        ("no listener", SysCall::Accept),
    ];
    let new = || ok(UnixDatagram::unbound());
    list.extend(all.map(|(name, call)| scenario(name, new(), call)));
    // Any of the scenarios may need these until it ends.
    let shared = Rc::new((receiver, directory));
    list.iter_mut().for_each(|scenario| scenario.keep.push(Box::new(shared.clone())));
    list
}

pub(crate) fn sequences() -> Vec<CallScenario> {
    let mut list = pairs(SockType::SeqPacket);
    for call in receives() {
        let (local, peer) = pair(SockType::SeqPacket);
        list.push(scenario("end", local, call.clone()).unblocked_by(move || drop(peer)));
        let (local, peer) = pair(SockType::SeqPacket);
        ok(nix::unistd::write(&local, b"unread"));
        list.push(scenario("reset", local, call).unblocked_by(move || drop(peer)));
    }
    list
}

pub(crate) fn udp() -> Vec<CallScenario> {
    let new = || ok(UdpSocket::bind("127.0.0.1:0"));
    let pair = || {
        let (local, peer) = (new(), new());
        ok(local.connect(ok(peer.local_addr())));
        ok(peer.connect(ok(local.local_addr())));
        (local, peer)
    };
    let mut list = Vec::new();
    for call in receives() {
        for text in ["hello", ""] {
            let (local, peer) = pair();
            list.push(scenario("UDP, a datagram", local, call.clone()).unblocked_by(move || {
                assert_eq!(ok(peer.send(text.as_bytes())), text.len());
                peer
            }));
        }
        // The next call reports that an earlier datagram was refused.
        let (local, peer) = pair();
        let sends = ok(local.try_clone());
        list.push(scenario("UDP, refused", local, call).unblocked_by(move || {
            drop(peer);
            ok(sends.send(b"x"));
            sends
        }));
    }
    for call in [SysCall::Send(hello()), SysCall::Write(hello()), SysCall::Send(vec![0; 70_000])] {
        let (local, peer) = pair();
        list.push(scenario("UDP, connected", local, call.clone()).keeping(peer));
        list.push(scenario("UDP, not connected", new(), call.clone()));
        let (local, peer) = pair();
        drop(peer);
        ok(local.send(b"x"));
        wait_until_kernel(&local, PollFlags::empty(), |bits| bits.contains(PollFlags::POLLERR));
        list.push(scenario("UDP, was refused", local, call));
    }
    for (name, to) in [
        ("UDP, to itself", "127.0.0.1:9"),
        ("UDP, broadcast without permission", "255.255.255.255:9"),
        ("UDP, another family", "[::1]:9"),
        ("UDP, no port", "127.0.0.1:0"),
    ] {
        list.push(scenario(name, new(), SysCall::SendTo(hello(), inet(to))));
    }
    list.push(scenario("UDP, to a path", new(), SysCall::SendTo(hello(), missing_address())));
    list.push(scenario("UDP, shut down", new(), SysCall::Shutdown(Shutdown::Write)));
    list
}
