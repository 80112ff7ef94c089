//! Submits operations of the pairs.

use super::super::super::model::Verdict;
use super::super::ledger::{Task, lane_of, needs_of};
use super::super::script::{At, Limit, Verb, amount, files, is_silent};
use super::Player;
use quintpoll::{Interest, Message, Op};
use std::io::ErrorKind;
use std::net::Shutdown;

impl Player {
    pub(super) fn submit_at(&mut self, at: At, verb: Verb, number: u8, limit: Limit) -> Verdict {
        let place = at.index();
        let line = &mut self.props.lines[place];
        let verb = verb.on(line.kind);
        let is_shutdown = matches!(verb, Verb::ShutdownRead | Verb::ShutdownBoth);
        // What comes to a TCP socket that has shut down both ways breaks the connection.
        line.is_erratic |= line.kind.is_network() && is_shutdown;
        let (asked, payload) = if verb.sends() {
            let unsent: usize = self.ledger.unsent(place).iter().map(|bytes| bytes.len()).sum();
            let length = line.portion(amount(number), line.outbound.length() + unsent);
            (length, line.outbound.make(length))
        } else if verb.receives() {
            (amount(number), Vec::new())
        } else {
            (0, Vec::new())
        };
        let task = Task::Source(verb, place, self.numbers[place].unwrap_or_default());
        let nth = self.ledger.add(task, limit, asked, payload);
        let op = self.operation(place, verb, number, nth);
        let op = limit.time().into_iter().fold(op, Op::deadline);
        // Of those without an order it could not be told which have ended.
        let may_be_silent = lane_of(verb) == Some(Interest::WRITABLE);
        let op = self.silenced(nth, op, may_be_silent && is_silent(number));
        let refusal = if self.numbers[place].is_none() {
            Some(ErrorKind::NotFound)
        } else if (verb.receives() && asked == 0) || self.watched[place].intersects(needs_of(verb))
        {
            Some(ErrorKind::InvalidInput)
        } else {
            None
        };
        self.hand_over(nth, op, Some(place), refusal)
    }

    /// An operation of which success is not to be told, if so.
    pub(super) fn silenced(&mut self, nth: usize, op: Op, is_silent: bool) -> Op {
        if !is_silent {
            return op;
        }
        self.ledger.note_silent(nth);
        op.skip_success()
    }

    fn operation(&mut self, place: usize, verb: Verb, number: u8, nth: usize) -> Op {
        let key = self.keys[place];
        let asked = self.ledger.entry(nth).asked;
        let part = self.ledger.part(nth);
        let line = &self.props.lines[place];
        match verb {
            Verb::ShutdownWrite => return Op::shutdown(key, Shutdown::Write),
            Verb::ShutdownRead => return Op::shutdown(key, Shutdown::Read),
            Verb::ShutdownBoth => return Op::shutdown(key, Shutdown::Both),
            Verb::RecvMulti => return Op::recv_multi(key, self.props.hand.pool()),
            _ => {}
        }
        let buffer = self.ledger.buffer(nth);
        match verb {
            Verb::Recv => Op::recv(key, buffer, asked),
            Verb::RecvExact => Op::recv_exact(key, buffer, asked),
            Verb::Read => Op::read(key, buffer, asked),
            Verb::RecvFrom => Op::recv_from(key, buffer, asked),
            Verb::RecvMsg => Op::recv_msg(key, buffer, asked),
            Verb::Send => Op::send(key, buffer, part),
            Verb::SendAll => Op::send_all(key, buffer, part),
            Verb::SendTo => {
                let nowhere = || std::net::SocketAddr::from(([127, 0, 0, 1], 9)).into();
                let to = line.address.clone().unwrap_or_else(nowhere);
                Op::send_to(key, buffer, part, to)
            }
            Verb::SendMsg => {
                // Without a byte of a stream they would not go anywhere.
                let goes = line.kind.passes_files() && asked > 0;
                let passed = self.props.parcels.make(if goes { files(number) } else { 0 });
                let (files, identities): (Vec<_>, _) = passed.into_iter().unzip();
                self.ledger.note_files(nth, identities);
                let message =
                    files.into_iter().fold(Message::new(), |message, file| message.file(file));
                Op::send_msg(key, buffer, part, message)
            }
            _ => Op::write(key, buffer, part),
        }
    }
}
