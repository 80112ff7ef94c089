//! The contract's rules for each completion, checked from submissions and peers' actions.

use super::fake_file::{FileKind, byte};
use super::fake_io::FakeIo;
use super::file_model::{Block, FileModel};
use super::script::OpKind;
use crate::key::OpSlot;
use crate::op::Outcome;
use crate::sys::buf::Buf;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// An operation that was accepted.
#[derive(Debug)]
pub(super) struct OpModel {
    pub(super) op: OpSlot,
    pub(super) op_kind: OpKind,
    /// The file, and the target of a splice.
    pub(super) file: Option<usize>,
    pub(super) target: Option<usize>,
    /// The number of bytes to move.
    pub(super) amount: usize,
    /// The buffer's content; the first `start` bytes must not change.
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    /// The address and capacity of the buffer.
    pub(super) memory: Option<(usize, usize)>,
    /// The block to read or write, and its state at submit.
    pub(super) block: (usize, Block),
    pub(super) submitted: Instant,
    pub(super) limit: Duration,
    pub(super) deadline: Option<Instant>,
    pub(super) is_cancelled: bool,
    pub(super) is_removed: bool,
    /// A cancel or removal preceded the deadline, and is the reason.
    pub(super) is_ended_early: bool,
    /// The operation was queued when its source was deregistered.
    pub(super) is_orderly: bool,
    /// The operation has no completion if it succeeds entirely.
    pub(super) is_silent: bool,
    pub(super) has_ended_silently: bool,
    pub(super) is_done: bool,
}

impl OpModel {
    /// Notes a cancel or the removal of the source.
    pub(super) fn end(&mut self, now: Instant) {
        self.is_ended_early |= self.deadline.is_none_or(|at| at > now);
    }

    fn may_stop(&self, now: Instant) -> bool {
        self.is_cancelled || self.is_removed || self.deadline.is_some_and(|at| at <= now)
    }

    /// Returns true if the operation sends to a file.
    fn writes_to(&self, file: usize) -> bool {
        self.target == Some(file) || (self.file == Some(file) && self.op_kind.sends())
    }

    fn shares_queue(&self, other: &OpModel, io: &FakeIo) -> bool {
        self.queues(io).any(|queue| other.queues(io).any(|others| others == queue))
    }

    /// Returns the queues of the operation, by file.
    fn queues(&self, io: &FakeIo) -> impl Iterator<Item = (usize, bool)> {
        let is_disk = |file: usize| io.files.all[file].kind == FileKind::Disk;
        let first = self.file.zip(self.op_kind.reads());
        let second = self.target.map(|target| (target, false));
        let queues = [first, second].into_iter().flatten();
        // Reads and writes that share a position have one queue.
        let queues: Vec<_> = queues.map(|(file, reads)| (file, reads || is_disk(file))).collect();
        queues.into_iter()
    }
}

/// A delivered completion.
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
    /// Checks a completion. Returns its buffer if it belongs to a pool.
    pub(super) fn complete(&mut self, at: usize, delivered: Delivered, io: &FakeIo) -> Option<Buf> {
        let op = &self.ops[at];
        assert!(!op.is_done && !op.has_ended_silently, "an operation completes once: {op:?}");
        if delivered.more {
            return self.on_result(at, delivered, io);
        }
        let is_whole = delivered.result.is_ok() && delivered.transferred == op.amount;
        assert!(
            !op.is_silent || !is_whole || op.may_stop(io.now),
            "a silent success is delivered: {op:?}"
        );
        // Silent predecessors in its queues have ended, unless this one was cancelled while queued.
        let had_turn = !delivered.is_stopped() || delivered.transferred > 0;
        for earlier in (0..at).filter(|_| had_turn) {
            if self.ops[earlier].shares_queue(&self.ops[at], io) {
                self.complete_silently(earlier, io);
            }
        }
        self.check_order(at, &delivered, io);
        self.ops[at].is_done = true;
        self.check_buf(at, &delivered);
        self.note_bytes(at, &delivered, io);
        self.check_outcome(at, &delivered, io);
        None
    }

    /// Notes that an operation left the table without a completion. `is_live` tells unfinished
    /// operations.
    pub(super) fn end_silently(
        &mut self,
        at: usize,
        io: &FakeIo,
        is_live: impl Fn(OpSlot) -> bool,
    ) {
        let op = &self.ops[at];
        assert!(op.is_silent, "an operation is lost: {op:?}");
        assert!(!op.is_cancelled && !op.is_removed, "a cancelled operation must complete: {op:?}");
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

    /// Checks the effects of an operation that has ended silently.
    pub(super) fn complete_silently(&mut self, at: usize, io: &FakeIo) {
        let op = &mut self.ops[at];
        if !op.has_ended_silently || op.is_done {
            return;
        }
        op.is_done = true;
        let (transferred, result) = (op.amount, Ok(Outcome::Done));
        let delivered = Delivered { transferred, result, buf: Buf::None, more: false };
        self.check_order(at, &delivered, io);
        self.note_bytes(at, &delivered, io);
        self.check_outcome(at, &delivered, io);
    }

    /// Checks one result of a multishot operation.
    fn on_result(&mut self, at: usize, delivered: Delivered, io: &FakeIo) -> Option<Buf> {
        let op = &self.ops[at];
        let file = op.file.expect("a source");
        let (state, model) = (&io.files.all[file], &mut self.files[file]);
        match (op.op_kind, delivered.result, delivered.buf) {
            (OpKind::AcceptMulti, Ok(Outcome::Accepted { socket, peer: None }), Buf::None) => {
                model.take_socket(state, &socket);
                None
            }
            (OpKind::RecvMulti, Ok(Outcome::Done), Buf::Pool(buf)) => {
                assert_eq!(buf.len(), delivered.transferred, "{op:?}");
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

    /// Checks that the buffer is the operation's, with its earlier content.
    fn check_buf(&self, at: usize, delivered: &Delivered) {
        let op = &self.ops[at];
        match (op.memory, &delivered.buf) {
            (Some(memory), Buf::Vec(bytes)) => {
                assert_eq!((bytes.as_ptr().addr(), bytes.capacity()), memory, "the same buffer");
            }
            (None, Buf::None) => {}
            (_, buf) => panic!("{op:?}: {buf:?}"),
        }
        if op.op_kind.receives() && op.memory.is_some() || op.op_kind == OpKind::ReadAt {
            assert_eq!(delivered.buf.len(), op.start + delivered.transferred, "{op:?}");
            assert_eq!(
                &delivered.buf[..op.start],
                &op.bytes[..op.start],
                "earlier bytes are unchanged"
            );
        } else if op.memory.is_some() {
            assert_eq!(&delivered.buf[..], &op.bytes[..], "a send does not change its buffer");
        }
        assert!(op.op_kind.is_multi() || delivered.transferred <= op.amount, "{op:?}");
    }

    /// Checks the moved bytes.
    fn note_bytes(&mut self, at: usize, delivered: &Delivered, io: &FakeIo) {
        let Model { ops, files } = self;
        let (op, moved) = (&ops[at], delivered.transferred);
        let Some(file) = op.file else { return };
        let state = &io.files.all[file];
        if op.op_kind.sends() {
            files[file].reported.extend(&op.bytes[op.start..op.start + moved]);
        } else if op.op_kind == OpKind::Splice {
            let target = op.target.expect("a splice has a target");
            let first = files[file].received;
            files[target].reported.extend((first..first + moved).map(|at| byte(file, at)));
            files[file].received += moved;
        } else if op.op_kind.is_multi() {
            assert_eq!(moved, 0, "{op:?}");
        } else if op.op_kind.receives() && state.kind == FileKind::Datagrams {
            let is_shut = state.is_read_shut && files[file].packets == state.packet_log.len();
            if delivered.result.is_ok() && !is_shut {
                files[file].take_packet(state, &delivered.buf[op.start..], op.amount);
            }
        } else if op.op_kind.receives() {
            files[file].take_bytes(file, &delivered.buf[op.start..]);
        } else if let Ok(Outcome::Accepted { socket, .. }) = &delivered.result {
            files[file].take_socket(state, socket);
        }
    }

    fn check_outcome(&mut self, at: usize, delivered: &Delivered, io: &FakeIo) {
        let Model { ops, files } = self;
        let op = &ops[at];
        let code = delivered.result.as_ref().err().and_then(io::Error::raw_os_error);
        let kind = delivered.result.as_ref().err().map(io::Error::kind);
        let injected = [&io.driver.failed, &io.threads.failed].map(|errors| errors.get(&op.op));
        if code.is_some() && injected.into_iter().flatten().any(|&errno| Some(errno) == code) {
            return files.get_mut(op.file.unwrap_or(usize::MAX)).map_or((), |file| {
                file.note_block(op, None);
            });
        }
        let is_stopped = code == Some(libc::ECANCELED) || kind == Some(ErrorKind::TimedOut);
        if code == Some(libc::ECANCELED) {
            assert!(op.is_cancelled || op.is_removed, "nothing has cancelled {op:?}");
        } else if is_stopped {
            assert!(op.deadline.is_some_and(|at| at <= io.now), "no deadline passed: {op:?}");
            assert!(!op.is_ended_early, "the first reason is reported: {op:?}");
        }
        let Some(file) = op.file else { return check_without_file(op, delivered, is_stopped, io) };
        let (state, model) = (&io.files.all[file], &mut files[file]);
        if is_stopped {
            return model.note_block(op, None);
        }
        let is_connect =
            |other: &&OpModel| other.op_kind == OpKind::Connect && other.file == op.file;
        let connect = ops.iter().find(is_connect);
        let has_stopped = connect.is_some_and(|connect| connect.may_stop(io.now));
        if code == Some(libc::ECONNREFUSED) && op.op_kind != OpKind::Connect {
            assert!(has_stopped, "{op:?} gets the error of {connect:?}");
            return;
        }
        model.check_error(op, delivered, state);
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
            let reporter = op.target.filter(|_| is_target_reset).unwrap_or(file);
            files[reporter].reported_reset = true;
            return;
        }
        if code.is_none_or(|code| code != libc::ENOTCONN) {
            self.note_open_sends(file);
            let Model { ops, files } = self;
            let op = &ops[at];
            files[file].check_result(op, delivered, state);
        }
    }

    fn note_open_sends(&mut self, file: usize) {
        let is_open = |op: &OpModel| !op.is_done && !op.has_ended_silently;
        let is_send = |op: &OpModel| is_open(op) && op.writes_to(file);
        self.files[file].has_open_send = self.ops.iter().any(is_send);
    }

    /// Checks that an operation completes in order.
    fn check_order(&self, at: usize, delivered: &Delivered, io: &FakeIo) {
        let op = &self.ops[at];
        for earlier in self.ops[..at].iter().filter(|earlier| !earlier.is_done) {
            if earlier.shares_queue(op, io) && !delivered.is_stopped() {
                assert!(earlier.may_stop(io.now), "{op:?} completes before {earlier:?}");
            }
            let both = earlier.is_orderly && op.is_orderly && earlier.file == op.file;
            let code = delivered.result.as_ref().err().and_then(io::Error::raw_os_error);
            assert!(
                !(both && code == Some(libc::ECANCELED)),
                "{op:?} is cancelled before {earlier:?}"
            );
        }
    }

    /// Checks that all consumed or written bytes were reported.
    pub(super) fn check_end(&self, io: &FakeIo) {
        assert!(self.ops.iter().all(|op| op.is_done));
        for (file, (model, state)) in self.files.iter().zip(&io.files.all).enumerate() {
            assert!(
                model.reported_reset || !model.must_report_reset,
                "a reset of {file} was reported"
            );
            assert!(model.reported == state.written, "what was written to {file} was reported");
            assert_eq!(model.received, state.received, "what was taken from {file} was reported");
        }
    }
}

fn check_without_file(op: &OpModel, delivered: &Delivered, is_stopped: bool, io: &FakeIo) {
    match (op.op_kind, &delivered.result) {
        _ if is_stopped => {}
        (OpKind::Nop, Ok(Outcome::Done)) | (OpKind::Open, Ok(Outcome::Opened { .. })) => {}
        (OpKind::Timeout, Ok(Outcome::Done)) => {
            assert!(io.now >= op.submitted + op.limit, "a timeout completes too early: {op:?}");
        }
        (_, result) => panic!("{op:?}: {result:?}"),
    }
}
