//! `harness::targets::model_directory`, as the fuzzer calls it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::targets::model_directory::run(input));
