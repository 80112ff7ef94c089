//! Who is aboard, and with which ticket.

use super::super::super::buf::Buf;
use super::super::super::prepared::Call;
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use std::os::fd::AsFd;

impl Flight {
    /// How many there are.
    pub(in crate::sys::ring) fn aboard(&self) -> usize {
        self.seats.iter().filter(|seat| seat.passenger.is_some()).count()
    }

    /// Their tickets.
    pub(in crate::sys::ring) fn tickets(&self) -> Vec<u64> {
        let of = |(at, seat): (usize, &Seat)| {
            seat.passenger.as_ref().map(|_| u64::from(seat.generation) << 32 | at as u64)
        };
        self.seats.iter().enumerate().filter_map(of).collect()
    }
}

fn passenger(number: usize) -> Prepared {
    let buf = Buf::Vec(number.to_ne_bytes().to_vec());
    let size = size_of::<usize>();
    Prepared::new(std::io::stdin().as_fd(), Call::Send, buf, (0, size), None).expect("eight bytes")
}

fn number(prepared: &Prepared) -> usize {
    usize::from_ne_bytes(prepared.to_send().try_into().expect("eight bytes"))
}

proptest! {
    #[test]
    fn each_ticket_lands_its_passenger_once(
        steps in prop::collection::vec(prop::option::of(any::<Index>()), 1..100),
    ) {
        let (mut flight, mut tickets) = (Flight::default(), Vec::new());
        let mut aboard = Vec::new();
        for step in steps {
            match step {
                Some(at) if !tickets.is_empty() => {
                    // It may be an old one.
                    let which = at.index(tickets.len());
                    let landed = flight.land(tickets[which]);
                    let expected = aboard.iter().position(|&its| its == which);
                    prop_assert_eq!(landed.is_some(), expected.is_some());
                    if let Some((tag, prepared)) = landed {
                        prop_assert_eq!((tag, number(&prepared)), (which as u64 * 3, which));
                    }
                    if let Some(at) = expected {
                        aboard.swap_remove(at);
                    }
                }
                _ => {
                    let which = tickets.len();
                    let (ticket, prepared) = flight.board(passenger(which), which as u64 * 3, 0);
                    prop_assert_eq!(number(prepared), which);
                    prop_assert!(ticket >> 63 == 0, "that bit is the ring's");
                    prop_assert!(!tickets.contains(&ticket), "no ticket is sold twice");
                    tickets.push(ticket);
                    aboard.push(which);
                }
            }
            prop_assert_eq!(flight.aboard(), aboard.len());
        }
        aboard.into_iter().for_each(|which| drop(flight.land(tickets[which])));
    }
}

#[test]
fn a_stale_ticket_lands_nothing() {
    let mut flight = Flight::default();
    let (ticket, _) = flight.board(passenger(1), 7, 0);
    assert!(flight.land(ticket + 1).is_none(), "there is no such seat");
    assert!(flight.land(ticket | 1 << 32).is_none(), "nobody has had that one yet");
    assert!(flight.land(ticket).is_some());
    assert!(flight.land(ticket).is_none(), "once");
    let (next, _) = flight.board(passenger(2), 8, 0);
    assert_eq!(next as u32, ticket as u32, "the same seat");
    assert!(flight.land(ticket).is_none(), "the one before is not the one now");
    assert_eq!(flight.land(next).map(|(tag, _)| tag), Some(8));
}

#[test]
fn generations_go_round_below_the_topmost_bit() {
    let mut flight = Flight::default();
    let (ticket, _) = flight.board(passenger(1), 7, 0);
    flight.land(ticket).expect("it is aboard");
    flight.seats[0].generation = GENERATIONS - 1;
    let (last, _) = flight.board(passenger(2), 8, 0);
    assert_eq!(last >> 63, 0);
    flight.land(last).expect("it is aboard");
    let (first, _) = flight.board(passenger(3), 9, 0);
    assert_eq!(first, ticket, "round");
    flight.land(first).expect("it is aboard");
}

/// What it points to is not moved, however many come after it.
#[test]
fn memory_stays_where_it_is() {
    let mut flight = Flight::default();
    let (first, prepared) = flight.board(passenger(1), 0, 0);
    let memory = prepared.to_send().as_ptr();
    let others: Vec<_> = (0..1000).map(|at| flight.board(passenger(at), 0, 0).0).collect();
    let (_, prepared) = flight.land(first).expect("it is aboard");
    assert_eq!(prepared.to_send().as_ptr(), memory);
    others.into_iter().for_each(|ticket| drop(flight.land(ticket)));
}
