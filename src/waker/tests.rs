//! No wake is lost: every interleaving of two wakers with a poller's waits, and threads.

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

/// A selector, made afresh for each interleaving.
type Make = fn() -> Box<dyn Selector>;

fn epoll() -> Box<dyn Selector> {
    Box::new(Epoll::new().expect("epoll"))
}

fn poll() -> Box<dyn Selector> {
    Box::new(Poll::new().expect("an eventfd"))
}

/// What the eventfd counts, which reading sets to zero.
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

/// How a waker goes about it.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// All of `wake` at once.
    AtOnce,
    /// The flag first, the eventfd some time later: a thread that was preempted in between.
    Halting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// The next step of the poller; from sleep only if the kernel ends it.
    Poller,
    /// Something else ends the sleep.
    Interruption,
    Waker(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Up,
    /// Between lying down and the system call, or in it. Whether it waits or only looks.
    Parked {
        asleep: bool,
    },
    /// The system call has returned.
    Awake {
        asleep: bool,
    },
}

/// One interleaving as far as it has been played, and what should be true.
struct Interleaving {
    parker: Parker,
    selector: Box<dyn Selector>,
    place: Place,
    /// How many waits the poller still begins.
    waits: usize,
    /// For each waker, what it has left to do.
    wakers: Vec<Vec<Pace>>,
    /// Whether a waker between its two halves has to write.
    halves: Vec<Option<bool>>,
    /// A wake was made that no wait has taken yet.
    pending: bool,
    writes: u64,
}

impl Interleaving {
    fn new(make: Make, waits: usize, wakers: &[Vec<Pace>]) -> Self {
        let selector = make();
        let parker = Parker::new(selector.wake_handle()).expect("a page");
        let (place, wakers) = (Place::Up, wakers.to_vec());
        let halves = vec![None; wakers.len()];
        Interleaving { parker, selector, place, waits, wakers, halves, pending: false, writes: 0 }
    }

    /// Who could move next.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.place != Place::Up || self.waits > 0 {
            moves.push(Move::Poller);
        }
        if (self.place == Place::Parked { asleep: true }) {
            moves.push(Move::Interruption);
        }
        let busy = |waker: &usize| self.halves[*waker].is_some() || !self.wakers[*waker].is_empty();
        moves.extend((0..self.wakers.len()).filter(busy).map(Move::Waker));
        moves
    }

    /// False if nothing came of it, because the poller sleeps on.
    fn play(&mut self, next: Move) -> bool {
        match next {
            Move::Poller | Move::Interruption => return self.step(next == Move::Interruption),
            Move::Waker(waker) => match self.halves[waker].take() {
                Some(true) => self.parker.0.0.handle.notify(),
                Some(false) => {}
                None => self.begin_wake(waker),
            },
        }
        true
    }

    fn begin_wake(&mut self, waker: usize) {
        let pace = self.wakers[waker].pop().expect("only busy wakers move");
        let parked = [Place::Parked { asleep: true }, Place::Awake { asleep: true }];
        self.writes += u64::from(parked.contains(&self.place) && !self.pending);
        match pace {
            Pace::AtOnce => self.parker.waker().wake(),
            Pace::Halting => {
                let before = self.parker.0.0.state.swap(NOTIFIED, Ordering::AcqRel);
                self.halves[waker] = Some(before == PARKED);
            }
        }
        self.pending = true;
    }

    fn step(&mut self, interrupted: bool) -> bool {
        match self.place {
            Place::Up => {
                self.waits -= 1;
                let asleep = self.parker.prepare_park();
                assert_eq!(asleep, !self.pending, "it sleeps if no wake is pending");
                self.place = Place::Parked { asleep };
            }
            Place::Parked { asleep } => {
                let mut out = Vec::new();
                let wake = self.selector.wait(Deadline::Now, &mut out).expect("a look");
                assert_eq!(out, [], "a wake is not a report");
                if asleep && !interrupted && wake == crate::selector::WaitOutcome::TimedOut {
                    return false;
                }
                self.place = Place::Awake { asleep };
            }
            Place::Awake { .. } => {
                let woken = self.parker.finish_park();
                assert_eq!(woken, std::mem::take(&mut self.pending), "it takes what is pending");
                self.place = Place::Up;
            }
        }
        true
    }
}

/// Plays on from `played` in every way there is. Gives how many ways there were.
fn explore(make: Make, waits: usize, wakers: &[Vec<Pace>], played: &mut Vec<Move>) -> usize {
    let replay = |played: &[Move]| {
        let mut night = Interleaving::new(make, waits, wakers);
        let moved = played.iter().fold(true, |_, &next| night.play(next));
        (night, moved)
    };
    let (night, _) = replay(played);
    let moves = night.moves();
    let others_are_done = !moves.iter().any(|next| matches!(next, Move::Waker(_)));
    let mut ways = usize::from(moves.is_empty());
    if moves.is_empty() {
        check_writes(make, &night, played);
    }
    for next in moves {
        played.push(next);
        // A sleeper that sleeps on is no new state.
        if replay(played).1 {
            ways += explore(make, waits, wakers, played);
        } else {
            let lost = others_are_done && night.pending;
            assert!(!lost, "a wake was lost: {played:?} with {wakers:?}");
        }
        played.pop();
    }
    ways
}

/// Only wakes that found a sleeper have written. The poll selector reads the eventfd as it goes.
fn check_writes(make: Make, night: &Interleaving, played: &[Move]) {
    let (count, due) = (take_count(&night.parker.0.0.handle), night.writes);
    let reads = std::ptr::fn_addr_eq(make, poll as Make);
    assert!(count == due || (reads && count < due), "{count} writes, not {due}: {played:?}");
}

fn check_all_interleavings(make: Make) {
    use Pace::{AtOnce, Halting};
    let mut ways = 0;
    for [first, second] in [[AtOnce, AtOnce], [AtOnce, Halting], [Halting, Halting]] {
        ways += explore(make, 3, &[vec![first], vec![second]], &mut Vec::new());
        ways += explore(make, 2, &[vec![first, second], vec![Halting]], &mut Vec::new());
    }
    assert!(ways > 5_000, "{ways} interleavings: the search is cut short");
}

#[test]
fn no_interleaving_loses_a_wake_on_epoll() {
    check_all_interleavings(epoll);
}

#[test]
fn no_interleaving_loses_a_wake_on_poll() {
    check_all_interleavings(poll);
}

/// How long a poller sleeps, at the most, on a wake that was lost.
const LONG: Duration = Duration::from_secs(30);

/// Fails if the wait lasts until its deadline. Then a wake may be pending that nobody was told of.
fn wait(poller: &mut dyn Poller, events: &mut Events) {
    let deadline = Instant::now() + LONG;
    poller.wait(events, Some(LONG)).expect("a wait");
    assert!(Instant::now() < deadline, "a wake was lost: {events:?}");
}

/// Tells the threads to end, also after a panic.
struct EndOfTest<'a>(&'a AtomicBool);

impl Drop for EndOfTest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Threads that go on only when their last wake was answered, so that each single one counts;
/// every other time there is something to read as well, which gets the poller up by itself.
fn check_threads(backend: Backend) {
    const THREADS: usize = 4;
    const WAKES: usize = 400;
    let (here, there) = UnixStream::pair().expect("a socket pair");
    here.set_nonblocking(true).expect("a flag");
    there.set_nonblocking(true).expect("a flag");
    let (here, mut poller) = (Arc::new(here), backend.open().expect("an eventfd"));
    poller.register(here.clone(), Token(0), Interest::READABLE, Mode::Level).expect("fresh");
    let asked: [AtomicUsize; THREADS] = Default::default();
    let answered: [AtomicUsize; THREADS] = Default::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (asked, answered) in asked.iter().zip(&answered) {
            let (waker, mut there, over) = (poller.waker(), &there, &over);
            scope.spawn(move || {
                for wake in 1..=WAKES {
                    asked.store(wake, Ordering::Release);
                    if wake % 2 == 0 {
                        // A full buffer is something to read, too.
                        let _ = there.write(b"x");
                    }
                    waker.wake();
                    while answered.load(Ordering::Acquire) < wake {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        std::thread::yield_now();
                    }
                }
            });
        }
        let _end = EndOfTest(&over);
        let mut events = Events::with_capacity(4);
        while answered.iter().any(|answered| answered.load(Ordering::Relaxed) < WAKES) {
            wait(&mut *poller, &mut events);
            if events.woken() {
                for (asked, answered) in asked.iter().zip(&answered) {
                    answered.store(asked.load(Ordering::Acquire), Ordering::Release);
                }
            }
            if !events.is_empty() {
                let _ = (&*here).read(&mut [0; 64]);
            }
        }
    });
}

#[test]
fn every_wake_of_many_threads_is_answered_on_epoll() {
    check_threads(Backend::Epoll);
}

#[test]
fn every_wake_of_many_threads_is_answered_on_poll() {
    check_threads(Backend::Poll);
}

#[test]
fn nothing_is_written_while_nobody_sleeps() {
    let handle = WakeHandle::new().expect("an eventfd");
    let parker = Parker::new(handle.clone()).expect("a page");
    let waker = parker.waker();
    waker.wake();
    waker.wake();
    assert!(!parker.prepare_park(), "a wake is pending");
    assert!(parker.finish_park());
    assert!(!parker.finish_park(), "many wakes are one");
    assert!(parker.prepare_park());
    assert!(!parker.finish_park());
    waker.wake();
    assert_eq!(take_count(&handle), 0);
    assert!(parker.finish_park() && parker.prepare_park());
    waker.clone().wake();
    waker.wake();
    assert_eq!(take_count(&handle), 1, "one write gets a sleeper up");
}

#[test]
fn a_wake_that_is_put_back_ends_the_next_wait() {
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
fn wakers_that_outlive_the_poller_never_write() {
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
fn errno_is_kept_even_if_the_eventfd_is_full() {
    let handle = WakeHandle::new().expect("an eventfd");
    let parker = Parker::new(handle.clone()).expect("a page");
    let most = u64::MAX - 1;
    nix::unistd::write(handle.as_fd(), &most.to_ne_bytes()).expect("an empty one takes it");
    assert!(parker.prepare_park());
    Errno::set_raw(4321);
    parker.waker().wake();
    assert_eq!(Errno::last_raw(), 4321);
    assert!(parker.finish_park());
    assert_eq!(take_count(&handle), most);
}

#[test]
fn wakers_cross_threads() {
    fn crosses<T: Send + Sync + Clone + 'static>() {}
    crosses::<Waker>();
}
