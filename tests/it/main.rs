//! The integration tests, in one binary.
#![allow(missing_docs)]

mod conformance;
mod consumed;
mod differences;
mod floods;
mod mechanism;
mod outside;
mod rings;
