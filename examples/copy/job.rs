//! The steps from the source to a verified target.

use crate::args::Request;
use crate::blocks::Blocks;
use crate::direct;
use crate::driver::Driver;
use crate::failure::{Explain, Failure};
use crate::partial_file::PartialFile;
use crate::pipeline::Pipeline;
use crate::source::Original;
use crate::verify::{self, Content, Hash, ReadBack};
use indicatif::{ProgressBar, ProgressStyle};
use quintpoll::BufferPool;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The result of a copy.
pub(crate) struct Report {
    pub(crate) bytes: u64,
    /// The time until all of it was on the disk, without the verification.
    pub(crate) took: Duration,
    pub(crate) hash: Hash,
}

/// Copies and verifies. After an error no part of the copy is left, and the target is unchanged.
pub(crate) fn run(driver: &mut Driver, request: &Request) -> Result<Report, Failure> {
    let original = Original::open(driver, request)?;
    let partial = PartialFile::create(driver, request, &original)?;
    let pool = BufferPool::new(request.block, request.depth).explain("invalid block size")?;
    let progress = progress(original.size());

    let start = Instant::now();
    let from = driver.register(original.file.clone())?;
    let to = driver.register(partial.file.clone())?;
    Pipeline {
        driver: &mut *driver,
        original: &original,
        partial: &partial,
        from,
        to,
        request,
        pool: &pool,
        progress: &progress,
    }
    .run()?;
    driver.deregister(from)?;
    partial.finish(driver, to, &original)?;
    let took = start.elapsed();

    progress.set_message("checking");
    partial.forget();
    let receiver = hash_source(driver, request, &original)?;
    let back = ReadBack { driver, key: to, request, pool: &pool, progress: &progress };
    let copied = back.run(Blocks::new(original.size(), request.block))?;
    let read = driver.wait_until(|_| match receiver.try_recv() {
        Err(TryRecvError::Empty) => None,
        received => Some(received),
    })?;
    let read = read.map_err(|_| Failure::run("the thread that reads the source panicked"))?;
    let (size, hash) = read.explain(format_args!("cannot read {}", original.path.display()))?;
    original.expect_unchanged(size)?;
    if copied != hash {
        return Err(Failure::run(format_args!("the copy has SHA-256 {copied}, the source {hash}")));
    }
    partial.publish(driver)?;
    Ok(Report { bytes: original.size(), took, hash })
}

/// Hashes the source by plain reads of any length, which `O_DIRECT` would refuse. No operation
/// reads the source any more.
fn hash_source(
    driver: &Driver,
    request: &Request,
    original: &Original,
) -> Result<Receiver<io::Result<Content>>, Failure> {
    if request.direct {
        direct::switch(&original.file, &original.path, false)?;
    }
    let receiver = verify::spawn_hash(original.file.clone(), driver.waker());
    receiver.explain("cannot start a thread")
}

/// Returns a progress bar if stderr is a terminal. Every byte is moved twice.
fn progress(size: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let progress = ProgressBar::new(2 * size).with_message("copying");
    let template = "{msg:8} {wide_bar} {percent:>3} % {binary_bytes_per_sec} {eta}";
    match ProgressStyle::with_template(template) {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    }
}
