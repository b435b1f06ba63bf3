//! `ckpt-fs doctor`

use std::io::{Write, stdout};

use super::args::DoctorArgs;
use super::error::{CliError, Exit, harmless};
use crate::doctor::{Facts, FileSystem, Mark, Report, examine, trial};
use crate::sys::limits;

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    // As a mount does it.
    limits::raise_open_files();
    let failed = |path: &std::path::Path, source| CliError::File { path: path.display().to_string(), source };
    let source = args
        .source
        .as_deref()
        .map(|path| FileSystem::of(path).map_err(|error| failed(path, error)))
        .transpose()?;
    let report = examine(&Facts::gather(args.cache_size, source, trial()));
    let text = if args.json {
        format!("{:#}\n", serde_json::to_value(&report).map_err(std::io::Error::from)?)
    } else {
        text(&report)
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(if report.mount_possible { Exit::Success } else { Exit::Fuse })
}

fn text(report: &Report) -> String {
    let width = report.findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut out = String::new();
    for finding in &report.findings {
        let mark = match finding.mark {
            Mark::Ok => "ok",
            Mark::Note => "note",
            Mark::Problem => "problem",
        };
        out.push_str(&format!("{mark:<7}  {:<width$}  {}\n", finding.check, finding.said));
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("{:width$}to do: {remedy}\n", "", width = width + 11));
        }
    }
    out.push_str(if report.mount_possible {
        "\nA mount is possible.\n"
    } else {
        "\nNo mount is possible here.\n"
    });
    harmless(&out)
}
