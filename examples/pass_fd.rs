//! Passes an open file to another process, over a unix socket.
//!
//! The program starts itself a second time, with one end of a socket pair as standard input. The
//! child receives a descriptor of the file, and prints what it reads from it.

use quintpoll::{Backend, Completion, Events, Message, Op, Outcome, Token};
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;

/// Makes a poller for this socket, runs one operation of it, and returns the completion.
fn run(socket: OwnedFd, op: impl FnOnce(quintpoll::Key) -> Op) -> io::Result<Completion> {
    let mut poller = Backend::from_env()?.open()?;
    let key = poller.register_for_ops(Arc::new(socket))?;
    poller.submit(op(key), Token(0))?;
    let mut events = Events::with_capacity(8);
    loop {
        poller.wait(&mut events, None)?;
        if let Some(completion) = events.completions().next() {
            return Ok(completion);
        }
    }
}

fn parent(path: &str) -> Result<(), Box<dyn Error>> {
    let file = Arc::new(File::open(path)?);
    let (here, there) = UnixStream::pair()?;
    let this = std::env::current_exe()?;
    // Started before there is a poller: with the backend sigio see `unblock_in_child`.
    let mut child = Command::new(this).arg("--child").stdin(OwnedFd::from(there)).spawn()?;
    // A stream needs at least one byte to carry the file.
    run(here.into(), |key| Op::send_msg(key, "file", .., Message::new().file(file)))?.result?;
    if !child.wait()?.success() {
        return Err("the child has failed".into());
    }
    Ok(())
}

fn child() -> Result<(), Box<dyn Error>> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let received = run(socket, |key| Op::recv_msg(key, Vec::new(), 16))?;
    let Outcome::Message(message) = received.result? else { unreachable!("it was a recv_msg") };
    let file = message.files.into_iter().next().ok_or("no file has come")?;
    io::copy(&mut File::from(file), &mut io::stdout())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("--child") => child(),
        Some(path) => parent(path),
        None => Err("usage: pass_fd PATH".into()),
    }
}
