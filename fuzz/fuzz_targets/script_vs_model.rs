//! See [`quintpoll_fuzz::script_vs_model`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| quintpoll_fuzz::script_vs_model(data));
