//! The copying itself: several slots, and in each a block on its way.
//!
//! A slot reads a block, writes it, and takes the next one that nobody has. The slots know nothing
//! of each other, so blocks arrive in any order, and as many operations are under way as there
//! are slots.

use crate::args::Request;
use crate::blocks::{Block, Blocks};
use crate::direct;
use crate::draft::Draft;
use crate::failure::{Explain, Failure};
use crate::hands::Hands;
use crate::source::Original;
use indicatif::ProgressBar;
use quintpoll::{Buf, BufferPool, Completion, Key, Op, PoolBuf, Token};
use std::io::{self, ErrorKind, Write};

/// What has to stand behind the last bytes of a file to fill a unit.
const PADDING: [u8; direct::UNIT] = [0; direct::UNIT];

pub(crate) struct Pipeline<'a> {
    pub(crate) hands: &'a mut Hands,
    pub(crate) original: &'a Original,
    pub(crate) draft: &'a Draft,
    /// The keys of both.
    pub(crate) from: Key,
    pub(crate) to: Key,
    pub(crate) request: &'a Request,
    pub(crate) pool: &'a BufferPool,
    pub(crate) progress: &'a ProgressBar,
}

/// What a slot does.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// There is no block left.
    Empty,
    Reading(Block),
    /// So many bytes of it were written.
    Writing(Block, usize),
}

impl Pipeline<'_> {
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let mut blocks = Blocks::new(self.original.size(), self.request.block);
        let mut slots = vec![Slot::Empty; self.request.depth];
        for (number, slot) in slots.iter_mut().enumerate() {
            *slot = self.read_next(number, &mut blocks)?;
        }
        while slots.iter().any(|slot| !matches!(slot, Slot::Empty)) {
            let done = self.hands.next()?;
            let Token(number) = done.token;
            slots[number] = match slots[number] {
                Slot::Reading(block) => self.write(number, block, done)?,
                Slot::Writing(block, written) => {
                    let written = written + done.transferred;
                    match self.write_rest(number, block, written, done)? {
                        Slot::Empty => self.read_next(number, &mut blocks)?,
                        busy => busy,
                    }
                }
                Slot::Empty => Slot::Empty,
            };
        }
        Ok(())
    }

    fn read_next(&mut self, number: usize, blocks: &mut Blocks) -> Result<Slot, Failure> {
        let Some(block) = blocks.next() else { return Ok(Slot::Empty) };
        let read = Op::read_at(self.from, self.buffer()?, self.whole(block), block.offset);
        self.hands.submit(read, Token(number))?;
        Ok(Slot::Reading(block))
    }

    /// A block was read: has it written.
    fn write(&mut self, number: usize, block: Block, done: Completion) -> Result<Slot, Failure> {
        let path = self.original.path.display();
        done.result.explain(format_args!("can't read {path}"))?;
        if done.transferred < block.length {
            return Err(self.original.changed());
        }
        let mut bytes = pool_buf(done.buf)?;
        bytes.truncate(block.length);
        // There is room: it is what was asked for.
        let _ = bytes.write(&PADDING[..self.whole(block) - block.length]);
        self.hands.submit(Op::write_at(self.to, bytes, .., block.offset), Token(number))?;
        Ok(Slot::Writing(block, 0))
    }

    /// Some of a block was written. If it was not all, the rest has to be tried to hear why.
    fn write_rest(
        &mut self,
        number: usize,
        block: Block,
        written: usize,
        done: Completion,
    ) -> Result<Slot, Failure> {
        let result = match done.result {
            Ok(_) if done.transferred == 0 => Err(ErrorKind::WriteZero.into()),
            result => result,
        };
        result.explain(format_args!("can't write {}", self.draft.name().display()))?;
        if written == self.whole(block) {
            self.progress.inc(block.length as u64);
            // The buffer goes home, and is taken again for the next block.
            return Ok(Slot::Empty);
        }
        let offset = block.offset + written as u64;
        let rest = Op::write_at(self.to, done.buf, written.., offset);
        self.hands.submit(rest, Token(number))?;
        Ok(Slot::Writing(block, written))
    }

    /// How many bytes are moved for a block.
    fn whole(&self, block: Block) -> usize {
        if self.request.direct { direct::round_up(block.length) } else { block.length }
    }

    /// There are as many as slots, so that nothing but memory can be missing.
    fn buffer(&self) -> Result<PoolBuf, Failure> {
        let buf = self.pool.take().ok_or(ErrorKind::OutOfMemory);
        buf.explain("can't have a buffer")
    }
}

fn pool_buf(buf: Buf) -> Result<PoolBuf, Failure> {
    match buf {
        Buf::Pool(bytes) => Ok(bytes),
        other => Err(io::Error::other(format!("{other:?} came back"))).explain("can't go on"),
    }
}
