//! Watches standard input, be it a terminal, a pipe, a socket or a file.
//!
//! One read for each event of level mode does not block, so `O_NONBLOCK` is not needed: it would
//! change the open file description, which the shell shares. The buffer of `std::io::stdin()` is
//! not used, because no poller sees the bytes in it.

use quintpoll::{Backend, Events, Interest, Mode, Token};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

fn main() -> io::Result<()> {
    let input = Arc::new(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let mut poller = Backend::from_env()?.open()?;
    poller.register(input.clone(), Token(0), Interest::READABLE, Mode::Level)?;

    let (mut events, mut buffer) = (Events::with_capacity(8), [0; 4096]);
    loop {
        poller.wait(&mut events, Some(Duration::from_secs(10)))?;
        if events.is_empty() {
            println!("nothing was typed for ten seconds");
            continue;
        }
        match (&*input).read(&mut buffer) {
            Ok(0) => {
                println!("end of input");
                return Ok(());
            }
            Ok(count) => println!("{count} bytes: {:?}", String::from_utf8_lossy(&buffer[..count])),
            // `WouldBlock`: another program that shares the description has made it non-blocking,
            // and another reader was faster.
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
}
