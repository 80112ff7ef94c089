//! Ends: what is left when a poller has gone, and where it went.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::ledger::Task;
use super::super::line::Line;
use super::super::script::{DISK, DOOR, Kind, PLACES, SOURCES, Verb};
use super::{Player, mixed_up};
use quintpoll::{Events, Interest};

impl Player {
    /// The files are as before, and nothing has gone but what was under way.
    pub(super) fn drop_poller(&mut self) -> Verdict {
        self.subject = None;
        let room = self.events.capacity();
        self.events = Events::with_capacity(room);
        for place in 0..PLACES {
            let is_released = self.props.lines[place].is_released();
            expect(is_released, "R6", || format!("the poller has still something of {place}"))?;
            let line = &mut self.props.lines[place];
            let has_messages = line.kind.has_messages();
            let most = self.props.hand.most(has_messages);
            let in_flight = self.ledger.in_flight(place, has_messages, most);
            // Those that were done had nobody to tell.
            let ends = |verb| {
                let is_so = |task| matches!(task, Task::Source(its, ..) if its == verb);
                self.ledger.pending_at(place).any(|entry| is_so(entry.task))
            };
            line.is_mute |= ends(Verb::ShutdownWrite) || ends(Verb::ShutdownBoth);
            line.is_deaf |= ends(Verb::ShutdownRead) || ends(Verb::ShutdownBoth);
            let lost = self.settle_accounts(place, in_flight)?;
            self.tell(Some(place), Ok(lost));
        }
        self.settle_beside()?;
        self.numbers = [None; SOURCES];
        self.watched = [Interest::empty(); PLACES];
        self.ledger.note_dropped();
        Ok(())
    }

    /// Empties a pair whose operations are over, or have gone. Gives how many bytes or messages are
    /// lost, which must not be more than were under way.
    pub(super) fn settle_accounts(
        &mut self,
        place: usize,
        in_flight: usize,
    ) -> Result<usize, Failure> {
        let line = &mut self.props.lines[place];
        let pieces = line.drain();
        // A connection that is broken forgets what was under way, and so does who finds out, by an
        // operation that nobody has told of, that he is alone.
        let forgets = match line.kind {
            Kind::Tcp => line.is_erratic,
            Kind::Datagram | Kind::Named => {
                line.is_alone() && !self.ledger.unsent(place).is_empty()
            }
            _ => false,
        };
        let lost = if forgets {
            line.inbound.clear();
            0
        } else {
            line.inbound.take_end(&pieces).map_err(mixed_up)?
        };
        let is_right = lost <= in_flight;
        expect(is_right, "D1", || format!("{lost} are lost at {place}, not {in_flight}"))?;
        line.peer_drain().map_err(mixed_up)?;
        let missing = line.outbound.length();
        let is_right = line.is_erratic || missing == 0;
        expect(is_right, "C1", || format!("{missing} bytes of {place} were never sent"))?;
        let unsent = self.ledger.unsent(place);
        // What was to be spliced may have gone there.
        let is_right = line.is_early_from(&unsent) || self.ledger.splices_to(place).is_some();
        expect(is_right, "C3", || format!("{place} has sent more than was submitted"))?;
        let is_right = line.is_erratic || line.passing.is_even(&self.ledger.unpassed(place));
        expect(is_right, "C2", || format!("files of {place} are missing: {:?}", line.passing))?;
        line.outbound.clear();
        line.forget_early();
        Ok(lost)
    }

    /// Nobody who knocked is lost, and the regular file is as it should be.
    fn settle_beside(&mut self) -> Verdict {
        for source in [DOOR, DISK] {
            let is_released = self.props.is_released(source);
            expect(is_released, "R6", || format!("the poller has still something of {source}"))?;
        }
        for (nth, _) in std::mem::take(&mut self.connecting) {
            if let Task::Connect(client) = self.ledger.entry(nth).task {
                self.props.door.note_connected(client, false);
            }
        }
        let may_lose =
            self.ledger.pending_at(DOOR).any(|entry| matches!(entry.task, Task::Accept(..)));
        self.props.door.settle_accounts(may_lose)?;
        let works = self.ledger.works().into_iter().map(|(work, _, payload)| (work, payload));
        self.props.disk.settle_accounts(&works.collect::<Vec<_>>())
    }

    /// Cancels everything that is under way. Who is slow does it one by one: else it is up to
    /// chance whether what is next begins before it is cancelled too. Call [`end`](Player::end)
    /// afterwards.
    ///
    /// # Errors
    ///
    /// The clause that was broken.
    pub fn cancel_all(&mut self) -> Verdict {
        let pending: Vec<usize> = self.ledger.pending().map(|(nth, _)| nth).collect();
        for nth in pending {
            // A silent one may be known to be over by now.
            if !self.ledger.is_pending(nth) {
                continue;
            }
            let id = self.ledger.id(nth).expect("it was accepted");
            self.cancel_operation(nth, id)?;
            if self.is_slow {
                self.be_quiet()?;
            }
        }
        Ok(())
    }

    /// Waits for what was cancelled, and looks at what is left.
    ///
    /// # Errors
    ///
    /// The clause that was broken.
    pub fn end(&mut self) -> Verdict {
        self.be_quiet()?;
        let left: Vec<usize> = self.ledger.pending().map(|(nth, _)| nth).collect();
        expect(left.is_empty(), "C1", || format!("never completed: {left:?}"))?;
        self.drop_poller()?;
        self.props.hand.end()?;
        for place in 0..PLACES {
            let fresh = Line::open(Kind::PipeRead, false);
            let is_told = std::mem::replace(&mut self.props.lines[place], fresh).close();
            expect(is_told, "R6", || format!("the other side of {place} hears of no end"))?;
        }
        let left = self.props.parcels.left();
        expect(left == 0, "D2", || format!("{left} of the files that were passed are still open"))
    }
}
