//! Waits, and how it is known that nothing more can come.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::super::oracle::{Bits, look, readiness, ready};
use super::super::ledger::{Entry, Task, doom_of};
use super::super::line::Line;
use super::super::script::{PLACES, Verb};
use super::Player;
use quintpoll::Readiness;
use std::time::{Duration, Instant};

/// Within this time whatever must come has come.
pub(super) const WATCHDOG: Duration = Duration::from_secs(10);
/// How long one wait takes for what may need several.
const SLICE: Duration = Duration::from_millis(5);

/// What may come of what is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hope {
    /// Nothing.
    Nothing,
    /// Something can go on, but need not be over then.
    Progress,
    /// Something must complete.
    Completion,
}

impl Player {
    /// One wait. Gives how much has completed.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<usize, Failure> {
        let subject = self.subject.as_deref_mut().expect("it is there but for a moment");
        let waited = subject.poller().wait(&mut self.events, Some(timeout));
        waited.map_err(|error| Failure { clause: "P5", what: format!("wait: {error}") })?;
        let bits = look(&self.lines.each_ref().map(Line::near));
        for event in &self.events {
            let place = event.token.0;
            let told = || format!("{event:?}, watched {:?}", self.watched);
            let is_known = place < PLACES && event.key == self.keys[place];
            expect(is_known && self.numbers[place].is_some(), "R5", told)?;
            let is_true = readiness(bits[place], self.watched[place]) == event.readiness;
            // After a completion of the same wait it may be true no longer.
            expect(is_true || self.events.completed() > 0, "L2", told)?;
        }
        self.take_completions()
    }

    pub(super) fn take_completions(&mut self) -> Result<usize, Failure> {
        let count = self.events.completed();
        for completion in self.events.completions() {
            let ended = self.ledger.complete(completion, &mut self.lines)?;
            self.shown.ended.push(ended);
        }
        Ok(count)
    }

    /// Waits until nothing more can come. What must come a wait sleeps for.
    pub(super) fn be_quiet(&mut self) -> Verdict {
        let (begun, mut calm) = (Instant::now(), 0);
        for turn in 0_usize.. {
            let hope = self.hope();
            let timeout = match hope {
                Hope::Completion => WATCHDOG,
                Hope::Progress if turn > 3 => SLICE,
                _ => Duration::ZERO,
            };
            let is_calm = self.wait(timeout)? == 0 && hope == Hope::Nothing;
            calm = if is_calm && self.hope() == Hope::Nothing { calm + 1 } else { 0 };
            // Beside what is ready a ring is asked for the rest of an operation by the next wait.
            if calm == 2 {
                break;
            }
            let is_late = begun.elapsed() > WATCHDOG;
            expect(!is_late, "C1", || {
                let pending: Vec<_> =
                    self.ledger.pending().map(|(nth, one)| (nth, one.task)).collect();
                format!("{hope:?} in vain: {pending:?}, poll(2): {:?}", self.bits())
            })?;
        }
        self.look_around()
    }

    fn bits(&self) -> Vec<Bits> {
        look(&self.lines.each_ref().map(Line::near))
    }

    /// What is ready is reported, and what the far ends have received is accounted for.
    fn look_around(&mut self) -> Verdict {
        let bits = self.bits();
        for (place, bits) in bits.into_iter().enumerate() {
            let truth = readiness(bits, self.watched[place]);
            let mut told = self.events.iter().filter(|event| event.token.0 == place);
            let told = told.next().map_or(Readiness::empty(), |event| event.readiness);
            let has_room = self.events.capacity() >= PLACES;
            let is_told = told == truth || !has_room;
            expect(is_told, "L1", || format!("{place} is {truth:?} and told to be {told:?}"))?;
            self.shown.ready[place] = has_room.then_some(told);
            let unsent = self.ledger.unsent(place);
            let first = unsent.first().map_or(&[][..], std::slice::from_ref);
            let is_right = self.lines[place].is_early_from(first);
            expect(is_right, "C3", || format!("{place} has sent what nobody submitted"))?;
        }
        Ok(())
    }

    /// What may come of what is pending, as poll(2) has it.
    fn hope(&self) -> Hope {
        let bits = self.bits();
        let of = |(nth, entry): (usize, &Entry)| match entry.task {
            _ if entry.is_to_end() => Hope::Completion,
            Task::Nop => Hope::Completion,
            Task::Timeout(limit) if limit.passes() => Hope::Completion,
            Task::Timeout(_) => Hope::Nothing,
            Task::Source(verb, place, _) => {
                let is_doomed = doom_of(verb, self.lines[place].kind).is_some();
                let is_ready = match entry.lane() {
                    Some(lane) => !ready(bits[place], lane).is_empty(),
                    None => true,
                };
                match verb {
                    _ if !self.ledger.is_first(nth) => Hope::Nothing,
                    _ if is_doomed => Hope::Completion,
                    Verb::ShutdownWrite | Verb::ShutdownRead | Verb::ShutdownBoth => {
                        Hope::Completion
                    }
                    _ if !is_ready => Hope::Nothing,
                    Verb::RecvExact | Verb::SendAll => Hope::Progress,
                    _ => Hope::Completion,
                }
            }
        };
        self.ledger.pending().map(of).max().unwrap_or(Hope::Nothing)
    }
}
