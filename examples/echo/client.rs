//! A client with plain blocking sockets, which compares every byte.

use crate::random::Random;
use indicatif::ProgressBar;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

pub(crate) const CONNECTIONS: usize = 200;
/// Requests on each connection.
pub(crate) const ROUNDS: usize = 250;
const THREADS: usize = 4;
/// Small enough for the kernel's socket buffers, so that a client that does not read yet blocks no
/// other.
const MAX_CHUNK: usize = 4096;
/// A server that sends nothing for this long has lost something.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection of the client.
#[derive(Debug)]
pub(crate) struct Peer {
    index: usize,
    socket: TcpStream,
    random: Random,
    /// The bytes sent last.
    chunk: Vec<u8>,
}

/// Opens all connections at the same time.
///
/// # Errors
///
/// The error and its connection, in words.
pub(crate) fn connect(address: SocketAddr) -> Result<Vec<Peer>, String> {
    let peers = (0..CONNECTIONS).map(|index| Peer::connect(index, address));
    peers.collect()
}

/// Sends chunks on each connection and expects them back. Returns the number of bytes received.
pub(crate) fn drive(mut peers: Vec<Peer>, progress: &ProgressBar) -> Result<u64, String> {
    let share = peers.len().div_ceil(THREADS);
    thread::scope(|scope| {
        let drivers: Vec<_> = peers
            .chunks_mut(share)
            .map(|peers| {
                let driver = move || drive_share(peers, progress);
                thread::Builder::new().spawn_scoped(scope, driver)
            })
            .collect();
        drivers.into_iter().map(join).sum()
    })
}

fn join(driver: io::Result<ScopedJoinHandle<'_, Result<u64, String>>>) -> Result<u64, String> {
    let driver = driver.map_err(|error| format!("cannot start a client: {error}"))?;
    driver.join().unwrap_or_else(|_| Err("the client panicked".to_owned()))
}

fn drive_share(peers: &mut [Peer], progress: &ProgressBar) -> Result<u64, String> {
    let mut bytes = 0;
    for round in 1..=ROUNDS {
        for peer in &mut *peers {
            peer.send()?;
            // The last echo must arrive after the shutdown of sending.
            if round == ROUNDS {
                peer.finish_sending()?;
            }
        }
        for peer in &mut *peers {
            bytes += peer.receive()?;
        }
        progress.inc(peers.len() as u64);
    }
    for peer in peers {
        peer.expect_end()?;
    }
    Ok(bytes)
}

impl Peer {
    fn connect(index: usize, address: SocketAddr) -> Result<Self, String> {
        let connect = || {
            let socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.set_write_timeout(Some(TIMEOUT))?;
            Ok(socket)
        };
        let socket = connect().map_err(|error| because(index, "connect", error))?;
        Ok(Peer { index, socket, random: Random::new(index as u64), chunk: Vec::new() })
    }

    fn send(&mut self) -> Result<(), String> {
        self.chunk.resize(self.random.length(MAX_CHUNK), 0);
        self.random.fill(&mut self.chunk);
        let sent = self.socket.write_all(&self.chunk);
        sent.map_err(|error| because(self.index, "send", error))
    }

    fn finish_sending(&self) -> Result<(), String> {
        let done = self.socket.shutdown(Shutdown::Write);
        done.map_err(|error| because(self.index, "half-close", error))
    }

    fn receive(&mut self) -> Result<u64, String> {
        let mut back = [0; MAX_CHUNK];
        let back = &mut back[..self.chunk.len()];
        self.socket.read_exact(back).map_err(|error| because(self.index, "receive", error))?;
        if *back != *self.chunk {
            return Err(format!("connection {}: other bytes came back", self.index));
        }
        Ok(back.len() as u64)
    }

    fn expect_end(&mut self) -> Result<(), String> {
        match self.socket.read(&mut [0; 64]) {
            Ok(0) => Ok(()),
            Ok(surplus) => {
                Err(format!("connection {}: {surplus} bytes too many came back", self.index))
            }
            Err(error) => Err(because(self.index, "see the end", error)),
        }
    }
}

fn because(index: usize, what: &str, error: io::Error) -> String {
    format!("connection {index}: cannot {what}: {error}")
}
