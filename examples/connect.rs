//! Connects to a server, sends a line, and prints all that comes back.
//!
//! The crate makes no sockets; socket2 does. A socket whose connect has failed cannot be used
//! again, so each address of the host gets a new one.

use quintpoll::{Backend, Completion, Events, Key, Op, Poller, Token};
use socket2::{Domain, Socket, Type};
use std::io::{self, Error, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// Submits one operation, gives it ten seconds, and waits for its completion.
fn run(poller: &mut dyn Poller, op: Op) -> io::Result<Completion> {
    poller.submit(op.deadline(Duration::from_secs(10)), Token(0))?;
    let mut events = Events::with_capacity(1);
    loop {
        poller.wait(&mut events, None)?;
        if let Some(completion) = events.completions().next() {
            return Ok(completion);
        }
    }
}

fn connect(poller: &mut dyn Poller, to: SocketAddr) -> io::Result<Key> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    let key = poller.register_for_ops(Arc::new(socket))?;
    match run(poller, Op::connect(key, to))?.result {
        Ok(_) => Ok(key),
        Err(error) => {
            poller.deregister(key)?; // closes the socket: the poller is its only owner
            Err(error)
        }
    }
}

fn main() -> io::Result<()> {
    let host = std::env::args().nth(1).unwrap_or("localhost:7777".to_owned());
    let mut poller = Backend::from_env()?.open()?;
    let mut connected = Err(Error::new(ErrorKind::NotFound, "the host has no address"));
    for address in host.to_socket_addrs()? {
        connected = connect(&mut *poller, address);
        if connected.is_ok() {
            break;
        }
    }
    let key = connected?;
    run(&mut *poller, Op::send_all(key, "hello\n", ..))?.result?;
    run(&mut *poller, Op::shutdown(key, Shutdown::Write))?.result?;
    loop {
        let received = run(&mut *poller, Op::recv(key, Vec::new(), 4096))?;
        received.result?;
        if received.transferred == 0 {
            return Ok(()); // the server has closed the connection
        }
        io::stdout().write_all(&received.buf)?;
    }
}
