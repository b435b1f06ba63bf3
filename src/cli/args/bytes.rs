//! The arguments of the commands that hand out bytes of a view without mounting it.

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;

use super::{FormatArgs, LayoutArgs, SourceArgs};
use crate::reader::CrcMode;

#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    /// Files of the view, as `ls` prints them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// Only these bytes of each file, from A up to and without B: 0:100, 100:, :100
    #[arg(long, value_name = "A:B", value_parser = range)]
    pub(crate) range: Option<Range<u64>>,

    /// Checksum fields of the files [default: exact]
    #[arg(long, value_enum)]
    pub(crate) crc: Option<CrcMode>,
}

#[derive(Debug, Args)]
#[command(after_help = PROTOCOL)]
pub(crate) struct ServeArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// Checksum fields of the files [default: zero]
    #[arg(long, value_enum)]
    pub(crate) crc: Option<CrcMode>,
}

const PROTOCOL: &str = "\
A line of JSON is printed at first: format, layout, the files, the most bytes of one read (block) and when the source was last changed (modified, in nanoseconds since 1970). Then each line of standard input is a request, and each is answered in order by a line of JSON:
  {\"op\": \"file\", \"path\": P}                           {\"size\": N, \"tensors\": [{name, dtype, shape, offset, bytes}]}
  {\"op\": \"read\", \"path\": P, \"offset\": O, \"bytes\": N}  {\"bytes\": M} and then M bytes; fewer than N at the end of the file
  what cannot be answered                             {\"error\": MESSAGE, \"exit_code\": CODE}
Requests may be sent ahead of answers. The command ends when standard input does.";

/// `A:B`, where either may be left out.
fn range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || "expected bytes from A up to B, such as 0:100, 100: or :100".to_owned();
    let (start, end) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str, default| match text.trim() {
        "" => Ok(default),
        digits => digits.parse().map_err(|_| wrong()),
    };
    let range = number(start, 0)?..number(end, u64::MAX)?;
    if range.start <= range.end { Ok(range) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_may_be_open() {
        assert_eq!(range("3:10"), Ok(3..10));
        assert_eq!(range(":10"), Ok(0..10));
        assert_eq!(range("3:"), Ok(3..u64::MAX));
        assert_eq!(range(":"), Ok(0..u64::MAX));
        assert_eq!(range("4:4"), Ok(4..4));
        for bad in ["", "3", "4:3", "-1:2", "a:b", "1:2:3"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
