//! Random scripts of operations over a kernel with all permitted behaviour, checked against the
//! contract's promises on bytes, order, ends and files.

mod driver_cases;
mod multishot;
mod op_model;
mod splices;

use super::fake_kernel::{End, FakeKernel, KernelState};
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::op::Op;
use crate::poller::Poller;
use crate::reactor::Reactor;
use crate::selector::Triggers;
use op_model::{Connection, OpKind, Submitted};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

/// The number of connections open at a time.
const CONNECTIONS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        conn: usize,
        kind: OpKind,
        amount: usize,
        /// A deadline: passed at once if true, never if false.
        deadline: Option<bool>,
    },
    Cancel(prop::sample::Index),
    PeerSends(usize, usize),
    PeerReads(usize, usize),
    PeerEnds(usize),
    EndOp(prop::sample::Index, End),
    /// Ends a registration. Drops the file too, or keeps it.
    Deregister(usize, bool),
    Wait {
        capacity: usize,
        taken: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let conn = || 0..CONNECTIONS;
    let kind = prop_oneof![
        4 => Just(OpKind::Recv),
        4 => Just(OpKind::RecvExact),
        1 => Just(OpKind::Read),
        3 => Just(OpKind::Send),
        4 => Just(OpKind::SendAll),
        1 => Just(OpKind::Write),
        1 => Just(OpKind::ShutWrite),
        1 => Just(OpKind::Nop),
        1 => Just(OpKind::Timeout),
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
        10 => (conn(), kind, 1..80_usize, deadline).prop_map(|(conn, kind, amount, deadline)| {
            Step::Submit { conn, kind, amount, deadline }
        }),
        3 => index().prop_map(Step::Cancel),
        4 => (conn(), 1..100_usize).prop_map(|(conn, count)| Step::PeerSends(conn, count)),
        3 => (conn(), 1..4000_usize).prop_map(|(conn, count)| Step::PeerReads(conn, count)),
        1 => conn().prop_map(Step::PeerEnds),
        8 => (index(), end).prop_map(|(at, end)| Step::EndOp(at, end)),
        1 => (conn(), any::<bool>()).prop_map(|(conn, drops)| Step::Deregister(conn, drops)),
        8 => (1..5_usize, 0..6_usize).prop_map(|(capacity, taken)| Step::Wait { capacity, taken }),
    ]
}

struct Runner {
    reactor: Reactor<FakeKernel>,
    state: Rc<RefCell<KernelState>>,
    /// All connections; some of the last are open.
    connections: Vec<Connection>,
    open: [usize; CONNECTIONS],
    all: Vec<Submitted>,
    events: Events,
}

impl Runner {
    fn new(
        native: Triggers,
        seed: u64,
        (percent_emulated, percent_uninterruptible): (u64, u64),
    ) -> Self {
        let (fake_kernel, state) = FakeKernel::new(native, seed);
        (state.borrow_mut().percent_emulated, state.borrow_mut().percent_uninterruptible) =
            (percent_emulated, percent_uninterruptible);
        let reactor = Reactor::new(Backend::Other("kernel"), fake_kernel).expect("a page");
        let (connections, all, events) = (Vec::new(), Vec::new(), Events::with_capacity(1));
        let mut runner =
            Runner { reactor, state, connections, open: [0; CONNECTIONS], all, events };
        (0..CONNECTIONS).for_each(|at| runner.open(at));
        runner
    }

    fn open(&mut self, at: usize) {
        let mut conn = Connection::new(self.connections.len());
        let (source, interest) = (conn.source(), Interest::empty());
        let key = self.reactor.register(source, Token(usize::MAX), interest, Mode::Edge);
        conn.key = Some(key.expect("fresh"));
        self.open[at] = self.connections.len();
        self.connections.push(conn);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { conn, kind, amount, deadline } => {
                self.submit(self.open[conn], kind, amount, deadline);
            }
            Step::Cancel(at) if !self.all.is_empty() => self.cancel(at.index(self.all.len())),
            Step::Cancel(_) => {}
            Step::PeerSends(conn, count) => self.connections[self.open[conn]].peer_sends(count),
            Step::PeerReads(conn, count) => self.connections[self.open[conn]].peer_reads(count),
            Step::PeerEnds(conn) => self.connections[self.open[conn]].peer_ends(),
            Step::EndOp(at, end) => {
                let mut state = self.state.borrow_mut();
                if !state.in_flight.is_empty() {
                    let at = at.index(state.in_flight.len());
                    // Only the reactor may report that the operation was cancelled.
                    state.end(at, end);
                }
            }
            Step::Deregister(conn, drops) => self.deregister(conn, drops),
            Step::Wait { capacity, taken } => self.wait(capacity, taken),
        }
        self.reactor.verify();
        self.check_files();
    }

    fn submit(&mut self, conn: usize, kind: OpKind, amount: usize, deadline: Option<bool>) {
        let key = self.connections[conn].key.expect("it is open");
        let (mut submitted, op) = Submitted::new(&mut self.connections[conn], key, kind, amount);
        let op: Op = match deadline {
            Some(true) => op.deadline(Duration::ZERO),
            Some(false) => op.deadline(Duration::MAX),
            None => op,
        };
        submitted.may_time_out = deadline == Some(true);
        let id = self.reactor.submit(op, Token(self.all.len())).expect("accepted");
        submitted.id = Some(id);
        self.all.push(submitted);
    }

    fn cancel(&mut self, at: usize) {
        let submitted = &mut self.all[at];
        match self.reactor.cancel(submitted.id.expect("it was accepted")) {
            Ok(()) => {
                assert!(!submitted.is_done, "{submitted:?}");
                submitted.is_canceled = true;
                let (state, id) = (self.state.borrow(), submitted.id.expect("it was accepted"));
                assert!(
                    !state.has(id.slot) || state.cancelled.contains(&id.slot),
                    "the kernel gets the cancel"
                );
            }
            // The completion may wait to be taken.
            Err(error) => {
                let is_there = submitted.is_done || self.events.completed() > 0;
                assert!(is_there && error.kind() == ErrorKind::NotFound, "{submitted:?}");
            }
        }
    }

    fn deregister(&mut self, at: usize, drops: bool) {
        let conn = self.open[at];
        self.state.borrow_mut().ended_in_wait.clear();
        let key = self.connections[conn].key.take().expect("it is open");
        self.reactor.deregister(key).expect("it is open");
        let state = self.state.borrow();
        for submitted in self.all.iter_mut().filter(|one| one.conn == conn && !one.is_done) {
            if submitted.kind.queue().is_none() {
                continue;
            }
            let slot = submitted.id.expect("it was accepted").slot;
            submitted.outlives_source = state.has(slot);
            // An operation that ended earlier keeps its place in any order.
            let ends_here = !submitted.is_canceled && !submitted.may_time_out;
            submitted.is_orderly = ends_here && !submitted.outlives_source;
            submitted.is_ended_in_wait = state.ended_in_wait.contains(&slot);
            submitted.is_deregistered = true;
        }
        drop(state);
        if drops {
            self.connections[conn].local = None;
        }
        self.open(at);
    }

    fn wait(&mut self, capacity: usize, taken: usize) {
        // Completions not taken would exceed a smaller capacity.
        if self.events.completed() == 0 {
            self.events = Events::with_capacity(capacity);
        }
        let is_sure = self.all.iter().any(Submitted::must_complete) || self.events.completed() > 0;
        let timeout = if is_sure { None } else { Some(Duration::ZERO) };
        self.reactor.wait(&mut self.events, timeout).expect("no errors");
        assert!(self.events.is_empty(), "nothing is watched");
        assert!(self.events.completed() <= self.events.capacity());
        assert!(!is_sure || self.events.completed() > 0);
        for _ in 0..taken {
            let Some(completion) = self.events.completions().next() else { break };
            let Token(at) = completion.token;
            op_model::check_order(&self.all, at, &completion);
            self.all[at].complete(completion, &mut self.connections);
        }
    }

    /// Checks that a dropped file is closed after the kernel's last operation, and not before.
    fn check_files(&self) {
        let state = self.state.borrow();
        for (at, conn) in self.connections.iter().enumerate() {
            if conn.local.is_some() {
                continue;
            }
            let is_needed = state.in_flight.iter().any(|in_flight| {
                let is_op = |one: &Submitted| one.id.is_some_and(|id| id.slot == in_flight.op);
                self.all.iter().any(|one| one.conn == at && !one.is_done && is_op(one))
            });
            let is_reported =
                self.all.iter().all(|one| one.conn != at || one.is_done || !one.outlives_source);
            let is_closed = conn.is_closed();
            assert!(!(is_needed && is_closed), "the kernel still uses connection {at}");
            assert!(is_closed || !is_reported, "connection {at} must be closed");
        }
    }

    /// Completes every operation.
    fn finish(mut self) {
        for conn in &mut self.connections {
            conn.peer_sends(10_000);
            conn.peer_ends();
        }
        for _ in 0..2000 {
            let mut at = 0;
            while at < self.state.borrow().in_flight.len() {
                if !self.state.borrow_mut().end(at, End::Real(usize::MAX)) {
                    at += 1;
                }
            }
            self.connections.iter_mut().for_each(|conn| conn.peer_reads(100_000));
            self.step(&Step::Wait { capacity: 4, taken: 8 });
            if self.all.iter().all(|one| one.is_done) {
                break;
            }
        }
        let open: Vec<_> = self.all.iter().filter(|one| !one.is_done).collect();
        assert!(open.is_empty(), "never completed: {open:?}");
        (0..self.all.len()).for_each(|at| self.cancel(at));
        let Runner { reactor, mut connections, .. } = self;
        drop(reactor);
        connections.iter_mut().for_each(Connection::check_rest);
    }
}

fn check(native: Triggers, seed: u64, odds: (u64, u64), steps: &[Step], finishes: bool) {
    let mut runner = Runner::new(native, seed, odds);
    steps.iter().for_each(|step| runner.step(step));
    if finishes {
        return runner.finish();
    }
    let Runner { reactor, connections, .. } = runner;
    drop(reactor);
    assert!(connections.iter().all(Connection::is_released), "the reactor holds no file");
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn random_scripts_with_full_driver(
        steps in any_steps(), seed in any::<u64>(), uninterruptible in 0..60_u64,
    ) {
        check(Triggers::EDGE, seed, (0, uninterruptible), &steps, true);
    }

    #[test]
    fn random_scripts_with_partial_driver_and_edges(
        steps in any_steps(), seed in any::<u64>(), percent_emulated in 10..90_u64,
    ) {
        check(Triggers::EDGE, seed, (percent_emulated, 20), &steps, true);
    }

    #[test]
    fn random_scripts_with_partial_driver_and_levels(
        steps in any_steps(), seed in any::<u64>(), percent_emulated in 10..90_u64,
    ) {
        check(Triggers::LEVEL, seed, (percent_emulated, 20), &steps, true);
    }

    #[test]
    fn random_scripts_with_partial_driver_and_one_shots(
        steps in any_steps(), seed in any::<u64>(), percent_emulated in 10..90_u64,
    ) {
        check(Triggers::ONESHOT, seed, (percent_emulated, 20), &steps, true);
    }

    #[test]
    fn random_scripts_without_driver(steps in any_steps(), seed in any::<u64>(), kind in 0..3_u8) {
        let native = Triggers::from_bits_truncate(1 << kind);
        check(native, seed, (100, 0), &steps, true);
    }

    #[test]
    fn random_scripts_ended_by_poller_drop(steps in any_steps(), seed in any::<u64>()) {
        check(Triggers::EDGE, seed, (30, 30), &steps, false);
    }
}
