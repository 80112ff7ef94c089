//! Random scripts of operations over a kernel that may do whatever kernels do, against what the
//! contract promises of bytes, order, ends and files.

mod by_hand;
mod ledger;
mod lines;
mod splices;

use super::kernel::{End, Kernel, World};
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::op::Op;
use crate::poller::Poller;
use crate::reactor::Reactor;
use crate::selector::Triggers;
use ledger::{Link, Submitted, What};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

/// How many are open at a time.
const LINKS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        link: usize,
        what: What,
        amount: usize,
        /// A deadline: one that has passed at once, or one that never will.
        deadline: Option<bool>,
    },
    Cancel(prop::sample::Index),
    PeerSends(usize, usize),
    PeerReads(usize, usize),
    PeerEnds(usize),
    Land(prop::sample::Index, End),
    /// Ends a registration; and lets go of the file, or not.
    Deregister(usize, bool),
    Wait {
        capacity: usize,
        takes: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let link = || 0..LINKS;
    let what = prop_oneof![
        4 => Just(What::Recv),
        4 => Just(What::RecvExact),
        1 => Just(What::Read),
        3 => Just(What::Send),
        4 => Just(What::SendAll),
        1 => Just(What::Write),
        1 => Just(What::ShutWrite),
        1 => Just(What::Nop),
        1 => Just(What::Timeout),
    ];
    let deadline = prop_oneof![8 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    let end = prop_oneof![
        8 => (1..60_usize).prop_map(End::Real),
        4 => Just(End::Real(usize::MAX)),
        1 => Just(End::WouldBlock),
        1 => Just(End::Interrupted),
        1 => Just(End::Canceled),
    ];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        10 => (link(), what, 1..80_usize, deadline).prop_map(|(link, what, amount, deadline)| {
            Step::Submit { link, what, amount, deadline }
        }),
        3 => index().prop_map(Step::Cancel),
        4 => (link(), 1..100_usize).prop_map(|(link, count)| Step::PeerSends(link, count)),
        3 => (link(), 1..4000_usize).prop_map(|(link, count)| Step::PeerReads(link, count)),
        1 => link().prop_map(Step::PeerEnds),
        8 => (index(), end).prop_map(|(at, end)| Step::Land(at, end)),
        1 => (link(), any::<bool>()).prop_map(|(link, drops)| Step::Deregister(link, drops)),
        8 => (1..5_usize, 0..6_usize).prop_map(|(capacity, takes)| Step::Wait { capacity, takes }),
    ]
}

struct Play {
    reactor: Reactor<Kernel>,
    world: Rc<RefCell<World>>,
    /// All that there were; the last but one or two are open.
    links: Vec<Link>,
    open: [usize; LINKS],
    all: Vec<Submitted>,
    events: Events,
}

impl Play {
    fn new(native: Triggers, seed: u64, (emulated, stubborn): (u64, u64)) -> Self {
        let (kernel, world) = Kernel::new(native, seed);
        (world.borrow_mut().emulated, world.borrow_mut().stubborn) = (emulated, stubborn);
        let reactor = Reactor::new(Backend::Other("kernel"), kernel).expect("a page");
        let (links, all, events) = (Vec::new(), Vec::new(), Events::with_capacity(1));
        let mut play = Play { reactor, world, links, open: [0; LINKS], all, events };
        (0..LINKS).for_each(|at| play.open(at));
        play
    }

    fn open(&mut self, at: usize) {
        let mut link = Link::new(self.links.len());
        let (source, interest) = (link.source(), Interest::empty());
        let key = self.reactor.register(source, Token(usize::MAX), interest, Mode::Edge);
        link.key = Some(key.expect("it is fresh"));
        self.open[at] = self.links.len();
        self.links.push(link);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { link, what, amount, deadline } => {
                self.submit(self.open[link], what, amount, deadline);
            }
            Step::Cancel(at) if !self.all.is_empty() => self.cancel(at.index(self.all.len())),
            Step::Cancel(_) => {}
            Step::PeerSends(link, count) => self.links[self.open[link]].peer_sends(count),
            Step::PeerReads(link, count) => self.links[self.open[link]].peer_reads(count),
            Step::PeerEnds(link) => self.links[self.open[link]].peer_ends(),
            Step::Land(at, end) => {
                let mut world = self.world.borrow_mut();
                if !world.taken.is_empty() {
                    let at = at.index(world.taken.len());
                    // It is not for the kernel to say that it was asked to stop.
                    world.end(at, end);
                }
            }
            Step::Deregister(link, drops) => self.deregister(link, drops),
            Step::Wait { capacity, takes } => self.wait(capacity, takes),
        }
        self.reactor.verify();
        self.check_files();
    }

    fn submit(&mut self, link: usize, what: What, amount: usize, deadline: Option<bool>) {
        let key = self.links[link].key.expect("it is open");
        let (mut submitted, op) = Submitted::new(&mut self.links[link], key, what, amount);
        let op: Op = match deadline {
            Some(true) => op.deadline(Duration::ZERO),
            Some(false) => op.deadline(Duration::MAX),
            None => op,
        };
        submitted.may_time_out = deadline == Some(true);
        let id = self.reactor.submit(op, Token(self.all.len())).expect("all is in order");
        submitted.id = Some(id);
        self.all.push(submitted);
    }

    fn cancel(&mut self, at: usize) {
        let submitted = &mut self.all[at];
        match self.reactor.cancel(submitted.id.expect("it was accepted")) {
            Ok(()) => {
                assert!(!submitted.is_done, "{submitted:?}");
                submitted.is_canceled = true;
                let (world, id) = (self.world.borrow(), submitted.id.expect("it was accepted"));
                assert!(!world.has(id.slot) || world.asked.contains(&id.slot), "it is told");
            }
            // It may be there to be taken.
            Err(error) => {
                let is_there = submitted.is_done || self.events.completed() > 0;
                assert!(is_there && error.kind() == ErrorKind::NotFound, "{submitted:?}");
            }
        }
    }

    fn deregister(&mut self, at: usize, drops: bool) {
        let link = self.open[at];
        self.world.borrow_mut().settled.clear();
        let key = self.links[link].key.take().expect("it is open");
        self.reactor.deregister(key).expect("it is open");
        let world = self.world.borrow();
        for submitted in self.all.iter_mut().filter(|one| one.link == link && !one.is_done) {
            if submitted.what.lane().is_none() {
                continue;
            }
            let slot = submitted.id.expect("it was accepted").slot;
            submitted.is_late = world.has(slot);
            // What had ended before stands before, in whatever order.
            let ends_here = !submitted.is_canceled && !submitted.may_time_out;
            submitted.is_orderly = ends_here && !submitted.is_late;
            submitted.is_settled = world.settled.contains(&slot);
            submitted.is_gone = true;
        }
        drop(world);
        if drops {
            self.links[link].ours = None;
        }
        self.open(at);
    }

    fn wait(&mut self, capacity: usize, takes: usize) {
        // Completions that were not taken would exceed a smaller one.
        if self.events.completed() == 0 {
            self.events = Events::with_capacity(capacity);
        }
        let is_sure = self.all.iter().any(Submitted::is_surely_over) || self.events.completed() > 0;
        let timeout = if is_sure { None } else { Some(Duration::ZERO) };
        self.reactor.wait(&mut self.events, timeout).expect("nothing goes wrong");
        assert!(self.events.is_empty(), "nothing is watched");
        assert!(self.events.completed() <= self.events.capacity());
        assert!(!is_sure || self.events.completed() > 0);
        for _ in 0..takes {
            let Some(completion) = self.events.completions().next() else { break };
            let Token(at) = completion.token;
            ledger::check_order(&self.all, at, &completion);
            self.all[at].complete(completion, &mut self.links);
        }
    }

    /// A file that has gone is closed when the kernel is done with it, and not before.
    fn check_files(&self) {
        let world = self.world.borrow();
        for (at, link) in self.links.iter().enumerate() {
            if link.ours.is_some() {
                continue;
            }
            let is_needed = world.taken.iter().any(|taken| {
                let is_its = |one: &Submitted| one.id.is_some_and(|id| id.slot == taken.op);
                self.all.iter().any(|one| one.link == at && !one.is_done && is_its(one))
            });
            let is_told = self.all.iter().all(|one| one.link != at || one.is_done || !one.is_late);
            let is_closed = link.is_closed();
            assert!(!(is_needed && is_closed), "the kernel is at work on link {at}");
            assert!(is_closed || !is_told, "nobody needs link {at} any more");
        }
    }

    /// Has everything come to its end.
    fn finish(mut self) {
        for link in &mut self.links {
            link.peer_sends(10_000);
            link.peer_ends();
        }
        for _ in 0..2000 {
            let mut at = 0;
            while at < self.world.borrow().taken.len() {
                if !self.world.borrow_mut().end(at, End::Real(usize::MAX)) {
                    at += 1;
                }
            }
            self.links.iter_mut().for_each(|link| link.peer_reads(100_000));
            self.step(&Step::Wait { capacity: 4, takes: 8 });
            if self.all.iter().all(|one| one.is_done) {
                break;
            }
        }
        let open: Vec<_> = self.all.iter().filter(|one| !one.is_done).collect();
        assert!(open.is_empty(), "they never complete: {open:?}");
        (0..self.all.len()).for_each(|at| self.cancel(at));
        let Play { reactor, mut links, .. } = self;
        drop(reactor);
        links.iter_mut().for_each(Link::check_the_rest);
    }
}

fn check(native: Triggers, seed: u64, odds: (u64, u64), steps: &[Step], finishes: bool) {
    let mut play = Play::new(native, seed, odds);
    steps.iter().for_each(|step| play.step(step));
    if finishes {
        return play.finish();
    }
    let Play { reactor, links, .. } = play;
    drop(reactor);
    assert!(links.iter().all(Link::is_let_go), "the files are the program's again");
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_kernel_that_does_all(steps in any_steps(), seed in any::<u64>(), stubborn in 0..60_u64) {
        check(Triggers::EDGE, seed, (0, stubborn), &steps, true);
    }

    #[test]
    fn a_kernel_that_does_some_by_edges(
        steps in any_steps(), seed in any::<u64>(), emulated in 10..90_u64,
    ) {
        check(Triggers::EDGE, seed, (emulated, 20), &steps, true);
    }

    #[test]
    fn a_kernel_that_does_some_by_levels(
        steps in any_steps(), seed in any::<u64>(), emulated in 10..90_u64,
    ) {
        check(Triggers::LEVEL, seed, (emulated, 20), &steps, true);
    }

    #[test]
    fn a_kernel_that_does_some_once(
        steps in any_steps(), seed in any::<u64>(), emulated in 10..90_u64,
    ) {
        check(Triggers::ONESHOT, seed, (emulated, 20), &steps, true);
    }

    #[test]
    fn a_kernel_that_does_nothing(steps in any_steps(), seed in any::<u64>(), kind in 0..3_u8) {
        let native = Triggers::from_bits_truncate(1 << kind);
        check(native, seed, (100, 0), &steps, true);
    }

    #[test]
    fn a_poller_that_goes_in_between(steps in any_steps(), seed in any::<u64>()) {
        check(Triggers::EDGE, seed, (30, 30), &steps, false);
    }
}
