//! Codecs on byte slices, each encoder beside its decoder. No I/O: what to read next is told to the caller.
