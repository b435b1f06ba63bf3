//! The command line: arguments in, exit code out. `main` is the table of contents.

mod args;
mod cat;
mod digest;
mod error;
mod globals;
mod inspect;
mod layout;
mod log;
mod ls;
mod materialize;
mod mount;
mod open;
mod progress;
mod serve;
mod served;
mod status;
mod table;
mod unmount;
mod verify;
mod warmup;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};
use error::{CliError, Exit};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Mount(args) => mount::run(args),
        Command::Unmount(args) => unmount::run(args),
        Command::Status(args) => status::run(args),
        Command::Warmup(args) => warmup::run(args),
        Command::Materialize(args) => materialize::run(args),
        Command::Inspect(args) if args.globals => globals::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Cat(args) => cat::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Digest(args) => digest::run(args),
        Command::Watch(args) => watch::run(args),
    };
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
