//! The command line: arguments in, exit code out. `main` is the table of contents.

mod args;
mod cat;
mod copies;
mod digest;
mod doctor;
mod error;
mod exporter;
mod generate;
mod globals;
mod handed;
mod helper;
mod idle;
mod inspect;
mod layout;
mod log;
mod log_filter;
mod ls;
mod map;
mod materialize;
mod messages;
mod mount;
mod notify;
mod open;
mod options;
mod progress;
mod serve;
mod served;
mod status;
mod syslog;
mod table;
mod unmount;
mod verify;
mod version;
mod warmup;
mod watch;
mod wishes;

use std::env;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};
use error::{CliError, Exit};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let result = match arguments() {
        Ok(Typed::Here(arguments)) => run(&arguments.command),
        Ok(Typed::NotUnderstood(error)) => return refused(&error),
        Err(error) => Err(error),
    };
    match result {
        Ok(exit) => exit.into(),
        // Whoever reads our output has had enough of it: that is no failure.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Exit::Success.into()
        }
        Err(error) => {
            let message = error::message(&error);
            let message = format!("{message}{}", error::way_out(&message));
            if wants_json() {
                eprintln!("{}", error::json(error.exit(), &message));
            } else {
                eprintln!("ckpt-fs: {message}");
            }
            error.exit().into()
        }
    }
}

/// What was typed.
enum Typed {
    Here(Box<Arguments>),
    NotUnderstood(clap::Error),
}

/// The arguments as they were typed, or as mount(8) says the same.
fn arguments() -> Result<Typed, CliError> {
    if env::args_os().next().is_some_and(|program| helper::is_called(&program)) {
        return Ok(Typed::Here(Box::new(helper::arguments()?)));
    }
    Ok(match Arguments::try_parse() {
        Ok(arguments) => Typed::Here(Box::new(arguments)),
        Err(error) => Typed::NotUnderstood(error),
    })
}

fn run(command: &Command) -> Result<Exit, CliError> {
    match command {
        Command::Mount(args) => mount::run(args),
        Command::Unmount(args) => unmount::run(args),
        Command::Status(args) => status::run(args),
        Command::Log(args) => messages::run(args),
        Command::Warmup(args) => warmup::run(args),
        Command::Materialize(args) => materialize::run(args),
        Command::Inspect(args) if args.globals => globals::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Map(args) => map::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Cat(args) => cat::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Verify(args) if args.partial => copies::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Digest(args) => digest::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Read(args) => doctor::read(args),
        Command::Generate(args) => generate::run(args),
    }
}

/// Says why the command line is not understood, and what it may have meant; help and version are said so too.
fn refused(error: &clap::Error) -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let meant = wishes::meant(error, &words);
    if !error.use_stderr() {
        // What cannot be printed has nobody to tell.
        let _ = error.print();
        return Exit::Success.into();
    }
    if wants_json() {
        let meant = meant.map(|meant| format!("; in words of ckpt-fs: {meant}"));
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        eprintln!("{}", error::json(Exit::Usage, &format!("{first}{}", meant.unwrap_or_default())));
    } else {
        let _ = error.print();
        if let Some(meant) = meant {
            eprintln!("\n  in words of ckpt-fs: {meant}");
        }
    }
    Exit::Usage.into()
}

/// Whether whoever runs this reads JSON: asked of the words themselves, because a command line that is wrong says nothing else.
fn wants_json() -> bool {
    std::env::args_os().any(|word| word == "--json")
}
