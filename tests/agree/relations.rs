//! What must make no difference to a backend, whatever it reports: each script is played twice to
//! the same backend, the second time with a change.

use crate::fuzz::column::Column;
use crate::fuzz::files::Place;
use crate::fuzz::play::{Outcome, Table};
use crate::fuzz::script::*;
use crate::{numbers, runner, sketch};
use proptest::prelude::*;
use quintpoll::{Backend, Mode, Readiness};
use std::fmt::Debug;

/// Cases a relation gets; each is played to all backends.
const SCRIPTS: u32 = 100;

/// What is reported at each place by one wait, in the modes that are compared.
type Reports = [Option<Readiness>; PLACES];

const LEVEL_AND_ONE_SHOT: &[Mode] = &[Mode::Level, Mode::OneShot];
const ALL: &[Mode] = &[Mode::Level, Mode::OneShot, Mode::Edge];

/// A backend, twice.
struct Pair {
    tables: [Table; 2],
    modes: &'static [Mode],
}

impl Pair {
    fn open(script: &Script, backend: Backend, modes: &'static [Mode]) -> Self {
        let open = || Table::open(script, &[Column::Backend(backend)]).settling();
        Pair { tables: [open(), open()], modes }
    }

    /// Does the step to both, and compares what they report.
    fn step(&mut self, step: Step) -> Result<(), String> {
        for table in &mut self.tables {
            right(table.step(step))?;
        }
        self.compare().map_err(|what| format!("{step:?}: {what}"))
    }

    fn compare(&mut self) -> Result<(), String> {
        let modes = self.modes;
        let [one, other] = self.tables.each_mut().map(|table| reports(table, modes));
        for place in 0..PLACES {
            if let (Some(one), Some(other)) = (one[place], other[place]) {
                let at = At::ALL[place];
                if one != other {
                    return Err(format!("{at:?} is {one:?}, with the change {other:?}"));
                }
            }
        }
        Ok(())
    }

    fn changed(&mut self) -> &mut Table {
        &mut self.tables[1]
    }
}

/// None where nothing is to be compared: in another mode, or if SIGIO may have missed something.
fn reports(table: &mut Table, modes: &[Mode]) -> Reports {
    let player = &mut table.players()[0];
    let shown = player.take_shown();
    std::array::from_fn(|place| {
        let mode = player.model().mode(place)?;
        let counts = modes.contains(&mode) && !player.is_vague(place);
        counts.then(|| shown.at(place))
    })
}

fn right(outcome: Outcome) -> Result<(), String> {
    outcome.map_err(|fault| fault.to_string())
}

/// Holds for every backend that is available.
fn check<S: Strategy>(values: &S, holds: impl Fn(&S::Value, Backend) -> Result<(), String>)
where
    S::Value: Clone + Debug,
{
    let on_all = |value: &S::Value| {
        let mut backends = Backend::ALL.into_iter().filter(|one| one.is_available().is_ok());
        backends.try_for_each(|one| holds(value, one).map_err(|what| format!("{one}: {what}")))
    };
    runner::run(SCRIPTS, values, |value| numbers::uncounted(|| on_all(value)))
        .unwrap_or_else(|(reason, value)| panic!("{reason}\n{value:?}"));
}

/// What may be put in before a step.
#[derive(Clone, Copy, Debug)]
enum Extra {
    Nothing,
    Wake,
    Visit,
}

/// A wake, or an unrelated file that is registered and deregistered, changes nothing, edges
/// included.
#[test]
fn what_does_not_concern_the_files_changes_nothing() {
    let extra = prop_oneof![6 => Just(Extra::Nothing), 1 => Just(Extra::Wake),
        1 => Just(Extra::Visit)];
    let extras = prop::collection::vec(extra, MOST_STEPS);
    check(&(sketch::scripts(), extras), |(script, extras), backend| {
        let mut pair = Pair::open(script, backend, ALL);
        let stranger = Place::open(Kind::PipeRead);
        stranger.peer_write(1);
        for (&step, extra) in script.steps.iter().zip(extras) {
            match extra {
                Extra::Nothing => {}
                Extra::Wake => right(pair.changed().step(Step::Wake))?,
                Extra::Visit => pair.changed().players()[0].visit(&stranger),
            }
            pair.step(step)?;
        }
        Ok(())
    });
}

/// What comes in two parts is as ready as what comes in one, of files that know no messages.
#[test]
fn a_write_in_two_parts_is_a_write() {
    check(&sketch::scripts(), |script, backend| {
        let mut pair = Pair::open(script, backend, LEVEL_AND_ONE_SHOT);
        // How many small ones go in depends on the number of those before.
        let is_kept = |step: &&Step| !matches!(step, Step::PeerTrickle(_));
        for &step in script.steps.iter().filter(is_kept) {
            let Step::PeerWrite(at, number) = step else {
                pair.step(step)?;
                continue;
            };
            let kind = pair.changed().files().at(at).kind();
            let is_divisible = matches!(kind, Kind::PipeRead | Kind::Stream | Kind::Counter);
            let (all, half) = (length(number), length(number) / 2);
            let parts = if is_divisible && half > 0 { vec![half, all - half] } else { vec![all] };
            let [one, other] = &mut pair.tables;
            // After a refusal the files are not the same: two small ones take more room.
            if !write(one, at, &[all]) || !write(other, at, &parts) {
                return Ok(());
            }
        }
        Ok(())
    });
}

/// The other side writes these. Gives whether all was taken.
fn write(table: &mut Table, at: At, parts: &[usize]) -> bool {
    let mut taken = 0;
    for &part in parts {
        table.told(at, |file| {
            let is_taken = file.peer_write(part);
            taken += usize::from(is_taken);
            is_taken
        });
    }
    taken == parts.len()
}

/// Room for one, again and again, is room for all.
#[test]
fn little_room_is_room_enough() {
    check(&sketch::scripts(), |script, backend| {
        let mut pair = Pair::open(script, backend, LEVEL_AND_ONE_SHOT);
        for (table, room) in pair.tables.iter_mut().zip([Room::Eight, Room::One]) {
            right(table.step(Step::SetCapacity(room)))?;
        }
        let is_kept = |step: &&Step| !matches!(step, Step::SetCapacity(_));
        script.steps.iter().filter(is_kept).try_for_each(|&step| pair.step(step))
    });
}

/// Who was registered first is not heard otherwise than who was last.
#[test]
fn the_order_of_registration_changes_the_order() {
    let dirs = || prop::sample::select(&Dirs::ALL[..]);
    let how = || prop::sample::select(&How::ALL[..]);
    let asked = prop::array::uniform5((dirs(), how()));
    let order = Just(At::ALL.to_vec()).prop_shuffle();
    check(&(sketch::scripts(), asked, order), |(script, asked, order), backend| {
        let mut pair = Pair::open(script, backend, LEVEL_AND_ONE_SHOT);
        let orders = [&At::ALL[..], order];
        for (table, order) in pair.tables.iter_mut().zip(orders) {
            for &at in order {
                let (dirs, how) = asked[at.index()];
                right(table.step(Step::Register(at, dirs, how)))?;
            }
        }
        script.steps.iter().try_for_each(|&step| pair.step(step))
    });
}
