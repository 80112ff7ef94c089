//! A connection over TCP on the loopback, with what must be true of it by plain reckoning.
//!
//! What one side does the other sees in the kernel's own time, so after each deed on the network
//! comes a *fence*: poll(2) until both sides are as reckoned. Then every wake-up has been as well,
//! but for acknowledgements of what this side has sent: from then on it is *restless*.

use super::oracle::{Bits, look};
use nix::errno::Errno;
use nix::libc::linger;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, setsockopt, shutdown, sockopt};
use nix::unistd::read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// How long the network may take. To reach it is a failure; nothing is measured by it.
const WATCHDOG: Duration = Duration::from_secs(10);
/// More than is ever under way.
const PLENTY: usize = 4096;

/// The two sides of a connection. The nearer one is the poller's, and somebody else's to keep.
///
/// Its methods panic if a system call fails in a way it should not, or if the network takes longer
/// than the watchdog allows.
#[derive(Debug)]
pub struct Connection {
    peer: Option<TcpStream>,
    /// How much waits to be read here, and there.
    inbox: usize,
    outbox: usize,
    /// An urgent byte waits here.
    is_urgent: bool,
    /// This side will send no more.
    is_shut: bool,
    /// The other side will send no more.
    has_ended: bool,
    /// The other side has broken it off.
    is_reset: bool,
    /// This side has sent something.
    is_restless: bool,
    /// How much was done so far that may have woken somebody.
    deeds: usize,
}

/// Makes the last close of a socket break the connection off.
fn set_linger(socket: BorrowedFd<'_>) {
    let at_once = linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&socket, sockopt::Linger, &at_once).expect("SO_LINGER");
}

impl Connection {
    /// Connects the two sides; gives the nearer one.
    pub fn open(listener: &TcpListener) -> (OwnedFd, Self) {
        let address = listener.local_addr().expect("a listener has an address");
        let here = TcpStream::connect(address).expect("connect");
        let (there, _) = listener.accept().expect("accept");
        for socket in [&here, &there] {
            socket.set_nonblocking(true).expect("O_NONBLOCK");
            socket.set_nodelay(true).expect("TCP_NODELAY");
        }
        let connection = Connection {
            peer: Some(there),
            inbox: 0,
            outbox: 0,
            is_urgent: false,
            is_shut: false,
            has_ended: false,
            is_reset: false,
            is_restless: false,
            deeds: 0,
        };
        (here.into(), connection)
    }

    /// Whether something may happen to it at any time.
    pub fn is_restless(&self) -> bool {
        self.is_restless
    }

    /// How many deeds there were that may have woken somebody.
    pub fn deeds(&self) -> usize {
        self.deeds
    }

    /// The other side writes.
    pub fn peer_write(&mut self, here: BorrowedFd<'_>, length: usize) {
        if let Some(peer) = self.speaking_peer() {
            assert_eq!(send_to(peer.as_fd(), length, MsgFlags::empty()), Ok(length));
            self.inbox += length;
            self.fence(here);
        }
    }

    /// The other side sends an urgent byte, unless there is something before it.
    pub fn peer_urgent(&mut self, here: BorrowedFd<'_>) {
        let is_alone = self.inbox == 0 && !self.is_urgent;
        if let Some(peer) = self.speaking_peer().filter(|_| is_alone) {
            assert_eq!(send_to(peer.as_fd(), 1, MsgFlags::MSG_OOB), Ok(1));
            self.is_urgent = true;
            self.fence(here);
        }
    }

    /// The other side reads all there is.
    pub fn peer_read(&mut self) {
        if let Some(peer) = &self.peer {
            while self.outbox > 0 {
                self.deeds += 1;
                self.outbox -= read(peer, &mut [0; PLENTY]).expect("it is there");
            }
        }
    }

    /// The other side will send no more.
    pub fn peer_shut(&mut self, here: BorrowedFd<'_>) {
        if let Some(peer) = self.speaking_peer() {
            shutdown(peer.as_raw_fd(), Shutdown::Write).expect("shutdown");
            self.has_ended = true;
            self.fence(here);
        }
    }

    /// The other side is closed. Something that it has not read is lost, which this side is told
    /// by a reset, unless it has said before that it does not care. So it is with a farewell that
    /// is left out.
    pub fn peer_close(&mut self, here: BorrowedFd<'_>, farewell: bool) {
        let Some(peer) = self.peer.take() else { return };
        if !farewell {
            set_linger(peer.as_fd());
        }
        drop(peer);
        let is_over = self.has_ended && self.is_shut;
        self.is_reset |= !is_over && (!farewell || self.outbox > 0);
        self.has_ended = true;
        self.outbox = 0;
        self.fence(here);
    }

    /// This side writes. If there is nobody to read it, it is reset.
    pub fn write(&mut self, here: BorrowedFd<'_>, length: usize) {
        if self.is_shut || self.is_reset {
            return;
        }
        assert_eq!(send_to(here, length, MsgFlags::empty()), Ok(length));
        self.is_restless = true;
        match self.peer {
            Some(_) => self.outbox += length,
            None => self.is_reset = true,
        }
        self.fence(here);
    }

    /// This side reads all there is, an urgent byte first; gives whether it would then block.
    ///
    /// At an urgent byte, and at the gap where one was, a read says `EAGAIN` if the thread has any
    /// signal to handle, whatever comes behind. So that is believed only when all has come.
    pub fn read_out(&mut self, here: BorrowedFd<'_>) -> bool {
        self.read_urgent(here);
        self.is_urgent = false;
        self.deeds += 1;
        loop {
            match read(here, &mut [0; PLENTY]) {
                Ok(0) => return false,
                Ok(count) => self.inbox -= count,
                Err(Errno::EAGAIN) if self.inbox == 0 && !self.is_reset => return true,
                Err(Errno::EAGAIN) => thread::yield_now(),
                // Collected, and told once.
                Err(_) if self.is_reset => return false,
                Err(errno) => panic!("read: {errno}"),
            }
        }
    }

    /// This side takes the urgent byte.
    pub fn read_urgent(&mut self, here: BorrowedFd<'_>) {
        if !self.is_reset && std::mem::take(&mut self.is_urgent) {
            assert_eq!(recv(here.as_raw_fd(), &mut [0], MsgFlags::MSG_OOB), Ok(1));
            self.deeds += 1;
        }
    }

    /// This side will send no more.
    pub fn shut(&mut self, here: BorrowedFd<'_>) {
        if self.is_shut || self.is_reset {
            return;
        }
        shutdown(here.as_raw_fd(), Shutdown::Write).expect("shutdown");
        (self.is_shut, self.is_restless) = (true, true);
        self.fence(here);
    }

    /// The last handle of this side was closed just now: the other side must see the end, though
    /// in the kernel's own time.
    pub fn fence_end(&self) {
        let Some(peer) = &self.peer else { return };
        wait_until("R5: the peer does not see the last close", || {
            look(&[peer.as_fd()])[0].intersects(Bits::EPOLLRDHUP | Bits::EPOLLHUP)
        });
    }

    /// Ends the connection so that nothing of it stays in the kernel. This side is closed next.
    pub fn break_off(&self, here: BorrowedFd<'_>) {
        set_linger(here);
        self.peer.iter().for_each(|peer| set_linger(peer.as_fd()));
    }

    /// What poll(2) says of the nearer side: what can't be known without asking, and which of the
    /// rest is set.
    pub fn reckoned(&self) -> (Bits, Bits) {
        let is_over = self.has_ended || self.is_reset;
        // There is always room: nobody ever fills it.
        let mut set = Bits::EPOLLOUT;
        set.set(Bits::EPOLLIN, self.inbox > 0 || is_over);
        set.set(Bits::EPOLLRDHUP, is_over);
        set.set(Bits::EPOLLHUP, self.is_reset || (is_over && self.is_shut));
        set.set(Bits::EPOLLPRI, self.is_urgent);
        let mut unknown = Bits::empty();
        // There is one until a call has collected it.
        unknown.set(Bits::EPOLLERR, self.is_reset);
        (unknown, set)
    }

    fn speaking_peer(&self) -> Option<&TcpStream> {
        self.peer.as_ref().filter(|_| !self.has_ended && !self.is_reset)
    }

    /// Waits until both sides are as reckoned.
    fn fence(&mut self, here: BorrowedFd<'_>) {
        self.deeds += 1;
        let (unknown, set) = self.reckoned();
        wait_until("this side does not become what is reckoned", || {
            look(&[here])[0] - unknown == set - unknown
        });
        // A look into a connection that was reset would collect the error.
        if self.is_reset {
            return wait_for_wakes(here);
        }
        wait_until("what was sent does not arrive here", || peeked(here) == self.inbox);
        if let Some(peer) = &self.peer {
            wait_until("what was sent does not arrive there", || {
                peeked(peer.as_fd()) == self.outbox
            });
            wait_until("the end of this side does not arrive", || {
                look(&[peer.as_fd()])[0].contains(Bits::EPOLLRDHUP) == self.is_shut
            });
        }
        wait_for_wakes(here);
    }
}

/// poll(2) looks at a socket without its lock, and may see what nobody was woken for yet. A call
/// that takes the lock ends when that is over.
fn wait_for_wakes(socket: BorrowedFd<'_>) {
    setsockopt(&socket, sockopt::TcpNoDelay, &true).expect("TCP_NODELAY");
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WATCHDOG, "{what}");
        thread::yield_now();
    }
}

/// How much there is to read, without reading it.
fn peeked(socket: BorrowedFd<'_>) -> usize {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(socket.as_raw_fd(), &mut [0; PLENTY], flags) {
        Ok(count) => count,
        Err(Errno::EAGAIN) => 0,
        Err(errno) => panic!("recv: {errno}"),
    }
}

fn send_to(socket: BorrowedFd<'_>, length: usize, flags: MsgFlags) -> nix::Result<usize> {
    send(socket.as_raw_fd(), &[0; PLENTY][..length], flags | MsgFlags::MSG_NOSIGNAL)
}
