//! `ckpt-fs serve`

use std::fs::File;
use std::io::stdin;
use std::os::fd::AsFd;

use super::args::ServeArgs;
use super::error::{CliError, Exit, message, serve_exit};
use super::idle::Unasked;
use super::{layout, open};
use crate::reader::CrcMode;
use crate::serve::{Files, ServeError, answer};

pub(super) fn run(args: &ServeArgs) -> Result<Exit, CliError> {
    let spec = layout::from_flags(&args.layout)?;
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format, Unasked::Own)?;
    let crc = opened.crc(args.crc, CrcMode::Zero)?;
    let layout = opened.layout(&spec)?;
    let view = opened.conversions.view(opened.format, &layout)?;
    // Before the first answer: who started this reads what was said by then.
    opened.say_how_experts_are_cut(&spec, &layout);
    opened.say_what_is_left_out(Some(&layout));
    let files = Files::new(view, opened.reader.clone(), crc, opened.modified());
    // Not `stdout()`, which looks for ends of lines in gigabytes of numbers.
    let out = std::io::stdout().as_fd().try_clone_to_owned()?;
    let exit_codes = |error: &ServeError| (serve_exit(error) as u8, message(error));
    answer(&files, stdin().lock(), File::from(out), &exit_codes)?;
    Ok(Exit::Success)
}
