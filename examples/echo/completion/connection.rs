//! One connection: what is under way, and what comes next.

use super::buffers::Buffers;
use super::entrust;
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

    /// Which operation of which connection this is.
    pub(super) fn of(Token(number): Token) -> (usize, Self) {
        (number / 2, if number % 2 == 0 { Part::Receive } else { Part::Send })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    No,
    Yes(OpId),
    /// It was cancelled, and has not ended yet.
    Ending,
}

/// A connection. Its socket is the poller's alone, and closed when that lets go of it.
#[derive(Debug)]
pub(super) struct Connection {
    key: Key,
    index: usize,
    is_open: bool,
    /// The peer may send more.
    has_more: bool,
    receiving: Receiving,
    /// How many sends are under way whose completion is still to come. One after the other is done.
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
        // An echo is an answer; it is not to wait for more of the same.
        socket.set_nodelay(true)?;
        let key = entrust(poller, Arc::new(socket))?;
        let (is_open, has_more, receiving, sends) = (true, true, Receiving::No, 0);
        let mut connection = Connection { key, index, is_open, has_more, receiving, sends };
        if let Err(error) = connection.receive(poller, buffers) {
            connection.close(poller)?;
            return Err(error);
        }
        Ok(connection)
    }

    /// One of its operations is over: hands over what comes next. What is sent and what is received
    /// next go to the kernel together, with the next wait.
    ///
    /// # Errors
    ///
    /// Of the connection, which is then good for nothing more.
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
            // It was stopped when the connection was closed.
            return Ok(());
        }
        let was_held_back = part == Part::Receive && done.is_canceled();
        if !was_held_back {
            done.result?;
        }
        if part == Part::Receive && done.transferred > 0 {
            let is_surplus = self.has_to_read(buffers);
            let buf = if is_surplus { buffers.spare(done.buf) } else { done.buf };
            self.send(poller, Op::send_all(self.key, buf, ..), buffers)?;
        } else {
            buffers.give_back(done.buf);
            self.has_more &= part == Part::Send || was_held_back;
        }
        self.receive(poller, buffers)?;
        self.note_end(poller)
    }

    fn send(&mut self, poller: &mut dyn Poller, send: Op, buffers: &Buffers) -> io::Result<()> {
        let receives = usize::from(self.receiving != Receiving::No);
        let unfinished = poller.pending(self.key).saturating_sub(receives);
        let completes = buffers.tells_of_success(unfinished, self.sends);
        let send = if completes { send } else { send.skip_success() };
        poller.submit(send, Part::Send.token(self.index))?;
        self.sends += usize::from(completes);
        Ok(())
    }

    /// Once the peer has sent everything, has something complete when all of it was sent back.
    fn note_end(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        let is_silent = !self.has_more && self.is_idle() && poller.pending(self.key) > 0;
        if is_silent {
            let last = Op::shutdown(self.key, Shutdown::Write);
            poller.submit(last, Part::Send.token(self.index))?;
            self.sends += 1;
        }
        Ok(())
    }

    fn has_to_read(&self, buffers: &Buffers) -> bool {
        self.sends >= buffers.most_completions()
    }

    /// Receives, unless it does so already, there is nothing more to come, or the peer has to read
    /// first. A receive that goes on by itself is held back then.
    fn receive(&mut self, poller: &mut dyn Poller, buffers: &mut Buffers) -> io::Result<()> {
        let has_to_read = self.has_to_read(buffers);
        match self.receiving {
            Receiving::No if self.has_more && !has_to_read => {
                let (receive, token) = (buffers.receive(self.key), Part::Receive.token(self.index));
                self.receiving = Receiving::Yes(poller.submit(receive, token)?);
            }
            Receiving::Yes(id) if has_to_read => {
                // If it is over by itself, its end is among the completions that are still to be
                // looked at, and there is nothing to cancel.
                let _ = poller.cancel(id);
                self.receiving = Receiving::Ending;
            }
            _ => {}
        }
        Ok(())
    }

    /// The peer has sent everything and all of it was sent back.
    pub(super) fn is_finished(&self) -> bool {
        self.is_open && !self.has_more && self.is_idle()
    }

    /// It is closed, and nothing that belongs to it will be heard of any more.
    pub(super) fn is_over(&self) -> bool {
        !self.is_open && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.receiving == Receiving::No && self.sends == 0
    }

    /// Has the poller close the socket. What is under way is stopped, and still completes.
    pub(super) fn close(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.is_open = false;
        poller.deregister(self.key)
    }
}
