//! Clauses R: registration.

use super::util::*;
use crate::event::{Interest, Mode, Readiness, Token};
use crate::op::Op;
use crate::poller::Source;
use crate::sys::staging;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode as Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

pub(super) fn r1_register_reports_present_readiness(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        put(&peer, b"x");
        harness.register(local, 1, BOTH, mode);
        let ready = Readiness::READABLE | Readiness::WRITABLE;
        harness.expect_now(&[(1, ready)], &format!("ready before registration, {mode:?}"));
    }
}

pub(super) fn r1_modify_reports_present_readiness(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        let key = harness.register(local, 1, READ, mode);
        put(&peer, b"x");
        harness.expect_now(&[(1, Readiness::READABLE)], "data");
        harness.modify(key, 1, READ, mode);
        harness.expect_now(&[(1, Readiness::READABLE)], &format!("modify checks again, {mode:?}"));
        harness.modify(key, 1, WRITE, mode);
        harness.expect_now(&[(1, Readiness::WRITABLE)], &format!("for the new interest, {mode:?}"));
    }
}

pub(super) fn r1_rearm_reports_present_readiness(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        let key = harness.register(local, 1, READ, mode);
        put(&peer, b"x");
        for round in 0..3 {
            let why = format!("rearm checks again, {mode:?}, round {round}");
            harness.expect_now(&[(1, Readiness::READABLE)], &why);
            harness.rearm(key, READ);
        }
    }
}

pub(super) fn r1_all_interests_are_accepted_in_all_modes(cx: &TestContext) {
    for mode in MODES {
        for bits in 0..=Interest::all().bits() {
            let interest = Interest::from_bits_truncate(bits);
            let mut harness = cx.harness(4);
            let (local, peer) = stream();
            put(&peer, b"x");
            let key = harness.register(local, 1, interest, mode);
            let mut expected = Readiness::empty();
            expected.set(Readiness::READABLE, interest.contains(READ));
            expected.set(Readiness::WRITABLE, interest.contains(WRITE));
            let reported = harness.ready_now();
            let one = if expected.is_empty() { vec![] } else { vec![(1, expected)] };
            assert_eq!(reported, one, "{interest:?}, {mode:?}");
            harness.deregister(key);
        }
    }
}

pub(super) fn r2_second_register_of_an_fd_already_exists(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::Level);
    for mode in MODES {
        let again = harness.poller.register(local.clone(), Token(2), BOTH, mode);
        assert_eq!(expect_err_kind(again), io::ErrorKind::AlreadyExists);
    }
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "the first registration is untouched");
    harness.deregister(key);
    harness.register(local, 3, READ, Mode::Level);
    harness.expect_now(&[(3, Readiness::READABLE)], "registered again after deregister");
}

pub(super) fn r2_duplicate_fd_is_another_source(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        let duplicate = Arc::new(local.try_clone().unwrap_or_else(|error| panic!("dup: {error}")));
        harness.register(local.clone(), 1, READ, mode);
        let key = harness.register(duplicate, 2, READ, mode);
        put(&peer, b"x");
        let both = [(1, Readiness::READABLE), (2, Readiness::READABLE)];
        harness.expect_now(&both, "one event each");
        harness.deregister(key);
        drain(&*local);
        put(&peer, b"y");
        if mode == Mode::Level {
            harness.expect_now(&[(1, Readiness::READABLE)], "the source itself stays registered");
        }
    }
}

pub(super) fn r2_pollers_may_share_a_source(cx: &TestContext) {
    for mode in MODES {
        let mut harnesses = [cx.harness(4), cx.harness(4)];
        let (local, peer) = stream();
        let keys =
            harnesses.each_mut().map(|harness| harness.register(local.clone(), 1, READ, mode));
        for round in 0..100 {
            put(&peer, b"x");
            let why = format!("both pollers report, {mode:?}, round {round}");
            harnesses
                .iter_mut()
                .for_each(|harness| harness.expect_now(&[(1, Readiness::READABLE)], &why));
            drain(&*local);
            for (harness, &key) in harnesses.iter_mut().zip(&keys) {
                harness.drained(key, READ);
                harness.rearm(key, READ);
                harness.expect_silence("every byte was read");
            }
        }
        harnesses[0].deregister(keys[0]);
        put(&peer, b"x");
        harnesses[0].expect_silence("deregistered from this poller");
        harnesses[1].expect_now(&[(1, Readiness::READABLE)], "still registered with the other");
    }
}

pub(super) fn r3_modify_replaces_token_interest_and_mode(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    put(&peer, b"x");
    let key = harness.register(local, 1, READ, Mode::Level);
    harness.modify(key, 2, WRITE, Mode::OneShot);
    harness.expect_now(&[(2, Readiness::WRITABLE)], "the interest is replaced, not added to");
    harness.expect_silence("the mode is one-shot now");
    harness.modify(key, 3, READ, Mode::Level);
    for _ in 0..3 {
        harness.expect_now(&[(3, Readiness::READABLE)], "the mode is level now");
    }
    harness.modify(key, 4, READ, Mode::Edge);
    harness.expect_now(&[(4, Readiness::READABLE)], "the mode is edge now");
    harness.expect_silence("an edge is reported once");
    harness.modify(key, usize::MAX, READ, Mode::Level);
    harness.expect_now(&[(usize::MAX, Readiness::READABLE)], "every token is allowed");
    harness.modify(key, 0, READ, Mode::Level);
    harness.expect_now(&[(0, Readiness::READABLE)], "every token is allowed");
}

pub(super) fn r4_stale_key_is_not_found(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, _peer) = stream();
    let key = harness.register(local, 1, READ, Mode::Level);
    harness.deregister(key);
    let poller = &mut harness.poller;
    let answers = [
        poller.modify(key, Token(2), READ, Mode::Edge),
        poller.rearm(key, READ),
        poller.rearm(key, Interest::all()),
        poller.drained(key, READ),
        poller.deregister(key),
    ];
    for answer in answers {
        assert_eq!(expect_err_kind(answer), io::ErrorKind::NotFound);
    }
}

pub(super) fn r4_foreign_key_is_not_found(cx: &TestContext) {
    let (mut mine, mut other) = (cx.harness(4), cx.harness(4));
    let ((local, _), (elsewhere, _)) = (stream(), stream());
    let key = mine.register(local, 1, READ, Mode::Level);
    let foreign = other.register(elsewhere, 1, READ, Mode::Level);
    assert_ne!(key, foreign);
    for gone in [false, true] {
        let Err(error) = mine.poller.deregister(foreign) else {
            panic!("the key of another poller was accepted")
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("another poller"), "{error}, {gone}");
        let Err(rejected) = mine.poller.submit(Op::recv(foreign, vec![], 1), Token(1)) else {
            panic!("the key of another poller was accepted")
        };
        assert!(rejected.to_string().contains("another poller"), "{rejected}");
        if !gone {
            other.deregister(foreign);
        }
    }
    mine.deregister(key);
}

pub(super) fn r4_keys_are_never_reused(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    put(&peer, b"x");
    let mut old = Vec::new();
    for token in 0..200 {
        let key = harness.register(local.clone(), token, READ, Mode::Level);
        assert!(!old.contains(&key), "a key was reused");
        for stale in &old {
            let answer = harness.poller.deregister(*stale);
            assert_eq!(expect_err_kind(answer), io::ErrorKind::NotFound);
        }
        harness.expect_now(&[(token, Readiness::READABLE)], "the new registration is unaffected");
        assert_eq!(harness.events.iter().next().map(|event| event.key), Some(key));
        harness.deregister(key);
        old.push(key);
    }
}

fn refused(harness: &mut ReadinessHarness, source: Source, what: &str) {
    for interest in [READ, BOTH, Interest::empty()] {
        for mode in MODES {
            let answer = harness.poller.register(source.clone(), Token(1), interest, mode);
            let errno = answer.err().and_then(|error| error.raw_os_error());
            assert_eq!(errno, Some(libc::EBADF), "{what}, {interest:?}, {mode:?}");
        }
    }
    harness.expect_silence(what);
}

pub(super) fn r7_register_of_closed_fd_is_ebadf(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (reader, writer) = pipe();
    let fd = reader.as_raw_fd();
    drop(reader);
    refused(&mut harness, Arc::new(staging::closed_fd(fd)), "a closed descriptor");
    refused(&mut harness, Arc::new(staging::closed_fd(i32::MAX)), "the largest descriptor");
    refused(&mut harness, Arc::new(staging::closed_fd(-5)), "a negative descriptor");
    let reopened = writer.try_clone().unwrap_or_else(|error| panic!("dup: {error}"));
    assert_eq!(reopened.as_raw_fd(), fd);
    harness.register(Arc::new(reopened), 2, WRITE, Mode::Level);
    let ready = Readiness::WRITABLE | Readiness::WRITE_CLOSED | Readiness::ERROR;
    harness.expect_now(&[(2, ready)], "registered once it is open");
}

pub(super) fn r7_register_of_o_path_fd_is_ebadf(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let path = nix::fcntl::open("/", flags, Permissions::empty());
    let path = path.unwrap_or_else(|error| panic!("open with O_PATH: {error}"));
    refused(&mut harness, Arc::new(path), "a descriptor opened with O_PATH");
}

pub(super) fn r8_empty_interest_reports_nothing(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(8);
        let (local, peer) = stream();
        let key = harness.register(local, 1, Interest::empty(), mode);
        put(&peer, b"x");
        harness.expect_silence("data");
        drop(peer);
        harness.expect_silence("hang-up");
        harness.modify(key, 1, READ, mode);
        let end = Readiness::READABLE | Readiness::READ_CLOSED;
        harness.expect_now(&[(1, end)], "an interest in reading");
        harness.modify(key, 1, Interest::empty(), mode);
        harness.expect_silence("an empty interest again");
        harness.rearm(key, Interest::empty());
        harness.drained(key, Interest::empty());
        harness.expect_silence("rearm and drained of an empty interest");

        let (reader, writer) = pipe();
        fill(&writer);
        harness.register(Arc::new(writer), 2, Interest::empty(), mode);
        drop(reader);
        harness.expect_silence("an error");
    }
}

pub(super) fn r9_register_accepts_any_fd_number(cx: &TestContext) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_else(|e| panic!("{e}"));
    nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .unwrap_or_else(|error| panic!("from {soft} to {hard}: {error}"));
    if hard <= 5001 {
        cx.skip(format!("RLIMIT_NOFILE is {hard}"));
    }
    let highest = i32::try_from(hard - 1).unwrap_or(1 << 20).min(1 << 20);
    let stdin = staging::duplicate_onto(io::stdin().as_fd(), 900);
    let stdin = stdin.unwrap_or_else(|error| panic!("dup3: {error}"));
    for mode in MODES {
        let mut harness = cx.harness(8);
        let mut expected = Vec::new();
        for fd in [0, 1023, 1024, 1025, 5000, highest] {
            let (reader, writer) = pipe();
            let copy = staging::duplicate_onto(reader.as_fd(), fd);
            let copy: OwnedFd = copy.unwrap_or_else(|error| panic!("dup3 to {fd}: {error}"));
            harness.register(Arc::new(copy), fd as usize, READ, mode);
            assert_eq!(nix::unistd::write(&writer, b"x"), Ok(1));
            let end = Readiness::READABLE | Readiness::READ_CLOSED;
            expected.push((fd as usize, end));
        }
        harness.expect_now(&expected, &format!("{mode:?}"));
        drop(harness);
        // Restored before another file can take descriptor 0.
        let restored = staging::duplicate_onto(stdin.as_fd(), 0);
        std::mem::forget(restored.unwrap_or_else(|error| panic!("dup3 to 0: {error}")));
    }
}

pub(super) fn r10_directions_outside_the_interest_are_refused(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, _peer) = stream();
        let key = harness.register(local, 1, READ, mode);
        for dirs in [WRITE, BOTH, Interest::PRIORITY, Interest::all()] {
            for answer in [harness.poller.rearm(key, dirs), harness.poller.drained(key, dirs)] {
                assert_eq!(expect_err_kind(answer), io::ErrorKind::InvalidInput, "{dirs:?}");
            }
        }
        harness.expect_silence("a refused call has no effect");
    }
}

pub(super) fn r10_unknown_interest_bits_are_refused(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        let no_direction = Interest::from_bits_retain(0x80);
        for interest in [no_direction, no_direction | READ] {
            let answer = harness.poller.register(local.clone(), Token(1), interest, mode);
            assert_eq!(expect_err_kind(answer), io::ErrorKind::InvalidInput);
        }
        let key = harness.register(local.clone(), 1, READ, mode);
        let answers = [
            harness.poller.modify(key, Token(2), no_direction, mode),
            harness.poller.rearm(key, no_direction),
            harness.poller.drained(key, READ | no_direction),
        ];
        for answer in answers {
            assert_eq!(expect_err_kind(answer), io::ErrorKind::InvalidInput);
        }
        put(&peer, b"x");
        harness.expect_now(&[(1, Readiness::READABLE)], "the registration is unchanged");
    }
}

pub(super) fn r10_rearm_arms_exactly_the_named_directions(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local, 1, BOTH, Mode::OneShot);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "writability");
    harness.rearm(key, READ);
    harness.expect_silence("armed for reading alone");
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed for reading alone");
    harness.rearm(key, WRITE);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "armed for writing alone");
    harness.rearm(key, READ);
    harness.rearm(key, WRITE);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "the last call counts");
    harness.rearm(key, BOTH);
    harness.rearm(key, Interest::empty());
    harness.expect_silence("no direction is armed");
    harness.rearm(key, BOTH);
    harness
        .expect_now(&[(1, Readiness::READABLE | Readiness::WRITABLE)], "both directions are armed");
}

pub(super) fn r10_rearm_and_drained_keep_level_mode_unchanged(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    put(&peer, b"x");
    let key = harness.register(local, 1, BOTH, Mode::Level);
    let ready = [(1, Readiness::READABLE | Readiness::WRITABLE)];
    harness.expect_now(&ready, "level");
    harness.rearm(key, READ);
    harness.expect_now(&ready, "rearm does not narrow the interest");
    harness.drained(key, READ);
    harness.expect_now(&ready, "drained has no effect");
    harness.rearm(key, Interest::empty());
    harness.expect_now(&ready, "rearm of no direction disarms nothing");
}
