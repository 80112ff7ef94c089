//! One connection: what is under way, and what comes next.

use super::buffers::{self, Buffers};
use super::entrust;
use quintpoll::{Completion, Key, Op, Poller, Token};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// While one buffer is sent the next is filled. A peer who does not read gets no more than these.
const MOST_BUFFERS: usize = 2;

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

/// A connection. Its socket is the poller's alone, and closed when that lets go of it.
#[derive(Debug)]
pub(super) struct Connection {
    key: Key,
    index: usize,
    is_open: bool,
    /// The peer may send more.
    has_more: bool,
    is_receiving: bool,
    /// How many sends are under way. One after the other is done.
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
        let (is_open, has_more, is_receiving, sends) = (true, true, false, 0);
        let mut connection = Connection { key, index, is_open, has_more, is_receiving, sends };
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
            Part::Receive => self.is_receiving = false,
            Part::Send => self.sends -= 1,
        }
        if !self.is_open {
            // It was stopped when the connection was closed.
            return Ok(());
        }
        done.result?;
        if part == Part::Receive && done.transferred > 0 {
            poller.submit(Op::send_all(self.key, done.buf, ..), Part::Send.token(self.index))?;
            self.sends += 1;
        } else {
            buffers.give_back(done.buf.into_vec());
            self.has_more &= part == Part::Send;
        }
        self.receive(poller, buffers)
    }

    /// Receives, unless it does so already, there is nothing more to come, or the peer has to read
    /// first.
    fn receive(&mut self, poller: &mut dyn Poller, buffers: &mut Buffers) -> io::Result<()> {
        if self.has_more && !self.is_receiving && self.sends < MOST_BUFFERS {
            let receive = Op::recv(self.key, buffers.take(), buffers::LENGTH);
            poller.submit(receive, Part::Receive.token(self.index))?;
            self.is_receiving = true;
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
        !self.is_receiving && self.sends == 0
    }

    /// Has the poller close the socket. What is under way is stopped, and still completes.
    pub(super) fn close(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.is_open = false;
        poller.deregister(self.key)
    }
}
