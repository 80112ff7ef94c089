//! A listening socket and its clients, by plain reckoning.

use super::super::model::{Verdict, expect};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrStorage, UnixAddr, bind,
    connect, getpeername, getsockname, listen, setsockopt, socket, sockopt,
};
use quintpoll::Address;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many clients there are at most.
const MOST: usize = 16;
const ANYWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
const PREFIX: &str = "quintpoll-script-";
static NAMES: AtomicU64 = AtomicU64::new(0);

/// A listening socket.
#[derive(Debug)]
pub struct Door {
    is_tcp: bool,
    listener: Arc<OwnedFd>,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    /// The port, or the number in its name.
    name: u64,
    /// None once he has left.
    socket: Option<Arc<OwnedFd>>,
    state: State,
    has_reset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An operation is to connect him. He may be in the queue already.
    Connecting,
    /// An operation has connected him: when, nobody knows.
    Connected,
    /// His operation was stopped, or failed.
    Lost,
    /// In the queue, behind those before him who are.
    Waiting,
    Accepted,
}

impl Door {
    /// Listens.
    ///
    /// # Panics
    ///
    /// Here and everywhere in this module: if a system call fails in a way it should not.
    pub fn open(is_tcp: bool) -> Self {
        let (listener, _) = named(is_tcp);
        listen(&listener, Backlog::new(64).expect("a short one")).expect("listen");
        Door { is_tcp, listener: Arc::new(listener), clients: Vec::new() }
    }

    /// A handle for the poller.
    pub fn handle(&self) -> Arc<OwnedFd> {
        self.listener.clone()
    }

    /// The listening socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Whether nobody else has it.
    pub fn is_released(&self) -> bool {
        Arc::strong_count(&self.listener) == 1
    }

    /// Its address.
    pub fn address(&self) -> Address {
        let name: SockaddrStorage = getsockname(self.listener.as_raw_fd()).expect("getsockname");
        match name.as_sockaddr_in() {
            Some(name) => std::net::SocketAddr::V4(SocketAddrV4::from(*name)).into(),
            None => {
                let name = name.as_unix_addr().and_then(UnixAddr::as_abstract).expect("its name");
                SocketAddr::from_abstract_name(name).expect("a short name").into()
            }
        }
    }

    /// A client connects. Gives his number.
    pub fn come(&mut self) -> Option<usize> {
        let nth = self.make_client()?;
        let name: SockaddrStorage = getsockname(self.listener.as_raw_fd()).expect("getsockname");
        let client = &mut self.clients[nth];
        let number = client.socket.as_ref().map_or(-1, |socket| socket.as_raw_fd());
        connect(number, &name).expect("there is room in the queue");
        client.state = State::Waiting;
        Some(nth)
    }

    /// A client who is to be connected by an operation.
    pub fn make_client(&mut self) -> Option<usize> {
        if self.clients.len() == MOST {
            return None;
        }
        let (socket, name) = named(self.is_tcp);
        let socket = Some(Arc::new(socket));
        self.clients.push(Client { name, socket, state: State::Connecting, has_reset: false });
        Some(self.clients.len() - 1)
    }

    /// A client's socket.
    pub fn client(&self, nth: usize) -> Option<Arc<OwnedFd>> {
        self.clients[nth].socket.clone()
    }

    /// An operation has connected him, or not.
    pub fn note_connected(&mut self, nth: usize, is_connected: bool) {
        let client = &mut self.clients[nth];
        if client.state == State::Connecting {
            client.state = if is_connected { State::Connected } else { State::Lost };
        }
    }

    /// One who is connected goes. Gives who.
    pub fn leave(&mut self, back: u8, by_reset: bool) -> Option<usize> {
        let is_here =
            |client: &Client| client.socket.is_some() && client.state != State::Connecting;
        let here = (0..self.clients.len()).filter(|&nth| is_here(&self.clients[nth]));
        let here: Vec<usize> = here.collect();
        let nth = *here.get(usize::from(back) % here.len().max(1))?;
        let client = &mut self.clients[nth];
        if by_reset && self.is_tcp {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            let socket = client.socket.as_ref().expect("he is here");
            setsockopt(socket, sockopt::Linger, &linger).expect("SO_LINGER");
            client.has_reset = true;
        }
        client.socket = None;
        Some(nth)
    }

    /// An operation has accepted a connection. Gives whose it is, where that can be told.
    ///
    /// # Errors
    ///
    /// If it is nobody's, or out of order.
    pub fn note_accepted(
        &mut self,
        socket: &OwnedFd,
        peer: Option<&Address>,
    ) -> Result<usize, super::super::model::Failure> {
        self.note_taken(socket, peer, false)
    }

    /// The same; those before him in the queue may have been taken by what nobody was told of.
    fn note_taken(
        &mut self,
        socket: &OwnedFd,
        peer: Option<&Address>,
        may_skip: bool,
    ) -> Result<usize, super::super::model::Failure> {
        let told = match peer {
            Some(Address::Inet(address)) => Some(u64::from(address.port())),
            Some(Address::Unix(address)) => address.as_abstract_name().and_then(number_in),
            _ => None,
        };
        let asked = peer_of(socket.as_raw_fd());
        let agrees = told.is_none() || asked.is_none() || told == asked;
        expect(agrees, "C2", || format!("the peer is {asked:?}, not {told:?}"))?;
        let next = self.clients.iter().position(|client| client.state == State::Waiting);
        let nth = match told.or(asked) {
            // The port of a client that has gone may be another's by now.
            Some(name) => next
                .filter(|&nth| self.clients[nth].name == name)
                .or_else(|| self.clients.iter().rposition(|client| client.name == name)),
            // Who has broken off is asked in vain.
            None => {
                let is_other = |state| matches!(state, State::Connected | State::Lost);
                let is_it = |client: &Client| client.has_reset && is_other(client.state);
                let other = || self.clients.iter().position(is_it);
                next.filter(|&nth| self.clients[nth].has_reset).or_else(other)
            }
        };
        let state = nth.map(|nth| self.clients[nth].state);
        let is_right = match state {
            Some(State::Waiting) => may_skip || nth == next,
            Some(State::Accepted) | None => false,
            Some(_) => true,
        };
        expect(is_right, "C8", || format!("accepted {nth:?} ({state:?}), and {next:?} is next"))?;
        let nth = nth.unwrap_or_default();
        self.clients[nth].state = State::Accepted;
        Ok(nth)
    }

    /// Who is left in the queue must be all that were not accepted; those who were taken from it
    /// and whom nobody was told of, if there may be such, hear of an end.
    ///
    /// # Errors
    ///
    /// If somebody was lost.
    pub fn settle_accounts(&mut self, may_lose: bool) -> Verdict {
        while let Some(socket) = self.accept() {
            self.note_taken(&socket, None, may_lose)?;
        }
        for (nth, client) in self.clients.iter_mut().enumerate() {
            let is_missing = matches!(client.state, State::Waiting | State::Connected);
            if is_missing {
                expect(may_lose, "C8", || format!("client {nth} is lost"))?;
            }
            if let Some(socket) =
                client.socket.as_ref().filter(|_| client.state != State::Connecting)
            {
                let is_told = client.state == State::Lost || hears_of_end(socket.as_fd());
                expect(is_told, "D2", || format!("client {nth} ({client:?}) hears of no end"))?;
            }
            client.state = if is_missing { State::Accepted } else { client.state };
        }
        Ok(())
    }

    fn accept(&self) -> Option<OwnedFd> {
        if !is_ready(self.listener(), PollFlags::POLLIN, 0) {
            return None;
        }
        let listener = self.listener.try_clone().expect("dup");
        // What a client who has broken off leaves is a connection too.
        let accepted: io::Result<OwnedFd> = match self.is_tcp {
            true => TcpListener::from(listener).accept().map(|(socket, _)| socket.into()),
            false => UnixListener::from(listener).accept().map(|(socket, _)| socket.into()),
        };
        Some(accepted.expect("accept"))
    }
}

/// A socket with a name of its own: its port, or the number in it.
fn named(is_tcp: bool) -> (OwnedFd, u64) {
    let family = if is_tcp { AddressFamily::Inet } else { AddressFamily::Unix };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None).expect("socket");
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    let name = format!("{PREFIX}{}-{number}", std::process::id());
    let bound = match is_tcp {
        true => bind(socket.as_raw_fd(), &SockaddrIn::from(ANYWHERE)),
        false => {
            let name = UnixAddr::new_abstract(name.as_bytes()).expect("a short name");
            bind(socket.as_raw_fd(), &name)
        }
    };
    bound.expect("bind");
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).expect("getsockname");
    (socket, number_of(&name).expect("it has been named"))
}

fn number_of(name: &SockaddrStorage) -> Option<u64> {
    match name.as_sockaddr_in() {
        Some(name) => Some(name.port().into()),
        None => name.as_unix_addr().and_then(UnixAddr::as_abstract).and_then(number_in),
    }
}

fn number_in(name: &[u8]) -> Option<u64> {
    std::str::from_utf8(name).ok()?.rsplit('-').next()?.parse().ok()
}

fn peer_of(socket: RawFd) -> Option<u64> {
    getpeername::<SockaddrStorage>(socket).ok().as_ref().and_then(number_of)
}

fn hears_of_end(socket: BorrowedFd<'_>) -> bool {
    is_ready(socket, PollFlags::POLLIN, 2000)
}

fn is_ready(socket: BorrowedFd<'_>, flags: PollFlags, patience: u16) -> bool {
    let mut entry = [PollFd::new(socket, flags)];
    poll(&mut entry, PollTimeout::from(patience)) == Ok(1)
}
