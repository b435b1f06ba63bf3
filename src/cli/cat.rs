//! `ckpt-fs cat`

use std::io::{Write, stdout};
use std::sync::atomic::Ordering;

use super::args::CatArgs;
use super::error::{CliError, Exit};
use super::idle::Unasked;
use super::{layout, open, progress};
use crate::reader::{BLOCK, CrcMode};
use crate::serve::{Files, ServeError};

pub(super) fn run(args: &CatArgs) -> Result<Exit, CliError> {
    let spec = layout::from_flags(&args.layout)?;
    let stop = progress::stop_on_signal()?;
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format, Unasked::Own)?;
    let crc = opened.crc(args.crc, CrcMode::Exact)?;
    let view = opened.conversions.view(opened.format, &opened.layout(&spec)?)?;
    let files = Files::new(view, opened.reader.clone(), crc, opened.modified());
    // A name that is wrong is said before the first byte.
    let wanted = args.files.iter().map(|path| files.file(path)).collect::<Result<Vec<_>, _>>()?;
    let mut out = stdout().lock();
    let mut block = Vec::new();
    for file in &wanted {
        let range = args.range.clone().unwrap_or(0..u64::MAX);
        let (mut at, end) = (range.start, range.end.min(file.bytes()));
        while at < end {
            if stop.load(Ordering::Relaxed) {
                return Ok(Exit::Interrupted);
            }
            files.read(file, at..end.min(at + BLOCK as u64), &mut block).map_err(ServeError::from)?;
            out.write_all(&block)?;
            at += block.len() as u64;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}
