//! Compares the copy with the source. The copy is read back through the poller, and the source by
//! plain calls of `std`. These do not use the pipeline, so no mistake of it can be in both.

use crate::args::Request;
use crate::blocks::{Block, Blocks};
use crate::direct;
use crate::driver::Driver;
use crate::failure::{Explain, Failure};
use indicatif::ProgressBar;
use quintpoll::{BufferPool, Completion, Key, Op, Token, Waker};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

const PLAIN_BLOCK: usize = 128 * 1024;

/// The SHA-256 of a file, as `sha256sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    fn of(bytes: Sha256) -> Self {
        Hash(bytes.finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The size of a file, and its hash.
pub(crate) type Content = (u64, Hash);

/// Hashes a file from its current position, in a new thread. Wakes the poller when the result has
/// been sent.
pub(crate) fn spawn_hash(
    file: Arc<File>,
    waker: Waker,
) -> io::Result<Receiver<io::Result<Content>>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let work = move || {
        // Dropped last, also in a panic: the result was sent then, or never will be.
        let _wake = WakeOnDrop(waker);
        let sender = sender;
        // The send fails only if the program ends.
        let _ = sender.send(hash_file(&file));
    };
    thread::Builder::new().spawn(work).map(|_| receiver)
}

struct WakeOnDrop(Waker);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake();
    }
}

fn hash_file(mut file: &File) -> io::Result<Content> {
    let (mut size, mut hasher, mut buffer) = (0, Sha256::new(), vec![0; PLAIN_BLOCK]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, Hash::of(hasher))),
            Ok(count) => {
                size += count as u64;
                hasher.update(&buffer[..count]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Hashes a registered file, with several reads in flight.
pub(crate) struct ReadBack<'a> {
    pub(crate) driver: &'a mut Driver,
    pub(crate) key: Key,
    pub(crate) request: &'a Request,
    pub(crate) pool: &'a BufferPool,
    pub(crate) progress: &'a ProgressBar,
}

impl ReadBack<'_> {
    /// Reads and hashes all blocks. Reads complete in any order, so a block waits for those before
    /// it.
    pub(crate) fn run(mut self, mut blocks: Blocks) -> Result<Hash, Failure> {
        let mut hasher = Sha256::new();
        // The blocks that were submitted and are not hashed yet, from block `first` on.
        let (mut window, mut first) = (VecDeque::new(), 0);
        for _ in 0..self.request.depth {
            self.submit_next(&mut blocks, first, &mut window)?;
        }
        while !window.is_empty() {
            let done = self.driver.next()?;
            let Token(index) = done.token;
            window[index - first].1 = Some(done);
            while let Some((block, Some(_))) = window.front() {
                let block = *block;
                let Some((_, Some(done))) = window.pop_front() else { break };
                self.hash_block(block, done, &mut hasher)?;
                first += 1;
                self.submit_next(&mut blocks, first, &mut window)?;
            }
        }
        Ok(Hash::of(hasher))
    }

    fn submit_next(
        &mut self,
        blocks: &mut Blocks,
        first: usize,
        window: &mut VecDeque<(Block, Option<Completion>)>,
    ) -> Result<(), Failure> {
        let Some(block) = blocks.next() else { return Ok(()) };
        let whole = if self.request.direct { direct::round_up(block.length) } else { block.length };
        let buf = self.pool.take().ok_or(ErrorKind::OutOfMemory).explain("no buffer")?;
        let read = Op::read_at(self.key, buf, whole, block.offset);
        self.driver.submit(read, Token(first + window.len()))?;
        window.push_back((block, None));
        Ok(())
    }

    fn hash_block(
        &self,
        block: Block,
        done: Completion,
        hasher: &mut Sha256,
    ) -> Result<(), Failure> {
        done.result.explain("cannot read the copy back")?;
        if done.transferred != block.length {
            return Err(Failure::run("the copy is not as long as it was made"));
        }
        hasher.update(&*done.buf);
        self.progress.inc(block.length as u64);
        Ok(())
    }
}
