//! One connection: sends back what it receives.

use super::watch::Watch;
use quintpoll::{Interest, Key, Mode, Poller, Readiness, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// The most reads of one event, so that other connections are served.
const READS_PER_TURN: usize = 16;

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Arc<TcpStream>,
    watch: Watch,
    /// Bytes to send, at most one scratch buffer, because nothing is read meanwhile. Empty if the
    /// peer reads fast enough.
    pending: Vec<u8>,
}

/// The outcome of handling an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// I/O in this direction returned `WouldBlock`, or was short.
    Blocked(Interest),
    /// There may be more to read.
    Unfinished,
    /// The peer has ended its sending, and everything was sent back.
    Finished,
}

impl Connection {
    pub(crate) fn new(
        poller: &mut dyn Poller,
        socket: TcpStream,
        token: Token,
        mode: Mode,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // An echo must not wait for more bytes to send.
        socket.set_nodelay(true)?;
        let socket = Arc::new(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        let watch = Watch::new(poller, socket.clone(), token, mode, both)?;
        Ok(Connection { socket, watch, pending: Vec::new() })
    }

    pub(crate) fn key(&self) -> Key {
        self.watch.key()
    }

    /// Reads and sends without blocking, up to a quota, then waits for the blocked direction. Adds
    /// the bytes sent to `echoed`, also if it fails.
    ///
    /// # Errors
    ///
    /// Errors of the connection, which must be closed then.
    pub(crate) fn on_event(
        &mut self,
        poller: &mut dyn Poller,
        readiness: Readiness,
        scratch: &mut [u8],
        echoed: &mut u64,
    ) -> io::Result<Turn> {
        let blocked = Turn::Blocked(Interest::WRITABLE);
        if !self.pending.is_empty() && !readiness.contains(Readiness::WRITABLE) {
            // Edge mode reports new input, which is read after the output.
            return Ok(blocked);
        }
        // The end or a reset may have come with the data, and has no event of its own.
        let has_ended = readiness.intersects(Readiness::READ_CLOSED | Readiness::ERROR);
        let turn =
            if self.flush(echoed)? { self.echo(has_ended, scratch, echoed)? } else { blocked };
        match turn {
            Turn::Blocked(dir) => self.watch.wait_for(poller, dir)?,
            Turn::Unfinished => self.watch.recheck(poller, Interest::READABLE)?,
            Turn::Finished => {}
        }
        Ok(turn)
    }

    /// Deregisters the socket, then closes it.
    pub(crate) fn close(self, poller: &mut dyn Poller) -> io::Result<()> {
        poller.deregister(self.watch.key())
    }

    /// Reads and sends back, while nothing is pending.
    fn echo(&mut self, has_ended: bool, scratch: &mut [u8], echoed: &mut u64) -> io::Result<Turn> {
        for _ in 0..READS_PER_TURN {
            let length = match (&*self.socket).read(scratch) {
                Ok(0) => return Ok(Turn::Finished),
                Ok(length) => length,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => return Ok(Turn::Blocked(Interest::READABLE)),
                    _ => return Err(error),
                },
            };
            let sent = send(&self.socket, &scratch[..length], echoed)?;
            if sent < length {
                self.pending = scratch[sent..length].to_vec();
                return Ok(Turn::Blocked(Interest::WRITABLE));
            }
            if length < scratch.len() && !has_ended {
                // A short read has drained the socket, so the next call is saved (E4).
                return Ok(Turn::Blocked(Interest::READABLE));
            }
        }
        Ok(Turn::Unfinished)
    }

    /// Sends pending bytes. Returns false if some are left.
    fn flush(&mut self, echoed: &mut u64) -> io::Result<bool> {
        let sent = send(&self.socket, &self.pending, echoed)?;
        if sent < self.pending.len() {
            self.pending.drain(..sent);
            return Ok(false);
        }
        self.pending = Vec::new();
        Ok(true)
    }
}

/// Sends until all is sent or the socket returns `WouldBlock`. Returns the bytes sent.
fn send(mut socket: &TcpStream, bytes: &[u8], echoed: &mut u64) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                sent += count;
                *echoed += count as u64;
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => break,
                _ => return Err(error),
            },
        }
    }
    Ok(sent)
}
