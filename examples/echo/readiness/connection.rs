//! One connection: what comes in goes out again.

use super::watch::Watch;
use quintpoll::{Interest, Key, Mode, Poller, Readiness, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// How many scratch buffers one event may make a connection read before the others have their
/// turn.
const READS_PER_TURN: usize = 16;

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Arc<TcpStream>,
    watch: Watch,
    /// What could not be sent yet: one scratch buffer at the most, as nothing is read meanwhile. A
    /// connection that keeps up owns no memory here.
    pending: Vec<u8>,
}

/// What a turn ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// I/O in this direction said `WouldBlock`.
    Blocked(Interest),
    /// There may be more to read.
    Unfinished,
    /// The peer has sent everything and all of it was sent back.
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
        // An echo is an answer; it is not to wait for more of the same.
        socket.set_nodelay(true)?;
        let socket = Arc::new(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        let watch = Watch::new(poller, socket.clone(), token, mode, both)?;
        Ok(Connection { socket, watch, pending: Vec::new() })
    }

    pub(crate) fn key(&self) -> Key {
        self.watch.key()
    }

    /// Does what can be done without blocking, up to a quota, and tells the poller what to wait
    /// for. Counts in `echoed` what went out, also beside an error.
    ///
    /// # Errors
    ///
    /// Of the connection, which is then good for nothing more.
    pub(crate) fn on_event(
        &mut self,
        poller: &mut dyn Poller,
        readiness: Readiness,
        scratch: &mut [u8],
        echoed: &mut u64,
    ) -> io::Result<Turn> {
        let blocked = Turn::Blocked(Interest::WRITABLE);
        if !self.pending.is_empty() && !readiness.contains(Readiness::WRITABLE) {
            // More came in, which edge mode reports. It is read when the output has gone.
            return Ok(blocked);
        }
        // The end, or a reset, may have come with the data: no other event tells of it.
        let has_ended = readiness.intersects(Readiness::READ_CLOSED | Readiness::ERROR);
        let turn =
            if self.flush(echoed)? { self.echo(has_ended, scratch, echoed)? } else { blocked };
        match turn {
            Turn::Blocked(dir) => self.watch.wait_for(poller, dir)?,
            Turn::Unfinished => self.watch.look_again(poller, Interest::READABLE)?,
            Turn::Finished => {}
        }
        Ok(turn)
    }

    /// Lets the poller go of the socket, then closes it.
    pub(crate) fn close(self, poller: &mut dyn Poller) -> io::Result<()> {
        poller.deregister(self.watch.key())
    }

    /// Reads and sends back. Nothing is pending.
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
                // There was no more. The call that would say so is saved (E4).
                return Ok(Turn::Blocked(Interest::READABLE));
            }
        }
        Ok(Turn::Unfinished)
    }

    /// Sends what is pending. False if some of it is left.
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

/// Sends until all is sent or the socket says `WouldBlock`. Gives how much went out.
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
