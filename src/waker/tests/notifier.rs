//! No notification is lost, and none is a wake: every interleaving of threads that notify and of
//! one that wakes with a poller's waits.

use super::*;
use std::sync::atomic::AtomicU64;

/// What somebody does, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// All of it at once, by the code.
    Ring,
    Wake,
    /// The flag first, and a look at the poller some time later: a thread that was preempted in
    /// between.
    SplitNotify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Up,
    /// Half lying down: with the state set, and before the look at the notifier.
    Parking {
        is_down: bool,
    },
    /// Between lying down and the end of the system call.
    Parked {
        asleep: bool,
    },
    Awake,
    /// The wake has been taken, and the notifier not yet.
    Unparked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Poller,
    Other(usize),
}

struct Interleaving {
    parker: Parker,
    notifier: task::Waker,
    selector: Box<dyn Selector>,
    place: Place,
    waits: usize,
    /// The poller lies down in two steps, or by the code.
    is_halting: bool,
    others: Vec<Vec<Action>>,
    /// Whether who is between his two halves has to look at the poller.
    halves: Vec<Option<bool>>,
    has_notifications: bool,
    is_woken: bool,
}

impl Interleaving {
    fn new(make: Make, waits: usize, is_halting: bool, others: &[Vec<Action>]) -> Self {
        let selector = make();
        let parker = Parker::new(selector.wake_handle()).expect("a page");
        let (notifier, place, halves) = (parker.notifier(), Place::Up, vec![None; others.len()]);
        let (others, has_notifications, is_woken) = (others.to_vec(), false, false);
        Interleaving {
            parker,
            notifier,
            selector,
            place,
            waits,
            is_halting,
            others,
            halves,
            has_notifications,
            is_woken,
        }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.place != Place::Up || self.waits > 0 {
            moves.push(Move::Poller);
        }
        let busy = |at: &usize| self.halves[*at].is_some() || !self.others[*at].is_empty();
        moves.extend((0..self.others.len()).filter(busy).map(Move::Other));
        moves
    }

    /// False if nothing came of it, because the poller sleeps on.
    fn play(&mut self, next: Move) -> bool {
        match next {
            Move::Poller => return self.step(),
            Move::Other(at) => match self.halves[at].take() {
                Some(looks) => {
                    let shared = &*self.parker.0.0;
                    if looks && shared.state.load(Ordering::SeqCst) == PARKED {
                        shared.handle.notify();
                    }
                }
                None => self.begin(at),
            },
        }
        true
    }

    fn begin(&mut self, at: usize) {
        match self.others[at].pop().expect("only who is busy moves") {
            Action::Ring => {
                self.notifier.wake_by_ref();
                self.has_notifications = true;
            }
            Action::Wake => {
                self.parker.waker().wake();
                self.is_woken = true;
            }
            Action::SplitNotify => {
                let before = self.parker.0.0.has_notifications.swap(true, Ordering::SeqCst);
                self.halves[at] = Some(!before);
                self.has_notifications = true;
            }
        }
    }

    fn step(&mut self) -> bool {
        self.place = match self.place {
            Place::Up if self.is_halting => {
                self.waits -= 1;
                let state = &self.parker.0.0.state;
                let order = (Ordering::SeqCst, Ordering::Acquire);
                let is_down = state.compare_exchange(EMPTY, PARKED, order.0, order.1).is_ok();
                Place::Parking { is_down }
            }
            Place::Up => {
                self.waits -= 1;
                let asleep = self.parker.prepare_park();
                assert_eq!(
                    asleep,
                    !self.has_notifications && !self.is_woken,
                    "if there is nothing to do"
                );
                Place::Parked { asleep }
            }
            Place::Parking { is_down } => {
                let asleep = is_down && !self.parker.0.0.has_notifications.load(Ordering::SeqCst);
                Place::Parked { asleep }
            }
            Place::Parked { asleep } => {
                let mut out = Vec::new();
                let wake = self.selector.wait(Deadline::Now, &mut out).expect("a look");
                assert_eq!(out, [], "a ring is not a report");
                if asleep && wake == crate::selector::WaitOutcome::TimedOut {
                    return false;
                }
                Place::Awake
            }
            Place::Awake => {
                let woken = self.parker.finish_park();
                assert_eq!(woken, std::mem::take(&mut self.is_woken), "a ring is not a wake");
                Place::Unparked
            }
            Place::Unparked => {
                let has_notifications = self.parker.take_notifications();
                assert_eq!(
                    has_notifications,
                    std::mem::take(&mut self.has_notifications),
                    "it hears what rang"
                );
                Place::Up
            }
        };
        true
    }
}

fn explore(
    make: Make,
    waits: usize,
    is_halting: bool,
    others: &[Vec<Action>],
    played: &mut Vec<Move>,
) -> usize {
    let replay = |played: &[Move]| {
        let mut night = Interleaving::new(make, waits, is_halting, others);
        let moved = played.iter().fold(true, |_, &next| night.play(next));
        (night, moved)
    };
    let (night, _) = replay(played);
    let moves = night.moves();
    let others_are_done = !moves.iter().any(|next| matches!(next, Move::Other(_)));
    let mut ways = usize::from(moves.is_empty());
    for next in moves {
        played.push(next);
        // A sleeper that sleeps on is no new state.
        if replay(played).1 {
            ways += explore(make, waits, is_halting, others, played);
        } else {
            let lost = others_are_done && (night.has_notifications || night.is_woken);
            assert!(!lost, "a ring was lost: {played:?} with {others:?}");
        }
        played.pop();
    }
    ways
}

fn check_all_interleavings(make: Make) {
    use Action::{Ring, SplitNotify, Wake};
    let mut ways = 0;
    for is_halting in [false, true] {
        for [first, second] in [[Ring, Wake], [SplitNotify, Wake], [SplitNotify, SplitNotify]] {
            ways += explore(make, 2, is_halting, &[vec![first], vec![second]], &mut Vec::new());
        }
        ways += explore(make, 3, is_halting, &[vec![SplitNotify, Ring]], &mut Vec::new());
    }
    assert!(ways > 1_000, "{ways} interleavings: the search is cut short");
}

#[test]
fn no_interleaving_loses_a_ring_on_epoll() {
    check_all_interleavings(epoll);
}

#[test]
fn no_interleaving_loses_a_ring_on_poll() {
    check_all_interleavings(poll);
}

#[test]
fn many_rings_are_one_and_cost_one_write_at_most() {
    let handle = WakeHandle::new().expect("an eventfd");
    let parker = Parker::new(handle.clone()).expect("a page");
    let notifier = parker.notifier();
    (0..3).for_each(|_| notifier.wake_by_ref());
    assert_eq!(take_count(&handle), 0, "nobody sleeps");
    assert!(!parker.prepare_park(), "there is something to do");
    assert!(!parker.finish_park(), "it is no wake");
    assert!(parker.take_notifications() && !parker.take_notifications(), "once");
    assert!(parker.prepare_park());
    (0..3).for_each(|_| notifier.wake_by_ref());
    assert_eq!(take_count(&handle), 1, "one write gets a sleeper up");
    assert!(!parker.finish_park() && parker.take_notifications());
    drop(parker);
    notifier.wake();
    assert_eq!(take_count(&handle), 0, "nor when it has gone");
}

/// A thread that rings only when its last ring was heard, so that each single one counts.
#[test]
fn every_ring_of_a_thread_is_heard() {
    const RINGS: u64 = 20_000;
    let mut selector = epoll();
    let parker = Parker::new(selector.wake_handle()).expect("a page");
    let (notifier, asked, answered) = (parker.notifier(), AtomicU64::new(0), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for ring in 1..=RINGS {
                asked.store(ring, Ordering::Release);
                notifier.wake_by_ref();
                while answered.load(Ordering::Acquire) < ring {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    std::hint::spin_loop();
                }
            }
        });
        let _end = EndOfTest(&over);
        while answered.load(Ordering::Relaxed) < RINGS {
            let deadline = Instant::now() + LONG;
            let until = if parker.prepare_park() { Deadline::At(deadline) } else { Deadline::Now };
            selector.wait(until, &mut Vec::new()).expect("a wait");
            assert!(Instant::now() < deadline, "a ring was lost");
            assert!(!parker.finish_park(), "it is no wake");
            if parker.take_notifications() {
                answered.store(asked.load(Ordering::Acquire), Ordering::Release);
            }
        }
    });
}
