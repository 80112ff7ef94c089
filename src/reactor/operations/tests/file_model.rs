//! The model of one file, from its completions.

use super::fake_file::{BLOCK, FakeFile, FileKind, NEW, OLD, byte};
use super::model::{Delivered, OpModel};
use super::script::OpKind;
use crate::op::Outcome;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;

/// The known content of a block of a disk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Old,
    /// A write is in flight, or its result is unknown.
    Either,
    New,
}

/// The state of a file according to completions.
#[derive(Debug)]
pub(super) struct FileModel {
    pub(super) received: usize,
    pub(super) packets: usize,
    pub(super) accepted: usize,
    /// The sent bytes.
    pub(super) reported: Vec<u8>,
    /// A completion has reported the reset.
    pub(super) reported_reset: bool,
    /// A send was pending at the last completion, and must report the reset.
    pub(super) has_open_send: bool,
    pub(super) must_report_reset: bool,
    /// A completion has reported the write shutdown.
    pub(super) is_shut: bool,
    pub(super) blocks: Vec<Block>,
    pub(super) written_blocks: usize,
}

impl FileModel {
    pub(super) fn new() -> Self {
        FileModel {
            received: 0,
            packets: 0,
            accepted: 0,
            reported: Vec::new(),
            reported_reset: false,
            has_open_send: false,
            must_report_reset: false,
            is_shut: false,
            blocks: vec![Block::Old; super::fake_file::BLOCKS],
            written_blocks: 0,
        }
    }

    pub(super) fn take_bytes(&mut self, file: usize, bytes: &[u8]) {
        for &received in bytes {
            assert_eq!(received, byte(file, self.received), "byte {} of {file}", self.received);
            self.received += 1;
        }
    }

    /// Checks a received datagram, cut to `room` bytes.
    pub(super) fn take_packet(&mut self, file: &FakeFile, bytes: &[u8], room: usize) {
        let packet = &file.packet_log[self.packets];
        assert_eq!(bytes, &packet[..packet.len().min(room)], "datagram {}", self.packets);
        self.packets += 1;
    }

    pub(super) fn take_socket(&mut self, file: &FakeFile, socket: &impl AsRawFd) {
        assert_eq!(socket.as_raw_fd(), file.accept_log[self.accepted], "the next connection");
        self.accepted += 1;
    }
}

impl FileModel {
    /// Notes the block of a completion; `None` if it has failed.
    pub(super) fn note_block(&mut self, op: &OpModel, transferred: Option<usize>) {
        if op.op_kind == OpKind::WriteAt {
            let is_whole = transferred == Some(BLOCK);
            self.blocks[op.block.0] = if is_whole { Block::New } else { Block::Either };
        }
    }

    /// Checks that an error is possible for the file.
    pub(super) fn check_error(&self, op: &OpModel, delivered: &Delivered, state: &FakeFile) {
        let Err(error) = &delivered.result else { return };
        let is_expected = match (op.op_kind, error.kind(), error.raw_os_error()) {
            (_, _, Some(libc::EPIPE)) => {
                state.is_write_shut || state.was_reset || op.op_kind == OpKind::Splice
            }
            (_, _, Some(libc::ECONNRESET)) => true,
            (OpKind::RecvExact, ErrorKind::UnexpectedEof, _) => true,
            (OpKind::Connect, _, Some(libc::ECONNREFUSED)) => true,
            (_, _, Some(libc::ENOTCONN)) => state.kind == FileKind::Stream { connects: true },
            (OpKind::Accept | OpKind::AcceptMulti, _, Some(libc::EINVAL)) => state.is_read_shut,
            _ => false,
        };
        assert!(is_expected, "{op:?}: {error:?}");
    }

    pub(super) fn check_result(&mut self, op: &OpModel, delivered: &Delivered, state: &FakeFile) {
        let (moved, is_ok) = (delivered.transferred, delivered.result.is_ok());
        let is_over = state.has_ended || state.is_read_shut || state.was_reset;
        let is_at_end = is_over && self.received == state.sent;
        // The end may precede the reset.
        let may_be_unreported = state.has_ended || state.is_read_shut || op.is_removed;
        // The driver may have failed an earlier send without reporting it yet. A receive of an
        // exact length may have received bytes before the end.
        let is_end = is_at_end && (moved == 0 || (op.op_kind == OpKind::RecvExact && !is_ok));
        let is_reported_later = self.has_open_send && !self.reported_reset && is_end;
        let must_report = state.was_reset && is_reported_later && !may_be_unreported;
        self.must_report_reset |= must_report && op.op_kind.receives();
        let is_reset_reported =
            !state.was_reset || self.reported_reset || may_be_unreported || is_reported_later;
        let is_stream = state.kind != FileKind::Datagrams;
        match op.op_kind {
            OpKind::Recv | OpKind::RecvMsg | OpKind::RecvFrom | OpKind::Read if is_stream => {
                assert!(
                    moved > 0 || (is_at_end && is_reset_reported),
                    "no end: {op:?} of {state:?}"
                );
            }
            OpKind::RecvMulti if is_stream => {
                assert!(is_at_end && is_reset_reported, "no end: {op:?} of {state:?}");
            }
            OpKind::RecvMulti => assert!(state.is_read_shut, "no end: {op:?} of {state:?}"),
            OpKind::RecvExact if is_ok => assert_eq!(moved, op.amount, "{op:?}"),
            OpKind::RecvExact => {
                assert!(moved < op.amount && is_at_end && is_reset_reported, "no end: {op:?}");
            }
            OpKind::Send | OpKind::SendMsg | OpKind::Write if is_ok && is_stream => {
                assert!(moved > 0 && !self.is_shut, "{op:?}");
            }
            OpKind::Send | OpKind::SendMsg | OpKind::SendAll if is_ok => {
                assert!(moved == op.amount && !self.is_shut, "{op:?}");
            }
            OpKind::Splice => assert!(moved > 0 || is_at_end, "no end: {op:?} of {state:?}"),
            OpKind::ReadAt => self.check_block(op, &delivered.buf),
            OpKind::WriteAt => self.note_block(op, Some(moved)),
            OpKind::AcceptMulti => assert!(!is_ok, "accept_multi has no end of stream: {op:?}"),
            OpKind::Accept if is_ok => {
                assert!(matches!(delivered.result, Ok(Outcome::Accepted { .. })), "{delivered:?}");
            }
            OpKind::ShutWrite | OpKind::ShutRead | OpKind::Sync => {
                assert!(is_ok, "{delivered:?}");
                self.is_shut |= op.op_kind == OpKind::ShutWrite;
            }
            _ => {}
        }
    }

    /// Checks that the bytes read are those before or after a write.
    pub(super) fn check_block(&self, op: &OpModel, buf: &[u8]) {
        let (block, before) = op.block;
        let is_whole = |byte: u8| buf[op.start..].iter().all(|&read| read == byte);
        match (before, self.blocks[block]) {
            (Block::New, _) => assert!(is_whole(NEW), "the block was written earlier: {op:?}"),
            (_, Block::Old) => assert!(is_whole(OLD), "the block was never written: {op:?}"),
            _ => assert!(buf[op.start..].iter().all(|&read| read == OLD || read == NEW)),
        }
    }
}
