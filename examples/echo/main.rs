//! An echo server on any backend, in three styles.
//!
//! With `--listen` it serves until Ctrl-C or SIGTERM. Without, it tests itself: every backend, in
//! every mode or with `--style completion` or `multishot`, against a client that does not use this
//! crate and checks every byte.
//!
//! * `readiness` is the server by readiness events. Only its `watch` distinguishes the three modes;
//!   `connection` moves bytes and reports the blocked direction; `acceptor` handles a shortage of
//!   file descriptors.
//! * `completion` is the server by operations. `connection` submits the next one, and `buffers` is
//!   the difference of the multishot style.
//! * `listening` classifies the errors of accept(2) for all styles.

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

/// The reason why the program failed.
enum Failure {
    /// The request cannot be met.
    Request(String),
    /// An error at run time.
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
    // If stderr is closed, the exit status remains.
    let _ = writeln!(io::stderr(), "echo: {message}");
    ExitCode::from(code)
}

fn run() -> Result<ExitCode, Failure> {
    limits::raise_open_files();
    match args::parse(lexopt::Parser::from_env()).map_err(Failure::request)? {
        Command::Help => io::stdout().write_all(args::usage().as_bytes())?,
        Command::Listen { backend, style, address } => listen(backend, style, &address)?,
        Command::Demo { backend, styles } => {
            // A backend that was requested by name must be available.
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
    let signals = signals::block_into_fd(&[Signal::SIGINT, Signal::SIGTERM])?;
    let backend = match backend {
        Some(backend) => backend,
        None => Backend::from_env().map_err(Failure::request)?,
    };
    let poller = backend.open().map_err(Failure::request)?;
    let listener = TcpListener::bind(address)
        .map_err(|error| Failure::Request(format!("cannot listen on {address:?}: {error}")))?;
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
