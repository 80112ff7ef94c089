//! What the contract says of each completion, told by what was submitted and what the peers did.

use super::fake_file::{FileKind, byte};
use super::fake_io::FakeIo;
use super::file_model::{Block, FileModel};
use super::script::What;
use crate::key::OpSlot;
use crate::op::Outcome;
use crate::sys::buf::Buf;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// An operation that was accepted.
#[derive(Debug)]
pub(super) struct OpModel {
    pub(super) op: OpSlot,
    pub(super) what: What,
    /// Its file, and the file that a splice moves bytes to.
    pub(super) file: Option<usize>,
    pub(super) target: Option<usize>,
    /// How many bytes it is to move.
    pub(super) amount: usize,
    /// What was in its buffer, of which the first `start` bytes are left alone.
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    /// Where the memory of its buffer is.
    pub(super) memory: Option<(usize, usize)>,
    /// The block that it reads or writes, and what was known of it.
    pub(super) block: (usize, Block),
    pub(super) submitted: Instant,
    pub(super) limit: Duration,
    pub(super) deadline: Option<Instant>,
    pub(super) is_cancelled: bool,
    pub(super) is_removed: bool,
    /// One of these came before its deadline, and is why it ends.
    pub(super) is_ended_early: bool,
    /// The operation was queued in `Operations` when its source was deregistered.
    pub(super) is_orderly: bool,
    /// The operation completes only if it does not succeed entirely.
    pub(super) is_silent: bool,
    pub(super) has_ended_silently: bool,
    pub(super) is_done: bool,
}

impl OpModel {
    /// Notes that it is cancelled, or that its source goes.
    pub(super) fn end(&mut self, now: Instant) {
        self.is_ended_early |= self.deadline.is_none_or(|at| at > now);
    }

    fn may_stop(&self, now: Instant) -> bool {
        self.is_cancelled || self.is_removed || self.deadline.is_some_and(|at| at <= now)
    }

    /// Returns true if it sends to a file.
    fn writes_to(&self, file: usize) -> bool {
        self.target == Some(file) || (self.file == Some(file) && self.what.sends())
    }

    fn shares_queue(&self, other: &OpModel, io: &FakeIo) -> bool {
        self.queues(io).any(|its| other.queues(io).any(|others| others == its))
    }

    /// Returns the orders that it is in, by file.
    fn queues(&self, io: &FakeIo) -> impl Iterator<Item = (usize, bool)> {
        let is_disk = |file: usize| io.files.all[file].kind == FileKind::Disk;
        let first = self.file.zip(self.what.reads());
        let second = self.target.map(|target| (target, false));
        let queues = [first, second].into_iter().flatten();
        // Where reading and writing share a position there is one order.
        let queues: Vec<_> = queues.map(|(file, reads)| (file, reads || is_disk(file))).collect();
        queues.into_iter()
    }
}

/// A completion, as it was delivered.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) transferred: usize,
    pub(super) result: io::Result<Outcome>,
    pub(super) buf: Buf,
    pub(super) more: bool,
}

impl Delivered {
    /// Returns true if the operation was cancelled, or its deadline has passed.
    fn is_stopped(&self) -> bool {
        self.result.as_ref().is_err_and(|error| {
            error.raw_os_error() == Some(libc::ECANCELED) || error.kind() == ErrorKind::TimedOut
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) ops: Vec<OpModel>,
    pub(super) files: Vec<FileModel>,
}

impl Model {
    /// Checks a completion. Returns its buffer if that is of a pool.
    pub(super) fn complete(&mut self, at: usize, its: Delivered, io: &FakeIo) -> Option<Buf> {
        let op = &self.ops[at];
        assert!(!op.is_done && !op.has_ended_silently, "an operation completes once: {op:?}");
        if its.more {
            return self.on_result(at, its, io);
        }
        let is_whole = its.result.is_ok() && its.transferred == op.amount;
        assert!(!op.is_silent || !is_whole || op.may_stop(io.now), "it is silent: {op:?}");
        // Silent ones before it in its orders are over, unless it was stopped before its turn.
        let had_turn = !its.is_stopped() || its.transferred > 0;
        for earlier in (0..at).filter(|_| had_turn) {
            if self.ops[earlier].shares_queue(&self.ops[at], io) {
                self.complete_silently(earlier, io);
            }
        }
        self.check_order(at, &its, io);
        self.ops[at].is_done = true;
        self.check_buf(at, &its);
        self.note_bytes(at, &its, io);
        self.check_outcome(at, &its, io);
        None
    }

    /// Notes that an operation has left the table without a completion. `is_live`: another one is
    /// unfinished.
    pub(super) fn end_silently(
        &mut self,
        at: usize,
        io: &FakeIo,
        is_live: impl Fn(OpSlot) -> bool,
    ) {
        let op = &self.ops[at];
        assert!(op.is_silent, "an operation is lost: {op:?}");
        assert!(!op.is_cancelled && !op.is_removed, "what was to end completes: {op:?}");
        for earlier in &self.ops[..at] {
            let is_over =
                !earlier.shares_queue(op, io) || !is_live(earlier.op) || earlier.may_stop(io.now);
            assert!(is_over, "{op:?} ends before {earlier:?}");
        }
        let (is_ordered, file) = (op.queues(io).next().is_some(), op.file);
        self.ops[at].has_ended_silently = true;
        file.into_iter().for_each(|file| self.note_open_sends(file));
        if !is_ordered {
            self.complete_silently(at, io);
        }
    }

    /// Checks what an operation that has ended silently has done.
    pub(super) fn complete_silently(&mut self, at: usize, io: &FakeIo) {
        let op = &mut self.ops[at];
        if !op.has_ended_silently || op.is_done {
            return;
        }
        op.is_done = true;
        let (transferred, result) = (op.amount, Ok(Outcome::Done));
        let its = Delivered { transferred, result, buf: Buf::None, more: false };
        self.check_order(at, &its, io);
        self.note_bytes(at, &its, io);
        self.check_outcome(at, &its, io);
    }

    /// One of many results.
    fn on_result(&mut self, at: usize, its: Delivered, io: &FakeIo) -> Option<Buf> {
        let op = &self.ops[at];
        let file = op.file.expect("it has a source");
        let (state, model) = (&io.files.all[file], &mut self.files[file]);
        match (op.what, its.result, its.buf) {
            (What::AcceptMulti, Ok(Outcome::Accepted { socket, peer: None }), Buf::None) => {
                model.take_socket(state, &socket);
                None
            }
            (What::RecvMulti, Ok(Outcome::Done), Buf::Pool(buf)) => {
                assert_eq!(buf.len(), its.transferred, "{op:?}");
                if state.kind == FileKind::Datagrams {
                    model.take_packet(state, &buf, buf.capacity());
                } else {
                    assert!(!buf.is_empty(), "an empty result is the end: {op:?}");
                    model.take_bytes(file, &buf);
                }
                Some(Buf::Pool(buf))
            }
            (_, result, buf) => panic!("{op:?}: {result:?}, {buf:?}"),
        }
    }

    /// Checks that the buffer is that of the operation, and that what was in it is there.
    fn check_buf(&self, at: usize, its: &Delivered) {
        let op = &self.ops[at];
        match (op.memory, &its.buf) {
            (Some(memory), Buf::Vec(bytes)) => {
                assert_eq!((bytes.as_ptr().addr(), bytes.capacity()), memory, "the same buffer");
            }
            (None, Buf::None) => {}
            (_, buf) => panic!("{op:?}: {buf:?}"),
        }
        if op.what.receives() && op.memory.is_some() || op.what == What::ReadAt {
            assert_eq!(its.buf.len(), op.start + its.transferred, "{op:?}");
            assert_eq!(&its.buf[..op.start], &op.bytes[..op.start], "what was there is there");
        } else if op.memory.is_some() {
            assert_eq!(&its.buf[..], &op.bytes[..], "a send leaves its buffer alone");
        }
        assert!(op.what.is_multi() || its.transferred <= op.amount, "{op:?}");
    }

    /// Checks the bytes that were moved.
    fn note_bytes(&mut self, at: usize, its: &Delivered, io: &FakeIo) {
        let Model { ops, files } = self;
        let (op, moved) = (&ops[at], its.transferred);
        let Some(file) = op.file else { return };
        let state = &io.files.all[file];
        if op.what.sends() {
            files[file].said.extend(&op.bytes[op.start..op.start + moved]);
        } else if op.what == What::Splice {
            let target = op.target.expect("a splice has a target");
            let first = files[file].received;
            files[target].said.extend((first..first + moved).map(|at| byte(file, at)));
            files[file].received += moved;
        } else if op.what.is_multi() {
            assert_eq!(moved, 0, "{op:?}");
        } else if op.what.receives() && state.kind == FileKind::Datagrams {
            let is_shut = state.is_read_shut && files[file].packets == state.packet_log.len();
            if its.result.is_ok() && !is_shut {
                files[file].take_packet(state, &its.buf[op.start..], op.amount);
            }
        } else if op.what.receives() {
            files[file].take_bytes(file, &its.buf[op.start..]);
        } else if let Ok(Outcome::Accepted { socket, .. }) = &its.result {
            files[file].take_socket(state, socket);
        }
    }

    fn check_outcome(&mut self, at: usize, its: &Delivered, io: &FakeIo) {
        let Model { ops, files } = self;
        let op = &ops[at];
        let code = its.result.as_ref().err().and_then(io::Error::raw_os_error);
        let kind = its.result.as_ref().err().map(io::Error::kind);
        let injected = [&io.driver.failed, &io.threads.failed].map(|its| its.get(&op.op));
        if code.is_some() && injected.into_iter().flatten().any(|&its| Some(its) == code) {
            return files.get_mut(op.file.unwrap_or(usize::MAX)).map_or((), |file| {
                file.note_block(op, None);
            });
        }
        let is_stopped = code == Some(libc::ECANCELED) || kind == Some(ErrorKind::TimedOut);
        if code == Some(libc::ECANCELED) {
            assert!(op.is_cancelled || op.is_removed, "nothing has cancelled {op:?}");
        } else if is_stopped {
            assert!(op.deadline.is_some_and(|at| at <= io.now), "no deadline passed: {op:?}");
            assert!(!op.is_ended_early, "the first reason is told: {op:?}");
        }
        let Some(file) = op.file else { return check_without_file(op, its, is_stopped, io) };
        let (state, model) = (&io.files.all[file], &mut files[file]);
        if is_stopped {
            return model.note_block(op, None);
        }
        let is_connect = |other: &&OpModel| other.what == What::Connect && other.file == op.file;
        let connect = ops.iter().find(is_connect);
        let has_stopped = connect.is_some_and(|connect| connect.may_stop(io.now));
        if code == Some(libc::ECONNREFUSED) && op.what != What::Connect {
            assert!(has_stopped, "{op:?} takes the error of {connect:?}");
            return;
        }
        model.check_error(op, its, state);
        if op.target.is_some_and(|target| {
            let state = &io.files.all[target];
            code == Some(libc::EPIPE) && (state.is_write_shut || state.was_reset)
        }) {
            return;
        }
        let target = op.target.map(|target| &io.files.all[target]);
        let is_target_reset = target.is_some_and(|target| target.was_reset);
        if code == Some(libc::ECONNRESET) {
            assert!(state.was_reset || is_target_reset, "nothing was reset: {op:?}");
            let told = op.target.filter(|_| is_target_reset).unwrap_or(file);
            files[told].told_reset = true;
            return;
        }
        if code.is_none_or(|code| code != libc::ENOTCONN) {
            self.note_open_sends(file);
            let Model { ops, files } = self;
            let op = &ops[at];
            files[file].check_result(op, its, state);
        }
    }

    fn note_open_sends(&mut self, file: usize) {
        let is_open = |op: &OpModel| !op.is_done && !op.has_ended_silently;
        let is_send = |op: &OpModel| is_open(op) && op.writes_to(file);
        self.files[file].has_open_send = self.ops.iter().any(is_send);
    }

    /// Checks that an operation completes in its turn.
    fn check_order(&self, at: usize, its: &Delivered, io: &FakeIo) {
        let op = &self.ops[at];
        for earlier in self.ops[..at].iter().filter(|earlier| !earlier.is_done) {
            if earlier.shares_queue(op, io) && !its.is_stopped() {
                assert!(earlier.may_stop(io.now), "{op:?} completes before {earlier:?}");
            }
            let both = earlier.is_orderly && op.is_orderly && earlier.file == op.file;
            let code = its.result.as_ref().err().and_then(io::Error::raw_os_error);
            assert!(
                !(both && code == Some(libc::ECANCELED)),
                "{op:?} is cancelled before {earlier:?}"
            );
        }
    }

    /// Checks that all that was consumed or written was told of.
    pub(super) fn check_end(&self, io: &FakeIo) {
        assert!(self.ops.iter().all(|op| op.is_done));
        for (file, (model, state)) in self.files.iter().zip(&io.files.all).enumerate() {
            assert!(model.told_reset || !model.owes_reset, "a reset of {file} was told of");
            assert!(model.said == state.written, "what was written to {file} was told of");
            assert_eq!(model.received, state.received, "what was taken from {file} was told of");
        }
    }
}

fn check_without_file(op: &OpModel, its: &Delivered, is_stopped: bool, io: &FakeIo) {
    match (op.what, &its.result) {
        _ if is_stopped => {}
        (What::Nop, Ok(Outcome::Done)) | (What::Open, Ok(Outcome::Opened { .. })) => {}
        (What::Timeout, Ok(Outcome::Done)) => {
            assert!(io.now >= op.submitted + op.limit, "a timeout completes too early: {op:?}");
        }
        (_, result) => panic!("{op:?}: {result:?}"),
    }
}
