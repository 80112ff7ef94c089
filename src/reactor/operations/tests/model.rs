//! What the contract says of each completion, told by what was submitted and what the peers did.

use super::fake_file::{BLOCK, FakeFile, FileKind, NEW, OLD, byte};
use super::fake_io::FakeIo;
use super::script::What;
use crate::key::OpSlot;
use crate::op::Outcome;
use crate::sys::buf::Buf;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What is known of a block of a file on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Old,
    /// A write is under way, or was.
    Either,
    New,
}

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
    /// It completes only if it does not succeed entirely.
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

/// What completions have said of a file.
#[derive(Debug)]
pub(super) struct FileModel {
    pub(super) received: usize,
    packets: usize,
    accepted: usize,
    /// The bytes that were sent.
    pub(super) said: Vec<u8>,
    /// A completion has told of the reset.
    told_reset: bool,
    /// A send was not completed when the last completion came, and has to tell of the reset.
    has_open_send: bool,
    owes_reset: bool,
    /// A completion has told that writing is shut down.
    is_shut: bool,
    pub(super) blocks: Vec<Block>,
    pub(super) written_blocks: usize,
}

impl FileModel {
    pub(super) fn new() -> Self {
        FileModel {
            received: 0,
            packets: 0,
            accepted: 0,
            said: Vec::new(),
            told_reset: false,
            has_open_send: false,
            owes_reset: false,
            is_shut: false,
            blocks: vec![Block::Old; super::fake_file::BLOCKS],
            written_blocks: 0,
        }
    }

    fn take_bytes(&mut self, file: usize, bytes: &[u8]) {
        for &its in bytes {
            assert_eq!(its, byte(file, self.received), "byte {} of {file}", self.received);
            self.received += 1;
        }
    }

    /// A datagram was received, with room for so many bytes.
    fn take_packet(&mut self, file: &FakeFile, bytes: &[u8], room: usize) {
        let packet = &file.packet_log[self.packets];
        assert_eq!(bytes, &packet[..packet.len().min(room)], "datagram {}", self.packets);
        self.packets += 1;
    }

    fn take_socket(&mut self, file: &FakeFile, socket: &impl AsRawFd) {
        assert_eq!(socket.as_raw_fd(), file.accept_log[self.accepted], "the next connection");
        self.accepted += 1;
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

impl FileModel {
    /// Notes what a completion says of a block; `None`: it has failed.
    fn note_block(&mut self, op: &OpModel, transferred: Option<usize>) {
        if op.what == What::WriteAt {
            let is_whole = transferred == Some(BLOCK);
            self.blocks[op.block.0] = if is_whole { Block::New } else { Block::Either };
        }
    }

    /// Checks that an error is one that the file gives.
    fn check_error(&self, op: &OpModel, its: &Delivered, state: &FakeFile) {
        let Err(error) = &its.result else { return };
        let is_expected = match (op.what, error.kind(), error.raw_os_error()) {
            (_, _, Some(libc::EPIPE)) => {
                state.is_write_shut || state.was_reset || op.what == What::Splice
            }
            (_, _, Some(libc::ECONNRESET)) => true,
            (What::RecvExact, ErrorKind::UnexpectedEof, _) => true,
            (What::Connect, _, Some(libc::ECONNREFUSED)) => true,
            (_, _, Some(libc::ENOTCONN)) => state.kind == FileKind::Stream { connects: true },
            (What::Accept | What::AcceptMulti, _, Some(libc::EINVAL)) => state.is_read_shut,
            _ => false,
        };
        assert!(is_expected, "{op:?}: {error:?}");
    }

    fn check_result(&mut self, op: &OpModel, its: &Delivered, state: &FakeFile) {
        let (moved, is_ok) = (its.transferred, its.result.is_ok());
        let is_over = state.has_ended || state.is_read_shut || state.was_reset;
        let is_at_end = is_over && self.received == state.sent;
        // The end may have come before the reset.
        let may_be_untold = state.has_ended || state.is_read_shut || op.is_removed;
        // The driver may have failed a send before the receive began, and not told so yet.
        // One that receives until the end may have received something before.
        let is_end = is_at_end && (moved == 0 || op.what == What::RecvExact);
        let is_told_later = self.has_open_send && !self.told_reset && is_end;
        let is_owed = state.was_reset && is_told_later && !may_be_untold;
        self.owes_reset |= is_owed && op.what.receives();
        let is_reset_told = !state.was_reset || self.told_reset || may_be_untold || is_told_later;
        let is_stream = state.kind != FileKind::Datagrams;
        match op.what {
            What::Recv | What::RecvMsg | What::RecvFrom | What::Read if is_stream => {
                assert!(moved > 0 || (is_at_end && is_reset_told), "no end: {op:?} of {state:?}");
            }
            What::RecvMulti if is_stream => {
                assert!(is_at_end && is_reset_told, "no end: {op:?} of {state:?}");
            }
            What::RecvMulti => assert!(state.is_read_shut, "no end: {op:?} of {state:?}"),
            What::RecvExact if is_ok => assert_eq!(moved, op.amount, "{op:?}"),
            What::RecvExact => {
                assert!(moved < op.amount && is_at_end && is_reset_told, "no end: {op:?}");
            }
            What::Send | What::SendMsg | What::Write if is_ok && is_stream => {
                assert!(moved > 0 && !self.is_shut, "{op:?}");
            }
            What::Send | What::SendMsg | What::SendAll if is_ok => {
                assert!(moved == op.amount && !self.is_shut, "{op:?}");
            }
            What::Splice => assert!(moved > 0 || is_at_end, "no end: {op:?} of {state:?}"),
            What::ReadAt => self.check_block(op, &its.buf),
            What::WriteAt => self.note_block(op, Some(moved)),
            What::AcceptMulti => assert!(!is_ok, "it has no end: {op:?}"),
            What::Accept if is_ok => {
                assert!(matches!(its.result, Ok(Outcome::Accepted { .. })), "{its:?}");
            }
            What::ShutWrite | What::ShutRead | What::Sync => {
                assert!(is_ok, "{its:?}");
                self.is_shut |= op.what == What::ShutWrite;
            }
            _ => {}
        }
    }

    /// Checks that what was read was there, before or since.
    fn check_block(&self, op: &OpModel, buf: &[u8]) {
        let (block, before) = op.block;
        let is_whole = |byte: u8| buf[op.start..].iter().all(|&its| its == byte);
        match (before, self.blocks[block]) {
            (Block::New, _) => assert!(is_whole(NEW), "it was written before: {op:?}"),
            (_, Block::Old) => assert!(is_whole(OLD), "nothing was written: {op:?}"),
            _ => assert!(buf[op.start..].iter().all(|&its| its == OLD || its == NEW)),
        }
    }
}
