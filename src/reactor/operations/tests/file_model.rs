//! What completions have said of one file, and what may be said of it next.

use super::fake_file::{BLOCK, FakeFile, FileKind, NEW, OLD, byte};
use super::model::{Delivered, OpModel};
use super::script::What;
use crate::op::Outcome;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;

/// What is known of a block of a file on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Old,
    /// A write is under way, or was.
    Either,
    New,
}

/// What completions have said of a file.
#[derive(Debug)]
pub(super) struct FileModel {
    pub(super) received: usize,
    pub(super) packets: usize,
    pub(super) accepted: usize,
    /// The bytes that were sent.
    pub(super) said: Vec<u8>,
    /// A completion has told of the reset.
    pub(super) told_reset: bool,
    /// A send was not completed when the last completion came, and has to tell of the reset.
    pub(super) has_open_send: bool,
    pub(super) owes_reset: bool,
    /// A completion has told that writing is shut down.
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
            said: Vec::new(),
            told_reset: false,
            has_open_send: false,
            owes_reset: false,
            is_shut: false,
            blocks: vec![Block::Old; super::fake_file::BLOCKS],
            written_blocks: 0,
        }
    }

    pub(super) fn take_bytes(&mut self, file: usize, bytes: &[u8]) {
        for &its in bytes {
            assert_eq!(its, byte(file, self.received), "byte {} of {file}", self.received);
            self.received += 1;
        }
    }

    /// A datagram was received, with room for so many bytes.
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
    /// Notes what a completion says of a block; `None`: it has failed.
    pub(super) fn note_block(&mut self, op: &OpModel, transferred: Option<usize>) {
        if op.what == What::WriteAt {
            let is_whole = transferred == Some(BLOCK);
            self.blocks[op.block.0] = if is_whole { Block::New } else { Block::Either };
        }
    }

    /// Checks that an error is one that the file gives.
    pub(super) fn check_error(&self, op: &OpModel, its: &Delivered, state: &FakeFile) {
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

    pub(super) fn check_result(&mut self, op: &OpModel, its: &Delivered, state: &FakeFile) {
        let (moved, is_ok) = (its.transferred, its.result.is_ok());
        let is_over = state.has_ended || state.is_read_shut || state.was_reset;
        let is_at_end = is_over && self.received == state.sent;
        // The end may have come before the reset.
        let may_be_untold = state.has_ended || state.is_read_shut || op.is_removed;
        // The driver may have failed a send before the receive began, and not told so yet.
        // One that receives an exact length may have received something before the end.
        let is_end = is_at_end && (moved == 0 || (op.what == What::RecvExact && !is_ok));
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
    pub(super) fn check_block(&self, op: &OpModel, buf: &[u8]) {
        let (block, before) = op.block;
        let is_whole = |byte: u8| buf[op.start..].iter().all(|&its| its == byte);
        match (before, self.blocks[block]) {
            (Block::New, _) => assert!(is_whole(NEW), "it was written before: {op:?}"),
            (_, Block::Old) => assert!(is_whole(OLD), "nothing was written: {op:?}"),
            _ => assert!(buf[op.start..].iter().all(|&its| its == OLD || its == NEW)),
        }
    }
}
