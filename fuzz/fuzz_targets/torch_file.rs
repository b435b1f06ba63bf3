//! `harness::targets::torch_file`, as the fuzzer calls it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::targets::torch_file::run(input));
