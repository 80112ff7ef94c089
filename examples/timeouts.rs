//! Limits time in three ways: of a wait, of one operation, and by a timer.

use quintpoll::{Backend, Events, Op, Token};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RECEIVE: Token = Token(1);
const TIMER: Token = Token(2);

fn main() -> io::Result<()> {
    let mut poller = Backend::from_env()?.open()?;
    let mut events = Events::with_capacity(64);

    // A wait never ends before its timeout unless there is something to report, or a wake.
    let limit = Duration::from_millis(20);
    let started = Instant::now();
    poller.wait(&mut events, Some(limit))?;
    println!("wait: {} events, early: {}", events.len(), started.elapsed() < limit);

    // A deadline ends the operation, not the connection. `there` sends nothing.
    let (here, _there) = UnixStream::pair()?;
    let key = poller.register_for_ops(Arc::new(here))?;
    poller.submit(Op::recv(key, Vec::new(), 4096).deadline(limit), RECEIVE)?;

    // A timer is an operation without a source. Submit it again to repeat it.
    poller.submit(Op::timeout(10 * limit), TIMER)?;

    let mut unfinished = 2;
    while unfinished > 0 {
        poller.wait(&mut events, None)?;
        for completion in events.completions() {
            unfinished -= 1;
            match (completion.token, completion.result) {
                (TIMER, Ok(_)) => println!("timer: expired"),
                // Bytes that came before the deadline are in `completion.buf`.
                (RECEIVE, Err(error)) if error.kind() == ErrorKind::TimedOut => {
                    println!("receive: timed out after {} bytes", completion.transferred);
                }
                (_, Ok(_)) => println!("receive: {} bytes", completion.transferred),
                (_, Err(error)) => return Err(error),
            }
        }
    }
    Ok(())
}
