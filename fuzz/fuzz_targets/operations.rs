//! See [`quintpoll_fuzz::operations`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| quintpoll_fuzz::operations(data));
