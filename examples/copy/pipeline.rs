//! The copy: several slots, each with a block in flight.
//!
//! A slot reads a block, writes it, and takes the next one that is left. The slots are independent,
//! so blocks arrive in any order, and as many operations are in flight as there are slots.

use crate::args::Request;
use crate::blocks::{Block, Blocks};
use crate::direct;
use crate::driver::Driver;
use crate::failure::{Explain, Failure};
use crate::partial_file::PartialFile;
use crate::source::Original;
use indicatif::ProgressBar;
use quintpoll::{Buf, BufferPool, Completion, Key, Op, PoolBuf, Token};
use std::io::{self, ErrorKind, Write};

/// The padding of the last block to a multiple of [`direct::UNIT`].
const PADDING: [u8; direct::UNIT] = [0; direct::UNIT];

pub(crate) struct Pipeline<'a> {
    pub(crate) driver: &'a mut Driver,
    pub(crate) original: &'a Original,
    pub(crate) partial: &'a PartialFile,
    /// The keys of source and copy.
    pub(crate) from: Key,
    pub(crate) to: Key,
    pub(crate) request: &'a Request,
    pub(crate) pool: &'a BufferPool,
    pub(crate) progress: &'a ProgressBar,
}

/// The state of a slot.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// No block is left.
    Empty,
    Reading(Block),
    /// This many bytes of the block were written.
    Writing(Block, usize),
}

impl Pipeline<'_> {
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let mut blocks = Blocks::new(self.original.size(), self.request.block);
        let mut slots = vec![Slot::Empty; self.request.depth];
        for (index, slot) in slots.iter_mut().enumerate() {
            *slot = self.read_next(index, &mut blocks)?;
        }
        while slots.iter().any(|slot| !matches!(slot, Slot::Empty)) {
            let done = self.driver.next()?;
            let Token(index) = done.token;
            slots[index] = match slots[index] {
                Slot::Reading(block) => self.write(index, block, done)?,
                Slot::Writing(block, written) => {
                    let written = written + done.transferred;
                    match self.write_rest(index, block, written, done)? {
                        Slot::Empty => self.read_next(index, &mut blocks)?,
                        busy => busy,
                    }
                }
                Slot::Empty => Slot::Empty,
            };
        }
        Ok(())
    }

    fn read_next(&mut self, index: usize, blocks: &mut Blocks) -> Result<Slot, Failure> {
        let Some(block) = blocks.next() else { return Ok(Slot::Empty) };
        let read = Op::read_at(self.from, self.buffer()?, self.whole(block), block.offset);
        self.driver.submit(read, Token(index))?;
        Ok(Slot::Reading(block))
    }

    /// Submits the write of a block that was read.
    fn write(&mut self, index: usize, block: Block, done: Completion) -> Result<Slot, Failure> {
        let path = self.original.path.display();
        done.result.explain(format_args!("cannot read {path}"))?;
        if done.transferred < block.length {
            return Err(self.original.changed());
        }
        let mut bytes = pool_buf(done.buf)?;
        bytes.truncate(block.length);
        // The buffer has space for the bytes requested.
        let _ = bytes.write(&PADDING[..self.whole(block) - block.length]);
        self.driver.submit(Op::write_at(self.to, bytes, .., block.offset), Token(index))?;
        Ok(Slot::Writing(block, 0))
    }

    /// Handles a write. After a short one, submits the rest, whose result has the reason.
    fn write_rest(
        &mut self,
        index: usize,
        block: Block,
        written: usize,
        done: Completion,
    ) -> Result<Slot, Failure> {
        let result = match done.result {
            Ok(_) if done.transferred == 0 => Err(ErrorKind::WriteZero.into()),
            result => result,
        };
        result.explain(format_args!("cannot write {}", self.partial.name().display()))?;
        if written == self.whole(block) {
            self.progress.inc(block.length as u64);
            // The buffer returns to the pool, for the next block.
            return Ok(Slot::Empty);
        }
        let offset = block.offset + written as u64;
        let rest = Op::write_at(self.to, done.buf, written.., offset);
        self.driver.submit(rest, Token(index))?;
        Ok(Slot::Writing(block, written))
    }

    /// Returns the number of bytes to move for a block.
    fn whole(&self, block: Block) -> usize {
        if self.request.direct { direct::round_up(block.length) } else { block.length }
    }

    /// Takes a buffer. There are as many as slots, so only memory can be short.
    fn buffer(&self) -> Result<PoolBuf, Failure> {
        let buf = self.pool.take().ok_or(ErrorKind::OutOfMemory);
        buf.explain("no buffer")
    }
}

fn pool_buf(buf: Buf) -> Result<PoolBuf, Failure> {
    match buf {
        Buf::Pool(bytes) => Ok(bytes),
        other => Err(io::Error::other(format!("{other:?} came back"))).explain("cannot continue"),
    }
}
