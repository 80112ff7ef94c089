//! Plays one script to all backends and a guest, each with pairs of its own, and compares.

use super::super::column::Column;
use super::super::model::Failure;
use super::super::play::{as_before, blocked_signals};
use super::ledger::Ended;
use super::player::{Answer, Player, Shown};
use super::script::{Kind, PLACES, SOURCES, Script, Step};
use nix::errno::Errno;
use quintpoll::Backend;
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::ops::AddAssign;

/// What was played.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Scripts, each played in both ways.
    pub scripts: usize,
    /// Their steps.
    pub steps: usize,
    /// Who has played them.
    pub players: usize,
    /// Operations that ended, by how.
    pub ended: BTreeMap<String, usize>,
    /// How often what has ended was compared.
    pub compared: usize,
    /// How often it was not, because chance had a hand in it.
    pub left_out: usize,
    /// How often it did make a difference.
    pub differing: usize,
}

/// Somebody broke ranks, or his contract.
#[derive(Debug)]
pub struct Apart {
    way: Way,
    /// The number of the step, and the step; none at the end.
    at: Option<(usize, Step)>,
    complaints: Vec<String>,
    shown: Vec<(Column, Shown)>,
}

/// Who waits, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Everybody after each step, until all is quiet.
    Quiet,
    /// As the script says.
    Free,
}

/// How often what a network may have delayed is played.
const TRIALS: usize = 3;

/// Plays a script to all backends that are available, in both ways.
///
/// # Errors
///
/// The first step that came out wrong.
///
/// # Panics
///
/// If a poller can't be made, or does not hold its invariants.
pub fn play_together(script: &Script) -> Result<Tally, Apart> {
    let mut tally = Tally { scripts: 1, steps: script.steps.len(), ..Tally::default() };
    let trials = if is_network(script) { TRIALS } else { 1 };
    for way in [Way::Quiet, Way::Free] {
        let mut outcome = play_once(script, way);
        for _ in 1..trials {
            if outcome.is_err() {
                outcome = play_once(script, way);
            }
        }
        tally += outcome?;
    }
    Ok(tally)
}

fn is_network(script: &Script) -> bool {
    script.has_tcp_door() || script.kinds.into_iter().any(Kind::is_network)
}

/// All backends, and one of the forced columns.
fn columns(script: &Script) -> Vec<Column> {
    let guests = Column::guests();
    let guest = guests.get(usize::from(script.guest) % guests.len().max(1)).copied();
    Backend::ALL.into_iter().map(Column::Backend).chain(guest).collect()
}

fn play_once(script: &Script, way: Way) -> Result<Tally, Apart> {
    let mask = blocked_signals();
    let mut group = Group::open(script, way);
    for (nth, &step) in script.steps.iter().enumerate() {
        group.step(Some((nth, step)))?;
    }
    group.step(None)?;
    let Group { tally, players, .. } = group;
    drop(players);
    match as_before(&mask) {
        Ok(()) => Ok(tally),
        Err(failure) => {
            let complaints = vec![failure.to_string()];
            Err(Apart { way, at: None, complaints, shown: Vec::new() })
        }
    }
}

struct Group {
    way: Way,
    players: Vec<Player>,
    tally: Tally,
    /// Where chance has made a difference: it goes on making some.
    apart: [bool; SOURCES],
    /// Between which something was spliced: chance goes from one to the other.
    joined: Vec<[usize; 2]>,
}

impl Group {
    fn open(script: &Script, way: Way) -> Self {
        let player = |column: Column| match Player::new(column, script, way == Way::Quiet) {
            Ok(player) => Some(player),
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => panic!("{column}: no poller: {error}"),
        };
        let players: Vec<Player> = columns(script).into_iter().filter_map(player).collect();
        let tally = Tally { players: players.len(), ..Tally::default() };
        Group { way, players, tally, apart: [false; SOURCES], joined: Vec::new() }
    }

    /// Everybody does it before anybody waits for what comes of it, so that a time passes for all
    /// of them at once, and before anybody is judged. No step is the end.
    fn step(&mut self, at: Option<(usize, Step)>) -> Result<(), Apart> {
        let mut complaints = Vec::new();
        let mut shown = Vec::new();
        let begin = |player: &mut Player| match at {
            Some((_, step)) => player.step(step),
            None => player.cancel_all(),
        };
        let begun: Vec<_> = self.players.iter_mut().map(begin).collect();
        for (player, begun) in self.players.iter_mut().zip(begun) {
            let outcome = begun.and_then(|()| match at {
                Some(_) => player.settle(),
                None => player.end(),
            });
            let complain = |failure: Failure| format!("{}: {failure}", player.column());
            complaints.extend(outcome.err().map(complain));
            shown.push((player.column(), player.take_shown()));
        }
        for ended in shown.iter().flat_map(|(_, shown)| &shown.ended) {
            let how = match ended.error {
                None if ended.more => "more".to_owned(),
                None if ended.is_silent => "silent".to_owned(),
                None => "done".to_owned(),
                Some((_, Some(errno))) => format!("{:?}", Errno::from_raw(errno)),
                Some((kind, None)) => format!("{kind:?}"),
            };
            *self.tally.ended.entry(how).or_default() += 1;
        }
        if self.way == Way::Quiet && complaints.is_empty() {
            complaints = self.compare(at, &shown);
        }
        match complaints.is_empty() {
            true => Ok(()),
            false => Err(Apart { way: self.way, at, complaints, shown }),
        }
    }

    fn compare(&mut self, at: Option<(usize, Step)>, shown: &[(Column, Shown)]) -> Vec<String> {
        // A new pair is one that nothing has happened to.
        match at {
            Some((_, Step::Reopen(at))) => {
                self.apart[at.index()] = false;
                self.joined.retain(|places| !places.contains(&at.index()));
            }
            Some((_, Step::NewPoller)) => {}
            _ => {
                for player in &self.players {
                    let erratic = player.erratic();
                    (0..PLACES).for_each(|place| self.apart[place] |= erratic[place]);
                }
            }
        }
        if let Some((_, Step::Splice(from, to, ..))) = at {
            self.joined.push([from.index(), to.index()]);
        }
        self.spread();
        let Some(((leader, first), others)) = shown.split_first() else { return Vec::new() };
        let mut complaints = Vec::new();
        let unequal =
            |name: &Column, what: &str| format!("{name} and {leader} do not agree: {what}");
        // How a stream is cut depends on the moment at which the kernel goes on.
        for (name, shown) in others.iter().filter(|(name, _)| !name.is_prompt()) {
            // What chance has done shows in these first.
            if let Some(what) = self.differing_ends(first, shown) {
                complaints.push(unequal(name, &what));
            }
            if let Some(what) = self.differing_answers(&first.answers, &shown.answers, at.is_none())
            {
                complaints.push(unequal(name, &what));
            }
        }
        for ended in &first.ended {
            if let Some(to) = self.cut_pages(ended) {
                self.apart[to] = true;
            }
        }
        self.spread();
        for (name, shown) in others.iter().filter(|(name, _)| !name.is_prompt()) {
            for place in (0..PLACES).filter(|&place| !self.apart[place]) {
                if first.ready[place] != shown.ready[place] {
                    complaints.push(unequal(name, &format!("whether {place} is ready")));
                }
            }
        }
        complaints
    }

    /// Returns the place that this operation has spliced to from a network. How many pages of a
    /// pipe the bytes take depends on where the packets lay in memory, and so does whether there is
    /// room for more.
    fn cut_pages(&self, ended: &Ended) -> Option<usize> {
        let [Some(from), Some(to)] = ended.places else { return None };
        (ended.moved > 0 && self.players[0].is_network(from)).then_some(to)
    }

    fn spread(&mut self) {
        for _ in 0..PLACES {
            for &[one, other] in &self.joined {
                let is_apart = self.apart[one] || self.apart[other];
                (self.apart[one], self.apart[other]) = (is_apart, is_apart);
            }
        }
    }

    fn differing_answers(
        &self,
        ones: &[Answer],
        others: &[Answer],
        is_end: bool,
    ) -> Option<String> {
        // At the end whatever is pending is cancelled, and chance decides what is.
        let is_by_chance = is_end && self.apart.contains(&true);
        let counts =
            |&&(place, _): &&Answer| place.map_or(!is_by_chance, |place| !self.apart[place]);
        let (ones, others): (Vec<_>, Vec<_>) =
            (ones.iter().filter(counts).collect(), others.iter().filter(counts).collect());
        if ones.len() != others.len() {
            return Some("on how many calls there were".to_owned());
        }
        let mut pairs = ones.iter().zip(&others);
        let (one, other) = pairs.find(|(one, other)| one != other)?;
        Some(format!("{one:?}, {other:?}"))
    }

    /// The order between lanes is nobody's business, and that within them the ledger's.
    fn differing_ends(&mut self, one: &Shown, other: &Shown) -> Option<String> {
        let (ones, others) = (by_number(one), by_number(other));
        let mut is_cut = [false; SOURCES];
        for nth in ones.keys().chain(others.keys().filter(|nth| !ones.contains_key(nth))) {
            let (one, other) = (ones.get(nth), others.get(nth));
            let ended = one.or(other)?;
            if ended.places.iter().flatten().any(|&place| self.apart[place] || is_cut[place]) {
                self.tally.left_out += 1;
                continue;
            }
            self.tally.compared += 1;
            if let Some(to) = self.cut_pages(ended) {
                is_cut[to] = true;
            }
            if one == other {
                continue;
            }
            match ended.is_chance && ended.places[0].is_some() {
                true => {
                    ended.places.iter().flatten().for_each(|&place| self.apart[place] = true);
                    self.spread();
                    self.tally.differing += 1;
                }
                false => return Some(format!("{one:?}, {other:?}")),
            }
        }
        None
    }
}

/// Of those that have brought several results, the sum.
fn by_number(shown: &Shown) -> BTreeMap<usize, Ended> {
    let mut all: BTreeMap<usize, Ended> = BTreeMap::new();
    for ended in &shown.ended {
        match all.get_mut(&ended.nth) {
            None => drop(all.insert(ended.nth, ended.clone())),
            Some(sum) => {
                sum.moved += ended.moved;
                sum.results += ended.results;
                sum.clients.extend(&ended.clients);
                (sum.more, sum.error) = (ended.more, ended.error);
                sum.is_silent = ended.is_silent;
            }
        }
    }
    all
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.scripts += other.scripts;
        self.steps += other.steps;
        self.players += other.players;
        self.compared += other.compared;
        self.left_out += other.left_out;
        self.differing += other.differing;
        for (how, count) in other.ended {
            *self.ended.entry(how).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { scripts, steps, players, ended, compared, left_out, differing } = self;
        writeln!(f, "{scripts} scripts, {steps} steps, {players} players")?;
        write!(f, "ended:")?;
        ended.iter().try_for_each(|(how, count)| write!(f, " {how} {count}"))?;
        writeln!(f)?;
        write!(f, "{compared} ends were equal but for {differing}; {left_out} were left to chance")
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Quiet => "all quiet after each step",
            Way::Free => "as the script says",
        };
        match self.at {
            Some((nth, step)) => write!(f, "step {nth} ({step:?}), {way}:")?,
            None => write!(f, "at the end, {way}:")?,
        }
        self.complaints.iter().try_for_each(|complaint| write!(f, "\n  {complaint}"))?;
        let mut shown = self.shown.iter();
        shown.try_for_each(|(column, shown)| {
            write!(f, "\n  {:>8} shows {shown:?}", column.to_string())
        })
    }
}
