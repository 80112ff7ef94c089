//! Parking.
