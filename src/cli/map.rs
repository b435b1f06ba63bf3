//! `ckpt-fs map`

mod output;

use std::env;
use std::ffi::OsStr;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;

use rustix::termios::tcgetwinsize;

use super::args::{Kind, MapArgs};
use super::error::{CliError, Exit};
use super::idle::Unasked;
use super::{layout, open};
use crate::inspect::Map;
use crate::picture::{self, Style};
use output::Output;

/// Characters of a line that is for no terminal.
const WIDTH: usize = 100;

pub(super) fn run(args: &MapArgs) -> Result<Exit, CliError> {
    let spec = layout::from_flags(&args.layout)?;
    // A wish that cannot be met is said before the source is read.
    let output = Output::of(args.output.as_deref());
    let kind = kind(args, &output)?;
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format, Unasked::Own)?;
    let output = output.checked(&sources(args, opened.source.places()))?;
    let layout = opened.layout(&spec)?;
    let view = opened.conversions.view(opened.format, &layout)?;
    let map = Map::of(&opened.source, &*view, opened.reader.store().as_ref())?;
    let drawn = match kind {
        None => format!("{:#}\n", serde_json::to_value(&map).map_err(std::io::Error::from)?),
        Some(Kind::Text) => picture::text(&map, style(output.is_stdout())),
        Some(Kind::Svg) => picture::svg(&map),
        Some(Kind::Html) => picture::html(&map),
    };
    output.write(drawn.as_bytes())?;
    opened.say_what_is_left_out(Some(&layout));
    Ok(Exit::Success)
}

/// What to draw; `None` for JSON.
fn kind(args: &MapArgs, output: &Output<'_>) -> Result<Option<Kind>, CliError> {
    if args.json || args.kind.is_some() {
        return Ok(args.kind);
    }
    let Output::Path(path) = output else { return Ok(Some(Kind::Text)) };
    match path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).as_deref() {
        Some("svg") => Ok(Some(Kind::Svg)),
        Some("html" | "htm") => Ok(Some(Kind::Html)),
        Some("txt") => Ok(Some(Kind::Text)),
        Some("json") => Ok(None),
        _ => {
            let path = path.display();
            Err(CliError::Usage(format!(
                "{path}: its name does not say what to draw; say --format text, html or svg, or --json"
            )))
        }
    }
}

/// Everything that is read, `places` of the source among it: nothing of it is written over.
fn sources(args: &MapArgs, mut places: Vec<PathBuf>) -> Vec<PathBuf> {
    let named = [&args.source].into_iter().chain(&args.from.template).chain(&args.from.family);
    // One that is not there was not read.
    places.extend(named.filter_map(|path| path.canonicalize().ok()));
    places
}

/// What standard output shows, if it is written to.
fn style(is_shown: bool) -> Style {
    let is_terminal = is_shown && stdout().is_terminal();
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    let stated =
        env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let of_terminal =
        || tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    Style {
        width: stated.or_else(|| of_terminal().filter(|_| is_terminal)).unwrap_or(WIDTH),
        colour: is_terminal && !is_set("NO_COLOR") && !is_dumb,
        unicode: is_unicode(),
    }
}

/// Whether the locale is one of UTF-8: the first of these that is set says so. A file is for whoever has it.
fn is_unicode() -> bool {
    let all = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = all.iter().filter_map(env::var_os).find(|value| !value.is_empty());
    let locale = locale.map(|value| value.to_string_lossy().to_ascii_lowercase());
    locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"))
}
