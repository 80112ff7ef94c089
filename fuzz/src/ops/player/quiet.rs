//! Waits, and how it is known that nothing more can come.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::super::oracle::{Bits, readiness, ready};
use super::super::ledger::{Entry, Task, doom_of};
use super::super::script::{DOOR, PLACES, Verb};
use super::Player;
use quintpoll::{Interest, Readiness};
use std::time::{Duration, Instant};

/// Within this time whatever must come has come.
pub(super) const WATCHDOG: Duration = Duration::from_secs(10);
/// How long one wait takes for what may need several.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// What may come of what is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hope {
    /// Nothing.
    Nothing,
    /// Something can go on, but need not be over then.
    Progress,
    /// Something must complete, or bring a result.
    Completion,
}

impl Player {
    /// One wait. Gives how much has completed.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<usize, Failure> {
        let subject = self.subject.as_deref_mut().expect("it is there but for a moment");
        let waited = subject.poller().wait(&mut self.events, Some(timeout));
        waited.map_err(|error| Failure { clause: "P5", what: format!("wait: {error}") })?;
        self.is_all_told = self.events.completed() < self.events.capacity();
        let bits = self.props.look();
        for event in &self.events {
            let place = event.token.0;
            let told = || format!("{event:?}, watched {:?}", self.watched);
            let is_known = place < PLACES && event.key == self.keys[place];
            expect(is_known && self.numbers[place].is_some(), "R5", told)?;
            let is_true = readiness(bits[place], self.watched[place]) == event.readiness;
            // After a completion of the same wait it may be true no longer.
            expect(is_true || self.events.completed() > 0, "L2", told)?;
        }
        let count = self.take_completions()?;
        self.note_silent_ends()?;
        Ok(count)
    }

    pub(super) fn take_completions(&mut self) -> Result<usize, Failure> {
        let count = self.events.completed();
        for completion in self.events.completions().collect::<Vec<_>>() {
            self.end_silent_before(&completion)?;
            let ended = self.ledger.complete(completion, &mut self.props)?;
            self.counts.completed += u64::from(!ended.more);
            self.shown.ended.push(ended);
            self.judge_silent_ends()?;
        }
        self.let_clients_go()?;
        Ok(count)
    }

    /// Waits until nothing more can come. What must come a wait sleeps for.
    pub(super) fn be_quiet(&mut self) -> Verdict {
        let (begun, mut calm) = (Instant::now(), 0);
        let mut hope = self.hope();
        for turn in 0_usize.. {
            let timeout = match hope {
                Hope::Completion => WATCHDOG,
                Hope::Progress if turn > 3 => SLICE,
                _ => Duration::ZERO,
            };
            let is_calm = self.wait(timeout)? == 0 && hope == Hope::Nothing;
            hope = self.hope();
            calm = if is_calm && hope == Hope::Nothing { calm + 1 } else { 0 };
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

    fn bits(&self) -> [Bits; PLACES + 1] {
        self.props.look()
    }

    /// What is ready is reported, and what the far ends have received is accounted for.
    fn look_around(&mut self) -> Verdict {
        let bits = self.bits();
        for (place, bits) in bits.into_iter().enumerate().take(PLACES) {
            let truth = readiness(bits, self.watched[place]);
            let mut told = self.events.iter().filter(|event| event.token.0 == place);
            let told = told.next().map_or(Readiness::empty(), |event| event.readiness);
            let has_room = self.events.capacity() >= PLACES;
            let is_told = told == truth || !has_room;
            expect(is_told, "L1", || format!("{place} is {truth:?} and told to be {told:?}"))?;
            self.shown.ready[place] = has_room.then_some(told);
            let unsent = self.ledger.unsent(place);
            // Of what is spliced, what is there may be there already.
            let spliced = self.ledger.splices_to(place);
            let spliced = spliced.map(|from| self.props.lines[from].inbound.first(usize::MAX));
            let spliced = spliced.as_deref();
            let first = match spliced {
                Some(_) if unsent.is_empty() => spliced.as_slice(),
                _ => unsent.first().map_or(&[][..], std::slice::from_ref),
            };
            let is_right = self.props.lines[place].is_early_from(first);
            expect(is_right, "C3", || format!("{place} has sent what nobody submitted"))?;
        }
        Ok(())
    }

    /// What may come of what is pending, as poll(2) has it.
    fn hope(&self) -> Hope {
        if self.ledger.pending().next().is_none() {
            return Hope::Nothing;
        }
        let bits = self.bits();
        let of = |(nth, entry)| self.hope_of(nth, entry, &bits);
        self.ledger.pending().map(of).max().unwrap_or(Hope::Nothing)
    }

    fn hope_of(&self, nth: usize, entry: &Entry, bits: &[Bits]) -> Hope {
        match self.hope_of_told(nth, entry, bits) {
            // A wait does not return for it.
            Hope::Completion if entry.is_silent() => Hope::Progress,
            hope => hope,
        }
    }

    fn hope_of_told(&self, nth: usize, entry: &Entry, bits: &[Bits]) -> Hope {
        if entry.is_to_end() {
            return Hope::Completion;
        }
        if !self.ledger.is_first(nth) {
            return Hope::Nothing;
        }
        let is_ready = |place: usize, lane: Interest| !ready(bits[place], lane).is_empty();
        match entry.task {
            Task::Timeout(limit) if !limit.passes() => Hope::Nothing,
            Task::Nop | Task::Timeout(_) | Task::Connect(_) | Task::Disk(..) => Hope::Completion,
            Task::Accept(..) if !is_ready(DOOR, Interest::READABLE) => Hope::Nothing,
            Task::Accept(..) => Hope::Completion,
            Task::Splice([from, to]) => {
                let can = is_ready(from.0, Interest::READABLE);
                let can = can && is_ready(to.0, Interest::WRITABLE);
                if can { Hope::Completion } else { Hope::Nothing }
            }
            Task::Source(verb, place, _) => match verb {
                // Nobody can say how it ends before there is a buffer.
                Verb::RecvMulti if self.props.hand.is_empty() => Hope::Nothing,
                _ if doom_of(verb, self.props.lines[place].kind).is_some() => Hope::Completion,
                Verb::ShutdownWrite | Verb::ShutdownRead | Verb::ShutdownBoth => Hope::Completion,
                _ if !entry.lane(place).is_some_and(|lane| is_ready(place, lane)) => Hope::Nothing,
                Verb::RecvExact | Verb::SendAll => Hope::Progress,
                _ => Hope::Completion,
            },
        }
    }
}
