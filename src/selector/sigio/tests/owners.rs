//! Descriptions with another owner, with an owner that changes, and claimed by two threads.

use super::*;
use nix::sys::signal::SigSet;
use std::sync::Barrier;

#[test]
fn file_with_other_owner_is_left_unchanged() {
    let ((local, peer), mut first) = (stream(), sigio());
    let duplicate = dup(&local).expect("a copy");
    let second = |claimed: (Owner, i32, OFlag)| {
        let mut second = sigio();
        assert_eq!(second.watch(0, &duplicate, R), FALLBACK);
        put(&peer);
        assert_eq!(second.poll_now(), (WaitOutcome::Events, vec![readable(0)]));
        empty(&local);
        second.disarm(slot(0), duplicate.as_fd());
        assert_eq!(second.watch(0, &duplicate, R), FALLBACK);
        second.remove(slot(0), duplicate.as_fd());
        assert_eq!(state(&local), claimed);
        second.watch(0, &duplicate, R);
        drop(second);
        assert_eq!(state(&local), claimed);
    };
    assert_eq!(first.watch(0, &local, R), SIGNALS);
    let claimed = state(&local);
    second(claimed);
    std::thread::scope(|scope| _ = scope.spawn(|| second(claimed)));
    assert_eq!(first.poll_now(), (WaitOutcome::Events, vec![hint(0)]));
    drop(first);
    // An owner set by the program, first without O_ASYNC, which it may be about to set.
    Owner::this_process().set(local.as_raw_fd()).expect("this process");
    owner::set_signal(local.as_raw_fd(), libc::SIGURG).expect("a signal");
    second(state(&local));
    set_flags(&local, OFlag::O_NONBLOCK | OFlag::O_ASYNC);
    second(state(&local));
    Owner::of(peer.as_raw_fd()).expect("no owner").set(local.as_raw_fd()).expect("no owner");
    assert!(state(&local).0.is_unset() && state(&local).2.contains(OFlag::O_ASYNC));
    second(state(&local));
}

/// A change that a program can make to a file that signals a selector.
#[derive(Clone, Copy, Debug)]
enum Takeover {
    /// `F_SETOWN`, with the selector's signal still set.
    Owner,
    /// `F_SETOWN` and `F_SETSIG`.
    OwnerAndSignal,
    /// `F_SETSIG` alone.
    Signal,
}

const TAKEOVERS: [Takeover; 3] = [Takeover::Owner, Takeover::OwnerAndSignal, Takeover::Signal];

impl Takeover {
    fn of(self, file: &OwnedFd) {
        let fd = file.as_raw_fd();
        if !matches!(self, Takeover::Signal) {
            Owner::this_process().set(fd).expect("this process");
        }
        if !matches!(self, Takeover::Owner) {
            owner::set_signal(fd, libc::SIGURG).expect("a signal");
        }
    }
}

/// Alone, because a misdirected signal ends the process.
#[test]
fn file_with_changed_owner_is_polled() {
    if !is_alone("selector::sigio::tests::owners::file_with_changed_owner_is_polled") {
        return;
    }
    for takeover in TAKEOVERS {
        let (mut sigio, (local, peer)) = (sigio(), stream());
        let before = state(&local);
        assert_eq!(sigio.watch(0, &local, R | W), SIGNALS);
        put(&peer);
        assert_eq!(sigio.poll_now().1.last(), Some(&hint(0)));
        sigio.disarm(slot(0), local.as_fd());
        takeover.of(&local);
        let given = state(&local);
        // The selector's own settings are restored.
        let left = match takeover {
            Takeover::Owner => (given.0, before.1, given.2),
            Takeover::Signal => (before.0, given.1, given.2),
            _ => given,
        };
        for dirs in [R, R | W] {
            assert_eq!(sigio.watch(0, &local, dirs), FALLBACK, "{takeover:?}");
            let entry = Some((local.as_raw_fd(), PollBits::asked(dirs)));
            assert_eq!(sigio.fallback.entry_of(slot(0)), entry, "{takeover:?}");
            assert_eq!(state(&local), left, "{takeover:?}");
        }
        let both = Report::Fact(slot(0), PollBits::IN | PollBits::OUT);
        assert_eq!(
            sigio.poll_now(),
            (WaitOutcome::Events, vec![both]),
            "the fallback set reports facts"
        );
        sigio.disarm(slot(0), local.as_fd());
        assert_eq!(sigio.poll_now(), quiet());
        assert_eq!(state(&local), left, "{takeover:?}, the new owner keeps O_ASYNC");
    }
}

/// Alone, because a misdirected signal ends the process.
#[test]
fn signalling_file_with_changed_owner_is_left_unchanged() {
    const TEST: &str = "signalling_file_with_changed_owner_is_left_unchanged";
    if !is_alone(&format!("selector::sigio::tests::owners::{TEST}")) {
        return;
    }
    for takeover in TAKEOVERS {
        let (mut sigio, (local, _peer)) = (sigio(), stream());
        assert_eq!(sigio.watch(0, &local, R), SIGNALS);
        takeover.of(&local);
        let given = state(&local);
        sigio.watch(0, &local, R);
        assert_eq!(state(&local), given, "{takeover:?}");
        if !matches!(takeover, Takeover::Signal) {
            sigio.disarm(slot(0), local.as_fd());
            assert_eq!(state(&local), given, "{takeover:?}, the new owner keeps O_ASYNC");
        }
        // The rest of the test must not signal the new owner.
        set_flags(&local, OFlag::O_NONBLOCK);
        assert_eq!(sigio.watch(0, &local, R), FALLBACK, "{takeover:?}");
    }
}

/// Alone, because a misdirected signal ends the process.
#[test]
fn release_restores_only_own_settings() {
    const TEST: &str = "release_restores_only_own_settings";
    if !is_alone(&format!("selector::sigio::tests::owners::{TEST}")) {
        return;
    }
    for (takeover, by_drop) in TAKEOVERS.into_iter().flat_map(|one| [(one, true), (one, false)]) {
        let (mut sigio, (local, _peer)) = (sigio(), stream());
        let before = state(&local);
        assert_eq!(sigio.watch(0, &local, R | W), SIGNALS);
        takeover.of(&local);
        let given = state(&local);
        if !matches!(takeover, Takeover::Signal) {
            sigio.disarm(slot(0), local.as_fd());
            assert_eq!(state(&local), given, "{takeover:?}, the new owner keeps O_ASYNC");
        }
        if by_drop {
            drop(sigio);
        } else {
            sigio.remove(slot(0), local.as_fd());
        }
        let due = match takeover {
            // The signal would end the process.
            Takeover::Owner => (Owner::this_process(), before.1, before.2),
            Takeover::OwnerAndSignal => given,
            Takeover::Signal => (before.0, given.1, before.2),
        };
        assert_eq!(state(&local), due, "{takeover:?}, by drop: {by_drop}");
        set_flags(&local, OFlag::O_NONBLOCK);
    }
}

/// Other files make a claim fail in the same ways as a process that shares the description.
#[test]
fn failed_claim_is_undone() {
    let signal = libc::SIGRTMAX();
    // The file drops O_ASYNC.
    let mute = eventfd(0);
    let before = state(&mute);
    assert!(claim(mute.as_raw_fd(), signal).is_none());
    assert_eq!(state(&mute), before);
    // The signal is refused.
    let (loud, _peer) = stream();
    let before = state(&loud);
    assert!(claim(loud.as_raw_fd(), 65).is_none());
    assert_eq!(state(&loud), before);
    assert!(claim(-1, signal).is_none());
}

#[test]
fn concurrent_claims_have_one_winner() {
    const ROUNDS: usize = 300;
    let (local, _peer) = stream();
    let duplicates = [0; 2].map(|_| dup(&local).expect("a copy"));
    let (before, meeting) = (state(&local), Barrier::new(2));
    let want = |duplicate: &OwnedFd| {
        let mut sigio = sigio();
        let mut wins = Vec::new();
        for _ in 0..ROUNDS {
            meeting.wait();
            wins.push(sigio.watch(0, duplicate, R) == SIGNALS);
            meeting.wait();
            sigio.remove(slot(0), duplicate.as_fd());
            meeting.wait();
        }
        wins
    };
    let [one, other] = std::thread::scope(|scope| {
        duplicates
            .each_ref()
            .map(|duplicate| scope.spawn(|| want(duplicate)))
            .map(|thread| thread.join().expect("no panic"))
    });
    assert!(one.iter().zip(&other).all(|(one, other)| one != other), "one winner in each round");
    assert_eq!(state(&local), before);
}

/// Alone, because it ends the process if it fails.
#[test]
fn arm_blocks_signals_of_a_restored_mask() {
    if !is_alone("selector::sigio::tests::owners::arm_blocks_signals_of_a_restored_mask") {
        return;
    }
    let (old, before) = (SigSet::thread_get_mask().expect("a mask"), blocked());
    let (mut sigio, (local, peer), (other, other_peer)) = (sigio(), stream(), stream());
    let during = blocked();
    for (at, fd, peer) in [(0, &local, &peer), (1, &other, &other_peer)] {
        old.thread_set_mask().expect("the previous mask");
        assert_eq!(blocked(), before);
        sigio.watch(at, fd, R);
        assert_eq!(blocked(), during);
        put(peer);
        assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![hint(at)]));
    }
    drop(sigio);
    assert_eq!(blocked(), before);
}
