//! The integration tests, in one binary.
#![allow(missing_docs)]

mod conformance;
mod differences;
mod floods;
mod mechanism;
mod news;
mod outside;
mod rings;
