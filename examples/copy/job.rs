//! From the source to a target that can be relied on: one step after the other.

use crate::args::Request;
use crate::blocks::Blocks;
use crate::checking::{self, Content, Hash, ReadBack};
use crate::direct;
use crate::draft::Draft;
use crate::failure::{Explain, Failure};
use crate::hands::Hands;
use crate::pipeline::Pipeline;
use crate::source::Original;
use indicatif::{ProgressBar, ProgressStyle};
use quintpoll::BufferPool;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// What was done.
pub(crate) struct Report {
    pub(crate) bytes: u64,
    /// Until all of it was on the disk. What it took to check it is not in it.
    pub(crate) took: Duration,
    pub(crate) hash: Hash,
}

/// Nothing is left of the copy if it fails, and the target is what it was.
pub(crate) fn run(hands: &mut Hands, request: &Request) -> Result<Report, Failure> {
    let original = Original::open(hands, request)?;
    let draft = Draft::create(hands, request, &original)?;
    let pool = BufferPool::new(request.block, request.depth).explain("can't have such blocks")?;
    let progress = progress(original.size());

    let start = Instant::now();
    let from = hands.register(original.file.clone())?;
    let to = hands.register(draft.file.clone())?;
    Pipeline {
        hands: &mut *hands,
        original: &original,
        draft: &draft,
        from,
        to,
        request,
        pool: &pool,
        progress: &progress,
    }
    .run()?;
    hands.deregister(from)?;
    draft.finish(hands, to, &original)?;
    let took = start.elapsed();

    progress.set_message("checking");
    draft.forget();
    let told = hash_source(hands, request, &original)?;
    let back = ReadBack { hands, key: to, request, pool: &pool, progress: &progress };
    let copied = back.run(Blocks::new(original.size(), request.block))?;
    let read = hands.wait_until(|_| match told.try_recv() {
        Err(TryRecvError::Empty) => None,
        told => Some(told),
    })?;
    let read = read.map_err(|_| Failure::run("the thread that reads the source panicked"))?;
    let (size, hash) = read.explain(format_args!("can't read {}", original.path.display()))?;
    original.expect_unchanged(size)?;
    if copied != hash {
        return Err(Failure::run(format_args!("the copy has SHA-256 {copied}, the source {hash}")));
    }
    draft.publish(hands)?;
    Ok(Report { bytes: original.size(), took, hash })
}

/// By plain reads of any length, which are not for `O_DIRECT`. Nothing else reads it any more.
fn hash_source(
    hands: &Hands,
    request: &Request,
    original: &Original,
) -> Result<Receiver<io::Result<Content>>, Failure> {
    if request.direct {
        direct::switch(&original.file, &original.path, false)?;
    }
    let told = checking::hash_aside(original.file.clone(), hands.waker());
    told.explain("can't start a thread")
}

/// It shows how far it is to people, and nothing to programs. Everything is moved twice.
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
