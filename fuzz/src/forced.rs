//! Selectors under a wrapper that lets them use some triggers only, and distorts what they say in
//! ways that the selector interface allows.
//!
//! The reactor then needs columns of its latch, and ways through its queue, that the mechanism at
//! hand would never make it use.

use super::column::Subject;
use quintpoll::spi::{
    ArmOutcome, ArmRequest, Deadline, Epoll, OpDriver, Poll, PollBits, Reactor, Report, Select,
    Selector, Sigio, Slot, TaskWork, Trigger, Uring, WaitOutcome, WakeHandle,
};
use quintpoll::{Backend, Interest, Poller};
use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

pub use quintpoll::spi::Triggers;

/// In a selector that loses its reports, one wait of so many does.
const LOSES_EVERY: usize = 3;
/// In a selector that gives hints, one wait of so many is ended by a wake that came late.
const LATE_WAKE_EVERY: usize = 5;

/// How many requests a small ring has room for; there are twice as many completions.
const SMALL: u32 = 2;

/// The selector under the wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Inner {
    Epoll,
    Poll,
    Select,
    Sigio,
    Uring,
    /// A ring that few completions fill, on which the kernel does its work at once.
    SmallUring,
}

/// How reports are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distortion {
    /// As they are.
    Faithful,
    /// Facts as mere hints, or in part; what is ready already when an edge is armed untold; late
    /// reports of slots that were disarmed or removed; and notifications of wakes that were taken
    /// before.
    Hints,
    /// Now and then none, with word that they were lost.
    Losses,
}

impl Inner {
    /// All of them.
    pub const ALL: [Inner; 6] = {
        use Inner::*;
        [Epoll, Poll, Select, Sigio, Uring, SmallUring]
    };

    /// The sets of triggers it can be forced into: each single one that it has, and all together.
    pub fn columns(self) -> Vec<Triggers> {
        let native = match self {
            Inner::Epoll => Triggers::all(),
            Inner::Poll | Inner::Select => Triggers::LEVEL,
            Inner::Sigio | Inner::Uring | Inner::SmallUring => Triggers::EDGE,
        };
        let several = (native.iter().count() > 1).then_some(native);
        several.into_iter().chain(native.iter()).collect()
    }

    /// Whether it does operations itself.
    pub fn has_operations(self) -> bool {
        matches!(self, Inner::Uring | Inner::SmallUring)
    }
}

impl Distortion {
    /// All of them.
    pub const ALL: [Distortion; 3] = [Distortion::Faithful, Distortion::Hints, Distortion::Losses];
}

/// Makes a poller of a wrapped selector, which does operations if it `is_aided`; else they are left
/// to the reactor.
///
/// # Errors
///
/// What the selector says.
pub fn open_forced(
    inner: Inner,
    triggers: Triggers,
    distortion: Distortion,
    is_aided: bool,
) -> io::Result<Box<dyn Subject>> {
    let how = How { triggers, distortion, is_aided };
    Ok(match inner {
        Inner::Epoll => Watched::boxed(Forced::new(Epoll::new()?, how))?,
        Inner::Poll => Watched::boxed(Forced::new(Poll::new()?, how))?,
        Inner::Select => Watched::boxed(Forced::new(Select::new()?, how))?,
        Inner::Sigio => Watched::boxed(Forced::new(Sigio::new()?, how))?,
        Inner::Uring => Watched::boxed(Forced::new(Uring::new()?, how))?,
        Inner::SmallUring => {
            let uring = Uring::with(SMALL, TaskWork::Prompt)?;
            Watched::boxed(Forced::new(uring, how))?
        }
    })
}

/// A reactor whose selector is known.
struct Watched<S> {
    reactor: Reactor<Forced<S>>,
    counts: Rc<Counts>,
}

/// What has happened behind the reactor's back.
#[derive(Debug, Default)]
struct Counts {
    waits: Cell<usize>,
    /// Those of the waits that could not but end at once.
    late_wakes: Cell<usize>,
    losses: Cell<usize>,
}

impl<S: Selector + 'static> Watched<S> {
    fn boxed(selector: Forced<S>) -> io::Result<Box<dyn Subject>> {
        let counts = selector.counts.clone();
        let reactor = Reactor::new(Backend::Other("forced"), selector)?;
        Ok(Box::new(Watched { reactor, counts }))
    }
}

impl<S: Selector> Subject for Watched<S> {
    fn poller(&mut self) -> &mut dyn Poller {
        &mut self.reactor
    }

    fn verify(&self) {
        self.reactor.verify();
    }

    fn looks(&self) -> usize {
        self.counts.waits.get() - self.counts.late_wakes.get()
    }

    fn losses(&self) -> usize {
        self.counts.losses.get()
    }
}

/// What the wrapper does.
#[derive(Clone, Copy)]
struct How {
    triggers: Triggers,
    distortion: Distortion,
    is_aided: bool,
}

/// A selector under the wrapper.
struct Forced<S> {
    inner: S,
    triggers: Triggers,
    distortion: Distortion,
    /// Operations are passed on.
    is_aided: bool,
    counts: Rc<Counts>,
    /// Late reports for the next wait.
    late: Vec<Report>,
    /// How many facts were passed on as something less.
    blurred: usize,
}

impl<S> Forced<S> {
    fn new(inner: S, how: How) -> Self {
        let How { triggers, distortion, is_aided } = how;
        let (counts, late, blurred) = Default::default();
        Forced { inner, triggers, distortion, is_aided, counts, late, blurred }
    }

    fn note_late(&mut self, report: Report) {
        if self.distortion == Distortion::Hints {
            self.late.push(report);
        }
    }

    /// Passes the reports on as [`Distortion::Hints`] has it, those from `old` on.
    fn blur(&mut self, out: &mut Vec<Report>, old: usize) {
        for report in &mut out[old..] {
            if let Report::Fact(slot, bits) = *report {
                self.blurred += 1;
                let part = bits.iter().next().filter(|_| self.blurred % 2 == 0);
                *report = part.map_or(Report::Hint(slot), |part| Report::Partial(slot, part));
            }
        }
        out.append(&mut self.late);
    }
}

impl<S: Selector> Forced<S> {
    /// Arms an edge, and hides what it tells because of that alone. What there was to tell before
    /// is told by the next wait.
    fn arm_untold(
        &mut self,
        slot: Slot,
        fd: BorrowedFd<'_>,
        arm: ArmRequest,
    ) -> io::Result<ArmOutcome> {
        self.take_reports(|_| true)?;
        let applied = self.inner.arm(slot, fd, arm)?;
        if applied.trigger != Trigger::Edge {
            return Ok(applied);
        }
        self.take_reports(|report| report.slot() != slot)?;
        Ok(ArmOutcome { needs_initial_poll: true, ..applied })
    }

    /// Takes what there is to report, and puts some of it aside.
    fn take_reports(&mut self, stays: impl Fn(Report) -> bool) -> io::Result<()> {
        let mut reports = Vec::new();
        self.inner.wait(Deadline::Now, &mut reports)?;
        let kept = reports.into_iter().filter(|&report| stays(report));
        self.late.extend(kept.map(|report| Report::Hint(report.slot())));
        Ok(())
    }
}

impl<S: Selector> Selector for Forced<S> {
    fn native(&self) -> Triggers {
        self.triggers
    }

    fn edges(&self) -> Interest {
        self.inner.edges()
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        // What has nothing but edges leaves to the reactor what is ready already.
        let tells = self.inner.native() != Triggers::EDGE;
        if tells && self.distortion == Distortion::Hints && arm.trigger == Trigger::Edge {
            return self.arm_untold(slot, fd, arm);
        }
        self.inner.arm(slot, fd, arm)
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.note_late(Report::Hint(slot));
        self.inner.disarm(slot, fd);
    }

    fn note_awaited(&mut self, slot: Slot, fd: BorrowedFd<'_>, dirs: Interest) {
        self.inner.note_awaited(slot, fd, dirs);
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.note_late(Report::Fact(slot, PollBits::all()));
        self.inner.remove(slot, fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let old = out.len();
        let waits = self.counts.waits.get() + 1;
        self.counts.waits.set(waits);
        if self.distortion == Distortion::Hints && waits % LATE_WAKE_EVERY == 0 {
            self.counts.late_wakes.set(self.counts.late_wakes.get() + 1);
            self.inner.wake_handle().notify();
        }
        let deadline = if self.late.is_empty() { deadline } else { Deadline::Now };
        let wake = self.inner.wait(deadline, out)?;
        match self.distortion {
            Distortion::Faithful => Ok(wake),
            Distortion::Hints => {
                self.blur(out, old);
                Ok(wake)
            }
            Distortion::Losses if waits % LOSES_EVERY == 0 => {
                out.truncate(old);
                self.counts.losses.set(self.counts.losses.get() + 1);
                Ok(WaitOutcome::Overflow)
            }
            Distortion::Losses => Ok(wake),
        }
    }

    fn set_max_reports(&mut self, max: usize) {
        // What gets lost is not reported in a fair order, nor what the reactor polls for when an
        // edge is armed.
        if self.distortion == Distortion::Faithful {
            self.inner.set_max_reports(max);
        }
    }

    fn has_more(&mut self) -> bool {
        self.inner.has_more()
    }

    fn wake_handle(&self) -> WakeHandle {
        self.inner.wake_handle()
    }

    fn driver(&mut self) -> Option<&mut dyn OpDriver> {
        if self.is_aided { self.inner.driver() } else { None }
    }
}
