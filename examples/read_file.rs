//! Reads a file by operations, and writes it to standard output.
//!
//! No operation blocks the thread. On io_uring the kernel reads; on the other backends a thread of
//! the poller's does, unless the bytes are in memory.

use quintpoll::{Backend, Completion, Events, Op, OpenOptions};
use quintpoll::{Outcome, Poller, Token};
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

const BLOCK: usize = 65_536;

/// Submits one operation and waits for its completion. A server would do other work meanwhile.
fn run(poller: &mut dyn Poller, events: &mut Events, op: Op) -> io::Result<Completion> {
    poller.submit(op, Token(0))?;
    loop {
        poller.wait(events, None)?;
        if let Some(completion) = events.completions().next() {
            return Ok(completion);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: read_file PATH")?;
    let mut poller = Backend::from_env()?.open()?;
    let mut events = Events::with_capacity(8);

    let opened = run(&mut *poller, &mut events, Op::open(path, OpenOptions::new().read(true)))?;
    let Outcome::Opened { file } = opened.result? else { unreachable!("it was an open") };
    let file = poller.register_for_ops(Arc::new(file))?;

    let (mut buffer, mut offset, mut stdout) = (Vec::new(), 0, io::stdout());
    loop {
        let read = run(&mut *poller, &mut events, Op::read_at(file, buffer, BLOCK, offset))?;
        read.result?;
        if read.transferred == 0 {
            return Ok(()); // the end of the file
        }
        stdout.write_all(&read.buf)?;
        offset += read.transferred as u64;
        // Bytes are appended to a buffer, so it is emptied before it is used again.
        buffer = read.buf.into_vec();
        buffer.clear();
    }
}
