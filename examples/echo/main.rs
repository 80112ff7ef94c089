//! An echo server on any backend, in any style: the server one would write with this crate, kept
//! small.
//!
//! With `--listen` it serves until Ctrl-C or SIGTERM. Without, it tries itself: every backend, in
//! every mode or with `--style completion` or `multishot`, against a client that knows nothing of
//! this crate and checks every byte.
//!
//! Where to look: `readiness` waits until it may read or write, and does so itself. In it, `watch`
//! tells the three modes apart, and nothing else does; `connection` moves bytes and says which way
//! it is blocked; `acceptor` lives through a shortage of file numbers. `completion` has the same
//! done by operations and waits for their results: its loop is all there is to it, but for what one
//! `connection` does next; its `buffers` are in what the multishot style differs. `listening` knows
//! what errors of accept(2) mean to all.

mod args;
mod client;
mod completion;
mod demo;
mod limits;
mod listening;
mod random;
mod readiness;
mod server;
mod signals;
mod slab;
mod stats;

use args::Command;
use nix::sys::signal::Signal;
use quintpoll::Backend;
use server::Style;
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
        Command::Listen { backend, style, address } => listen(backend, style, &address)?,
        Command::Demo { backend, styles } => {
            // A row that says "not available" is no answer to someone who asked for it by name.
            backend.map_or(Ok(()), Backend::is_available).map_err(Failure::request)?;
            let backends = backend.map_or(Backend::ALL.to_vec(), |one| vec![one]);
            if !demo::run(&backends, &styles)? {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listen(backend: Option<Backend>, style: Style, address: &str) -> Result<(), Failure> {
    let signals = signals::divert(&[Signal::SIGINT, Signal::SIGTERM])?;
    let backend = match backend {
        Some(backend) => backend,
        None => Backend::from_env().map_err(Failure::request)?,
    };
    let poller = backend.open().map_err(Failure::request)?;
    let listener = TcpListener::bind(address)
        .map_err(|error| Failure::Request(format!("can't listen on {address:?}: {error}")))?;
    let address = listener.local_addr()?;
    let mut server = server::open(style, poller, listener)?;
    server.stop_on(Arc::new(signals))?;

    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {address}")?;
    stdout.flush()?;
    let stats = server.run()?;
    writeln!(stdout, "{stats}")?;
    Ok(())
}
