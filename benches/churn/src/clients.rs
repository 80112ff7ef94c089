//! Clients that connect, send one request, and close.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// The request, and the expected answer.
pub(crate) const REQUEST: [u8; 64] = [b'?'; 64];

/// Threads that load one server at a time.
pub(crate) struct Clients {
    jobs: Vec<Sender<(SocketAddr, Instant)>>,
    results: Receiver<io::Result<u64>>,
}

impl Clients {
    pub(crate) fn start(count: usize) -> Self {
        let (sender, results) = mpsc::channel();
        let start = |_| {
            let (jobs, received) = mpsc::channel::<(SocketAddr, Instant)>();
            let sender = sender.clone();
            std::thread::spawn(move || {
                for (address, until) in received {
                    let _ = sender.send(load(address, until));
                }
            });
            jobs
        };
        Clients { jobs: (0..count).map(start).collect(), results }
    }

    /// Loads a server for some time, and returns the number of connections.
    pub(crate) fn load(&self, address: SocketAddr, time: Duration) -> io::Result<u64> {
        let until = Instant::now() + time;
        for jobs in &self.jobs {
            jobs.send((address, until)).map_err(io::Error::other)?;
        }
        let results = self.jobs.iter().map(|_| self.results.recv().map_err(io::Error::other)?);
        results.sum()
    }
}

fn load(address: SocketAddr, until: Instant) -> io::Result<u64> {
    let mut count = 0;
    while Instant::now() < until {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&REQUEST)?;
        let mut answer = [0; REQUEST.len()];
        stream.read_exact(&mut answer)?;
        // Closes with a reset, so that no port stays in TIME_WAIT.
        set_no_linger(&stream)?;
        count += 1;
    }
    Ok(count)
}

fn set_no_linger(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (start, length) = ((&raw const linger).cast(), size_of_val(&linger) as libc::socklen_t);
    let fd = std::os::fd::AsRawFd::as_raw_fd(stream);
    // SAFETY: the option has this length, and outlives the call.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, start, length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
