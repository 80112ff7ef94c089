//! An echo server by readiness, on non-blocking sockets; the README shows it.

use quintpoll::{Backend, Events, Interest, Mode, Token};
use std::io::{self, ErrorKind::WouldBlock, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{collections::HashMap, sync::Arc};

/// Receives if nothing is unsent, then sends. Returns false at the end of the stream.
fn echo(mut stream: &TcpStream, unsent: &mut Vec<u8>) -> io::Result<bool> {
    if unsent.is_empty() {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(false);
        }
        unsent.extend(&buffer[..count]);
    }
    let count = stream.write(unsent)?;
    unsent.drain(..count);
    Ok(true)
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7777".to_owned());
    let listener = Arc::new(TcpListener::bind(address)?);
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);

    let mut poller = Backend::from_env()?.open()?; // QUINTPOLL_BACKEND, or the best available
    let accept = poller.register(listener.clone(), Token(0), Interest::READABLE, Mode::Level)?;
    let (mut peers, mut events) = (HashMap::new(), Events::with_capacity(64));
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            if event.key == accept {
                let stream = match listener.accept() {
                    Ok((stream, _)) => Arc::new(stream),
                    Err(error) if error.kind() == WouldBlock => continue,
                    Err(error) => return Err(error), // EMFILE: see examples/echo
                };
                stream.set_nonblocking(true)?;
                let key =
                    poller.register(stream.clone(), Token(1), Interest::READABLE, Mode::Level)?;
                peers.insert(key, (stream, Vec::new()));
            } else if let Some((stream, unsent)) = peers.get_mut(&event.key) {
                let was_sending = !unsent.is_empty();
                let is_open = echo(stream, unsent).unwrap_or_else(|e| e.kind() == WouldBlock);
                let is_sending = !unsent.is_empty(); // receives nothing meanwhile: backpressure
                if !is_open {
                    peers.remove(&event.key);
                    poller.deregister(event.key)?; // drops the last handle: the socket is closed
                } else if is_sending != was_sending {
                    let next = if is_sending { Interest::WRITABLE } else { Interest::READABLE };
                    poller.modify(event.key, Token(1), next, Mode::Level)?;
                }
            }
        }
    }
}
