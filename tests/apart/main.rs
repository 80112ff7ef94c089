//! Tests that start processes, apart from those in `it`: between fork and exec a child holds every
//! descriptor of this process, and the suite checks the effects of closing files.
#![allow(missing_docs)]

mod inject;
mod limits;
mod refused;
mod restart;
mod skips;
mod threads;
