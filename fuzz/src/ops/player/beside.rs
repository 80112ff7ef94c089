//! What is done beside the pairs, and between them: pool, splices, listening socket, regular file.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::disk::{Way, Work};
use super::super::ledger::Task;
use super::super::script::{
    At, DISK, DOOR, Job, Kind, Knock, Limit, amount, files, is_silent, offset,
};
use super::Player;
use super::quiet::{SLICE, WATCHDOG};
use quintpoll::{Interest, Mode, Op, Token};
use std::io::{self, ErrorKind};
use std::time::Instant;

/// Clients have tokens that nothing else has.
const CLIENTS: Token = Token(1 << 20);

impl Player {
    /// Between streams, of which one can be read and the other written.
    pub(super) fn splice(&mut self, from: usize, to: usize, most: usize, limit: Limit) -> Verdict {
        let kinds = [from, to].map(|place| self.props.lines[place].kind);
        let can = from != to
            && matches!(kinds[0], Kind::Stream | Kind::Tcp | Kind::PipeRead)
            && matches!(kinds[1], Kind::Stream | Kind::Tcp | Kind::PipeWrite);
        if !can {
            return Ok(());
        }
        let number = |place: usize| (place, self.numbers[place].unwrap_or_default());
        let task = Task::Splice([number(from), number(to)]);
        let op = Op::splice(self.keys[from], self.keys[to], most);
        let is_watched = self.watched[from].contains(Interest::READABLE)
            || self.watched[to].contains(Interest::WRITABLE);
        let refusal = if self.numbers[from].is_none() || self.numbers[to].is_none() {
            Some(ErrorKind::NotFound)
        } else if most == 0 || is_watched {
            Some(ErrorKind::InvalidInput)
        } else {
            None
        };
        let nth = self.ledger.add(task, limit, most, Vec::new());
        let op = limit.time().into_iter().fold(op, Op::deadline);
        self.hand_over(nth, op, Some(from), refusal)
    }

    pub(super) fn peer_pass(&mut self, at: At, number: u8) {
        let line = &self.props.lines[at.index()];
        let goes = line.kind.passes_files() && !line.is_alone();
        let files = self.props.parcels.make(if goes { files(number).max(1) } else { 0 });
        let count = self.line(at).peer_pass(amount(number), &files);
        self.tell_peer(at, count);
    }

    /// Something at the listening socket.
    pub(super) fn knock(&mut self, knock: Knock) -> Verdict {
        let door = &mut self.props.door;
        let who = match knock {
            Knock::Accept(limit) => return self.accept(false, limit),
            Knock::AcceptMulti(limit) => return self.accept(true, limit),
            Knock::Connect(limit) => return self.connect(limit),
            Knock::Deregister => return self.deregister(DOOR),
            Knock::Register => return self.register(DOOR),
            Knock::Come => door.come(),
            Knock::Leave(back) => door.leave(back, false),
            Knock::Reset(back) => door.leave(back, true),
        };
        self.tell(Some(DOOR), who.ok_or(ErrorKind::NotFound));
        Ok(())
    }

    fn accept(&mut self, is_multi: bool, limit: Limit) -> Verdict {
        let key = self.keys[DOOR];
        let op = if is_multi { Op::accept_multi(key) } else { Op::accept(key) };
        let op = limit.time().into_iter().fold(op, Op::deadline);
        let task = Task::Accept(is_multi, self.numbers[DOOR].unwrap_or_default());
        let nth = self.ledger.add(task, limit, 0, Vec::new());
        let refusal = self.numbers[DOOR].is_none().then_some(ErrorKind::NotFound);
        self.hand_over(nth, op, Some(DOOR), refusal)
    }

    fn connect(&mut self, limit: Limit) -> Verdict {
        let door = &mut self.props.door;
        let Some(client) = door.make_client() else { return Ok(()) };
        let (address, socket) = (door.address(), door.client(client));
        let Some(socket) = socket else { return Ok(()) };
        let poller = self.subject().poller();
        let registered = poller.register(socket, CLIENTS, Interest::empty(), Mode::Level);
        let key = registered.map_err(|error| failed(&error))?;
        let op = limit.time().into_iter().fold(Op::connect(key, address), Op::deadline);
        let nth = self.ledger.add(Task::Connect(client), limit, 0, Vec::new());
        let op = self.silenced(nth, op, client % 2 == 1);
        self.connecting.push((nth, key));
        self.hand_over(nth, op, Some(DOOR), None)
    }

    /// Those who are connected, or not, are registered no longer.
    pub(super) fn let_clients_go(&mut self) -> Verdict {
        let (left, done): (Vec<_>, Vec<_>) =
            self.connecting.drain(..).partition(|(nth, _)| self.ledger.is_pending(*nth));
        self.connecting = left;
        for (nth, key) in done {
            let told = self.subject().poller().deregister(key);
            expect(told.is_ok(), "R5", || format!("the client of {nth}: {told:?}"))?;
            // The call learns what has ended.
            self.is_all_told = false;
        }
        Ok(())
    }

    /// Something at the regular file. What depends on what is under way there waits for it.
    pub(super) fn work(&mut self, job: Job) -> Verdict {
        let (work, length, limit) = match job {
            Job::ReadAt(at, number, limit) => (Work::ReadAt(offset(at)), amount(number), limit),
            Job::WriteAt(at, number, limit) => (Work::WriteAt(offset(at)), amount(number), limit),
            Job::ReadVectored(at, number) => {
                (Work::ReadVectored(offset(at)), amount(number), Limit::Unlimited)
            }
            Job::WriteVectored(at, number) => {
                (Work::WriteVectored(offset(at)), amount(number), Limit::Unlimited)
            }
            Job::Read(number, limit) => (Work::Read, amount(number), limit),
            Job::Write(number, limit) => (Work::Write, amount(number), limit),
            Job::Sync => (Work::Sync, 0, Limit::Unlimited),
            Job::SyncData => (Work::SyncData, 0, Limit::Unlimited),
            Job::Open(way) => (Work::Open(Way::of(way)), 0, Limit::Unlimited),
        };
        let is_silent = match job {
            Job::WriteAt(_, number, _) | Job::WriteVectored(_, number) | Job::Write(number, _) => {
                is_silent(number)
            }
            _ => false,
        };
        let begun = Instant::now();
        while self.is_at_odds(work, length) {
            // A wait does not return for what ends silently.
            let is_told = self.ledger.silent_at(DISK).is_empty();
            self.wait(if is_told { WATCHDOG } else { SLICE })?;
            let is_late = begun.elapsed() > WATCHDOG;
            expect(!is_late, "C1", || format!("{:?} do not end", self.ledger.works()))?;
        }
        let payload = if work.writes() { self.props.disk.make(length) } else { Vec::new() };
        let task = Task::Disk(work, self.numbers[DISK].unwrap_or_default());
        let nth = self.ledger.add(task, limit, length, payload);
        let op = self.disk_operation(work, length, nth);
        let op = limit.time().into_iter().fold(op, Op::deadline);
        let op = self.silenced(nth, op, is_silent);
        let is_nothing = work.reads() && length == 0;
        let refusal = is_nothing.then_some(ErrorKind::InvalidInput);
        self.hand_over(nth, op, Some(DISK), refusal)
    }

    fn is_at_odds(&self, work: Work, length: usize) -> bool {
        let works = self.ledger.works();
        works
            .iter()
            .any(|&(other, its, _)| self.props.disk.is_at_odds((work, length), (other, its)))
    }

    fn disk_operation(&mut self, work: Work, length: usize, nth: usize) -> Op {
        let key = self.keys[DISK];
        match work {
            Work::Sync => return Op::fsync(key),
            Work::SyncData => return Op::fdatasync(key),
            Work::Open(way) => {
                let (path, options) = self.props.disk.opening(way);
                return Op::open(path, &options);
            }
            Work::ReadVectored(at) => {
                return Op::read_at_vectored(key, self.ledger.buffers(nth), at as u64);
            }
            Work::WriteVectored(at) => {
                let bufs = self.ledger.buffers(nth).into_iter().map(|(buf, _)| buf);
                return Op::write_at_vectored(key, bufs, at as u64);
            }
            _ => {}
        }
        let (buffer, part) = (self.ledger.buffer(nth), self.ledger.part(nth));
        match work {
            Work::ReadAt(at) => Op::read_at(key, buffer, length, at as u64),
            Work::WriteAt(at) => Op::write_at(key, buffer, part, at as u64),
            Work::Read => Op::read(key, buffer, length),
            _ => Op::write(key, buffer, part),
        }
    }
}

fn failed(error: &io::Error) -> Failure {
    Failure { clause: "P5", what: error.to_string() }
}
