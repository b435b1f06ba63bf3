//! The command line: arguments in, exit code out. `main` is the table of contents.

mod args;
mod digest;
mod error;
mod generate;
mod globals;
mod helper;
mod inspect;
mod layout;
mod log;
mod ls;
mod materialize;
mod mount;
mod notify;
mod open;
mod options;
mod progress;
mod served;
mod status;
mod table;
mod unmount;
mod verify;
mod version;
mod warmup;
mod watch;

use std::env;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};
use error::{CliError, Exit};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let result = arguments().and_then(|arguments| run(&arguments.command));
    match result {
        Ok(exit) => exit.into(),
        // Whoever reads our output has had enough of it: that is no failure.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Exit::Success.into()
        }
        Err(error) => {
            eprintln!("ckpt-fs: {}", error::message(&error));
            error.exit().into()
        }
    }
}

/// As they were typed, or as mount(8) says the same. What is wrong with their form ends the process here.
fn arguments() -> Result<Arguments, CliError> {
    if env::args_os().next().is_some_and(|program| helper::is_called(&program)) {
        return helper::arguments();
    }
    Ok(Arguments::parse())
}

fn run(command: &Command) -> Result<Exit, CliError> {
    match command {
        Command::Mount(args) => mount::run(args),
        Command::Unmount(args) => unmount::run(args),
        Command::Status(args) => status::run(args),
        Command::Warmup(args) => warmup::run(args),
        Command::Materialize(args) => materialize::run(args),
        Command::Inspect(args) if args.globals => globals::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Digest(args) => digest::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Generate(args) => generate::run(args),
    }
}
