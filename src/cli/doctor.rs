//! `ckpt-fs doctor`

use std::fs;
use std::io::{self, Write, stdout};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::args::{DoctorArgs, READ, ReadArgs};
use super::error::{CliError, Exit, harmless};
use crate::doctor::{Facts, FileSystem, Mark, PATIENCE, Report, examine, trial};
use crate::sys::limits;
use crate::sys::process::Process;
use crate::sys::signals::Signals;

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    // A mount that is half made stays: an interrupt waits for the moment that this takes.
    let _signals = Signals::block().map_err(|source| CliError::System { what: "handle signals", source })?;
    // As a mount does it.
    limits::raise_open_files();
    let failed = |path: &Path, source| CliError::File { path: path.display().to_string(), source };
    let source = args
        .source
        .as_deref()
        .map(|path| FileSystem::of(path).map_err(|error| failed(path, error)))
        .transpose()?;
    let report = examine(&Facts::gather(args.cache_size, source, trial(args.source.as_deref(), &read_apart)));
    let text = if args.json {
        format!("{:#}\n", serde_json::to_value(&report).map_err(std::io::Error::from)?)
    } else {
        text(&report)
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(if report.mount_possible { Exit::Success } else { Exit::Fuse })
}

/// Reads a file as another process does, which is this program once more, and left alone where it hangs.
fn read_apart(path: &Path) -> io::Result<Vec<u8>> {
    let mut command = Command::new("/proc/self/exe");
    command.args([READ, "--"]).arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // An interrupt in the terminal is for the one that mounted.
    let mut child = command.process_group(0).spawn()?;
    if !Process::open(child.id())?.wait(PATIENCE)? {
        child.kill()?;
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 seconds"));
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Writes a file to standard output.
pub(super) fn read(args: &ReadArgs) -> Result<Exit, CliError> {
    let failed = |source| CliError::File { path: args.path.display().to_string(), source };
    stdout().lock().write_all(&fs::read(&args.path).map_err(failed)?)?;
    Ok(Exit::Success)
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
    out.push_str(match (report.mount_possible, report.tried) {
        (true, true) => "\nA mount is possible.\n",
        (true, false) => "\nNothing is in the way of a mount; none was tried.\n",
        (false, _) => "\nNo mount is possible here.\n",
    });
    harmless(&out)
}
