//! `ckpt-fs ls`

use std::io::{Write, stdout};

use super::args::LsArgs;
use super::error::{CliError, Exit};
use super::table::{bytes, table};
use super::{layout, open};
use crate::inspect::{Listing, Piece};

pub(super) fn run(args: &LsArgs) -> Result<Exit, CliError> {
    let spec = layout::from_flags(&args.layout)?;
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format)?;
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
