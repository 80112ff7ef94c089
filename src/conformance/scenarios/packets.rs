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
    let mut scenes = Vec::new();
    for what in receives() {
        let (here, there) = pair(kind);
        scenes.push(scene("a packet", here, what.clone()).until(says(there, b"hello")));
        let (here, there) = pair(kind);
        ok(nix::unistd::write(&there, b"one"));
        ok(nix::unistd::write(&there, b"two"));
        scenes.push(scene("two packets", here, what.clone()).keeping(there));
        let (here, there) = pair(kind);
        scenes.push(scene("an empty packet", here, what).until(move || {
            assert_eq!(ok(socket::send(there.as_raw_fd(), b"", MsgFlags::empty())), 0);
            there
        }));
    }
    for what in [SysCall::Send(hello()), SysCall::Write(hello()), SysCall::Send(Vec::new())] {
        let (here, there) = pair(kind);
        scenes.push(scene("room", here, what.clone()).keeping(there));
        let (here, there) = pair(kind);
        drop(there);
        scenes.push(scene("closed", here, what.clone()));
        let (here, there) = pair(kind);
        stuff(&here);
        scenes.push(scene("full, emptied", here, what).until(move || {
            set_blocking(&there, false);
            drain(&there);
            there
        }));
    }
    let (here, there) = pair(kind);
    scenes.push(scene("too large", here, SysCall::Send(vec![0; 1 << 24])).keeping(there));
    for what in
        [SysCall::SendTo(hello(), nowhere()), SysCall::Accept, SysCall::Shutdown(Shutdown::Both)]
    {
        let (here, there) = pair(kind);
        scenes.push(scene("a pair", here, what).keeping(there));
    }
    scenes
}

pub(crate) fn unix_datagrams() -> Vec<CallScenario> {
    let mut scenes = pairs(SockType::Datagram);
    let directory = TempDir::new();
    let [there, gone] = ["there", "gone"].map(|name| directory.0.join(name));
    let receiver = ok(UnixDatagram::bind(&there));
    drop(ok(UnixDatagram::bind(&gone)));
    let [there, gone] = [there, gone]
        .map(|path| Address::from(ok(std::os::unix::net::SocketAddr::from_pathname(path))));
    let all = [
        ("not connected", SysCall::Send(hello())),
        ("not connected", SysCall::Write(hello())),
        ("not connected", SysCall::Connect(gone.clone())),
        ("not connected", SysCall::Connect(there.clone())),
        ("to a missing path", SysCall::SendTo(hello(), nowhere())),
        ("to a closed socket", SysCall::SendTo(hello(), gone)),
        ("to a bound socket", SysCall::SendTo(hello(), there)),
        ("to another family", SysCall::SendTo(hello(), inet("127.0.0.1:9"))),
        ("no listener", SysCall::Accept),
    ];
    let new = || ok(UnixDatagram::unbound());
    scenes.extend(all.map(|(name, what)| scene(name, new(), what)));
    // Any of the scenarios may need these until it ends.
    let shared = Rc::new((receiver, directory));
    scenes.iter_mut().for_each(|scene| scene.keep.push(Box::new(shared.clone())));
    scenes
}

pub(crate) fn sequences() -> Vec<CallScenario> {
    let mut scenes = pairs(SockType::SeqPacket);
    for what in receives() {
        let (here, there) = pair(SockType::SeqPacket);
        scenes.push(scene("end", here, what.clone()).until(move || drop(there)));
        let (here, there) = pair(SockType::SeqPacket);
        ok(nix::unistd::write(&here, b"unread"));
        scenes.push(scene("reset", here, what).until(move || drop(there)));
    }
    scenes
}

pub(crate) fn udp() -> Vec<CallScenario> {
    let new = || ok(UdpSocket::bind("127.0.0.1:0"));
    let pair = || {
        let (here, there) = (new(), new());
        ok(here.connect(ok(there.local_addr())));
        ok(there.connect(ok(here.local_addr())));
        (here, there)
    };
    let mut scenes = Vec::new();
    for what in receives() {
        for text in ["hello", ""] {
            let (here, there) = pair();
            scenes.push(scene("UDP, a datagram", here, what.clone()).until(move || {
                assert_eq!(ok(there.send(text.as_bytes())), text.len());
                there
            }));
        }
        // The next call reports that an earlier datagram was refused.
        let (here, there) = pair();
        let sends = ok(here.try_clone());
        scenes.push(scene("UDP, refused", here, what).until(move || {
            drop(there);
            ok(sends.send(b"x"));
            sends
        }));
    }
    for what in [SysCall::Send(hello()), SysCall::Write(hello()), SysCall::Send(vec![0; 70_000])] {
        let (here, there) = pair();
        scenes.push(scene("UDP, connected", here, what.clone()).keeping(there));
        scenes.push(scene("UDP, not connected", new(), what.clone()));
        let (here, there) = pair();
        drop(there);
        ok(here.send(b"x"));
        wait_until_kernel(&here, PollFlags::empty(), |bits| bits.contains(PollFlags::POLLERR));
        scenes.push(scene("UDP, was refused", here, what));
    }
    for (name, to) in [
        ("UDP, to itself", "127.0.0.1:9"),
        ("UDP, broadcast without permission", "255.255.255.255:9"),
        ("UDP, another family", "[::1]:9"),
        ("UDP, no port", "127.0.0.1:0"),
    ] {
        scenes.push(scene(name, new(), SysCall::SendTo(hello(), inet(to))));
    }
    scenes.push(scene("UDP, to a path", new(), SysCall::SendTo(hello(), nowhere())));
    scenes.push(scene("UDP, shut down", new(), SysCall::Shutdown(Shutdown::Write)));
    scenes
}
