//! One poller per thread: each thread has a listener of its own on the same port.
//!
//! With `SO_REUSEPORT` the kernel spreads new connections over the listeners. A poller stays on the
//! thread that has opened it, so each thread opens one, and shares nothing with the others.

use quintpoll::{Backend, Events, Interest, Mode, Token};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn serve(thread: usize, listener: TcpListener) -> io::Result<()> {
    let listener = Arc::new(listener);
    let mut poller = Backend::from_env()?.open()?;
    poller.register(listener.clone(), Token(0), Interest::READABLE, Mode::Level)?;
    let mut events = Events::with_capacity(64);
    loop {
        poller.wait(&mut events, None)?;
        match listener.accept() {
            // A new connection has room for a line. If the peer has gone, that is its business.
            Ok((mut peer, _)) => drop(writeln!(peer, "thread {thread}")),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                _ => return Err(error), // for `EMFILE` see examples/echo
            },
        }
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7777".to_owned());
    let first = listen(address.parse().map_err(io::Error::other)?)?;
    let address = first.local_addr()?;
    let count = thread::available_parallelism()?.get().max(2);
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listen(address)?);
    }
    println!("listening on {address} with {count} threads");

    let (sender, errors) = mpsc::channel();
    for (thread, listener) in listeners.into_iter().enumerate() {
        let sender = sender.clone();
        thread::spawn(move || sender.send(serve(thread, listener)));
    }
    errors.recv().map_err(io::Error::other)? // returns when the first thread has failed
}
