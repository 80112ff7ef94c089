//! See [`quintpoll_fuzz::backends_agree`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| quintpoll_fuzz::backends_agree(data));
