//! Remedies for kernel limits that every backend has (the second table of the contract).

use super::op_harness::*;
use super::util::*;
use crate::event::{Interest, Mode, Readiness, Token};
use crate::op::{Op, Outcome};
use crate::sys::staging::{Thread, Tun};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::termios::{SetArg, SpecialCharacterIndices, cfmakeraw, tcgetattr, tcsetattr};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

/// Sets how long close(2) waits for unsent data.
fn linger(socket: &TcpStream, seconds: i32) {
    let onoff = i32::from(seconds > 0);
    ok(setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: onoff, l_linger: seconds }));
}

/// Returns a connection whose last close blocks longer than any watchdog, since its peer reads
/// nothing.
fn lingering() -> (Arc<TcpStream>, TcpStream) {
    let (local, peer) = tcp();
    fill(&*local);
    linger(&local, 3600);
    (local, peer)
}

pub(super) fn r5_kept_handle_spares_a_lingering_close(cx: &TestContext) {
    for interest in [Interest::empty(), READ] {
        let (local, _peer) = lingering();
        let mut ops = OpHarness::new(cx);
        let key = ops.harness.register(local.clone(), 1, interest, Mode::Level);
        if interest.is_empty() {
            ops.submit(Op::recv(key, vec![], 9), 2);
        }
        ops.wait(ZERO);
        ops.harness.deregister(key);
        ops.harness.register(local.clone(), 1, interest, Mode::Level);
        ops.wait(ZERO);
        drop(ops);
        // The program's handle is the last, and can be dropped on any thread.
        linger(&local, 0);
    }
}

pub(super) fn r5_close_does_not_linger_once_that_is_off(cx: &TestContext) {
    let (local, _peer) = lingering();
    let mut ops = OpHarness::new(cx);
    let handle = ok(local.try_clone());
    let key = ops.add(local);
    ops.submit(Op::recv(key, vec![], 9), 2);
    ops.wait(ZERO);
    linger(&handle, 0);
    drop(handle);
    ops.harness.deregister(key);
    assert!(ops.next().is_canceled());
}

pub(super) fn l1_connected_datagram_sender_awaits_room(cx: &TestContext) {
    for mode in MODES {
        let directory = TempDir::new();
        let address = directory.0.join("receiver");
        let receiver = ok(UnixDatagram::bind(&address));
        let sender = ok(UnixDatagram::unbound());
        ok(sender.set_nonblocking(true));
        ok(sender.connect(&address));
        while sender.send(b"x").is_ok() {}
        let mut harness = cx.harness(4);
        harness.register(Arc::new(sender), 1, WRITE, mode);
        harness.expect_silence("the queue of the receiver is full");
        ok(receiver.set_nonblocking(true));
        while receiver.recv(&mut [0; 9]).is_ok() {}
        assert_eq!(harness.next("there is room"), [(1, Readiness::WRITABLE)], "{mode:?}");
    }
}

/// Returns a terminal whose reads do not wait for a byte, and its master.
fn terminal() -> (Arc<OwnedFd>, OwnedFd) {
    let pair = ok(openpty(None, None));
    let mut raw = ok(tcgetattr(&pair.slave));
    cfmakeraw(&mut raw);
    raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
    raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    ok(tcsetattr(&pair.slave, SetArg::TCSANOW, &raw));
    ok(fcntl(&pair.slave, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)));
    (Arc::new(pair.slave), pair.master)
}

pub(super) fn l1_terminal_with_vmin_0_is_ready_with_bytes(cx: &TestContext) {
    for mode in MODES {
        let (terminal, keyboard) = terminal();
        let mut ops = OpHarness::new(cx);
        let key = ops.add(terminal.clone());
        assert_eq!(bytes(ops.run(Op::read(key, vec![], 9))).0, 0, "no byte, and no end of file");
        ops.harness.modify(key, 1, READ, mode);
        ops.harness.expect_silence("nothing was typed");
        ok(nix::unistd::write(&keyboard, b"x"));
        assert_eq!(ops.harness.next("a byte"), [(1, Readiness::READABLE)], "{mode:?}");
        assert_eq!(nix::unistd::read(&terminal, &mut [0; 9]), Ok(1));
        // With VMIN 1 the operation waits.
        let mut settings = ok(tcgetattr(&terminal));
        settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        ok(tcsetattr(&terminal, SetArg::TCSANOW, &settings));
        ops.harness.modify(key, 1, Interest::empty(), mode);
        ops.submit(Op::read(key, vec![], 9), 2);
        ops.expect_nothing_yet("nothing more was typed");
        ok(nix::unistd::write(&keyboard, b"y"));
        assert_eq!(bytes(ops.next()).1, b"y");
    }
}

pub(super) fn c8_accept_is_paused_after_emfile(cx: &TestContext) {
    let listener = ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let address = ok(listener.local_addr());
    let mut ops = OpHarness::new(cx);
    let key = ops.add(Arc::new(listener));
    let (limit, hard) = ok(getrlimit(Resource::RLIMIT_NOFILE));
    for is_multi in [false, true] {
        let client = ok(TcpStream::connect(address));
        ok(setrlimit(Resource::RLIMIT_NOFILE, 3, hard));
        let full = if is_multi {
            ops.submit_multishot(Op::accept_multi(key), 1)
        } else {
            ops.submit(Op::accept(key), 1)
        };
        let done = ops.next();
        assert_eq!((done.id, errno(&done)), (full, libc::EMFILE));
        // Resubmitted at once it would fail again, in a busy loop.
        let pause = ops.submit(Op::timeout(Duration::from_secs(3600)), 2);
        ops.expect_nothing_yet("nothing is accepted during the pause");
        // `expect_sleep` needs descriptors.
        ok(setrlimit(Resource::RLIMIT_NOFILE, limit, hard));
        ops.expect_sleep("nothing is accepted during the pause");
        ops.cancel(pause);
        assert!(ops.next().is_canceled(), "the pause ends early");
        let id = if is_multi {
            ops.submit_multishot(Op::accept_multi(key), 3)
        } else {
            ops.submit(Op::accept(key), 3)
        };
        let done = ops.next();
        assert_eq!(done.token, Token(3));
        assert!(matches!(done.result, Ok(Outcome::Accepted { .. })), "{done:?}");
        if is_multi {
            ops.cancel(id);
            assert!(ops.next().is_canceled());
        }
        drop(client);
    }
}

/// A file that gets its wait queue after the registration is reported once it is rearmed.
pub(super) fn r1_device_attached_later_is_reported_after_rearm(cx: &TestContext) {
    // The network namespace avoids names of other programs' devices.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        cx.skip(format!("no network namespace: {error}"));
    }
    if let Err(error) = Tun::new() {
        cx.skip(format!("/dev/net/tun: {error}"));
    }
    for (mode, is_modified, is_waited) in later_devices() {
        let why = format!("{mode:?}, modified {is_modified}, waited {is_waited}");
        let mut harness = cx.harness(4);
        let tun = Arc::new(ok(Tun::new()));
        let key = harness.register(tun.clone(), 1, READ, mode);
        if is_waited {
            let error = Readiness::READABLE | Readiness::ERROR;
            harness.expect_now(&[(1, error)], "no device is attached");
        }
        let mut wire = match tun.attach() {
            Ok(wire) => wire,
            Err(error) => cx.skip(format!("no device: {error}")),
        };
        tun.drain();
        if is_modified {
            harness.modify(key, 1, READ, mode)
        } else {
            harness.rearm(key, READ)
        }
        harness.expect_silence(&format!("nothing was sent, {why}"));
        // Sent while the poller sleeps, so that no check finds it.
        let waiter = Thread::current().id();
        let sender = std::thread::spawn(move || {
            wait_until_asleep(waiter);
            let sent = wire.send();
            (wire, sent)
        });
        harness.next("a frame");
        assert_eq!(harness.reported(), [(1, Readiness::READABLE)], "{why}");
        let (_wire, sent) = sender.join().unwrap_or_else(|_| panic!("the sending thread failed"));
        ok(sent);
        assert_eq!(tun.drain(), 1, "{why}");
        harness.deregister(key);
    }
}

/// Returns each mode with `modify` or `rearm`, with and without a wait that reports the error
/// first.
fn later_devices() -> impl Iterator<Item = (Mode, bool, bool)> {
    let ways = [(true, true), (true, false), (false, true), (false, false)];
    MODES.into_iter().flat_map(move |mode| ways.map(|(modify, wait)| (mode, modify, wait)))
}
