//! An echo server on any backend, in any mode: the server one would write with this crate, kept
//! small.
//!
//! With `--listen` it serves until Ctrl-C or SIGTERM. Without, it tries itself: every backend in
//! every mode against a client that knows nothing of this crate and checks every byte.
//!
//! Where to look: `watch` tells the three modes apart, and nothing else does; `connection` moves
//! bytes and says which way it is blocked; `acceptor` lives through a shortage of file numbers;
//! `server` is the loop.

mod acceptor;
mod args;
mod client;
mod connection;
mod demo;
mod limits;
mod random;
mod server;
mod signals;
mod slab;
mod stats;
mod watch;

use args::Command;
use quintpoll::{Backend, Mode};
use server::Server;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

/// Why the program ends without having done what it was asked to.
enum Failure {
    /// It was asked for something that can't be had.
    Request(String),
    /// Something broke on the way.
    Run(String),
}

impl Failure {
    fn request(cause: impl Display) -> Self {
        Failure::Request(cause.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Run(error.to_string())
    }
}

fn main() -> ExitCode {
    let (message, code) = match run() {
        Ok(code) => return code,
        Err(Failure::Request(message)) => (message, 2),
        Err(Failure::Run(message)) => (message, 1),
    };
    // Where stderr is closed the exit status has to do.
    let _ = writeln!(io::stderr(), "echo: {message}");
    ExitCode::from(code)
}

fn run() -> Result<ExitCode, Failure> {
    limits::raise_open_files();
    match args::parse(lexopt::Parser::from_env()).map_err(Failure::request)? {
        Command::Help => io::stdout().write_all(args::usage().as_bytes())?,
        Command::Listen { backend, mode, address } => listen(backend, mode, &address)?,
        Command::Demo { backend, mode } => {
            // A row that says "not available" is no answer to someone who asked for it by name.
            backend.map_or(Ok(()), Backend::is_available).map_err(Failure::request)?;
            let backends = backend.map_or(Backend::ALL.to_vec(), |one| vec![one]);
            let modes = mode.map_or(args::MODES.to_vec(), |one| vec![one]);
            if !demo::run(&backends, &modes)? {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listen(backend: Option<Backend>, mode: Mode, address: &str) -> Result<(), Failure> {
    let signals = signals::divert()?;
    let backend = match backend {
        Some(backend) => backend,
        None => Backend::from_env().map_err(Failure::request)?,
    };
    let poller = backend.open().map_err(Failure::request)?;
    let listener = TcpListener::bind(address)
        .map_err(|error| Failure::Request(format!("can't listen on {address:?}: {error}")))?;
    let address = listener.local_addr()?;
    let mut server = Server::new(poller, listener, mode)?;
    server.stop_on(Arc::new(signals))?;

    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {address}")?;
    stdout.flush()?;
    let stats = server.run()?;
    writeln!(stdout, "{stats}")?;
    Ok(())
}
