//! Operations and their tickets.

use super::super::super::buf::Buf;
use super::super::super::prepared::Call;
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use std::os::fd::AsFd;

impl InFlight {
    /// Returns how many there are.
    pub(in crate::sys::ring) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the tickets of all.
    pub(in crate::sys::ring) fn tickets(&self) -> Vec<u64> {
        self.0.iter().map(|(ticket, _)| ticket.to_bits()).collect()
    }
}

/// Takes an operation out, which no kernel was given.
#[allow(unsafe_code)]
fn take(in_flight: &mut InFlight, ticket: u64) -> Option<(u64, CallBox)> {
    // SAFETY: no kernel has it.
    unsafe { in_flight.remove(ticket) }
}

fn operation(number: usize) -> CallBox {
    let buf = Buf::Vec(number.to_ne_bytes().to_vec());
    let size = size_of::<usize>();
    CallBox::new(std::io::stdin().as_fd(), Call::Send, buf, (0, size), None).expect("eight bytes")
}

fn number(prepared: &CallBox) -> usize {
    usize::from_ne_bytes(prepared.to_send().try_into().expect("eight bytes"))
}

proptest! {
    #[test]
    fn each_ticket_returns_its_operation_once(
        steps in prop::collection::vec(prop::option::of(any::<Index>()), 1..100),
    ) {
        let (mut in_flight, mut tickets) = (InFlight::default(), Vec::new());
        let mut live = Vec::new();
        for step in steps {
            match step {
                Some(at) if !tickets.is_empty() => {
                    // It may be an old one.
                    let which = at.index(tickets.len());
                    let removed = take(&mut in_flight, tickets[which]);
                    let expected = live.iter().position(|&its| its == which);
                    prop_assert_eq!(removed.is_some(), expected.is_some());
                    if let Some((tag, prepared)) = removed {
                        prop_assert_eq!((tag, number(&prepared)), (which as u64 * 3, which));
                    }
                    if let Some(at) = expected {
                        live.swap_remove(at);
                    }
                }
                _ => {
                    let which = tickets.len();
                    let tag = which as u64 * 3;
                    let (ticket, prepared) = in_flight.insert(operation(which), tag, 0);
                    prop_assert_eq!(number(prepared), which);
                    prop_assert!(ticket >> 63 == 0, "that bit is the ring's");
                    prop_assert!(!tickets.contains(&ticket), "no ticket is sold twice");
                    tickets.push(ticket);
                    live.push(which);
                }
            }
            prop_assert_eq!(in_flight.len(), live.len());
        }
        live.into_iter().for_each(|which| drop(take(&mut in_flight, tickets[which])));
    }
}

#[test]
fn stale_ticket_finds_nothing() {
    let mut in_flight = InFlight::default();
    let (ticket, _) = in_flight.insert(operation(1), 7, 0);
    assert!(take(&mut in_flight, ticket + 1).is_none(), "there is no such seat");
    assert!(take(&mut in_flight, ticket | 1 << 32).is_none(), "nobody has had that one yet");
    assert!(take(&mut in_flight, ticket).is_some());
    assert!(take(&mut in_flight, ticket).is_none(), "once");
    let (next, _) = in_flight.insert(operation(2), 8, 0);
    assert_eq!(next as u32, ticket as u32, "the same seat");
    assert!(take(&mut in_flight, ticket).is_none(), "the one before is not the one now");
    assert_eq!(take(&mut in_flight, next).map(|(tag, _)| tag), Some(8));
}

#[test]
fn tickets_leave_the_topmost_bit_free() {
    let mut in_flight = InFlight(Slab::nearly_retired(&[0]));
    let (last, _) = in_flight.insert(operation(2), 8, 0);
    assert_eq!((last >> 63, last as u32), (0, 0));
    take(&mut in_flight, last).expect("it is there");
    let (next, _) = in_flight.insert(operation(3), 9, 0);
    assert_eq!(next, 1, "another entry: no ticket is used twice");
    take(&mut in_flight, next).expect("it is there");
}

/// What it points to is not moved, however many come after it.
#[test]
fn memory_stays_where_it_is() {
    let mut in_flight = InFlight::default();
    let (first, prepared) = in_flight.insert(operation(1), 0, 0);
    let memory = prepared.to_send().as_ptr();
    let others: Vec<_> = (0..1000).map(|at| in_flight.insert(operation(at), 0, 0).0).collect();
    let (_, prepared) = take(&mut in_flight, first).expect("it is there");
    assert_eq!(prepared.to_send().as_ptr(), memory);
    others.into_iter().for_each(|ticket| drop(take(&mut in_flight, ticket)));
}
