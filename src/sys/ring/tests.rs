//! Requests and their completions, on each way to work.
