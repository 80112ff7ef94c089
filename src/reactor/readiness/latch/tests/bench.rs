//! One source under a latch: a simulated kernel below it, the contract beside it, and nothing real.

use super::super::{Latch, Memory, Step};
use super::contract::{Contract, fingerprint};
use crate::event::{Interest, Mode};
use crate::poll_bits::PollBits;
use crate::selector::{Trigger, Triggers};

/// How a kernel tells what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// The bits, read at the moment of the report.
    Fact,
    /// That something happened, which may have passed already.
    Hint,
    /// A hint, and nothing about what was ready before the kernel was armed.
    HintOfNews,
}

/// What one kernel mechanism, or one kind of file under it, is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// What the selector says it has.
    pub(super) native: Triggers,
    /// What the file gets in the end.
    pub(super) trigger: Trigger,
    pub(super) flavour: Flavour,
    /// With EDGE: the directions that are reported by their level.
    pub(super) level: Interest,
    /// Nothing ever happens to the file, and every direction is ready.
    pub(super) always_ready: bool,
}

/// Everything that can befall a source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// These directions become ready, or get more of what made them ready; the kernel notices.
    Wake(Interest),
    /// They are ready no longer: the program used them up.
    Clear(Interest),
    /// The other side has gone, or something failed: these ends are there.
    End(PollBits),
    /// They are there no longer: another side has come. An error may also be taken by the program,
    /// and nothing has happened then.
    Pass(PollBits),
    /// The kernel is woken for nothing.
    Stir,
    /// A wait that serves others, up to its capacity, and not this source.
    Starve,
    /// The kernel lost count; everything is looked at.
    Overflow,
    Wait,
    Rearm(Interest),
    Drained(Interest),
    Modify(Mode, Interest),
}

#[derive(Clone, Copy, Debug)]
struct Kernel {
    column: Column,
    /// Data, and room.
    ready: Interest,
    /// What ends there are.
    ends: PollBits,
    watched: Interest,
    /// Of what else it watches for an end.
    watched_ends: PollBits,
    /// EDGE: something happened that is not reported yet. The others: it may be a false report.
    stirred: bool,
    /// ONESHOT: the shot is not used up.
    loaded: bool,
}

impl Column {
    /// The directions in which the kernel hears of news that nobody asked for.
    fn edges(self) -> Interest {
        match self.trigger {
            Trigger::Edge => Interest::all() - self.level,
            Trigger::Level | Trigger::OneShot => Interest::empty(),
        }
    }
}

/// The bits of poll(2) that are about data and room.
pub(super) fn own_bits(dirs: Interest) -> PollBits {
    PollBits::asked(dirs) & (PollBits::IN | PollBits::OUT | PollBits::PRI)
}

/// What poll(2) shows to those who ask for these bits.
fn visible(asked: PollBits) -> PollBits {
    let unasked = if asked.is_empty() { PollBits::empty() } else { PollBits::HUP | PollBits::ERR };
    asked | unasked
}

enum Report {
    Fact(PollBits),
    Hint,
}

impl Kernel {
    /// Everything that is true.
    fn bits(&self) -> PollBits {
        own_bits(self.ready) | self.ends
    }

    /// What is true of that which is watched.
    fn seen(&self) -> PollBits {
        self.bits() & visible(PollBits::asked(self.watched) | self.watched_ends)
    }

    /// Gives whether present readiness has to be looked for.
    fn arm(&mut self, dirs: Interest, ends: PollBits) -> bool {
        (self.watched, self.watched_ends) = (dirs, ends);
        self.loaded = !dirs.is_empty() || !ends.is_empty();
        let telling = self.column.flavour != Flavour::HintOfNews;
        if self.column.trigger == Trigger::Edge && telling {
            self.stirred |= self.bits().intersects(visible(PollBits::asked(dirs)));
        }
        !telling && !dirs.is_empty()
    }

    fn happen(&mut self) {
        if !self.watched.is_empty() || !self.watched_ends.is_empty() {
            self.stirred = true;
        }
    }

    /// Looks into the kernel once.
    fn report(&mut self) -> Option<Report> {
        let seen = self.seen();
        let by_level = self.watched & self.column.level;
        let by_level = self.bits() & visible(PollBits::asked(by_level) | self.watched_ends);
        let stirred = std::mem::take(&mut self.stirred);
        let is_fact = self.column.flavour == Flavour::Fact;
        // A hint may be false, and may come late for a source that is not watched any more.
        let is_due = match self.column.trigger {
            Trigger::Level => !seen.is_empty() || (stirred && !is_fact),
            Trigger::Edge => {
                let is_news = stirred && (!seen.is_empty() || !is_fact);
                is_news || !by_level.is_empty()
            }
            Trigger::OneShot => self.loaded && (!seen.is_empty() || (stirred && !is_fact)),
        };
        if !is_due {
            return None;
        }
        self.loaded = false;
        Some(if is_fact { Report::Fact(seen) } else { Report::Hint })
    }
}

/// What a wait cost beside the look into the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) arms: u32,
    pub(super) probes: u32,
}

/// The source, and as much of a reactor as one source needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bench {
    latch: Latch,
    kernel: Kernel,
    queued: bool,
    look: Interest,
    lagging: bool,
    work: Work,
    contract: Contract,
}

/// More rounds than a wait needs: a false report, a shot loaded again, a look, a quiet kernel.
const SPINNING: usize = 6;

impl Bench {
    pub(super) fn new(column: Column, mode: Mode, interest: Interest) -> Self {
        let ready = if column.always_ready { Interest::all() } else { Interest::empty() };
        let watched = Interest::empty();
        let (ends, watched_ends) = (PollBits::empty(), PollBits::empty());
        let kernel =
            Kernel { column, ready, ends, watched, watched_ends, stirred: false, loaded: false };
        let mut bench = Bench {
            latch: Latch::new(mode, interest, column.native),
            kernel,
            queued: false,
            look: Interest::empty(),
            lagging: false,
            work: Work::default(),
            contract: Contract::new(mode, interest, column.edges()),
        };
        bench.modify(mode, interest);
        bench
    }

    /// Lets `op` happen, and says which promise it broke.
    pub(super) fn play(&mut self, op: Op) -> Result<(), String> {
        let interest = self.latch.interest();
        let dull = self.kernel.column.always_ready;
        match op {
            Op::Wake(_) | Op::Clear(_) | Op::End(_) | Op::Pass(_) | Op::Stir if dull => {}
            Op::Wake(dirs) => {
                self.kernel.ready |= dirs;
                self.kernel.happen();
                self.contract.woken(dirs);
            }
            Op::Clear(dirs) => self.kernel.ready -= dirs,
            Op::End(ends) => {
                self.kernel.ends |= ends;
                self.kernel.happen();
                self.contract.woken(ends.ready(Interest::all()));
            }
            Op::Pass(ends) => self.pass(ends),
            Op::Stir => {
                self.kernel.happen();
                self.contract.woken(Interest::empty());
            }
            Op::Starve => {
                self.begin_wait();
                self.collect();
            }
            Op::Overflow => {
                self.queue(self.latch.relevant());
                self.contract.rescanned();
            }
            Op::Wait => {
                self.work = Work::default();
                self.begin_wait();
                let reported = self.wait()?;
                return self.contract.judge(self.kernel.bits(), reported, self.work);
            }
            Op::Rearm(dirs) => {
                let step = self.latch.rearm(dirs & interest);
                self.carry_out(step, dirs & interest);
                self.contract.rearmed(dirs & interest);
            }
            Op::Drained(dirs) => {
                if self.latch.ended().intersects(dirs) {
                    self.look_at_ended();
                }
                let step = self.latch.drained(dirs & interest);
                self.carry_out(step, dirs & interest);
                self.contract.drained(dirs & interest, self.kernel.bits());
            }
            Op::Modify(mode, interest) => {
                self.modify(mode, interest);
                self.contract = Contract::new(mode, interest, self.kernel.column.edges());
            }
        }
        self.contract.expect_work();
        Ok(())
    }

    fn pass(&mut self, ends: PollBits) {
        self.kernel.ends -= ends;
        if ends != PollBits::ERR {
            self.kernel.happen();
            self.contract.woken(Interest::empty());
        }
    }

    fn modify(&mut self, mode: Mode, interest: Interest) {
        self.latch = Latch::new(mode, interest, self.kernel.column.native);
        if !interest.is_empty() {
            let preferred = self.latch.trigger();
            assert!(self.kernel.column.native.contains(only(preferred)), "a native trigger");
        }
        // What is to be watched at first must not depend on the trigger that is found out by it.
        assert_eq!(self.latch.watched(), interest);
        assert_eq!(self.latch.ends(), PollBits::empty());
        let look = self.kernel.arm(interest, PollBits::empty());
        self.latch.fix_trigger(self.kernel.column.trigger, self.kernel.column.level);
        assert_eq!(self.latch.watched(), interest);
        if look {
            self.queue(interest);
        }
        self.lagging = false;
    }

    /// As a step that comes of a call. One that comes of a delivery lags until the next wait.
    fn carry_out(&mut self, step: Step, named: Interest) {
        match step {
            Step::Nothing => {}
            Step::Look(dirs) => self.queue(dirs),
            Step::Arm => self.reify(named),
        }
    }

    /// A call has named directions to look at; a delivery names none.
    fn reify(&mut self, named: Interest) {
        let dirs = (named | self.latch.owed()) & self.latch.armed();
        if self.kernel.arm(self.latch.watched(), self.latch.ends()) && !dirs.is_empty() {
            self.queue(dirs);
        }
        self.work.arms += 1;
        self.lagging = false;
    }

    fn queue(&mut self, dirs: Interest) {
        self.queued = true;
        self.look |= dirs;
    }

    fn begin_wait(&mut self) {
        self.contract.begin_wait(self.kernel.bits());
        if !self.latch.ended().is_empty() {
            self.look_at_ended();
        }
    }

    /// What was told of an end is looked at, for that may have passed.
    fn look_at_ended(&mut self) {
        let ended = self.latch.ended();
        let bits = self.kernel.bits() & visible(PollBits::asked(ended));
        self.lagging |= self.latch.look_at_ended(bits) == Step::Arm;
        let due = bits.ready(self.latch.armed() & ended);
        if !due.is_empty() {
            self.queue(due);
        }
    }

    /// One look into the kernel. What is a fact in this wait is worth a hint to a later one.
    fn collect(&mut self) -> Option<PollBits> {
        if self.lagging {
            self.reify(Interest::empty());
        }
        let report = self.kernel.report()?;
        self.queue(self.latch.relevant());
        match report {
            Report::Fact(bits) if self.latch.news(bits).is_empty() => Some(bits),
            // The end of what is not watched otherwise: the rest has to be looked at.
            Report::Fact(_) | Report::Hint => None,
        }
    }

    fn wait(&mut self) -> Result<Option<Interest>, String> {
        for _ in 0..SPINNING {
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
        let mut look = std::mem::take(&mut self.look) & self.latch.relevant();
        if !look.is_empty() {
            look |= self.latch.looked_at_together();
        }
        self.queued = false;
        let bits = fact.unwrap_or_else(|| {
            self.work.probes += u32::from(!look.is_empty());
            self.kernel.bits() & visible(PollBits::asked(look))
        });
        let dirs = self.latch.due(bits);
        let step = match dirs.is_empty() {
            true => self.latch.missed(),
            false => self.latch.delivered(dirs, bits),
        };
        match step {
            Step::Arm => self.lagging = true,
            other => self.carry_out(other, Interest::empty()),
        }
        (!dirs.is_empty()).then_some(dirs)
    }

    /// A number for the whole state, by which states that behave alike from here on are one.
    pub(super) fn fingerprint(&self) -> u128 {
        let Bench { latch, kernel, .. } = self;
        let sets = [latch.interest, latch.armed, kernel.ready, kernel.watched, self.look];
        let ends = [kernel.ends, kernel.watched_ends].map(fingerprint);
        let sets = sets.map(|set| set.bits()).into_iter().chain(ends);
        let sets = sets.chain(self.contract.sets());
        let flags = [kernel.stirred, kernel.loaded, self.queued, self.lagging];
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
