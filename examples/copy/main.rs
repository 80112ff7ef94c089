//! Copies a file with several operations under way, on any backend, and proves that the copy is
//! right before it gives it its name.
//!
//! Where to look: `pipeline` is the copying, a block in each of its slots; `hands` has the poller,
//! and hears of Ctrl-C and the like by an operation like any other; `checking` reads the copy back
//! and compares hashes; `draft` is the file until it is whole, and sees to it that no part of it is
//! left if it never is; `direct` knows what `O_DIRECT` asks for; `job` has the order of it all.

mod args;
mod blocks;
mod checking;
mod direct;
mod draft;
mod failure;
mod hands;
mod job;
mod pipeline;
#[path = "../echo/signals.rs"]
mod signals;
mod source;

use args::{Command, Request};
use failure::{Explain, Failure};
use hands::Hands;
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
    // Where stderr is closed the exit status has to do.
    let _ = writeln!(io::stderr(), "copy: {}", printable(&message));
    ExitCode::from(code)
}

/// In one line, whatever the files are called.
fn printable(message: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    message.chars().map(escape).collect()
}

fn run() -> Result<(), Failure> {
    match args::parse(lexopt::Parser::from_env()).map_err(Failure::request)? {
        Command::Help => say(&args::usage()),
        Command::Copy(request) => copy(&request),
    }
}

fn copy(request: &Request) -> Result<(), Failure> {
    let mut deadly = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];
    if !survives_its_terminal() {
        deadly.push(Signal::SIGHUP);
    }
    let signals = signals::divert(&deadly).explain("can't wait for signals")?;
    // A file that may not grow any more is to be an error of the write, and not our death.
    let beyond_limit = SigSet::from(Signal::SIGXFSZ);
    beyond_limit.thread_block().explain("can't block a signal")?;
    let backend = match request.backend {
        Some(backend) => backend,
        None => Backend::from_env().map_err(Failure::request)?,
    };
    let poller = backend.open().map_err(Failure::request)?;
    let Report { bytes, took, hash } = job::run(&mut Hands::new(poller, signals)?, request)?;

    let seconds = took.as_secs_f64();
    let rate = bytes as f64 / f64::from(1 << 20) / seconds;
    let depth = request.depth;
    say(&format!(
        "{bytes} bytes in {seconds:.3} s, {rate:.1} MiB/s, {backend}, depth {depth}, \
         verified (SHA-256 {hash})\n"
    ))
}

/// Whether nohup(1) or the like has started it: then SIGHUP is ignored (proc(5)).
fn survives_its_terminal() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & 1 << (Signal::SIGHUP as u32 - 1) != 0)
}

fn say(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).explain("can't print")
}
