//! Submits operations of every kind, and adds their models.

use super::fake_file::{BLOCK, BLOCKS, FileKind, NEW};
use super::fake_source::FakeSource;
use super::file_model::Block;
use super::model::OpModel;
use super::runner::Runner;
use super::script::{LINKS, OpKind};
use crate::event::{Interest, Token};
use crate::key::{Key, OpSlot};
use crate::op::{Message, Op, OpenOptions};
use proptest::sample::Index;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

impl Runner {
    pub(super) fn submit(&mut self, at: usize, pick: Index, amount: usize, deadline: Option<u64>) {
        let link = &mut self.links[at];
        let (kind, file) = (link.kind, link.file);
        let mut op_kind = OpKind::any_of(kind, pick);
        if matches!(kind, FileKind::Stream { connects: true }) && !link.has_connect {
            (op_kind, link.has_connect) = (OpKind::Connect, true);
        }
        let mut target = None;
        if op_kind == OpKind::Splice {
            // One of the two must be a pipe.
            let is_pipe = |at: usize| self.links[at].kind == FileKind::Pipe;
            let suits = |to: usize| {
                let to_kind = self.links[to].kind;
                let is_byte_file = matches!(
                    to_kind,
                    FileKind::Stream { connects: false } | FileKind::Pipe | FileKind::Disk
                );
                to != at && is_byte_file && (is_pipe(at) || is_pipe(to))
            };
            let found: Vec<usize> = (0..LINKS).filter(|&to| suits(to)).collect();
            if found.is_empty() {
                return;
            }
            target = Some(found[pick.index(found.len())]);
        }
        let block = match op_kind {
            OpKind::WriteAt => self.model.files[file].written_blocks,
            _ => pick.index(BLOCKS),
        };
        if block == BLOCKS {
            return;
        }
        let (op, model) = self.prepare(at, op_kind, target, amount, block);
        let op = if model.is_silent { op.skip_success() } else { op };
        let op = match deadline {
            Some(after) => op.deadline(Duration::from_millis(after)),
            None => op,
        };
        self.accept(op, model, at, target);
    }

    /// Returns an operation and its model.
    fn prepare(
        &mut self,
        at: usize,
        op_kind: OpKind,
        target: Option<usize>,
        amount: usize,
        block: usize,
    ) -> (Op, OpModel) {
        let (start, serial) = (amount % 5, self.model.ops.len());
        let (mut bytes, mut room) = (vec![0xa5; start], 0);
        match op_kind {
            OpKind::WriteAt => bytes.extend([NEW; BLOCK]),
            _ if op_kind.sends() => {
                bytes.extend((0..3 * amount).map(|at| (at * 31 + serial * 7) as u8));
            }
            OpKind::ReadAt => room = BLOCK,
            _ if op_kind.receives() => room = amount,
            _ => {}
        }
        bytes.reserve_exact(room);
        let has_buf = room > 0 || bytes.len() > start;
        let has_buf = has_buf && op_kind != OpKind::RecvMulti;
        let memory = has_buf.then(|| (bytes.as_ptr().addr(), bytes.capacity()));
        let (submitted_bytes, limit) = (bytes.clone(), Duration::from_millis(amount as u64));
        let to = self.links[target.unwrap_or(at)].slot;
        let keys = [self.links[at].slot, to].map(|slot| Key { poller: 0, slot });
        let op = self.op_of(op_kind, keys, bytes, (start, amount, block), serial);
        let has_file = !matches!(op_kind, OpKind::Open | OpKind::Timeout | OpKind::Nop);
        let file = self.links[at].file;
        let known = self.model.files[file].blocks[block];
        let model = OpModel {
            op: OpSlot { index: u32::MAX, generation: 0 },
            op_kind,
            file: has_file.then_some(file),
            target: target.map(|to| self.links[to].file),
            amount: match op_kind {
                OpKind::ReadAt | OpKind::WriteAt => BLOCK,
                _ if op_kind.sends() => 3 * amount,
                _ if op_kind.receives() || op_kind == OpKind::Splice => amount,
                _ => 0,
            },
            bytes: submitted_bytes,
            start,
            memory,
            block: (block, known),
            submitted: self.io.now,
            limit,
            deadline: None,
            is_cancelled: false,
            is_removed: false,
            is_ended_early: false,
            is_orderly: false,
            is_silent: serial % 3 == 1 && op_kind.may_skip_success(),
            has_ended_silently: false,
            is_done: false,
        };
        (op, model)
    }

    /// Returns an operation on the first of these keys. Operations use only the slots.
    fn op_of(
        &mut self,
        op_kind: OpKind,
        [key, to]: [Key; 2],
        bytes: Vec<u8>,
        (start, amount, block): (usize, usize, usize),
        serial: usize,
    ) -> Op {
        let limit = Duration::from_millis(amount as u64);
        let offset = (block * BLOCK) as u64;
        match op_kind {
            OpKind::Recv => Op::recv(key, bytes, amount),
            OpKind::RecvExact => Op::recv_exact(key, bytes, amount),
            OpKind::RecvMulti => Op::recv_multi(key, &self.pool),
            OpKind::RecvFrom => Op::recv_from(key, bytes, amount),
            OpKind::RecvMsg => Op::recv_msg(key, bytes, amount),
            OpKind::Read => Op::read(key, bytes, amount),
            OpKind::Send => Op::send(key, bytes, start..),
            OpKind::SendAll => Op::send_all(key, bytes, start..),
            OpKind::SendMsg => {
                let source = FakeSource::new(&self.drops, serial % 2 == 0);
                self.passed.push(Arc::downgrade(&source));
                Op::send_msg(key, bytes, start.., Message::new().file(source))
            }
            OpKind::Write => Op::write(key, bytes, start..),
            OpKind::Splice => Op::splice(key, to, amount),
            OpKind::Connect => Op::connect(key, std::net::SocketAddr::from(([127, 0, 0, 1], 9))),
            OpKind::Accept => Op::accept(key),
            OpKind::AcceptMulti => Op::accept_multi(key),
            OpKind::ShutRead => Op::shutdown(key, Shutdown::Read),
            OpKind::ShutWrite => Op::shutdown(key, Shutdown::Write),
            OpKind::ReadAt => Op::read_at(key, bytes, BLOCK, offset),
            OpKind::WriteAt => Op::write_at(key, bytes, start.., offset),
            OpKind::Sync => Op::fsync(key),
            OpKind::Open => Op::open("/dev/null", OpenOptions::new().read(true)),
            OpKind::Timeout => Op::timeout(limit),
            OpKind::Nop => Op::nop(),
        }
    }

    fn accept(&mut self, mut op: Op, mut model: OpModel, at: usize, target: Option<usize>) {
        model.deadline = op.deadline.map(|after| self.io.now + after);
        let Runner { ops, io, links, .. } = self;
        let mut slots = [None; 2];
        for (place, link) in [model.file.map(|_| at), target].into_iter().enumerate() {
            let Some(link) = link else { continue };
            let link = &links[link];
            slots[place] = Some(link.slot);
            if !ops.has_source(link.slot) {
                ops.add_source(link.slot, Interest::empty(), io).expect("open");
            }
        }
        if model.op_kind == OpKind::WriteAt {
            let file = &mut self.model.files[links[at].file];
            file.blocks[model.block.0] = Block::Either;
            file.written_blocks += 1;
        }
        let token = Token(self.model.ops.len());
        model.op = ops.submit(&mut op, token, slots[0], slots[1], io).expect("accepted");
        let is_new = self.model.ops.iter().all(|other| other.op != model.op);
        assert!(is_new, "ids are unique");
        self.model.ops.push(model);
        // The operation owns the files of a message.
        drop(op);
        self.run_deferred_drops();
    }
}
