//! `ckpt-fs ls`

use std::io::{Write, stdout};

use super::args::LsArgs;
use super::error::{CliError, Exit};
use super::idle::Unasked;
use super::open::Opened;
use super::table::{bytes, table};
use super::{layout, open};
use crate::inspect::{Listing, Piece};
use crate::layout::Format;

pub(super) fn run(args: &LsArgs) -> Result<Exit, CliError> {
    let spec = layout::from_flags(&args.layout)?;
    let unasked = if args.layouts { Unasked::Every } else { Unasked::Own };
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format, unasked)?;
    if args.layouts {
        stdout().lock().write_all(layouts(&opened, args).as_bytes())?;
        return Ok(Exit::Success);
    }
    let layout = opened.layout(&spec)?;
    let view = opened.conversions.view(opened.format, &layout)?;
    let listing = Listing::of(&*view, opened.reader.store().as_ref(), args.tensors)?;
    let text = if args.json {
        format!("{:#}\n", serde_json::to_value(&listing).map_err(std::io::Error::from)?)
    } else {
        text(&listing)
    };
    stdout().lock().write_all(text.as_bytes())?;
    opened.say_what_is_left_out(Some(&layout));
    opened.say_what_to_run_with(&layout)?;
    Ok(Exit::Success)
}

/// The layouts of each format, or why it has none.
fn layouts(opened: &Opened, args: &LsArgs) -> String {
    let wanted = |format: &Format| args.format.format.is_none_or(|asked| asked == *format);
    let all = Format::ALL.into_iter().filter(wanted).map(|format| {
        let names = opened.conversions.layouts(format).map(|layouts| {
            let names: Vec<String> = layouts.iter().map(|layout| format.layout_name(layout)).collect();
            if format.is_single() { Vec::new() } else { names }
        });
        (format, names.map_err(|error| error.to_string()))
    });
    if args.json {
        let values = all.map(|(format, names)| {
            let (names, refused) = (names.as_ref().ok(), names.as_ref().err());
            serde_json::json!({ "format": format.name(), "layouts": names, "refused": refused })
        });
        return format!("{:#}\n", serde_json::Value::Array(values.collect()));
    }
    let rows = all.map(|(format, names)| {
        let text = match names {
            Ok(names) if names.is_empty() => "one, whatever loads it".to_owned(),
            Ok(names) => names.join(" "),
            Err(why) => format!("none: {why}"),
        };
        vec![format.name().to_owned(), text]
    });
    table(&rows.collect::<Vec<_>>(), &[])
}

fn text(listing: &Listing) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for file in &listing.files {
        rows.push(vec![file.bytes.to_string(), file.path.clone()]);
        for tensor in file.tensors.iter().flatten() {
            let shape = tensor.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            rows.push(vec![
                tensor.bytes.to_string(),
                format!("  {}  {} [{shape}]", tensor.name, tensor.dtype),
            ]);
            rows.extend(
                tensor.from.iter().map(|piece| vec![String::new(), format!("    {}", origin(piece))]),
            );
        }
    }
    rows.push(vec![
        listing.bytes.to_string(),
        format!("total, {} as {} {}", bytes(listing.bytes), listing.format, listing.layout),
    ]);
    table(&rows, &[0])
}

/// `mp_rank_00/model_optim_rng.pt @ 4096: 4 x 2 x 64 bytes, 512 and 128 apart`
fn origin(piece: &Piece) -> String {
    let Piece { file, offset, run, loops, literal, .. } = piece;
    let Some(file) = file else {
        return match literal {
            Some(bytes) => format!("constant: {run} bytes, {bytes}"),
            None => format!("new rows: {run} zero bytes"),
        };
    };
    let counts: String = loops.iter().map(|of| format!("{} x ", of.count)).collect();
    let steps: Vec<String> = loops.iter().map(|of| of.step.to_string()).collect();
    let apart = if steps.is_empty() { String::new() } else { format!(", {} apart", steps.join(" and ")) };
    format!("{file} @ {offset}: {counts}{run} bytes{apart}")
}
