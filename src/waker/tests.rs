//! Wakes are not lost in any interleaving of two wakers with a poller's waits, nor by threads.

mod notifier;
#[cfg(feature = "conformance")]
mod signals;

use super::*;
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::poller::Poller;
use crate::selector::epoll::Epoll;
use crate::selector::poll::Poll;
use crate::selector::{Deadline, Selector};
use nix::errno::Errno;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

/// Makes a selector, anew for each interleaving.
type Make = fn() -> Box<dyn Selector>;

fn epoll() -> Box<dyn Selector> {
    Box::new(Epoll::new().expect("epoll"))
}

fn poll() -> Box<dyn Selector> {
    Box::new(Poll::new().expect("an eventfd"))
}

/// Reads the counter of the eventfd, which sets it to zero.
fn take_count(handle: &WakeHandle) -> u64 {
    let mut count = [0; 8];
    match nix::unistd::read(handle.as_fd(), &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(errno) => {
            assert_eq!(errno, Errno::EAGAIN);
            0
        }
    }
}

/// The steps of a wake.
#[derive(Clone, Copy, Debug)]
enum WakeStyle {
    /// `wake` as one step.
    Atomic,
    /// The flag first, the eventfd some time later: a thread that was preempted in between.
    Split,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// The next step of the poller. It leaves its sleep only if the kernel ends it.
    Poller,
    /// Something else ends the sleep.
    Interruption,
    Waker(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollerState {
    Running,
    /// Between `prepare_park` and the end of the system call; `asleep` if that may block.
    Parked {
        asleep: bool,
    },
    /// The system call has returned.
    Awake {
        asleep: bool,
    },
}

/// One interleaving up to some step, and the expected state.
struct Interleaving {
    parker: Parker,
    selector: Box<dyn Selector>,
    state: PollerState,
    /// The number of waits that the poller still begins.
    waits: usize,
    /// The remaining wakes of each waker.
    wakers: Vec<Vec<WakeStyle>>,
    /// For a waker between its two steps, true if it must write.
    pending_halves: Vec<Option<bool>>,
    /// A wake is pending.
    pending: bool,
    writes: u64,
}

impl Interleaving {
    fn new(make: Make, waits: usize, wakers: &[Vec<WakeStyle>]) -> Self {
        let selector = make();
        let parker = Parker::new(selector.wake_handle()).expect("a page");
        let (state, wakers) = (PollerState::Running, wakers.to_vec());
        let pending_halves = vec![None; wakers.len()];
        Interleaving {
            parker,
            selector,
            state,
            waits,
            wakers,
            pending_halves,
            pending: false,
            writes: 0,
        }
    }

    /// Returns the possible next steps.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.state != PollerState::Running || self.waits > 0 {
            moves.push(Move::Poller);
        }
        if (self.state == PollerState::Parked { asleep: true }) {
            moves.push(Move::Interruption);
        }
        let busy = |waker: &usize| {
            self.pending_halves[*waker].is_some() || !self.wakers[*waker].is_empty()
        };
        moves.extend((0..self.wakers.len()).filter(busy).map(Move::Waker));
        moves
    }

    /// Returns false if the step had no effect, because the poller keeps sleeping.
    fn play(&mut self, next: Move) -> bool {
        match next {
            Move::Poller | Move::Interruption => return self.step(next == Move::Interruption),
            Move::Waker(waker) => match self.pending_halves[waker].take() {
                Some(true) => self.parker.0.0.handle.notify(),
                Some(false) => {}
                None => self.begin_wake(waker),
            },
        }
        true
    }

    fn begin_wake(&mut self, waker: usize) {
        let pace = self.wakers[waker].pop().expect("a waker with wakes left");
        let parked = [PollerState::Parked { asleep: true }, PollerState::Awake { asleep: true }];
        self.writes += u64::from(parked.contains(&self.state) && !self.pending);
        match pace {
            WakeStyle::Atomic => self.parker.waker().wake(),
            WakeStyle::Split => {
                let before = self.parker.0.0.state.swap(NOTIFIED, Ordering::AcqRel);
                self.pending_halves[waker] = Some(before == PARKED);
            }
        }
        self.pending = true;
    }

    fn step(&mut self, interrupted: bool) -> bool {
        match self.state {
            PollerState::Running => {
                self.waits -= 1;
                let asleep = self.parker.prepare_park();
                assert_eq!(asleep, !self.pending, "the poller parks if no wake is pending");
                self.state = PollerState::Parked { asleep };
            }
            PollerState::Parked { asleep } => {
                let mut out = Vec::new();
                let wake = self.selector.wait(Deadline::Now, &mut out).expect("a wait");
                assert_eq!(out, [], "a wake is not a report");
                if asleep && !interrupted && wake == crate::selector::WaitOutcome::TimedOut {
                    return false;
                }
                self.state = PollerState::Awake { asleep };
            }
            PollerState::Awake { .. } => {
                let woken = self.parker.finish_park();
                assert_eq!(
                    woken,
                    std::mem::take(&mut self.pending),
                    "the poller takes the pending wake"
                );
                self.state = PollerState::Running;
            }
        }
        true
    }
}

/// Continues `played` in every possible way. Returns the number of ways.
fn explore(make: Make, waits: usize, wakers: &[Vec<WakeStyle>], played: &mut Vec<Move>) -> usize {
    let replay = |played: &[Move]| {
        let mut run = Interleaving::new(make, waits, wakers);
        let moved = played.iter().fold(true, |_, &next| run.play(next));
        (run, moved)
    };
    let (run, _) = replay(played);
    let moves = run.moves();
    let others_are_done = !moves.iter().any(|next| matches!(next, Move::Waker(_)));
    let mut ways = usize::from(moves.is_empty());
    if moves.is_empty() {
        check_writes(make, &run, played);
    }
    for next in moves {
        played.push(next);
        // A poller that keeps sleeping is in no new state.
        if replay(played).1 {
            ways += explore(make, waits, wakers, played);
        } else {
            let lost = others_are_done && run.pending;
            assert!(!lost, "a wake was lost: {played:?} with {wakers:?}");
        }
        played.pop();
    }
    ways
}

/// Only wakes of a sleeping poller have written. The poll selector drains the eventfd in its waits.
fn check_writes(make: Make, run: &Interleaving, played: &[Move]) {
    let (count, due) = (take_count(&run.parker.0.0.handle), run.writes);
    let reads = std::ptr::fn_addr_eq(make, poll as Make);
    assert!(count == due || (reads && count < due), "{count} writes, not {due}: {played:?}");
}

fn check_all_interleavings(make: Make) {
    use WakeStyle::{Atomic, Split};
    let mut ways = 0;
    for [first, second] in [[Atomic, Atomic], [Atomic, Split], [Split, Split]] {
        ways += explore(make, 3, &[vec![first], vec![second]], &mut Vec::new());
        ways += explore(make, 2, &[vec![first, second], vec![Split]], &mut Vec::new());
    }
    assert!(ways > 5_000, "{ways} interleavings: the search was incomplete");
}

#[test]
fn wake_survives_all_interleavings_on_epoll() {
    check_all_interleavings(epoll);
}

#[test]
fn wake_survives_all_interleavings_on_poll() {
    check_all_interleavings(poll);
}

/// The timeout of a wait whose wake was lost.
const LONG: Duration = Duration::from_secs(30);

/// Fails if the wait lasts until its deadline: a wake may have been lost.
fn wait(poller: &mut dyn Poller, events: &mut Events) {
    let deadline = Instant::now() + LONG;
    poller.wait(events, Some(LONG)).expect("a wait");
    assert!(Instant::now() < deadline, "a wake was lost: {events:?}");
}

/// Stops the threads, also after a panic.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs threads that wake again only when their last wake was seen, so that no wake may be lost.
/// With every other wake the source becomes readable, which ends the wait by itself.
fn check_threads(backend: Backend) {
    const THREADS: usize = 4;
    const WAKES: usize = 400;
    let (local, peer) = UnixStream::pair().expect("a socket pair");
    local.set_nonblocking(true).expect("a flag");
    peer.set_nonblocking(true).expect("a flag");
    let (local, mut poller) = (Arc::new(local), backend.open().expect("an eventfd"));
    poller.register(local.clone(), Token(0), Interest::READABLE, Mode::Level).expect("fresh");
    let asked: [AtomicUsize; THREADS] = Default::default();
    let answered: [AtomicUsize; THREADS] = Default::default();
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (asked, answered) in asked.iter().zip(&answered) {
            let (waker, mut peer, stopped) = (poller.waker(), &peer, &stopped);
            scope.spawn(move || {
                for wake in 1..=WAKES {
                    asked.store(wake, Ordering::Release);
                    if wake % 2 == 0 {
                        // A full buffer is readable, too.
                        let _ = peer.write(b"x");
                    }
                    waker.wake();
                    while answered.load(Ordering::Acquire) < wake {
                        if stopped.load(Ordering::Relaxed) {
                            return;
                        }
                        std::thread::yield_now();
                    }
                }
            });
        }
        let _end = StopOnDrop(&stopped);
        let mut events = Events::with_capacity(4);
        while answered.iter().any(|answered| answered.load(Ordering::Relaxed) < WAKES) {
            wait(&mut *poller, &mut events);
            if events.woken() {
                for (asked, answered) in asked.iter().zip(&answered) {
                    answered.store(asked.load(Ordering::Acquire), Ordering::Release);
                }
            }
            if !events.is_empty() {
                let _ = (&*local).read(&mut [0; 64]);
            }
        }
    });
}

#[test]
fn wakes_of_many_threads_arrive_on_epoll() {
    check_threads(Backend::Epoll);
}

#[test]
fn wakes_of_many_threads_arrive_on_poll() {
    check_threads(Backend::Poll);
}

#[test]
fn wake_writes_only_to_a_sleeping_poller() {
    let handle = WakeHandle::new().expect("an eventfd");
    let parker = Parker::new(handle.clone()).expect("a page");
    let waker = parker.waker();
    waker.wake();
    waker.wake();
    assert!(!parker.prepare_park(), "a wake is pending");
    assert!(parker.finish_park());
    assert!(!parker.finish_park(), "wakes coalesce");
    assert!(parker.prepare_park());
    assert!(!parker.finish_park());
    waker.wake();
    assert_eq!(take_count(&handle), 0);
    assert!(parker.finish_park() && parker.prepare_park());
    waker.clone().wake();
    waker.wake();
    assert_eq!(take_count(&handle), 1, "wakes of a sleeping poller are one write");
}

#[test]
fn restored_wake_ends_the_next_wait() {
    let parker = Parker::new(WakeHandle::new().expect("an eventfd")).expect("a page");
    parker.waker().wake();
    assert!(parker.finish_park());
    parker.restore_wake();
    assert!(format!("{:?}", parker.waker()).contains("pending: true"));
    assert!(!parker.prepare_park());
    assert!(parker.finish_park() && !parker.finish_park());
    assert!(format!("{:?}", parker.waker()).contains("pending: false"));
}

#[test]
fn wakers_never_write_after_poller_drop() {
    for asleep in [false, true] {
        let handle = WakeHandle::new().expect("an eventfd");
        let parker = Parker::new(handle.clone()).expect("a page");
        let waker = parker.waker();
        assert!(!asleep || parker.prepare_park());
        drop(parker);
        waker.wake();
        waker.clone().wake();
        assert_eq!(take_count(&handle), 0);
    }
}

#[test]
fn wake_preserves_errno_with_full_eventfd() {
    let handle = WakeHandle::new().expect("an eventfd");
    let parker = Parker::new(handle.clone()).expect("a page");
    let most = u64::MAX - 1;
    nix::unistd::write(handle.as_fd(), &most.to_ne_bytes()).expect("a counter of zero accepts it");
    assert!(parker.prepare_park());
    Errno::set_raw(4321);
    parker.waker().wake();
    assert_eq!(Errno::last_raw(), 4321);
    assert!(parker.finish_park());
    assert_eq!(take_count(&handle), most);
}

#[test]
fn wakers_are_send_and_sync() {
    fn crosses<T: Send + Sync + Clone + 'static>() {}
    crosses::<Waker>();
}
