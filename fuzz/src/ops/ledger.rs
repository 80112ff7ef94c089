//! All operations of one player, and what may become of each.

mod entry;
mod judge;
mod silent;

use super::super::model::{Failure, Verdict, expect};
use super::disk::Work;
use super::props::Props;
use super::script::Limit;
pub use entry::{Ended, Entry, PARTS, Task, doom_of, lane_of, needs_of};
use entry::{PREFIX, State};
use judge::{broken, judge_accepted, judge_source, judge_spliced};
use quintpoll::{Buf, Completion, Interest, Op, OpId};
use std::time::Instant;

/// The operations of one player, in the order of their submission.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// A new operation that is to move so many bytes: those of the payload, if it sends.
    pub fn add(&mut self, task: Task, limit: Limit, asked: usize, payload: Vec<u8>) -> usize {
        // Some buffers have something in them that is to stay.
        let prefix = if self.entries.len() % 2 == 0 { 0 } else { PREFIX.len() };
        self.entries.push(Entry {
            task,
            limit,
            submitted: Instant::now(),
            id: None,
            state: State::Refused,
            asked,
            payload,
            files: Vec::new(),
            prefix,
            memory: (0, 0),
            is_silent: false,
            has_ended: false,
            is_cancelled: false,
            is_deregistered: false,
        });
        self.entries.len() - 1
    }

    /// The buffer for a new operation.
    pub fn buffer(&mut self, nth: usize) -> Vec<u8> {
        let entry = &mut self.entries[nth];
        let mut buffer = Vec::with_capacity(entry.prefix + entry.asked + PREFIX.len());
        buffer.extend_from_slice(&PREFIX[..entry.prefix]);
        if entry.sends() {
            buffer.extend_from_slice(&entry.payload);
            buffer.extend_from_slice(PREFIX);
        }
        entry.memory = (buffer.as_ptr().addr(), buffer.len());
        buffer
    }

    /// Several buffers for a new operation, each with the number of bytes that it is to receive.
    pub fn buffers(&self, nth: usize) -> Vec<(Buf, usize)> {
        let entry = &self.entries[nth];
        let cut = |part: usize| entry.asked * part / PARTS;
        let buffer = |part: usize| {
            let part = cut(part)..cut(part + 1);
            let length = part.len();
            (entry.payload.get(part).unwrap_or_default().to_vec().into(), length)
        };
        (0..PARTS).map(buffer).collect()
    }

    /// Files are passed with it.
    pub fn note_files(&mut self, nth: usize, files: Vec<u64>) {
        self.entries[nth].files = files;
    }

    /// Which part of its buffer is to be sent.
    pub fn part(&self, nth: usize) -> std::ops::Range<usize> {
        let Entry { prefix, asked, .. } = self.entries[nth];
        prefix..prefix + asked
    }

    /// It was accepted.
    pub fn note_accepted(&mut self, nth: usize, id: OpId) -> Verdict {
        let is_known = self.entries.iter().any(|entry| entry.id == Some(id));
        expect(!is_known, "X2", || format!("{id:?} names two operations"))?;
        (self.entries[nth].id, self.entries[nth].state) = (Some(id), State::Pending);
        Ok(())
    }

    /// It was refused, and has come back.
    pub fn note_refused(&mut self, nth: usize, op: Op) -> Verdict {
        let entry = &self.entries[nth];
        let buf = op.into_buf();
        let is_same = matches!(buf, Buf::None) || entry.has_memory(&buf);
        expect(is_same, "C1", || format!("operation {nth} comes back with another buffer"))
    }

    /// The operation of this number.
    pub fn entry(&self, nth: usize) -> &Entry {
        &self.entries[nth]
    }

    /// The operation that was submitted so many before the last, which has been accepted some time.
    pub fn find(&self, back: u8) -> Option<(usize, OpId)> {
        let known: Vec<_> = (0..self.entries.len())
            .filter_map(|nth| self.entries[nth].id.map(|id| (nth, id)))
            .collect();
        known.len().checked_sub(1)?;
        known.iter().rev().nth(usize::from(back) % known.len()).copied()
    }

    /// Whether its completion is still to come.
    pub fn is_pending(&self, nth: usize) -> bool {
        self.entries[nth].state == State::Pending
    }

    /// The poller's name for it, once it was accepted.
    pub fn id(&self, nth: usize) -> Option<OpId> {
        self.entries[nth].id
    }

    /// It was cancelled.
    pub fn note_cancelled(&mut self, nth: usize) {
        self.entries[nth].is_cancelled = true;
        self.entries[nth].is_silent = false;
    }

    /// The source at this place was deregistered.
    pub fn note_deregistered(&mut self, place: usize) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_pending_at(place)) {
            // Clients are sources of their own.
            entry.is_deregistered |= !matches!(entry.task, Task::Connect(_));
        }
    }

    /// All that are pending, with their numbers.
    pub fn pending(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.state == State::Pending)
    }

    /// Those of them that concern this place.
    pub fn pending_at(&self, place: usize) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.is_pending_at(place))
    }

    /// How many operations of the registration there are pending at this place.
    pub fn unfinished_at(&self, place: usize) -> usize {
        let has_source = |task| !matches!(task, Task::Connect(_) | Task::Disk(Work::Open(_), _));
        let here = self.pending_at(place);
        here.filter(|one| !one.is_deregistered && !one.has_ended && has_source(one.task)).count()
    }

    /// How many bytes or messages may go with the poller from this place.
    pub fn in_flight(&self, place: usize, has_messages: bool, most: usize) -> usize {
        let takes = |entry: &&Entry| match entry.task {
            Task::Splice([from, _]) => from.0 == place,
            _ => !entry.sends(),
        };
        let amount = |entry: &Entry| match has_messages {
            _ if entry.is_multi() => most,
            true => 1,
            false => entry.asked,
        };
        self.pending_at(place).filter(takes).map(amount).sum()
    }

    /// What was to be sent from this place and has not completed, in order.
    pub fn unsent(&self, place: usize) -> Vec<&[u8]> {
        let sending = self.pending_at(place).filter(|entry| entry.sends());
        sending.map(|entry| &entry.payload[..]).collect()
    }

    /// The files that were to be passed with that.
    pub fn unpassed(&self, place: usize) -> Vec<u64> {
        self.pending_at(place).flat_map(|entry| entry.files.iter().copied()).collect()
    }

    /// Whether something is to be spliced to this place, and from where.
    pub fn splices_to(&self, place: usize) -> Option<usize> {
        self.pending().find_map(|(_, entry)| match entry.task {
            Task::Splice([from, to]) if to.0 == place => Some(from.0),
            _ => None,
        })
    }

    /// Whether there is one at this place that takes buffers of the pool.
    pub fn is_multi_at(&self, place: usize) -> bool {
        self.pending_at(place).any(Entry::is_multi)
    }

    /// What is to be done with the regular file and has not completed.
    pub fn works(&self) -> Vec<(Work, usize, &[u8])> {
        let work = |(_, entry)| {
            let entry: &Entry = entry;
            match entry.task {
                Task::Disk(work, _) => Some((work, entry.asked, &entry.payload[..])),
                _ => None,
            }
        };
        self.pending().filter_map(work).collect()
    }

    /// The poller has gone, and all that were pending.
    pub fn note_dropped(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Pending) {
            entry.state = State::Dropped;
        }
    }

    /// The directions in which there may be operations at this place.
    pub fn busy(&self, place: usize) -> Interest {
        let lanes = self.pending_at(place).filter(|entry| !entry.is_deregistered);
        lanes.filter_map(|entry| entry.lane(place)).collect()
    }

    /// Whether it is the first of its orders, if it stands in any.
    pub fn is_first(&self, nth: usize) -> bool {
        let entry = &self.entries[nth];
        let is_before = |one: &Entry| one.state == State::Pending && one.shares(entry);
        !self.entries[..nth].iter().any(is_before)
    }

    /// Judges a completion.
    ///
    /// # Errors
    ///
    /// The clause that it breaks.
    pub fn complete(
        &mut self,
        mut completion: Completion,
        props: &mut Props,
    ) -> Result<Ended, Failure> {
        let nth = completion.token.0;
        let entry = self.entries.get(nth).filter(|entry| entry.id == Some(completion.id));
        if entry.is_none() {
            return broken("C1", format!("of nobody: {completion:?}"));
        }
        let ended = self.judge_completion(nth, &completion, props).map_err(|failure| {
            let Entry { task, limit, .. } = self.entries[nth];
            let who = format!("operation {nth} ({task:?}, {limit:?}): {completion:?}");
            Failure { what: format!("{}: {who}", failure.what), ..failure }
        })?;
        if let Buf::Pool(buf) = std::mem::take(&mut completion.buf) {
            props.hand.receive(buf)?;
        }
        if !completion.more {
            self.entries[nth].state = State::Done;
        }
        Ok(ended)
    }

    fn judge_completion(
        &self,
        nth: usize,
        completion: &Completion,
        props: &mut Props,
    ) -> Result<Ended, Failure> {
        let entry = &self.entries[nth];
        let is_pending = entry.state == State::Pending;
        expect(is_pending, "C1", || "not pending any more".to_owned())?;
        let may_go_on = entry.is_multi() && completion.result.is_ok();
        expect(!completion.more || may_go_on, "C8", || "goes on".to_owned())?;
        expect(entry.has_buffer(completion), "C1", || "not its buffer".to_owned())?;
        let error = completion.result.as_ref().err();
        let stop = error.and_then(|error| entry.stop(error));
        if let Some(error) = error {
            let is_asked = stop.is_none_or(|is_asked| is_asked);
            expect(is_asked, "X3", || format!("nobody has stopped it, {error:?}"))?;
        }
        // Who is stopped while he waits for his turn has done nothing.
        let is_in_turn = (stop.is_some() && completion.transferred == 0) || self.is_first(nth);
        expect(is_in_turn, "C3", || "before its turn".to_owned())?;
        let is_whole = completion.result.is_ok() && completion.transferred == entry.asked;
        let is_told_in_vain = entry.is_silent && is_whole && !entry.is_to_end();
        expect(!is_told_in_vain, "C1", || "a silent success is told of".to_owned())?;
        self.judge_barrier(nth, stop.is_some())?;
        let mut ended = Ended {
            nth,
            places: entry.places(),
            is_chance: entry.limit.passes() || entry.is_cut_by_chance(&props.lines),
            moved: completion.transferred,
            results: completion.more.into(),
            clients: Vec::new(),
            more: completion.more,
            is_silent: false,
            error: error.map(|error| (error.kind(), error.raw_os_error())),
        };
        for place in entry.places().into_iter().flatten() {
            let is_less = completion.transferred == 0 || completion.transferred < entry.asked;
            if is_less && self.may_be_deaf(place) {
                props.lines[place].is_deaf = true;
            }
        }
        ended.clients = judge(entry, completion, stop.is_some(), props)?.into_iter().collect();
        Ok(ended)
    }

    /// What a deregistration ends completes in the order of submission (R5).
    fn judge_barrier(&self, nth: usize, is_stopped: bool) -> Verdict {
        if !is_stopped {
            return Ok(());
        }
        let others = self.before_barrier(nth).count();
        expect(others == 0, "R5", || format!("{others} before it are still to come"))
    }

    /// Returns the unfinished operations that come before this one, if a deregistration ends it.
    fn before_barrier(&self, nth: usize) -> impl Iterator<Item = usize> {
        let entry = &self.entries[nth];
        let is_ended = entry.is_deregistered && !entry.is_cancelled && !entry.limit.passes();
        let source = |task| match task {
            Task::Source(_, place, number) => Some((place, number)),
            _ => None,
        };
        let own = source(entry.task).filter(|_| is_ended);
        let before = self.entries[..nth].iter().enumerate().filter(move |(_, one)| {
            own.is_some()
                && source(one.task) == own
                && one.state == State::Pending
                && !one.has_ended
        });
        before.map(|(nth, _)| nth)
    }
}

/// Judges what an operation has done. Gives whom it has accepted.
fn judge(
    entry: &Entry,
    completion: &Completion,
    is_stopped: bool,
    props: &mut Props,
) -> Result<Option<usize>, Failure> {
    let is_right = completion.result.is_ok() || is_stopped;
    match entry.task {
        Task::Source(verb, place, _) => {
            let size = props.hand.pool().size();
            judge_source(entry, verb, completion, is_stopped, &mut props.lines[place], size)?;
        }
        Task::Splice([from, to]) => {
            let places = [from.0, to.0];
            judge_spliced(entry, places, completion, is_stopped, &mut props.lines)?;
        }
        Task::Accept(is_multi, _) => {
            return judge_accepted(is_multi, completion, is_stopped, &mut props.door);
        }
        Task::Connect(client) => {
            props.door.note_connected(client, completion.result.is_ok());
            expect(is_right, "C2", || "failed".to_owned())?;
        }
        Task::Disk(work, _) => {
            let received = match &completion.buf {
                Buf::Many(bufs) => bufs.iter().map(|buf| &buf[..]).collect::<Vec<_>>().concat(),
                buf if work.reads() => buf[entry.prefix..].to_vec(),
                _ => Vec::new(),
            };
            let (payload, asked) = (&entry.payload, entry.asked);
            props.disk.judge(work, completion, payload, &received, asked, is_stopped)?;
        }
        Task::Nop => expect(is_right, "C2", || "failed".to_owned())?,
        Task::Timeout(limit) => {
            let is_early = completion.result.is_ok() && !entry.has_had(limit.time());
            expect(!is_early, "T3", || "too early".to_owned())?;
            expect(is_right, "C2", || "failed".to_owned())?;
        }
    }
    Ok(None)
}
