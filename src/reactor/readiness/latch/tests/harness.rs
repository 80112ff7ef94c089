//! One source under a latch, a simulated kernel below it, and the contract as the oracle.

use super::super::{Latch, Memory, Step};
use super::contract::{Contract, fingerprint};
use crate::event::{Interest, Mode};
use crate::poll_bits::PollBits;
use crate::selector::{Trigger, Triggers};

/// The information in a kernel's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportKind {
    /// The bits at the moment of the report.
    Fact,
    /// A notice that something happened, which may have passed already.
    Hint,
    /// A hint, but not of readiness from before the kernel was armed.
    ChangeHint,
}

/// The properties of a kernel mechanism, or of a kind of file under it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// The triggers of the selector.
    pub(super) native: Triggers,
    /// The trigger that the file gets.
    pub(super) trigger: Trigger,
    pub(super) report_kind: ReportKind,
    /// With EDGE: the directions reported by level.
    pub(super) level: Interest,
    /// The file never changes, and every direction is ready.
    pub(super) always_ready: bool,
}

/// Everything that can happen to a source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// These directions become ready, or get more data or room; the kernel notices.
    Ready(Interest),
    /// The program consumes the readiness of these directions.
    Consume(Interest),
    /// The peer closes or something fails: these ends appear.
    End(PollBits),
    /// These ends disappear because there is a new peer. The program may also take an error; that
    /// is no event for the kernel.
    EndPassed(PollBits),
    /// The kernel gets a spurious wake-up.
    Spurious,
    /// A wait that fills its capacity with other sources.
    WaitAtCapacity,
    /// The kernel loses reports; everything is polled.
    Overflow,
    Wait,
    Rearm(Interest),
    Drained(Interest),
    Modify(Mode, Interest),
}

impl Action {
    /// Returns true if the file changes, or its kernel object is woken.
    fn is_file_event(self) -> bool {
        use Action::{Consume, End, EndPassed, Ready, Spurious};
        matches!(self, Ready(_) | Consume(_) | End(_) | EndPassed(_) | Spurious)
    }
}

#[derive(Clone, Copy, Debug)]
struct Kernel {
    column: Column,
    /// Data and room.
    ready: Interest,
    /// The present ends.
    ends: PollBits,
    watched: Interest,
    /// The ends watched for in other directions.
    watched_ends: PollBits,
    /// EDGE: an event is not reported yet. Others: a false report may follow.
    has_event: bool,
    /// ONESHOT: the shot is not used up.
    has_shot: bool,
}

impl Column {
    /// Returns the directions in which the kernel notices changes unrequested.
    fn edges(self) -> Interest {
        match self.trigger {
            Trigger::Edge => Interest::all() - self.level,
            Trigger::Level | Trigger::OneShot => Interest::empty(),
        }
    }
}

/// Returns the poll(2) bits for data and room.
pub(super) fn own_bits(dirs: Interest) -> PollBits {
    PollBits::asked(dirs) & (PollBits::IN | PollBits::OUT | PollBits::PRI)
}

/// Returns the bits that poll(2) can return for these requested bits.
fn visible(asked: PollBits) -> PollBits {
    let unasked = if asked.is_empty() { PollBits::empty() } else { PollBits::HUP | PollBits::ERR };
    asked | unasked
}

enum Report {
    Fact(PollBits),
    Hint,
}

impl Kernel {
    /// Returns all true bits.
    fn bits(&self) -> PollBits {
        own_bits(self.ready) | self.ends
    }

    /// Returns the true bits that are watched.
    fn seen(&self) -> PollBits {
        self.bits() & visible(PollBits::asked(self.watched) | self.watched_ends)
    }

    /// Watches these bits. Returns true if present readiness must be polled.
    fn arm(&mut self, dirs: Interest, ends: PollBits) -> bool {
        (self.watched, self.watched_ends) = (dirs, ends);
        self.has_shot = !dirs.is_empty() || !ends.is_empty();
        let reports_present = self.column.report_kind != ReportKind::ChangeHint;
        if self.column.trigger == Trigger::Edge && reports_present {
            self.has_event |= self.bits().intersects(visible(PollBits::asked(dirs)));
        }
        !reports_present && !dirs.is_empty()
    }

    fn on_event(&mut self) {
        if !self.watched.is_empty() || !self.watched_ends.is_empty() {
            self.has_event = true;
        }
    }

    /// Performs one selector wait.
    fn report(&mut self) -> Option<Report> {
        let seen = self.seen();
        let by_level = self.watched & self.column.level;
        let by_level = self.bits() & visible(PollBits::asked(by_level) | self.watched_ends);
        let has_event = std::mem::take(&mut self.has_event);
        let is_fact = self.column.report_kind == ReportKind::Fact;
        // A hint may be false, and may come late for a source that is not watched any more.
        let is_due = match self.column.trigger {
            Trigger::Level => !seen.is_empty() || (has_event && !is_fact),
            Trigger::Edge => {
                let is_news = has_event && (!seen.is_empty() || !is_fact);
                is_news || !by_level.is_empty()
            }
            Trigger::OneShot => self.has_shot && (!seen.is_empty() || (has_event && !is_fact)),
        };
        if !is_due {
            return None;
        }
        self.has_shot = false;
        Some(if is_fact { Report::Fact(seen) } else { Report::Hint })
    }
}

/// The system calls of a wait, without the selector wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) arms: u32,
    pub(super) polls: u32,
}

/// A source, with the parts of a reactor that one source needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct LatchHarness {
    latch: Latch,
    kernel: Kernel,
    queued: bool,
    to_check: Interest,
    dirty: bool,
    cost: Cost,
    contract: Contract,
}

/// More rounds than a wait needs: a false report, a rearmed shot, a poll, an idle kernel.
const MAX_ROUNDS: usize = 6;

impl LatchHarness {
    pub(super) fn new(column: Column, mode: Mode, interest: Interest) -> Self {
        let ready = if column.always_ready { Interest::all() } else { Interest::empty() };
        let watched = Interest::empty();
        let (ends, watched_ends) = (PollBits::empty(), PollBits::empty());
        let kernel = Kernel {
            column,
            ready,
            ends,
            watched,
            watched_ends,
            has_event: false,
            has_shot: false,
        };
        let mut harness = LatchHarness {
            latch: Latch::new(mode, interest, column.native),
            kernel,
            queued: false,
            to_check: Interest::empty(),
            dirty: false,
            cost: Cost::default(),
            contract: Contract::new(mode, interest, column.edges()),
        };
        harness.modify(mode, interest);
        harness
    }

    /// Performs `action`. Returns the broken clause, if any.
    pub(super) fn play(&mut self, action: Action) -> Result<(), String> {
        let interest = self.latch.interest();
        let always_ready = self.kernel.column.always_ready;
        match action {
            _ if always_ready && action.is_file_event() => {}
            Action::Ready(dirs) => {
                self.kernel.ready |= dirs;
                self.kernel.on_event();
                self.contract.on_event(dirs);
            }
            Action::Consume(dirs) => self.kernel.ready -= dirs,
            Action::End(ends) => {
                self.kernel.ends |= ends;
                self.kernel.on_event();
                self.contract.on_event(ends.ready(Interest::all()));
            }
            Action::EndPassed(ends) => self.pass(ends),
            Action::Spurious => {
                self.kernel.on_event();
                self.contract.on_event(Interest::empty());
            }
            Action::WaitAtCapacity => {
                self.begin_wait();
                self.collect();
            }
            Action::Overflow => {
                self.queue(self.latch.relevant());
                self.contract.rescanned();
            }
            Action::Wait => {
                self.cost = Cost::default();
                self.begin_wait();
                let reported = self.wait()?;
                return self.contract.check_wait(self.kernel.bits(), reported, self.cost);
            }
            Action::Rearm(dirs) => {
                let step = self.latch.rearm(dirs & interest);
                self.carry_out(step, dirs & interest);
                self.contract.rearmed(dirs & interest);
            }
            Action::Drained(dirs) => {
                if self.latch.ended().intersects(dirs) {
                    self.on_ended_polled();
                }
                let step = self.latch.drained(dirs & interest);
                self.carry_out(step, dirs & interest);
                self.contract.drained(dirs & interest, self.kernel.bits());
            }
            Action::Modify(mode, interest) => {
                self.modify(mode, interest);
                self.contract = Contract::new(mode, interest, self.kernel.column.edges());
            }
        }
        self.contract.mark_active();
        Ok(())
    }

    fn pass(&mut self, ends: PollBits) {
        self.kernel.ends -= ends;
        if ends != PollBits::ERR {
            self.kernel.on_event();
            self.contract.on_event(Interest::empty());
        }
    }

    fn modify(&mut self, mode: Mode, interest: Interest) {
        self.latch = Latch::new(mode, interest, self.kernel.column.native);
        if !interest.is_empty() {
            let preferred = self.latch.trigger();
            assert!(self.kernel.column.native.contains(only(preferred)), "a native trigger");
        }
        // The interest watched first must not depend on the trigger that arming finds.
        assert_eq!(self.latch.watched(), interest);
        assert_eq!(self.latch.ends(), PollBits::empty());
        let to_check = self.kernel.arm(interest, PollBits::empty());
        self.latch.fix_trigger(self.kernel.column.trigger, self.kernel.column.level);
        assert_eq!(self.latch.watched(), interest);
        if to_check {
            self.queue(interest);
        }
        self.dirty = false;
    }

    /// Carries out a step caused by a call. After a delivery the source is dirty until the next
    /// wait.
    fn carry_out(&mut self, step: Step, named: Interest) {
        match step {
            Step::Nothing => {}
            Step::Recheck(dirs) => self.queue(dirs),
            Step::Arm => self.reify(named),
        }
    }

    /// Arms the kernel. `named` are the directions of a call; empty after a delivery.
    fn reify(&mut self, named: Interest) {
        let dirs = (named | self.latch.unreported()) & self.latch.armed();
        if self.kernel.arm(self.latch.watched(), self.latch.ends()) && !dirs.is_empty() {
            self.queue(dirs);
        }
        self.cost.arms += 1;
        self.dirty = false;
    }

    fn queue(&mut self, dirs: Interest) {
        self.queued = true;
        self.to_check |= dirs;
    }

    fn begin_wait(&mut self) {
        self.contract.begin_wait(self.kernel.bits());
        if !self.latch.ended().is_empty() {
            self.on_ended_polled();
        }
    }

    /// Polls the directions whose end was reported, because the end may have passed.
    fn on_ended_polled(&mut self) {
        let ended = self.latch.ended();
        let bits = self.kernel.bits() & visible(PollBits::asked(ended));
        self.dirty |= self.latch.on_ended_polled(bits) == Step::Arm;
        let due = bits.ready(self.latch.armed() & ended);
        if !due.is_empty() {
            self.queue(due);
        }
    }

    /// Performs one selector wait. A fact of this wait is a hint to a later one.
    fn collect(&mut self) -> Option<PollBits> {
        if self.dirty {
            self.reify(Interest::empty());
        }
        let report = self.kernel.report()?;
        self.queue(self.latch.relevant());
        match report {
            Report::Fact(bits) if self.latch.changed(bits).is_empty() => Some(bits),
            // An end of a direction that is not watched otherwise: the rest must be polled.
            Report::Fact(_) | Report::Hint => None,
        }
    }

    fn wait(&mut self) -> Result<Option<Interest>, String> {
        for _ in 0..MAX_ROUNDS {
            let fact = self.collect();
            if !self.queued {
                return Ok(None);
            }
            if let Some(reported) = self.deliver(fact) {
                return Ok(Some(reported));
            }
        }
        Err("the wait spins".into())
    }

    fn deliver(&mut self, fact: Option<PollBits>) -> Option<Interest> {
        let mut to_check = std::mem::take(&mut self.to_check) & self.latch.relevant();
        if !to_check.is_empty() {
            to_check |= self.latch.checked_together();
        }
        self.queued = false;
        let bits = fact.unwrap_or_else(|| {
            self.cost.polls += u32::from(!to_check.is_empty());
            self.kernel.bits() & visible(PollBits::asked(to_check))
        });
        let dirs = self.latch.due(bits);
        let step = if dirs.is_empty() {
            self.latch.on_false_report()
        } else {
            self.latch.on_delivered(dirs, bits)
        };
        match step {
            Step::Arm => self.dirty = true,
            other => self.carry_out(other, Interest::empty()),
        }
        (!dirs.is_empty()).then_some(dirs)
    }

    /// Returns a number for the state; states with one number behave alike from here on.
    pub(super) fn fingerprint(&self) -> u128 {
        let LatchHarness { latch, kernel, .. } = self;
        let sets = [latch.interest, latch.armed, kernel.ready, kernel.watched, self.to_check];
        let ends = [kernel.ends, kernel.watched_ends].map(fingerprint);
        let sets = sets.map(|set| set.bits()).into_iter().chain(ends);
        let sets = sets.chain(self.contract.sets());
        let flags = [kernel.has_event, kernel.has_shot, self.queued, self.dirty];
        let flags = flags.into_iter().chain(self.contract.flags());
        let memory = match latch.memory {
            Memory::Level => 0,
            Memory::Edge(shown) => 1 << 12 | shown.fingerprint(),
            Memory::OneShot { spurious } => 2 << 12 | u16::from(spurious),
        };
        let small = u128::from(memory) << 2 | latch.trigger as u128;
        let number = sets.fold(small, |number, set| number << 3 | u128::from(set));
        let number = flags.fold(number, |number, flag| number << 1 | u128::from(flag));
        number << 15 | u128::from(self.contract.known())
    }
}

pub(super) fn only(trigger: Trigger) -> Triggers {
    match trigger {
        Trigger::Level => Triggers::LEVEL,
        Trigger::Edge => Triggers::EDGE,
        Trigger::OneShot => Triggers::ONESHOT,
    }
}
