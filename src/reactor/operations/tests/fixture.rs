//! The operations of one source, without a kernel.

use super::fake_driver::FakeDriver;
use super::fake_file::{FakeFile, FileKind};
use super::fake_io::FakeIo;
use super::fake_source::{DropLog, FakeSource};
use crate::event::{Events, Interest, Token};
use crate::key::{Key, OpSlot, Slot};
use crate::op::Op;
use crate::reactor::operations::entry::OpState;
use crate::reactor::operations::machine::Operations;
use crate::sys::file::SourceFd;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) const SLOT: Slot = Slot { index: 0, generation: 0 };
pub(super) const KEY: Key = Key { poller: 0, slot: SLOT };

/// The operations of one source.
pub(super) struct OpsFixture {
    pub(super) ops: Operations,
    pub(super) io: FakeIo,
}

impl OpsFixture {
    /// Returns a fixture whose driver refuses this percentage of calls.
    pub(super) fn new(kind: FileKind, refused: u64) -> Self {
        let log = Arc::new(DropLog::default());
        log.is_allowed.store(true, Ordering::Relaxed);
        let source = SourceFd::new(FakeSource::new(&log, false));
        let mut io = FakeIo::new(1, true, FakeDriver::new(refused, 100));
        let file = io.files.add(source.raw_fd(), FakeFile::new(0, kind, false));
        io.register(SLOT, source, file);
        OpsFixture { ops: Operations::of_poller(0), io }
    }

    pub(super) fn stream(refused: u64) -> Self {
        OpsFixture::new(FileKind::Stream { connects: false }, refused)
    }

    pub(super) fn submit(&mut self, mut op: Op) -> OpSlot {
        self.try_submit(&mut op).expect("accepted")
    }

    /// Submits an operation that must be refused.
    pub(super) fn refuse(&mut self, op: Op) -> io::Error {
        self.refuse_with(op).0
    }

    /// Submits an operation that must be refused, and returns it too.
    pub(super) fn refuse_with(&mut self, mut op: Op) -> (io::Error, Op) {
        let error = self.try_submit(&mut op).expect_err("refused");
        (error, op)
    }

    fn try_submit(&mut self, op: &mut Op) -> io::Result<OpSlot> {
        let slot = op.key.map(|key| key.slot);
        if let Some(slot) = slot.filter(|slot| !self.ops.has_source(*slot)) {
            let none = Interest::empty();
            let added = self.ops.add_source(slot, none, &mut self.io);
            added.expect("open");
        }
        self.ops.submit(op, Token(0), slot, None, &mut self.io)
    }

    /// Reports ready directions, as a wait does.
    pub(super) fn report(&mut self) {
        for (slot, ready) in self.io.reports() {
            self.ops.on_ready(slot, ready, &mut self.io);
            self.ops.run(&mut self.io);
        }
    }

    /// Returns the transferred bytes of each completion.
    pub(super) fn transferred(&mut self) -> Vec<usize> {
        let mut events = Events::with_capacity(100);
        self.ops.deliver(&mut events, &mut Vec::new());
        events.completions().map(|completion| completion.transferred).collect()
    }

    pub(super) fn set_state(&mut self, op: OpSlot, state: OpState) {
        self.ops.table.get_mut(op).expect("a live operation").state = state;
    }

    /// Checks that `verify` panics with these words.
    pub(super) fn verify_fails(&self, words: &str) {
        let panic = catch_unwind(AssertUnwindSafe(|| self.ops.verify(&self.io)));
        let panic = panic.expect_err("a cause is missing");
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(text.contains(words), "{words:?} is expected: {text}");
    }

    pub(super) fn verify(&self) {
        self.ops.verify(&self.io);
    }
}
