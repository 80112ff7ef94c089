//! Descriptions that somebody else signals by, or takes over, or wants at the same moment.

use super::*;
use nix::sys::signal::SigSet;
use std::sync::Barrier;

#[test]
fn what_signals_somebody_else_is_left_alone() {
    let ((here, there), mut first) = (stream(), sigio());
    let twin = dup(&here).expect("a copy");
    let second = |told: (Owner, i32, OFlag)| {
        let mut second = sigio();
        assert_eq!(second.watch(0, &twin, R), MUTE);
        put(&there);
        assert_eq!(second.look(), (WaitOutcome::Events, vec![readable(0)]));
        empty(&here);
        second.disarm(slot(0), twin.as_fd());
        assert_eq!(second.watch(0, &twin, R), MUTE);
        second.remove(slot(0), twin.as_fd());
        assert_eq!(state(&here), told);
        second.watch(0, &twin, R);
        drop(second);
        assert_eq!(state(&here), told);
    };
    assert_eq!(first.watch(0, &here, R), LOUD);
    let told = state(&here);
    second(told);
    std::thread::scope(|scope| _ = scope.spawn(|| second(told)));
    assert_eq!(first.look(), (WaitOutcome::Events, vec![hint(0)]));
    drop(first);
    // The program, which can't mean to be signalled by a switched off file, but may have begun.
    Owner::this_process().set(here.as_raw_fd()).expect("it lives");
    owner::set_signal(here.as_raw_fd(), libc::SIGURG).expect("a signal");
    second(state(&here));
    set_flags(&here, OFlag::O_NONBLOCK | OFlag::O_ASYNC);
    second(state(&here));
    Owner::of(there.as_raw_fd()).expect("nobody").set(here.as_raw_fd()).expect("nobody");
    assert!(state(&here).0.is_unset() && state(&here).2.contains(OFlag::O_ASYNC));
    second(state(&here));
}

/// What a program can do to a file that signals a selector.
#[derive(Clone, Copy, Debug)]
enum Takeover {
    /// `F_SETOWN`, with our signal still set.
    Owner,
    /// `F_SETOWN` and `F_SETSIG`.
    OwnerAndSignal,
    /// `F_SETSIG` alone.
    Signal,
}

const TAKEOVERS: [Takeover; 3] = [Takeover::Owner, Takeover::OwnerAndSignal, Takeover::Signal];

impl Takeover {
    fn of(self, file: &OwnedFd) {
        let number = file.as_raw_fd();
        if !matches!(self, Takeover::Signal) {
            Owner::this_process().set(number).expect("it lives");
        }
        if !matches!(self, Takeover::Owner) {
            owner::set_signal(number, libc::SIGURG).expect("a signal");
        }
    }
}

/// Alone, because a signal that goes astray ends the process.
#[test]
fn a_file_that_was_taken_over_is_looked_at() {
    if !is_alone("selector::sigio::tests::owners::a_file_that_was_taken_over_is_looked_at") {
        return;
    }
    for takeover in TAKEOVERS {
        let (mut sigio, (here, there)) = (sigio(), stream());
        let before = state(&here);
        assert_eq!(sigio.watch(0, &here, R | W), LOUD);
        put(&there);
        assert_eq!(sigio.look().1.last(), Some(&hint(0)));
        sigio.disarm(slot(0), here.as_fd());
        takeover.of(&here);
        let given = state(&here);
        // What is still ours of it is taken back.
        let left = match takeover {
            Takeover::Owner => (given.0, before.1, given.2),
            Takeover::Signal => (before.0, given.1, given.2),
            _ => given,
        };
        for dirs in [R, R | W] {
            assert_eq!(sigio.watch(0, &here, dirs), MUTE, "{takeover:?}");
            let entry = Some((here.as_raw_fd(), PollBits::asked(dirs)));
            assert_eq!(sigio.side.entry_of(slot(0)), entry, "{takeover:?}");
            assert_eq!(state(&here), left, "{takeover:?}");
        }
        let both = Report::Fact(slot(0), PollBits::IN | PollBits::OUT);
        assert_eq!(sigio.look(), (WaitOutcome::Events, vec![both]), "all that is to be said");
        sigio.disarm(slot(0), here.as_fd());
        assert_eq!(sigio.look(), quiet());
        assert_eq!(state(&here), left, "{takeover:?}, not ours to switch off");
    }
}

/// Alone, because a signal that goes astray ends the process.
#[test]
fn what_was_taken_over_and_signals_is_left_alone() {
    const TEST: &str = "what_was_taken_over_and_signals_is_left_alone";
    if !is_alone(&format!("selector::sigio::tests::owners::{TEST}")) {
        return;
    }
    for takeover in TAKEOVERS {
        let (mut sigio, (here, _there)) = (sigio(), stream());
        assert_eq!(sigio.watch(0, &here, R), LOUD);
        takeover.of(&here);
        let given = state(&here);
        sigio.watch(0, &here, R);
        assert_eq!(state(&here), given, "{takeover:?}");
        if !matches!(takeover, Takeover::Signal) {
            sigio.disarm(slot(0), here.as_fd());
            assert_eq!(state(&here), given, "{takeover:?}, not ours to switch off");
        }
        // The process that owns it is not to be signalled by what this test does next.
        set_flags(&here, OFlag::O_NONBLOCK);
        assert_eq!(sigio.watch(0, &here, R), MUTE, "{takeover:?}");
    }
}

/// Alone, because a signal that goes astray ends the process.
#[test]
fn what_was_taken_over_meanwhile_is_released_as_far_as_it_is_ours() {
    const TEST: &str = "what_was_taken_over_meanwhile_is_released_as_far_as_it_is_ours";
    if !is_alone(&format!("selector::sigio::tests::owners::{TEST}")) {
        return;
    }
    for (takeover, by_drop) in TAKEOVERS.into_iter().flat_map(|it| [(it, true), (it, false)]) {
        let (mut sigio, (here, _there)) = (sigio(), stream());
        let before = state(&here);
        assert_eq!(sigio.watch(0, &here, R | W), LOUD);
        takeover.of(&here);
        let given = state(&here);
        if !matches!(takeover, Takeover::Signal) {
            sigio.disarm(slot(0), here.as_fd());
            assert_eq!(state(&here), given, "{takeover:?}, not ours to switch off");
        }
        if by_drop {
            drop(sigio);
        } else {
            sigio.remove(slot(0), here.as_fd());
        }
        let due = match takeover {
            // It would end the process.
            Takeover::Owner => (Owner::this_process(), before.1, before.2),
            Takeover::OwnerAndSignal => given,
            Takeover::Signal => (before.0, given.1, before.2),
        };
        assert_eq!(state(&here), due, "{takeover:?}, by drop: {by_drop}");
        set_flags(&here, OFlag::O_NONBLOCK);
    }
}

/// What another process that shares the description can make of a claim, other files do too.
#[test]
fn a_claim_that_does_not_hold_is_taken_back() {
    let signal = libc::SIGRTMAX();
    // The switch does not hold.
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
fn of_threads_that_want_a_file_at_once_one_gets_it() {
    const ROUNDS: usize = 300;
    let (here, _there) = stream();
    let twins = [0; 2].map(|_| dup(&here).expect("a copy"));
    let (before, meeting) = (state(&here), Barrier::new(2));
    let want = |twin: &OwnedFd| {
        let mut sigio = sigio();
        let mut wins = Vec::new();
        for _ in 0..ROUNDS {
            meeting.wait();
            wins.push(sigio.watch(0, twin, R) == LOUD);
            meeting.wait();
            sigio.remove(slot(0), twin.as_fd());
            meeting.wait();
        }
        wins
    };
    let [one, other] = std::thread::scope(|scope| {
        twins
            .each_ref()
            .map(|twin| scope.spawn(|| want(twin)))
            .map(|it| it.join().expect("no panic"))
    });
    assert!(one.iter().zip(&other).all(|(one, other)| one != other), "one of the two, each time");
    assert_eq!(state(&here), before);
}

/// Alone, because it ends the process if it fails.
#[test]
fn a_mask_that_was_put_back_is_changed_again() {
    if !is_alone("selector::sigio::tests::owners::a_mask_that_was_put_back_is_changed_again") {
        return;
    }
    let (old, before) = (SigSet::thread_get_mask().expect("a mask"), blocked());
    let (mut sigio, (here, there), (other, peer)) = (sigio(), stream(), stream());
    let during = blocked();
    for (at, fd, peer) in [(0, &here, &there), (1, &other, &peer)] {
        old.thread_set_mask().expect("it was so before");
        assert_eq!(blocked(), before);
        sigio.watch(at, fd, R);
        assert_eq!(blocked(), during);
        put(peer);
        assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(at)]));
    }
    drop(sigio);
    assert_eq!(blocked(), before);
}
