//! Copies a file with several operations in flight, on any backend, and verifies the copy before it
//! gets its name.
//!
//! * `pipeline` copies, one block in each of its slots.
//! * `driver` has the poller, and receives Ctrl-C and similar signals by an operation.
//! * `verify` reads the copy back and compares hashes.
//! * `partial_file` is the copy until it is complete, and is removed if it never is.
//! * `direct` knows the requirements of `O_DIRECT`.
//! * `job` runs the steps in order.

mod args;
mod blocks;
mod direct;
mod driver;
mod failure;
mod job;
mod partial_file;
mod pipeline;
#[path = "../echo/signals.rs"]
mod signals;
mod source;
mod verify;

use args::{Command, Request};
use driver::Driver;
use failure::{Explain, Failure};
use job::Report;
use nix::sys::signal::{SigSet, Signal};
use quintpoll::Backend;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (message, code) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Request(message)) => (message, 2),
        Err(Failure::Run(message)) => (message, 1),
    };
    // If stderr is closed, the exit status remains.
    let _ = writeln!(io::stderr(), "copy: {}", escape_controls(&message));
    ExitCode::from(code)
}

/// Escapes control characters of file names, so that the message is one line.
fn escape_controls(message: &str) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    message.chars().map(escape).collect()
}

fn run() -> Result<(), Failure> {
    match args::parse(lexopt::Parser::from_env()).map_err(Failure::request)? {
        Command::Help => print_stdout(&args::usage()),
        Command::Copy(request) => copy(&request),
    }
}

fn copy(request: &Request) -> Result<(), Failure> {
    let mut deadly = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];
    if !ignores_sighup() {
        deadly.push(Signal::SIGHUP);
    }
    let signals = signals::block_into_fd(&deadly).explain("cannot wait for signals")?;
    // A write beyond RLIMIT_FSIZE must be an error, and not end the process.
    let beyond_limit = SigSet::from(Signal::SIGXFSZ);
    beyond_limit.thread_block().explain("cannot block a signal")?;
    let backend = match request.backend {
        Some(backend) => backend,
        None => Backend::from_env().map_err(Failure::request)?,
    };
    let poller = backend.open().map_err(Failure::request)?;
    let Report { bytes, took, hash } = job::run(&mut Driver::new(poller, signals)?, request)?;

    let seconds = took.as_secs_f64();
    let rate = bytes as f64 / f64::from(1 << 20) / seconds;
    let depth = request.depth;
    print_stdout(&format!(
        "{bytes} bytes in {seconds:.3} s, {rate:.1} MiB/s, {backend}, depth {depth}, \
         verified (SHA-256 {hash})\n"
    ))
}

/// Returns true if SIGHUP is ignored (proc(5)), as under nohup(1).
fn ignores_sighup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & 1 << (Signal::SIGHUP as u32 - 1) != 0)
}

fn print_stdout(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).explain("cannot print")
}
