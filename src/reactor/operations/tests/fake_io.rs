//! [`Io`] without a system call: a virtual clock, readiness by level or edge, a driver, threads and
//! deferred drops.

use super::fake_driver::{FakeDriver, FakeThreads, Rng};
use super::fake_file::FakeFile;
use super::fake_files::FakeFiles;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::reactor::operations::{Causes, Io};
use crate::selector::OpEvent;
use crate::sys::file::SourceFd;
use crate::sys::io_call::{Call, CallBox, CallResult, IoCall, Work};
use crate::sys::io_mode::FdIoMode;
use crate::sys::pool::{BufferPool, PoolBuf};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Wake};
use std::time::Instant;

/// The readiness reports of a source.
#[derive(Debug)]
struct Watch {
    source: SourceFd,
    file: usize,
    awaited: Interest,
    /// Watched by the kernel, also after a report.
    watched: Interest,
    /// Had an edge that was not reported.
    edges: Interest,
    /// Polled by the next wait.
    rechecked: Interest,
    likely_not_ready: Interest,
}

#[derive(Debug, Default)]
struct Notifier(AtomicBool);

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct FakeIo {
    pub(super) now: Instant,
    pub(super) files: FakeFiles,
    pub(super) driver: FakeDriver,
    pub(super) threads: FakeThreads,
    pub(super) deferred: Vec<SourceFd>,
    pub(super) rng: Rng,
    /// Reports readiness while it lasts, or else once when it begins.
    pub(super) is_by_level: bool,
    /// Counts the calls since the last check.
    pub(super) calls: usize,
    /// Counts the attempts of operations.
    pub(super) attempts: usize,
    /// The percentage of attempts that move a few bytes only.
    pub(super) short: u64,
    watches: BTreeMap<u32, (Slot, Watch)>,
    notifier: Arc<Notifier>,
    waker: task::Waker,
}

impl FakeIo {
    pub(super) fn new(seed: u64, is_by_level: bool, driver: FakeDriver) -> Self {
        let notifier = Arc::new(Notifier::default());
        FakeIo {
            now: Instant::now(),
            files: FakeFiles::default(),
            driver,
            threads: FakeThreads::default(),
            deferred: Vec::new(),
            rng: Rng(seed),
            is_by_level,
            calls: 0,
            attempts: 0,
            short: 30,
            watches: BTreeMap::new(),
            waker: notifier.clone().into(),
            notifier,
        }
    }

    pub(super) fn register(&mut self, slot: Slot, source: SourceFd, file: usize) {
        let [awaited, watched, edges, rechecked, likely_not_ready] = [Interest::empty(); 5];
        let watch = Watch { source, file, awaited, watched, edges, rechecked, likely_not_ready };
        self.watches.insert(slot.index, (slot, watch));
    }

    pub(super) fn deregister(&mut self, slot: Slot) {
        let (_, watch) = self.watches.remove(&slot.index).expect("registered");
        assert!(watch.awaited.is_empty(), "no operation awaits a removed source: {watch:?}");
    }

    fn fake(&mut self, slot: Slot) -> &mut FakeFile {
        let file = self.watch(slot).file;
        &mut self.files.all[file]
    }

    fn watch(&mut self, slot: Slot) -> &mut Watch {
        let (its, watch) = self.watches.get_mut(&slot.index).expect("registered");
        assert_eq!(*its, slot, "the slot is current");
        watch
    }

    /// Changes a file, which is an edge of these directions if they are then ready.
    pub(super) fn change(
        &mut self,
        file: usize,
        dirs: Interest,
        change: impl FnOnce(&mut FakeFile),
    ) {
        let its = &mut self.files.all[file];
        let before = its.progress();
        change(its);
        if its.progress() == before {
            return;
        }
        let ready = its.ready();
        for (_, watch) in self.watches.values_mut().filter(|(_, watch)| watch.file == file) {
            watch.edges |= ready & dirs & watch.watched;
        }
    }

    /// Returns the reports of the next wait for awaited directions.
    pub(super) fn reports(&mut self) -> Vec<(Slot, Interest)> {
        let mut reports = Vec::new();
        for (slot, watch) in self.watches.values_mut() {
            let ready = self.files.all[watch.file].ready();
            let rechecked = std::mem::take(&mut watch.rechecked) & ready;
            let edges = std::mem::take(&mut watch.edges);
            let found = if self.is_by_level { ready } else { (edges & ready) | rechecked };
            watch.likely_not_ready -= found;
            let idle = watch.watched - watch.awaited;
            if !(found & idle).is_empty() && self.rng.is_percent(50) {
                watch.watched -= idle;
            }
            if !(found & watch.awaited).is_empty() {
                reports.push((*slot, found & watch.awaited));
            }
        }
        reports
    }

    /// Returns the directions of a source that operations await.
    pub(super) fn awaited_of(&self, slot: Slot) -> Interest {
        let watch = self.watches.get(&slot.index).filter(|(its, _)| *its == slot);
        watch.map_or(Interest::empty(), |(_, watch)| watch.awaited)
    }

    /// Resets what is watched after the user's change.
    pub(super) fn reset_watch(&mut self, slot: Slot) {
        let watch = self.watch(slot);
        (watch.watched, watch.likely_not_ready) = (watch.awaited, Interest::empty());
        watch.rechecked |= watch.awaited;
    }

    pub(super) fn take_notifications(&mut self) -> bool {
        self.notifier.0.swap(false, Ordering::Relaxed)
    }

    fn count_call(&mut self) {
        self.calls += 1;
        assert!(self.calls < 10_000, "a step makes too many calls");
    }

    /// Drops unneeded files; a user's `Drop` may panic.
    pub(super) fn run_deferred_drops(&mut self) {
        while let Some(file) = self.deferred.pop() {
            drop(file);
        }
    }
}

impl Io for FakeIo {
    fn now(&self) -> Instant {
        self.now
    }

    fn file(&self, slot: Slot) -> Option<&SourceFd> {
        let (its, watch) = self.watches.get(&slot.index)?;
        Some(&watch.source).filter(|_| *its == slot)
    }

    fn mode_of(&mut self, slot: Slot) -> io::Result<FdIoMode> {
        Ok(self.fake(slot).mode())
    }

    fn restore(&mut self, _slot: Slot, _mode: &mut FdIoMode) {}

    fn prepare_to_splice(&mut self, _slot: Slot, _mode: &mut FdIoMode) -> io::Result<()> {
        Ok(())
    }

    fn has_driver(&self) -> bool {
        self.driver.refused < 100
    }

    fn can_submit(&mut self, work: &Work, mode: &mut FdIoMode) -> bool {
        match work.call() {
            Call::Connect | Call::Sync { .. } | Call::Open | Call::Splice => false,
            Call::Read | Call::Write => !mode.has_position(),
            Call::RecvMulti => mode.is_stream(),
            _ => true,
        }
    }

    fn attempt(&mut self, call: &mut IoCall, mode: &mut FdIoMode) -> io::Result<CallResult> {
        self.count_call();
        self.attempts += 1;
        if call.may_wait_for_disk(mode) && !self.rng.is_percent(20) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if matches!(call.call(), Call::Sync { .. } | Call::Open) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let is_short = self.rng.is_percent(self.short);
        let max = if is_short { 1 + self.rng.below(3) as usize } else { usize::MAX };
        let fd = call.wanted().0;
        self.files.by_fd(fd).call(call, max)
    }

    fn recv_now(&mut self, slot: Slot, buf: &mut PoolBuf) -> io::Result<usize> {
        self.count_call();
        self.attempts += 1;
        self.fake(slot).receive(buf)
    }

    fn open_now(&mut self, _call: &IoCall) -> Option<io::Result<OwnedFd>> {
        self.count_call();
        let file = || Ok(File::open("/dev/null").expect("every Linux has it").into());
        self.rng.is_percent(50).then(file)
    }

    fn send_now(&mut self, slot: Slot, bytes: &[u8]) -> io::Result<usize> {
        self.count_call();
        let is_short = self.rng.is_percent(self.short);
        let max = if is_short { 1 + self.rng.below(3) as usize } else { usize::MAX };
        self.fake(slot).write(bytes, max)
    }

    fn attempt_splice(
        &mut self,
        call: &mut IoCall,
        _from: &mut FdIoMode,
        _to: &mut FdIoMode,
    ) -> io::Result<CallResult> {
        self.count_call();
        let max = 1 + self.rng.below(30) as usize;
        self.files.call(call, max)
    }

    fn shutdown(&mut self, slot: Slot, how: Shutdown) -> io::Result<()> {
        // No edge: not every mechanism reports the program's own shutdown.
        self.fake(slot).shutdown(how);
        Ok(())
    }

    fn poll_now(&mut self, slot: Slot, dir: Interest) -> PollBits {
        self.count_call();
        let always = PollBits::ERR | PollBits::HUP;
        self.fake(slot).bits() & (PollBits::asked(dir) | always)
    }

    fn poll_both(&mut self, sides: [(Slot, Interest); 2]) -> [PollBits; 2] {
        self.count_call();
        let always = PollBits::ERR | PollBits::HUP;
        sides.map(|(slot, dir)| self.fake(slot).bits() & (PollBits::asked(dir) | always))
    }

    fn has_bytes(&mut self, slot: Slot) -> bool {
        self.fake(slot).has_bytes()
    }

    fn has_not_reconnected(&mut self, _slot: Slot) -> bool {
        true
    }

    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work> {
        self.count_call();
        self.driver.submit(op, work, &mut self.rng)
    }

    fn cancel(&mut self, op: OpSlot) {
        self.driver.cancel(op, &mut self.files, &mut self.rng);
    }

    fn cancel_and_wait(&mut self, ops: &[OpSlot], events: &mut Vec<OpEvent>) {
        self.driver.cancel_and_wait(ops, &mut self.files, &mut self.rng);
        events.append(&mut self.driver.events);
    }

    fn spawn(&mut self, op: OpSlot, call: CallBox, files: Vec<SourceFd>) {
        self.threads.spawn(op, call, files);
    }

    fn withdraw(&mut self, op: OpSlot) -> Option<CallBox> {
        self.threads.withdraw(op)
    }

    fn await_ready(&mut self, slot: Slot, dir: Interest) {
        let file = self.watch(slot).file;
        let ready = self.files.all[file].ready();
        let watch = self.watch(slot);
        assert!(!watch.awaited.contains(dir), "one operation awaits a direction");
        watch.awaited |= dir;
        watch.edges |= (dir - watch.watched) & ready;
        watch.watched |= dir;
    }

    fn stop_awaiting(&mut self, slot: Slot, dir: Interest) {
        self.watch(slot).awaited -= dir;
    }

    fn recheck(&mut self, slot: Slot, dir: Interest) {
        self.watch(slot).rechecked |= dir;
    }

    fn recheck_all(&mut self, slot: Slot) {
        let watch = self.watch(slot);
        watch.rechecked |= watch.watched;
    }

    fn repeats(&self, _slot: Slot, _dir: Interest) -> bool {
        self.is_by_level
    }

    fn note_likely_not_ready(&mut self, slot: Slot, dir: Interest) -> bool {
        self.watch(slot).likely_not_ready |= dir;
        self.can_skip_attempt(slot, dir)
    }

    fn can_skip_attempt(&mut self, slot: Slot, dir: Interest) -> bool {
        let is_by_level = self.is_by_level;
        let watch = self.watch(slot);
        is_by_level && (watch.likely_not_ready & watch.watched).contains(dir)
    }

    /// No buffers are provided.
    fn release_buffers(&mut self, _pool: &BufferPool) {}

    fn notifier(&self) -> &task::Waker {
        &self.waker
    }

    fn defer_drop(&mut self, files: Vec<SourceFd>) {
        self.deferred.extend(files);
    }
}

impl Causes for FakeIo {
    fn awaited(&self, slot: Slot) -> Interest {
        self.awaited_of(slot)
    }

    fn interest(&self, _slot: Slot) -> Option<Interest> {
        None
    }

    fn driver_has(&self, op: OpSlot) -> Option<bool> {
        Some(self.driver.has(op))
    }

    fn driver_count(&self) -> Option<usize> {
        Some(self.driver.count())
    }

    fn thread_has(&self, op: OpSlot) -> Option<bool> {
        Some(self.threads.has(op))
    }

    fn thread_count(&self) -> usize {
        self.threads.count()
    }

    fn is_notified(&self) -> Option<bool> {
        Some(self.notifier.0.load(Ordering::Relaxed))
    }

    fn notifier(&self) -> &task::Waker {
        &self.waker
    }
}
