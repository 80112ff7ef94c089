//! Notifications are not lost, and are no wakes, in any interleaving of notifying and waking
//! threads with a poller's waits.

use super::*;
use std::sync::atomic::AtomicU64;

/// An action of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A notification as one step.
    Notify,
    Wake,
    /// The flag first, and the check of the poller's state later: a thread that was preempted in
    /// between.
    SplitNotify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollerState {
    Running,
    /// Half of `prepare_park`: the state is set, and the flag was not checked yet.
    Parking {
        is_parked: bool,
    },
    /// Between `prepare_park` and the end of the system call.
    Parked {
        asleep: bool,
    },
    Awake,
    /// The wake was taken, and the notification not yet.
    Unparked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Poller,
    Actor(usize),
}

struct Interleaving {
    parker: Parker,
    notifier: task::Waker,
    selector: Box<dyn Selector>,
    state: PollerState,
    waits: usize,
    /// The poller parks in two steps, or in one.
    splits_park: bool,
    actors: Vec<Vec<Action>>,
    /// For a thread between its two steps, true if it must check the poller's state.
    pending_halves: Vec<Option<bool>>,
    has_notifications: bool,
    is_woken: bool,
}

impl Interleaving {
    fn new(make: Make, waits: usize, splits_park: bool, actors: &[Vec<Action>]) -> Self {
        let selector = make();
        let parker = Parker::new(selector.wake_handle()).expect("a page");
        let (notifier, state, pending_halves) =
            (parker.notifier(), PollerState::Running, vec![None; actors.len()]);
        let (actors, has_notifications, is_woken) = (actors.to_vec(), false, false);
        Interleaving {
            parker,
            notifier,
            selector,
            state,
            waits,
            splits_park,
            actors,
            pending_halves,
            has_notifications,
            is_woken,
        }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.state != PollerState::Running || self.waits > 0 {
            moves.push(Move::Poller);
        }
        let busy = |at: &usize| self.pending_halves[*at].is_some() || !self.actors[*at].is_empty();
        moves.extend((0..self.actors.len()).filter(busy).map(Move::Actor));
        moves
    }

    /// Returns false if the step had no effect, because the poller keeps sleeping.
    fn play(&mut self, next: Move) -> bool {
        match next {
            Move::Poller => return self.step(),
            Move::Actor(at) => match self.pending_halves[at].take() {
                Some(must_check) => {
                    let shared = &*self.parker.0.0;
                    if must_check && shared.state.load(Ordering::SeqCst) == PARKED {
                        shared.handle.notify();
                    }
                }
                None => self.begin(at),
            },
        }
        true
    }

    fn begin(&mut self, at: usize) {
        match self.actors[at].pop().expect("an actor with actions left") {
            Action::Notify => {
                self.notifier.wake_by_ref();
                self.has_notifications = true;
            }
            Action::Wake => {
                self.parker.waker().wake();
                self.is_woken = true;
            }
            Action::SplitNotify => {
                let before = self.parker.0.0.has_notifications.swap(true, Ordering::SeqCst);
                self.pending_halves[at] = Some(!before);
                self.has_notifications = true;
            }
        }
    }

    fn step(&mut self) -> bool {
        self.state = match self.state {
            PollerState::Running if self.splits_park => {
                self.waits -= 1;
                let state = &self.parker.0.0.state;
                let order = (Ordering::SeqCst, Ordering::Acquire);
                let is_parked = state.compare_exchange(EMPTY, PARKED, order.0, order.1).is_ok();
                PollerState::Parking { is_parked }
            }
            PollerState::Running => {
                self.waits -= 1;
                let asleep = self.parker.prepare_park();
                assert_eq!(
                    asleep,
                    !self.has_notifications && !self.is_woken,
                    "the poller parks if nothing is pending"
                );
                PollerState::Parked { asleep }
            }
            PollerState::Parking { is_parked } => {
                let asleep = is_parked && !self.parker.0.0.has_notifications.load(Ordering::SeqCst);
                PollerState::Parked { asleep }
            }
            PollerState::Parked { asleep } => {
                let mut out = Vec::new();
                let wake = self.selector.wait(Deadline::Now, &mut out).expect("a wait");
                assert_eq!(out, [], "a notification is not a report");
                if asleep && wake == crate::selector::WaitOutcome::TimedOut {
                    return false;
                }
                PollerState::Awake
            }
            PollerState::Awake => {
                let woken = self.parker.finish_park();
                assert_eq!(
                    woken,
                    std::mem::take(&mut self.is_woken),
                    "a notification is not a wake"
                );
                PollerState::Unparked
            }
            PollerState::Unparked => {
                let has_notifications = self.parker.take_notifications();
                assert_eq!(
                    has_notifications,
                    std::mem::take(&mut self.has_notifications),
                    "the poller takes the notification"
                );
                PollerState::Running
            }
        };
        true
    }
}

fn explore(
    make: Make,
    waits: usize,
    splits_park: bool,
    actors: &[Vec<Action>],
    played: &mut Vec<Move>,
) -> usize {
    let replay = |played: &[Move]| {
        let mut run = Interleaving::new(make, waits, splits_park, actors);
        let moved = played.iter().fold(true, |_, &next| run.play(next));
        (run, moved)
    };
    let (run, _) = replay(played);
    let moves = run.moves();
    let others_are_done = !moves.iter().any(|next| matches!(next, Move::Actor(_)));
    let mut ways = usize::from(moves.is_empty());
    for next in moves {
        played.push(next);
        // A poller that keeps sleeping is in no new state.
        if replay(played).1 {
            ways += explore(make, waits, splits_park, actors, played);
        } else {
            let lost = others_are_done && (run.has_notifications || run.is_woken);
            assert!(!lost, "a notification was lost: {played:?} with {actors:?}");
        }
        played.pop();
    }
    ways
}

fn check_all_interleavings(make: Make) {
    use Action::{Notify, SplitNotify, Wake};
    let mut ways = 0;
    for splits_park in [false, true] {
        for [first, second] in [[Notify, Wake], [SplitNotify, Wake], [SplitNotify, SplitNotify]] {
            ways += explore(make, 2, splits_park, &[vec![first], vec![second]], &mut Vec::new());
        }
        ways += explore(make, 3, splits_park, &[vec![SplitNotify, Notify]], &mut Vec::new());
    }
    assert!(ways > 1_000, "{ways} interleavings: the search was incomplete");
}

#[test]
fn notification_survives_all_interleavings_on_epoll() {
    check_all_interleavings(epoll);
}

#[test]
fn notification_survives_all_interleavings_on_poll() {
    check_all_interleavings(poll);
}

#[test]
fn notifications_coalesce_into_one_write() {
    let handle = WakeHandle::new().expect("an eventfd");
    let parker = Parker::new(handle.clone()).expect("a page");
    let notifier = parker.notifier();
    (0..3).for_each(|_| notifier.wake_by_ref());
    assert_eq!(take_count(&handle), 0, "the poller does not sleep");
    assert!(!parker.prepare_park(), "a notification is pending");
    assert!(!parker.finish_park(), "a notification is no wake");
    assert!(parker.take_notifications() && !parker.take_notifications(), "once");
    assert!(parker.prepare_park());
    (0..3).for_each(|_| notifier.wake_by_ref());
    assert_eq!(take_count(&handle), 1, "notifications of a sleeping poller are one write");
    assert!(!parker.finish_park() && parker.take_notifications());
    drop(parker);
    notifier.wake();
    assert_eq!(take_count(&handle), 0, "no write after the drop");
}

/// A thread notifies again only when its last notification was seen, so that none may be lost.
#[test]
fn notifications_of_a_thread_all_arrive() {
    const NOTIFICATIONS: u64 = 20_000;
    let mut selector = epoll();
    let parker = Parker::new(selector.wake_handle()).expect("a page");
    let (notifier, asked, answered) = (parker.notifier(), AtomicU64::new(0), AtomicU64::new(0));
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for notification in 1..=NOTIFICATIONS {
                asked.store(notification, Ordering::Release);
                notifier.wake_by_ref();
                while answered.load(Ordering::Acquire) < notification {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    std::hint::spin_loop();
                }
            }
        });
        let _end = StopOnDrop(&stopped);
        while answered.load(Ordering::Relaxed) < NOTIFICATIONS {
            let deadline = Instant::now() + LONG;
            let until = if parker.prepare_park() { Deadline::At(deadline) } else { Deadline::Now };
            selector.wait(until, &mut Vec::new()).expect("a wait");
            assert!(Instant::now() < deadline, "a notification was lost");
            assert!(!parker.finish_park(), "a notification is no wake");
            if parker.take_notifications() {
                answered.store(asked.load(Ordering::Acquire), Ordering::Release);
            }
        }
    });
}
