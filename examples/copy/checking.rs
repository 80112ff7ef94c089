//! Is the copy what the source is? The copy is read back through the poller, and the source once
//! more, by the plain calls of the standard library, which know nothing of the pipeline: a mistake
//! of it can't be in both.

use crate::args::Request;
use crate::blocks::{Block, Blocks};
use crate::direct;
use crate::failure::{Explain, Failure};
use crate::hands::Hands;
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

/// SHA-256 of a file, so that `sha256sum` can be asked too.
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

/// What a file holds: how many bytes, and their hash.
pub(crate) type Content = (u64, Hash);

/// Reads all of a file that nobody has read from its current position, in a thread of its own.
/// The waker is used when the result is there.
pub(crate) fn hash_aside(
    file: Arc<File>,
    bell: Waker,
) -> io::Result<Receiver<io::Result<Content>>> {
    let (tell, told) = mpsc::sync_channel(1);
    let work = move || {
        // The last to go, also in a panic: then there is an answer, or will never be one.
        let _bell = RingAtTheEnd(bell);
        let tell = tell;
        // Nobody who listens means that the program ends.
        let _ = tell.send(hash_plainly(&file));
    };
    thread::Builder::new().spawn(work).map(|_| told)
}

struct RingAtTheEnd(Waker);

impl Drop for RingAtTheEnd {
    fn drop(&mut self) {
        self.0.wake();
    }
}

fn hash_plainly(mut file: &File) -> io::Result<Content> {
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

/// Hashes a file of which the poller has the key, with several reads under way.
pub(crate) struct ReadBack<'a> {
    pub(crate) hands: &'a mut Hands,
    pub(crate) key: Key,
    pub(crate) request: &'a Request,
    pub(crate) pool: &'a BufferPool,
    pub(crate) progress: &'a ProgressBar,
}

impl ReadBack<'_> {
    /// Reads complete in any order, and bytes are hashed in one: a block that comes early waits for
    /// those before it.
    pub(crate) fn run(mut self, mut blocks: Blocks) -> Result<Hash, Failure> {
        let mut hasher = Sha256::new();
        // Those that were asked for and are not hashed yet, from block `first` on.
        let (mut window, mut first) = (VecDeque::new(), 0);
        for _ in 0..self.request.depth {
            self.ask(&mut blocks, first, &mut window)?;
        }
        while !window.is_empty() {
            let done = self.hands.next()?;
            let Token(number) = done.token;
            window[number - first].1 = Some(done);
            while let Some((block, Some(_))) = window.front() {
                let block = *block;
                let Some((_, Some(done))) = window.pop_front() else { break };
                self.take(block, done, &mut hasher)?;
                first += 1;
                self.ask(&mut blocks, first, &mut window)?;
            }
        }
        Ok(Hash::of(hasher))
    }

    fn ask(
        &mut self,
        blocks: &mut Blocks,
        first: usize,
        window: &mut VecDeque<(Block, Option<Completion>)>,
    ) -> Result<(), Failure> {
        let Some(block) = blocks.next() else { return Ok(()) };
        let whole = if self.request.direct { direct::round_up(block.length) } else { block.length };
        let buf = self.pool.take().ok_or(ErrorKind::OutOfMemory).explain("can't have a buffer")?;
        let read = Op::read_at(self.key, buf, whole, block.offset);
        self.hands.submit(read, Token(first + window.len()))?;
        window.push_back((block, None));
        Ok(())
    }

    fn take(&self, block: Block, done: Completion, hasher: &mut Sha256) -> Result<(), Failure> {
        done.result.explain("can't read the copy back")?;
        if done.transferred != block.length {
            return Err(Failure::run("the copy is not as long as it was made"));
        }
        hasher.update(&*done.buf);
        self.progress.inc(block.length as u64);
        Ok(())
    }
}
