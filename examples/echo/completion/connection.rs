//! One connection: its operations in flight, and the next ones.

use super::buffers::Buffers;
use quintpoll::{Completion, Key, Op, OpId, Poller, Token};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An operation of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Receive,
    Send,
}

impl Part {
    fn token(self, index: usize) -> Token {
        Token(2 * index + self as usize)
    }

    /// Returns the connection and the operation of a token.
    pub(super) fn of(Token(number): Token) -> (usize, Self) {
        (number / 2, if number % 2 == 0 { Part::Receive } else { Part::Send })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    No,
    Yes(OpId),
    /// The receive was cancelled, and has not ended yet.
    Ending,
}

/// A connection. The poller owns its socket, and closes it at `deregister`.
#[derive(Debug)]
pub(super) struct Connection {
    key: Key,
    index: usize,
    is_open: bool,
    /// The peer may send more.
    has_more: bool,
    receiving: Receiving,
    /// The number of sends in flight that have a completion. They complete in order.
    sends: usize,
}

impl Connection {
    pub(super) fn new(
        poller: &mut dyn Poller,
        socket: OwnedFd,
        index: usize,
        buffers: &mut Buffers,
    ) -> io::Result<Self> {
        let socket = TcpStream::from(socket);
        // An echo must not wait for more bytes to send.
        socket.set_nodelay(true)?;
        let key = poller.register_for_ops(Arc::new(socket))?;
        let (is_open, has_more, receiving, sends) = (true, true, Receiving::No, 0);
        let mut connection = Connection { key, index, is_open, has_more, receiving, sends };
        if let Err(error) = connection.receive(poller, buffers) {
            connection.close(poller)?;
            return Err(error);
        }
        Ok(connection)
    }

    /// Handles a completion, and submits the next operations. The next wait gives them to the
    /// kernel together.
    ///
    /// # Errors
    ///
    /// Errors of the connection, which must be closed then.
    pub(super) fn on_completion(
        &mut self,
        poller: &mut dyn Poller,
        part: Part,
        done: Completion,
        buffers: &mut Buffers,
    ) -> io::Result<()> {
        match part {
            Part::Receive if done.more => {}
            Part::Receive => self.receiving = Receiving::No,
            Part::Send => self.sends -= 1,
        }
        if !self.is_open {
            // The operation was cancelled by the close of the connection.
            return Ok(());
        }
        let was_paused = part == Part::Receive && done.is_canceled();
        if !was_paused {
            done.result?;
        }
        if part == Part::Receive && done.transferred > 0 {
            let is_surplus = self.must_read(buffers);
            let buf = if is_surplus { buffers.spare(done.buf) } else { done.buf };
            self.send(poller, Op::send_all(self.key, buf, ..), buffers)?;
        } else {
            buffers.recycle(done.buf);
            self.has_more &= part == Part::Send || was_paused;
        }
        self.receive(poller, buffers)?;
        self.note_end(poller)
    }

    fn send(&mut self, poller: &mut dyn Poller, send: Op, buffers: &Buffers) -> io::Result<()> {
        let receives = usize::from(self.receiving != Receiving::No);
        let unfinished = poller.pending(self.key).saturating_sub(receives);
        let completes = buffers.needs_completion(unfinished, self.sends);
        let send = if completes { send } else { send.skip_success() };
        poller.submit(send, Part::Send.token(self.index))?;
        self.sends += usize::from(completes);
        Ok(())
    }

    /// After the end of the peer's data, submits an operation that completes when everything was
    /// sent back.
    fn note_end(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        let is_silent = !self.has_more && self.is_idle() && poller.pending(self.key) > 0;
        if is_silent {
            let last = Op::shutdown(self.key, Shutdown::Write);
            poller.submit(last, Part::Send.token(self.index))?;
            self.sends += 1;
        }
        Ok(())
    }

    fn must_read(&self, buffers: &Buffers) -> bool {
        self.sends >= buffers.max_completions()
    }

    /// Submits a receive, unless one is in flight, the stream has ended, or the peer must read
    /// first. A multishot receive is cancelled in the last case.
    fn receive(&mut self, poller: &mut dyn Poller, buffers: &mut Buffers) -> io::Result<()> {
        let must_read = self.must_read(buffers);
        match self.receiving {
            Receiving::No if self.has_more && !must_read => {
                let (receive, token) = (buffers.receive(self.key), Part::Receive.token(self.index));
                self.receiving = Receiving::Yes(poller.submit(receive, token)?);
            }
            Receiving::Yes(id) if must_read => {
                // If the receive has ended, its completion is pending, and there is nothing to
                // cancel.
                let _ = poller.cancel(id);
                self.receiving = Receiving::Ending;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns true if the peer has ended its sending, and everything was sent back.
    pub(super) fn is_finished(&self) -> bool {
        self.is_open && !self.has_more && self.is_idle()
    }

    /// Returns true if the connection is closed, and all its operations have completed.
    pub(super) fn is_closed(&self) -> bool {
        !self.is_open && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.receiving == Receiving::No && self.sends == 0
    }

    /// Closes the socket. Operations in flight are cancelled, and still complete.
    pub(super) fn close(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.is_open = false;
        poller.deregister(self.key)
    }
}
