//! Clauses E: edge.

use super::util::*;
use crate::event::{Mode, Readiness};
use crate::poller::Source;
use crate::try_io::try_io;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

pub(super) fn e1_each_direction_is_reported_separately(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, BOTH, Mode::Edge);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "writability");
    put(&peer, b"x");
    let reported = harness.ready_now();
    assert!(
        reported[0].1.contains(Readiness::READABLE),
        "readability was not reported yet: {reported:?}"
    );
    fill(&*local);
    harness.drained(key, WRITE);
    drain(&peer);
    let reported = harness.ready_now();
    assert!(
        reported[0].1.contains(Readiness::WRITABLE),
        "unread data must not hide writability: {reported:?}"
    );
}

pub(super) fn e1_hang_up_after_data_is_reported(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::Edge);
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "data");
    drain(&*local);
    harness.drained(key, READ);
    drop(peer);
    let end = Readiness::READABLE | Readiness::READ_CLOSED;
    harness.expect_now(&[(1, end)], "a new end of file");
    harness.expect_silence("already reported");
}

pub(super) fn e1_completed_connect_is_reported(cx: &TestContext) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("bind: {e}"));
    let address = listener.local_addr().unwrap_or_else(|e| panic!("getsockname: {e}"));
    for mode in MODES {
        let mut harness = cx.harness(4);
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let client = socket(AddressFamily::Inet, SockType::Stream, flags, None);
        let client = Arc::new(client.unwrap_or_else(|error| panic!("socket: {error}")));
        let std::net::SocketAddr::V4(address) = address else { panic!("an IPv4 address") };
        let connecting = connect(client.as_raw_fd(), &SockaddrIn::from(address));
        assert!(matches!(connecting, Ok(()) | Err(nix::errno::Errno::EINPROGRESS)));
        let key = harness.register(client, 1, WRITE, mode);
        let reported = harness.next("the connection");
        assert_eq!(reported, [(1, Readiness::WRITABLE)], "{mode:?}");
        harness.deregister(key);
        listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    }
}

pub(super) fn e1_events_beyond_capacity_are_reported_despite_wakes(cx: &TestContext) {
    let mut harness = cx.harness(1);
    let pairs: Vec<_> = (0..4).map(|_| stream()).collect();
    for (token, (local, peer)) in pairs.iter().enumerate() {
        harness.register(local.clone(), token, READ, Mode::Edge);
        put(peer, b"x");
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        harness.poller.waker().wake();
        let reported = harness.ready_now();
        assert!(harness.events.woken());
        seen.extend(reported.into_iter().map(|event| event.0));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3], "one report for each source");
    harness.expect_silence("already reported");
}

pub(super) fn e1_rearm_reports_unread_data(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::Edge);
    put(&peer, b"abcdef");
    harness.expect_now(&[(1, Readiness::READABLE)], "data");
    for _ in 0..3 {
        assert_eq!(take(&local, 2), 2);
        harness.rearm(key, READ);
        let left = oracle(&local, PollFlags::POLLIN).contains(PollFlags::POLLIN);
        let expected: &[_] = if left { &[(1, Readiness::READABLE)] } else { &[] };
        harness.expect_now(expected, "a reader that stops early calls rearm");
    }
    put(&peer, b"g");
    harness.expect_now(&[(1, Readiness::READABLE)], "rearmed while empty, then data");
}

pub(super) fn e1_new_data_is_reported_a_thousand_times(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::Edge);
    for round in 0..1000 {
        put(&peer, &vec![0; 1 + round % 7]);
        harness.expect_now(&[(1, Readiness::READABLE)], &format!("round {round}"));
        drain(&*local);
        harness.drained(key, READ);
        if round % 3 == 0 {
            harness.expect_silence("drained");
        }
    }
}

pub(super) fn e2_new_data_is_reported_at_most_once(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::Edge);
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "data");
    for _ in 0..3 {
        put(&peer, b"y");
        let reported = harness.ready_now();
        assert!(reported.is_empty() || reported == [(1, Readiness::READABLE)], "{reported:?}");
        harness.expect_silence("new data is reported at most once");
    }
    drain(&*local);
    harness.drained(key, READ);
    put(&peer, b"z");
    harness.expect_now(&[(1, Readiness::READABLE)], "drained, then data");
}

pub(super) fn e3_partial_read_causes_no_event(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (reader, writer) = pipe();
    let reader = Arc::new(reader);
    harness.register(reader.clone(), 1, READ, Mode::Edge);
    let written = nix::unistd::write(&writer, b"abcdef");
    assert_eq!(written, Ok(6));
    harness.expect_now(&[(1, Readiness::READABLE)], "data");
    for _ in 0..3 {
        assert_eq!(nix::unistd::read(&*reader, &mut [0; 1]), Ok(1));
        harness.expect_silence("a partial read");
    }
}

pub(super) fn e3_accept_causes_no_event(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let directory = TempDir::new();
    let path = directory.0.join("socket");
    let listener = UnixListener::bind(&path).unwrap_or_else(|error| panic!("bind: {error}"));
    listener.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    let listener = Arc::new(listener);
    let key = harness.register(listener.clone(), 1, READ, Mode::Edge);
    let dial = || UnixStream::connect(&path).unwrap_or_else(|error| panic!("connect: {error}"));
    let (_first, _second) = (dial(), dial());
    harness.expect_now(&[(1, Readiness::READABLE)], "two pending connections");
    listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    harness.expect_silence("an accept that leaves one connection");
    listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    harness.drained(key, READ);
    let _third = dial();
    harness.expect_now(&[(1, Readiness::READABLE)], "a new connection");
}

pub(super) fn e3_unchanged_sources_cause_no_events(cx: &TestContext) {
    let mut harness = cx.harness(256);
    let pairs: Vec<_> = (0..100).map(|_| stream()).collect();
    for (token, (local, peer)) in pairs.iter().enumerate() {
        put(peer, b"x");
        harness.register(local.clone(), token, BOTH, Mode::Edge);
    }
    assert_eq!(harness.ready_now().len(), 100);
    for _ in 0..10 {
        harness.expect_silence("already reported");
    }
    // A report of one source does not repeat those of others.
    put(&pairs[7].1, b"y");
    let reported = harness.ready_now();
    assert!(reported.iter().all(|event| event.0 == 7), "{reported:?}");
}

pub(super) fn e4_data_after_drained_is_reported(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::Edge);
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "data");
    drain(&*local);
    harness.drained(key, READ);
    put(&peer, b"y");
    drain(&*local);
    harness.drained(key, READ);
    put(&peer, b"z");
    harness.expect_now(&[(1, Readiness::READABLE)], "drained and refilled between two waits");
}

pub(super) fn e4_drained_after_short_transfer_is_truthful(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (unix, tcp) = (stream(), tcp());
    let (reader, writer) = pipe();
    let (tcp_peer, unix_peer) = (Arc::new(tcp.1), Arc::new(unix.1));
    let streams: [(Source, Source); 3] = [
        (unix.0, unix_peer.clone()),
        (tcp.0, tcp_peer.clone()),
        (Arc::new(reader), Arc::new(writer)),
    ];
    for (token, (local, peer)) in streams.iter().enumerate() {
        let key = harness.register(local.clone(), token, READ, Mode::Edge);
        for _ in 0..3 {
            assert_eq!(nix::unistd::write(&**peer, b"hello"), Ok(5));
            wait_until_kernel(&**local, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
            assert_eq!(harness.next("data"), [(token, Readiness::READABLE)]);
            assert_eq!(nix::unistd::read(&**local, &mut [0; 64]), Ok(5), "a short read");
            harness.drained(key, READ);
            harness.expect_silence("every byte was read");
        }
        harness.deregister(key);
        let key = harness.register(peer.clone(), token, WRITE, Mode::Edge);
        assert_eq!(harness.next("writability"), [(token, Readiness::WRITABLE)]);
        let much = vec![0; 1 << 24];
        let count = nix::unistd::write(&**peer, &much);
        assert!(count.is_ok_and(|count| count < much.len()), "a short write: {count:?}");
        harness.drained(key, WRITE);
        let started = Instant::now();
        while harness.ready_now().is_empty() {
            assert!(started.elapsed() < LONG, "writability was not reported");
            drain(&**local);
        }
        assert_eq!(harness.reported(), [(token, Readiness::WRITABLE)]);
        harness.deregister(key);
    }
}

pub(super) fn e4_premature_drained_suppresses_no_event(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, BOTH, Mode::Edge);
    harness.next("writability");
    harness.drained(key, BOTH);
    put(&peer, b"first");
    let is_readable = |reported: &[(usize, Readiness)]| {
        reported.iter().any(|(_, readiness)| readiness.contains(Readiness::READABLE))
    };
    assert!(is_readable(&harness.next("data")));
    for part in 0..3 {
        // Nothing or a part was read, so `drained` is wrong.
        assert_eq!(take(&local, part), part);
        harness.drained(key, READ);
        harness.drained(key, BOTH);
        put(&peer, b"more");
        assert!(is_readable(&harness.next("more data")), "{part} bytes were read");
    }
    drain(&*local);
    harness.drained(key, READ);
    drop(peer);
    assert!(is_readable(&harness.next("end of file")));
}

pub(super) fn e4_full_pipe_reports_writability_after_drain(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    let key = harness.register(writer.clone(), 1, WRITE, Mode::Edge);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "writability");
    for _ in 0..3 {
        fill(&*writer);
        harness.drained(key, WRITE);
        harness.expect_silence("the pipe is full");
        drain(&reader);
        harness.expect_now(&[(1, Readiness::WRITABLE)], "writability again");
    }
}

pub(super) fn e4_try_io_calls_drained(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::Edge);
    for _ in 0..3 {
        put(&peer, b"x");
        harness.expect_now(&[(1, Readiness::READABLE)], "data");
        let mut read = || try_io(&mut *harness.poller, key, READ, || (&*local).read(&mut [0; 64]));
        assert_eq!(read().unwrap_or_else(|error| panic!("read: {error}")), 1);
        assert_eq!(expect_err_kind(read()), io::ErrorKind::WouldBlock);
    }
    let refused = || Err::<(), _>(io::Error::from_raw_os_error(libc::EAGAIN));
    let unwatched = try_io(&mut *harness.poller, key, WRITE, refused);
    assert_eq!(expect_err_kind(unwatched), io::ErrorKind::WouldBlock, "an unwatched direction");
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "data");
    drain(&*local);
    let both = try_io(&mut *harness.poller, key, BOTH, refused);
    assert_eq!(expect_err_kind(both), io::ErrorKind::WouldBlock);
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "the watched direction was drained");
    let failed = try_io(&mut *harness.poller, key, READ, || {
        Err::<(), _>(io::Error::other("not WouldBlock"))
    });
    assert_eq!(expect_err_kind(failed), io::ErrorKind::Other, "other errors pass through");
    // A pending connect counts as `WouldBlock`.
    for errno in [libc::EINPROGRESS, libc::EALREADY] {
        drain(&*local);
        let connect = || Err::<(), _>(io::Error::from_raw_os_error(errno));
        let result = try_io(&mut *harness.poller, key, READ, connect);
        assert!(result.is_err_and(|error| error.raw_os_error() == Some(errno)));
        put(&peer, b"x");
        harness.expect_now(&[(1, Readiness::READABLE)], "`try_io` called `drained`");
    }
}

/// On TCP a successful write cancels the wake-up for room that an earlier poll(2) requested.
pub(super) fn e1_writability_is_reported_despite_intermediate_write(cx: &TestContext) {
    for mode in MODES {
        for name in ["TCP", "unix stream", "pipe"] {
            let ((tcp_local, tcp_peer), (local, peer), (reader, writer)) =
                (tcp(), stream(), pipe());
            let (source, other): (Source, OwnedFd) = match name {
                "TCP" => (tcp_local, tcp_peer.into()),
                "pipe" => (Arc::new(writer), reader),
                _ => (local, peer.into()),
            };
            let mut harness = cx.harness(4);
            let file = (*source).as_fd();
            let has_room = || oracle(file, PollFlags::POLLOUT).contains(PollFlags::POLLOUT);
            // Data in flight on TCP may make room again.
            let started = Instant::now();
            let key = loop {
                assert!(started.elapsed() < LONG, "{name} must stay full");
                while has_room() {
                    let written = nix::unistd::write(file, &[0; 512]);
                    assert!(written.is_ok_and(|count| count > 0), "poll(2) reported room");
                }
                let key = harness.register(source.clone(), 1, WRITE, mode);
                if harness.ready_now().is_empty() {
                    break key;
                }
                harness.deregister(key);
            };
            // The write may fail for lack of room; the effect is the same.
            let _ = nix::unistd::write(file, b"x");
            while !has_room() {
                drain(&other);
            }
            let reported = harness.next(name);
            assert_eq!(reported, [(1, Readiness::WRITABLE)], "{name}, {mode:?}");
            harness.deregister(key);
        }
    }
}
