//! Tests that start processes of their own, apart from those in `it`: between fork and exec a child
//! holds every file of this process, and the suite looks at what follows when files are closed.
#![allow(missing_docs)]

mod inject;
mod limits;
mod refused;
mod restart;
mod skips;
mod threads;
