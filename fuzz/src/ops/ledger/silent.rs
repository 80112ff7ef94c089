//! Operations that end without a completion, and how it is known which have.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::flow::Mismatch;
use super::super::props::Props;
use super::super::script::Verb;
use super::entry::State;
use super::{Ended, Entry, Ledger, Task, doom_of};

impl Ledger {
    /// A success of this operation is not to be told of.
    pub fn note_silent(&mut self, nth: usize) {
        self.entries[nth].is_silent = true;
    }

    /// Returns the silent operations that are not known to have ended, in the order of submission.
    pub fn silent(&self) -> Vec<usize> {
        let is_so = |entry: &Entry| entry.is_silent && !entry.has_ended;
        self.pending().filter(|(_, entry)| is_so(entry)).map(|(nth, _)| nth).collect()
    }

    /// Returns those of a place, as it is registered now.
    pub fn silent_at(&self, place: usize) -> Vec<usize> {
        let is_here = |entry: &Entry| entry.is_pending_at(place) && !entry.is_deregistered;
        self.silent().into_iter().filter(|&nth| is_here(&self.entries[nth])).collect()
    }

    /// Returns those whose source was deregistered. The kernel may have done them before.
    pub fn silent_deregistered(&self) -> Vec<usize> {
        self.silent().into_iter().filter(|&nth| self.entries[nth].is_deregistered).collect()
    }

    /// Returns those that must have ended before an operation can complete.
    pub fn silent_before(&self, nth: usize) -> Vec<usize> {
        let Some(entry) = self.entries.get(nth) else { return Vec::new() };
        let is_before = |one: &usize| *one < nth && self.entries[*one].shares(entry);
        self.silent().into_iter().filter(is_before).collect()
    }

    /// Returns those that must have ended before a deregistration can end an operation.
    pub fn silent_before_barrier(&self, nth: usize) -> Vec<usize> {
        let is_known = nth < self.entries.len();
        let before = is_known.then(|| self.before_barrier(nth)).into_iter().flatten();
        before.filter(|&one| self.entries[one].is_silent()).collect()
    }

    /// Notes that an operation has ended without a completion.
    pub fn note_ended(&mut self, nth: usize) {
        self.entries[nth].has_ended = true;
    }

    /// Whether a silent operation may have shut down reading at this place. Its end has no place in
    /// the order of the completions.
    pub(super) fn may_be_deaf(&self, place: usize) -> bool {
        let shuts = |task| matches!(task, Task::Source(Verb::ShutdownBoth, ..));
        self.pending_at(place).any(|entry| entry.is_silent && shuts(entry.task))
    }

    /// Judges those that have ended, once all before them have been judged.
    ///
    /// # Errors
    ///
    /// If one of them can't have succeeded.
    pub fn judge_ended(&mut self, props: &mut Props) -> Result<Vec<Ended>, Failure> {
        let mut all = Vec::new();
        for nth in 0..self.entries.len() {
            let entry = &self.entries[nth];
            if entry.state == State::Pending && entry.has_ended && self.is_foremost(nth) {
                all.push(self.end_silently(nth, props)?);
            }
        }
        Ok(all)
    }

    /// Whether no operation before it is to be told of that goes the same way, of an earlier
    /// registration either.
    fn is_foremost(&self, nth: usize) -> bool {
        let ways = |entry: &Entry| entry.stands().map(|stand| stand.map(|(at, _, dir)| (at, dir)));
        let its = ways(&self.entries[nth]);
        let is_before = |one: &Entry| {
            let shares = ways(one).iter().flatten().any(|way| its.contains(&Some(*way)));
            one.state == State::Pending && shares
        };
        !self.entries[..nth].iter().any(is_before)
    }

    fn end_silently(&mut self, nth: usize, props: &mut Props) -> Result<Ended, Failure> {
        let entry = &self.entries[nth];
        judge_silent(entry, props).map_err(|failure| {
            let Entry { task, limit, .. } = entry;
            let what = format!("{}: operation {nth} ({task:?}, {limit:?})", failure.what);
            Failure { what, ..failure }
        })?;
        let ended = Ended {
            nth,
            places: entry.places(),
            is_chance: entry.limit.passes(),
            moved: entry.asked,
            results: 0,
            clients: Vec::new(),
            more: false,
            is_silent: true,
            error: None,
        };
        self.entries[nth].state = State::Done;
        Ok(ended)
    }
}

/// It has done all that it was to do.
fn judge_silent(entry: &Entry, props: &mut Props) -> Verdict {
    let mismatch = |what: Mismatch| Failure { clause: "C3", what };
    match entry.task {
        Task::Source(verb, place, _) => {
            let line = &mut props.lines[place];
            let can_succeed = doom_of(verb, line.kind).is_none();
            expect(can_succeed, "C1", || "a success that can't be".to_owned())?;
            if verb.sends() {
                line.note_sent(&entry.payload).map_err(mismatch)?;
                if !line.is_alone() {
                    line.passing.note_told(&entry.files).map_err(mismatch)?;
                }
            } else {
                line.is_mute = true;
                line.is_deaf |= verb == Verb::ShutdownBoth;
            }
        }
        Task::Connect(client) => props.door.note_connected(client, true),
        Task::Disk(work, _) => props.disk.note_written(work, &entry.payload),
        _ => expect(false, "C1", || "it can't be silent".to_owned())?,
    }
    Ok(())
}
