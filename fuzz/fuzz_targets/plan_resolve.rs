//! `harness::targets::plan_resolve`, as the fuzzer calls it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::targets::plan_resolve::run(input));
