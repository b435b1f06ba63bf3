//! `harness::targets::dcp_pieces`, as the fuzzer calls it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::targets::dcp_pieces::run(input));
