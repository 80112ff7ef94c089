//! The files of one player, with what is known of each, and his pool.

use super::super::oracle::{Bits, look_at};
use super::disk::Disk;
use super::door::Door;
use super::hand::Hand;
use super::line::Line;
use super::parcel::Parcels;
use super::script::{DISK, DOOR, PLACES, Script};
use std::os::fd::AsFd;
use std::sync::Arc;

/// All that a player has beside his poller.
#[derive(Debug)]
pub struct Props {
    /// The pairs.
    pub lines: [Line; PLACES],
    /// The listening socket, and who knocks.
    pub door: Door,
    /// The regular file.
    pub disk: Disk,
    /// The pool, and what was taken out of it.
    pub hand: Hand,
    /// The files that are passed.
    pub parcels: Parcels,
}

impl Props {
    /// Opens all that a script plays with.
    pub fn open(script: &Script) -> Self {
        Props {
            lines: std::array::from_fn(|place| Line::open(script.kinds[place], place == 1)),
            door: Door::open(script.has_tcp_door()),
            disk: Disk::open(script.has_memory_disk()),
            hand: Hand::new(script.pool()),
            parcels: Parcels::default(),
        }
    }

    /// A handle of this source for the poller.
    pub fn handle(&self, source: usize) -> Arc<dyn AsFd + Send + Sync> {
        match source {
            DOOR => self.door.handle(),
            DISK => self.disk.handle(),
            place => self.lines[place].handle(),
        }
    }

    /// Whether nobody else has it, and it is as it was opened.
    pub fn is_released(&self, source: usize) -> bool {
        match source {
            DOOR => self.door.is_released(),
            DISK => self.disk.is_released(),
            place => self.lines[place].is_released(),
        }
    }

    /// What poll(2) says of the pairs' near ends and the listening socket.
    pub fn look(&self) -> [Bits; PLACES + 1] {
        let [a, b, c] = &self.lines;
        look_at([a.near(), b.near(), c.near(), self.door.listener()])
    }
}
