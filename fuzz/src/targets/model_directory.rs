//! A directory of safetensors files with what lies beside them: a Hugging Face model, or the ranks of a view. Files are their headers; the
//! data is a hole as long as the header says.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::bounded;
use crate::bundle;
use crate::checkpoint::{Directory, check_views};
use ckpt_fs::format::safetensors::{PREFIX, SafetensorsError, decode};
use ckpt_fs::view::OptimizerChoice;

/// More bytes of data are not claimed: the file has to have them, if only as a hole.
const LARGEST: u64 = 1 << 40;

fn write_tensors(file: &File, json: &[u8]) {
    let bare = PREFIX + json.len() as u64;
    let data = match decode(json, bare) {
        Err(SafetensorsError::Length { expected, .. }) if expected < LARGEST => expected,
        _ => 0,
    };
    file.write_all_at(&(json.len() as u64).to_le_bytes(), 0).expect("written");
    file.write_all_at(json, PREFIX).expect("written");
    file.set_len(bare + data).expect("long enough");
}

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let model = Directory::plain();
    for (name, contents) in bundle::files(input, "config.json") {
        model.add(name, |file| {
            if name.extension() == Some(OsStr::new("safetensors")) {
                write_tensors(file, contents);
            } else {
                file.write_all_at(contents, 0).expect("written");
            }
        });
    }
    bounded(input.len(), 4000, 64 << 20, || {
        let (source, store) = model.open();
        if let Ok(source) = source {
            check_views(source, &store, OptimizerChoice::Keep);
        }
    });
}
