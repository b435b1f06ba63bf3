//! `ckpt-fs inspect --globals`

use std::io::{Write, stdout};

use super::args::{InspectArgs, Iterations};
use super::error::{CliError, Exit, harmless, message};
use super::table::table;
use crate::inspect::{Globals, NamedGlobal, globals};
use crate::source::pickles;
use crate::sys::limits;

/// Lists what the pickles of the source name. It informs: what is found decides nothing about the exit code.
pub(super) fn run(args: &InspectArgs) -> Result<Exit, CliError> {
    if args.layout.is_given() || args.format.is_given() || args.from.is_given() {
        return Err(CliError::Usage(
            "--globals lists what pickles name, whatever a view would be: of the other options --iteration alone has an effect".into(),
        ));
    }
    limits::raise_open_files();
    let iteration = args.from.iteration.map(Iterations::one).transpose()?;
    let found = globals(&args.source, &pickles(&args.source, iteration)?);
    let text = if args.json {
        format!("{:#}\n", serde_json::to_value(&found).map_err(std::io::Error::from)?)
    } else {
        text(&found)
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

fn text(found: &Globals) -> String {
    if found.files == 0 {
        return "no pickles: nothing in it is run by loading it (safetensors files and config.json are data)\n".into();
    }
    let unknown = found.globals.iter().filter(|global| !global.known).count();
    let verdict = match unknown {
        0 if !found.unread.is_empty() => "those that were read known to be plain data".to_owned(),
        0 => "all of them known to be plain data".to_owned(),
        count => format!("{count} of them NOT known to be plain data (marked !)"),
    };
    let count = found.globals.len();
    let mut text = format!(
        "files with pickles: {}; they name {count} classes and functions, {verdict}\n\n",
        found.files
    );
    let head = ["", "uses", "name", "files"].map(ToOwned::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(found.globals.iter().map(row)).collect();
    text.push_str(&table(&rows, &[1]));
    if !found.unread.is_empty() {
        text.push_str("\nnot read to the end; what they name beyond is not known:\n");
        text.extend(
            found.unread.iter().map(|file| format!("! {}: {}\n", harmless(&file.file), message(&file.what))),
        );
    }
    text
}

fn row(global: &NamedGlobal) -> Vec<String> {
    let mark = if global.known { "" } else { "!" };
    let more = global.file_count - global.files.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let name = message(&format!("{}.{}", global.module, global.name));
    vec![mark.to_owned(), global.uses.to_string(), name, format!("{}{more}", global.files.join(", "))]
}
