//! Runs scripts as a reactor would, with every check after each step.

use super::fake_driver::{End, FakeDriver};
use super::fake_file::{FakeFile, FileKind};
use super::fake_io::FakeIo;
use super::fake_source::{DropLog, FakeSource, UserPanic};
use super::file_model::FileModel;
use super::model::{Delivered, Model, OpModel};
use super::script::{LINKS, OpKind, POOL_SIZE, Setup, Step, any_setup, any_steps};
use crate::event::{Events, Interest};
use crate::key::{OpSlot, Slot};
use crate::op::Completion;
use crate::reactor::operations::entry::{CancelReason, OpState};
use crate::reactor::operations::machine::Operations;
use crate::sys::buf::Buf;
use crate::sys::file::SourceFd;
use crate::sys::pool::BufferPool;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngAlgorithm;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;

/// A registration.
pub(super) struct Link {
    pub(super) slot: Slot,
    pub(super) file: usize,
    pub(super) kind: FileKind,
    pub(super) source: SourceFd,
    pub(super) has_connect: bool,
}

pub(super) struct Runner {
    pub(super) ops: Operations,
    pub(super) io: FakeIo,
    pub(super) model: Model,
    pub(super) links: Vec<Link>,
    /// All sources by file, then those of messages.
    sources: Vec<Weak<FakeSource>>,
    pub(super) passed: Vec<Weak<FakeSource>>,
    pub(super) drops: Arc<DropLog>,
    pub(super) pool: BufferPool,
    /// The buffers held by the user.
    kept: Vec<Buf>,
}

impl Runner {
    fn new(setup: &Setup) -> Self {
        let driver = FakeDriver::new(setup.refused, setup.uninterruptible);
        let mut runner = Runner {
            ops: Operations::of_poller(0),
            io: FakeIo::new(setup.seed, setup.is_by_level, driver),
            model: Model::default(),
            links: Vec::new(),
            sources: Vec::new(),
            passed: Vec::new(),
            drops: Arc::default(),
            pool: BufferPool::new(POOL_SIZE, setup.limit).expect("a pool"),
            kept: Vec::new(),
        };
        runner.io.short = setup.short;
        for (index, &kind) in setup.kinds.iter().enumerate() {
            let link = runner.register(Slot { index: index as u32, generation: 0 }, kind);
            runner.links.push(link);
        }
        runner
    }

    fn register(&mut self, slot: Slot, kind: FileKind) -> Link {
        let source = FakeSource::new(&self.drops, self.io.rng.is_percent(25));
        self.sources.push(Arc::downgrade(&source));
        let source = SourceFd::new(source);
        let seems_readable = self.io.rng.is_percent(10);
        let file = FakeFile::new(self.model.files.len(), kind, seems_readable);
        let file = self.io.files.add(source.raw_fd(), file);
        self.model.files.push(FileModel::new());
        self.io.register(slot, source.clone(), file);
        Link { slot, file, kind, source, has_connect: false }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { link, op_kind, amount, deadline } => {
                self.submit(link, op_kind, amount, deadline);
            }
            Step::Cancel(at) => self.cancel(at),
            Step::PeerSends(link, count) => self.change(link, R, |file| file.peer_sends(count)),
            Step::PeerReads(link, count) => self.change(link, W, |file| file.peer_reads(count)),
            Step::PeerEnds(link) => self.change(link, R, FakeFile::peer_ends),
            Step::PeerResets(link) => self.change(link, R | W, FakeFile::peer_resets),
            Step::PeerAnswers(link, accepts) => {
                self.change(link, R | W, |file| file.peer_answers(accepts));
            }
            Step::Finish(at, end) => {
                let FakeIo { driver, files, rng, .. } = &mut self.io;
                if driver.len() > 0 {
                    driver.finish(at.index(driver.len()), end, files, rng);
                }
            }
            Step::ThreadBegins(at) => {
                let threads = &mut self.io.threads;
                if threads.len() > 0 {
                    threads.begin(at.index(threads.len()));
                }
            }
            Step::ThreadEnds(at, end) => {
                let FakeIo { threads, files, .. } = &mut self.io;
                if threads.len() > 0 {
                    threads.finish(at.index(threads.len()), end, files);
                }
            }
            Step::Spurious(link) => {
                let slot = self.links[link].slot;
                let awaited = self.io.awaited_of(slot);
                self.ops.on_ready(slot, awaited, &mut self.io);
                self.ops.run(&mut self.io);
            }
            Step::TimePasses(millis) => self.io.now += Duration::from_millis(millis),
            Step::ReturnBuffers(count) => drop(self.kept.drain(..count.min(self.kept.len()))),
            Step::Watch(link, watches) => self.watch(link, watches),
            Step::Deregister(link) => self.deregister(link),
            Step::Wait { max_completions, room } => self.wait(max_completions, room),
        }
        self.note_silent_ends();
        self.check();
        self.io.calls = 0;
    }

    fn change(&mut self, link: usize, dirs: Interest, change: impl FnOnce(&mut FakeFile)) {
        self.io.change(self.links[link].file, dirs, change);
    }

    fn cancel(&mut self, at: Index) {
        if self.model.ops.is_empty() {
            return;
        }
        let at = at.index(self.model.ops.len());
        let op = &mut self.model.ops[at];
        let is_known = self.ops.contains(op.op);
        let is_over = op.is_done || op.has_ended_silently;
        assert_eq!(is_known, !is_over, "an undelivered operation is known: {op:?}");
        if is_known {
            op.is_cancelled = true;
            op.end(self.io.now);
            self.ops.cancel(op.op, CancelReason::User, &mut self.io);
            self.ops.run(&mut self.io);
            self.run_deferred_drops();
        }
    }

    fn watch(&mut self, at: usize, watches: bool) {
        let slot = self.links[at].slot;
        let user = if watches { Interest::PRIORITY } else { Interest::empty() };
        self.io.reset_watch(slot);
        self.ops.on_watched(slot, user, &mut self.io);
        self.note_buffers();
        self.run_deferred_drops();
    }

    fn note_buffers(&mut self) {
        if self.ops.must_ask_pools() {
            crate::reactor::operations::Io::notifier(&self.io).wake_by_ref();
        }
    }

    fn deregister(&mut self, at: usize) {
        self.collect_events();
        self.note_silent_ends();
        let link = &self.links[at];
        let (slot, kind, file) = (link.slot, link.kind, link.file);
        self.ops.remove(slot, &mut self.io);
        self.note_buffers();
        self.io.deregister(slot);
        let in_kernel = [self.io.driver.ops(), self.io.threads.ops()].concat();
        let is_its = |op: &&mut OpModel| op.file == Some(file) || op.target == Some(file);
        let is_open = |op: &&mut OpModel| !op.is_done && !op.has_ended_silently;
        for op in self.model.ops.iter_mut().filter(is_open).filter(is_its) {
            let has_ended = op.is_cancelled || op.is_removed;
            op.is_orderly = op.file == Some(file) && !has_ended && !in_kernel.contains(&op.op);
            op.is_removed = true;
            op.end(self.io.now);
        }
        let next = Slot { generation: slot.generation + 1, ..slot };
        let registration = self.register(next, kind);
        let Link { source, .. } = std::mem::replace(&mut self.links[at], registration);
        self.io.deferred.push(source);
        self.run_deferred_drops();
    }

    fn collect_events(&mut self) {
        let Runner { ops, io, .. } = self;
        let mut events = std::mem::take(&mut io.driver.events);
        ops.on_driver_events(&mut events, io);
        let mut files = Vec::new();
        io.threads.drain_events(&mut events, &mut files);
        io.deferred.extend(files);
        ops.on_thread_events(&mut events, io);
        ops.run(io);
    }

    fn wait(&mut self, max_completions: usize, room: usize) {
        // Fewer than any capacity implies, so that backpressure is common.
        self.ops.max_undelivered = room as u32;
        let is_notified = self.io.take_notifications();
        self.collect_events();
        self.ops.on_buffers(is_notified, &mut self.io);
        self.ops.on_time(&mut self.io);
        for (slot, ready) in self.io.reports() {
            self.ops.on_ready(slot, ready, &mut self.io);
            self.ops.run(&mut self.io);
        }
        self.note_silent_ends();
        let mut events = Events::with_capacity(max_completions);
        self.ops.deliver(&mut events, &mut self.io.deferred);
        events.completions().for_each(|completion| self.on_completion(completion));
        self.ops.run(&mut self.io);
        self.run_deferred_drops();
    }

    /// Detects operations that have ended without a completion.
    fn note_silent_ends(&mut self) {
        let Runner { ops, io, model, .. } = self;
        for at in 0..model.ops.len() {
            let op = &model.ops[at];
            if !op.is_done && !op.has_ended_silently && !ops.contains(op.op) {
                model.end_silently(at, io, |op| ops.table.get(op).is_some());
            }
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        let Completion { token, id, transferred, result, buf, more } = completion;
        assert_eq!(id.slot, self.model.ops[token.0].op, "the token is the operation's");
        let its = Delivered { transferred, result, buf, more };
        self.kept.extend(self.model.complete(token.0, its, &self.io));
    }

    /// Runs the deferred drops, last in a call.
    pub(super) fn run_deferred_drops(&mut self) {
        self.drops.is_allowed.store(true, Ordering::Relaxed);
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.io.run_deferred_drops())) {
            if !panic.is::<UserPanic>() {
                resume_unwind(panic);
            }
        }
        self.drops.is_allowed.store(false, Ordering::Relaxed);
    }

    /// Checks the invariants after each step.
    fn check(&self) {
        self.ops.verify(&self.io);
        let is_runnable = |op: OpSlot| {
            matches!(self.ops.table.get(op).map(|its| &its.state), Some(OpState::Runnable(_)))
        };
        let is_open = |op: &&OpModel| !op.is_done && !op.has_ended_silently;
        for op in self.model.ops.iter().filter(is_open) {
            assert!(self.ops.contains(op.op), "an operation is lost: {op:?}");
            assert!(!is_runnable(op.op), "an operation is left in the run queue: {op:?}");
            let is_elsewhere = self.io.driver.has(op.op) || self.io.threads.has(op.op);
            for file in [op.file, op.target].into_iter().flatten().filter(|_| is_elsewhere) {
                assert!(self.sources[file].strong_count() > 0, "the file is closed: {op:?}");
            }
        }
        for link in &self.links {
            let file = Some(link.file);
            let open = self.model.ops.iter().filter(|op| !op.is_done);
            let dirs = open.fold(Interest::empty(), |dirs, op| {
                let its = if op.file == file { op.op_kind.reads() } else { None };
                let its = its.map_or(Interest::empty(), |reads| if reads { R } else { W });
                dirs | its | if op.target == file { W } else { Interest::empty() }
            });
            let busy = self.ops.busy(link.slot);
            assert!(dirs.contains(busy), "nothing occupies {busy:?} of {}", link.file);
        }
    }

    /// Completes every operation.
    fn finish(mut self) {
        for at in 0..self.model.ops.len() {
            let op = &self.model.ops[at];
            let file = op.file.map(|file| self.io.files.all[file].kind);
            let is_connectionless = op.op_kind == OpKind::AcceptMulti
                || (op.op_kind == OpKind::RecvMulti && file == Some(FileKind::Datagrams));
            if !op.is_done && is_connectionless {
                let id = op.op;
                self.model.ops[at].is_cancelled = true;
                self.ops.cancel(id, CancelReason::User, &mut self.io);
                self.ops.run(&mut self.io);
            }
        }
        self.run_deferred_drops();
        for link in 0..LINKS {
            let open = |op: &&OpModel| !op.is_done && op.file == Some(self.links[link].file);
            let count = self.model.ops.iter().filter(open).count();
            self.change(link, R | W, |file| file.peer_answers(true));
            match self.links[link].kind {
                FileKind::Datagrams | FileKind::Listener => (0..count).for_each(|_| {
                    self.change(link, R, |file| file.peer_sends(3));
                }),
                _ => self.change(link, R, |file| file.peer_sends(30)),
            }
            self.change(link, R, FakeFile::peer_ends);
            self.change(link, W, |file| file.peer_reads(1 << 20));
        }
        for _ in 0..400 {
            if self.model.ops.iter().all(|op| op.is_done || op.has_ended_silently) {
                break;
            }
            self.finish_calls();
            // Delayed connects begin only now.
            (0..LINKS).for_each(|at| self.change(at, R | W, |file| file.peer_answers(true)));
            self.step(&Step::TimePasses(20));
            self.step(&Step::Wait { max_completions: 8, room: 8 });
            self.step(&Step::ReturnBuffers(1));
        }
        (0..self.model.ops.len()).for_each(|at| self.model.complete_silently(at, &self.io));
        let open: Vec<_> = self.model.ops.iter().filter(|op| !op.is_done).collect();
        assert!(open.is_empty(), "operations never complete: {open:?}");
        self.model.check_end(&self.io);
        self.drop_all();
    }

    /// Ends the calls of driver and threads that can end now.
    fn finish_calls(&mut self) {
        let FakeIo { driver, threads, files, rng, .. } = &mut self.io;
        driver.finish_cancelled(files, rng);
        let mut at = 0;
        while at < driver.len() {
            let before = driver.len();
            driver.finish(at, End::Real(usize::MAX), files, rng);
            at += usize::from(driver.len() == before);
        }
        while threads.len() > 0 {
            threads.finish(0, End::Real(usize::MAX), files);
        }
    }

    /// Drops the operations while driver and threads may have calls.
    fn drop_all(mut self) {
        self.run_deferred_drops();
        let all = || self.sources.iter().chain(&self.passed);
        // Two simultaneous panics would abort.
        all().for_each(FakeSource::suppress_panic);
        self.drops.is_allowed.store(true, Ordering::Relaxed);
        let Runner { ops, mut io, links, sources, passed, drops, pool, kept, model } = self;
        // Like a reactor: the driver is dropped before the files.
        io.driver.clear();
        drop((ops, links));
        for op in model.ops.iter().filter(|op| !op.is_done) {
            let is_needed = io.threads.has(op.op);
            for file in [op.file, op.target].into_iter().flatten().filter(|_| is_needed) {
                let is_open = sources[file].strong_count() > 0;
                assert!(is_open, "a thread keeps its file open: {op:?}");
            }
        }
        io.threads.clear();
        assert_eq!(
            pool.allocated() - pool.available(),
            kept.len(),
            "the other buffers were returned"
        );
        drop(kept);
        assert!(pool.allocated() == pool.available() && pool.allocated() <= pool.limit());
        drop(io);
        assert!(sources.iter().chain(&passed).all(|its| its.strong_count() == 0));
        let count = drops.count.load(Ordering::Relaxed);
        assert_eq!(count, sources.len() + passed.len(), "each source is dropped once");
    }
}

/// The number of cases without `PROPTEST_CASES`. Miri is much slower.
const CASES: u32 = if cfg!(miri) { 12 } else { 512 };
const STEPS: usize = if cfg!(miri) { 60 } else { 160 };

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let mut config = ProptestConfig::with_cases(cases.unwrap_or(CASES));
    if cfg!(miri) {
        config.failure_persistence = None;
        // Miri checks for undefined behaviour; a failing script is shrunk without it.
        config.max_shrink_iters = 0;
        // The default generator is seeded for each alternative, which would take most of the time.
        config.rng_algorithm = RngAlgorithm::XorShift;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn scripts_run_to_completion(setup in any_setup(), steps in any_steps(STEPS)) {
        let mut runner = Runner::new(&setup);
        steps.iter().for_each(|step| runner.step(step));
        runner.finish();
    }

    #[test]
    fn operations_are_dropped_midway(setup in any_setup(), steps in any_steps(STEPS)) {
        let mut runner = Runner::new(&setup);
        steps.iter().for_each(|step| runner.step(step));
        runner.drop_all();
    }
}
