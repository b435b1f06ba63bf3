//! `harness::targets::layout_name`, as the fuzzer calls it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::targets::layout_name::run(input));
