//! Finds out which silent operations have ended, by what the poller has counted.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::script::{DISK, PLACES};
use super::Player;
use nix::libc;
use quintpoll::{Completion, Key, Statistics};
use std::io::{self, ErrorKind};
use std::time::Duration;

/// What became of the operations of one poller.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) submitted: u64,
    pub(super) completed: u64,
    pub(super) silent: u64,
}

impl Player {
    /// What the poller counts is what was seen. Returns how many operations have ended silently and
    /// are not known yet.
    pub(super) fn unknown_silent(&mut self) -> Result<usize, Failure> {
        let statistics = self.subject().poller().statistics();
        let Statistics { submitted, completed, silent, pending, .. } = statistics;
        let counts = &self.counts;
        let is_same = (submitted, completed) == (counts.submitted, counts.completed)
            && silent >= counts.silent
            && submitted == completed + silent + pending;
        expect(is_same, "C1", || format!("{statistics:?} for {counts:?}"))?;
        Ok((silent - counts.silent) as usize)
    }

    /// Notes those silent ends that can be told for certain.
    pub(super) fn note_silent_ends(&mut self) -> Verdict {
        let unknown = self.unknown_silent()?;
        let candidates = self.ledger.silent();
        let says = || format!("{unknown} have ended silently, of {candidates:?}");
        expect(unknown <= candidates.len(), "C1", says)?;
        if unknown == candidates.len() {
            return self.end_silently(&candidates);
        }
        if unknown == 0 || !self.is_all_told {
            return Ok(());
        }
        // All others that have ended were told of: what the poller lacks are silent ones.
        for place in 0..PLACES {
            let here = self.ledger.silent_at(place);
            let count = self.ended_at(self.keys[place], self.ledger.unfinished_at(place));
            // A splice stands at two places, and is silent at none.
            self.end_silently(&here[..count.min(here.len())])?;
        }
        let disk = self.ledger.silent_at(DISK);
        // They have no order.
        let of_disk = self.ended_at(self.keys[DISK], self.ledger.unfinished_at(DISK));
        let is_whole = of_disk == disk.len();
        self.end_silently(&disk[..if is_whole { of_disk } else { 0 }])?;
        for (nth, key) in self.connecting.clone() {
            if self.ledger.silent().contains(&nth) && self.ended_at(key, 1) == 1 {
                self.end_silently(&[nth])?;
            }
        }
        // The poller has no place for them any more.
        let others = self.unknown_silent()? - if is_whole { 0 } else { of_disk };
        let deregistered = self.ledger.silent_deregistered();
        match others == deregistered.len() {
            true => self.end_silently(&deregistered),
            false => Ok(()),
        }
    }

    /// How many of so many operations of a source have ended.
    fn ended_at(&mut self, key: Key, pending: usize) -> usize {
        pending.saturating_sub(self.subject().poller().pending(key))
    }

    /// Notes all silent ends. Where it can't be told which they are, waits take what was to be
    /// delivered.
    pub(super) fn settle_silent_ends(&mut self) -> Verdict {
        self.note_silent_ends()?;
        while self.unknown_silent()? > 0 && !self.is_all_told {
            self.wait(Duration::ZERO)?;
        }
        Ok(())
    }

    /// A completion that has its turn says that the silent ones before it are over.
    pub(super) fn end_silent_before(&mut self, completion: &Completion) -> Verdict {
        let is_stop = |error: &io::Error| {
            error.raw_os_error() == Some(libc::ECANCELED) || error.kind() == ErrorKind::TimedOut
        };
        let is_stopped = completion.result.as_ref().is_err_and(is_stop);
        let nth = completion.token.0;
        if !(is_stopped && completion.transferred == 0) {
            return self.end_silently(&self.ledger.silent_before(nth));
        }
        // What waited for its turn says nothing of its queue, but a deregistration ends in order.
        match self.ledger.silent_before_barrier(nth) {
            ended if ended.is_empty() => Ok(()),
            ended => self.end_silently(&ended),
        }
    }

    /// These have ended silently.
    pub(super) fn end_silently(&mut self, all: &[usize]) -> Verdict {
        for &nth in all {
            self.ledger.note_ended(nth);
            self.counts.silent += 1;
        }
        self.judge_silent_ends()
    }

    /// Judges those before which no other is to be told of.
    pub(super) fn judge_silent_ends(&mut self) -> Verdict {
        let ended = self.ledger.judge_ended(&mut self.props)?;
        self.shown.ended.extend(ended);
        Ok(())
    }
}
