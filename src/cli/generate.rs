//! `ckpt-fs generate`: man pages and completions, made from the same arguments that are read.
//!
//! The directory is laid out like `/usr/share`, so that a package or a person can have it written in place.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::{Arguments, GenerateArgs};
use super::error::{CliError, Exit};
use super::helper::HelperArgs;
use super::version;

/// Where each shell looks for the completions of a program, below `share`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/ckpt-fs"),
    (Shell::Zsh, "zsh/site-functions/_ckpt-fs"),
    (Shell::Fish, "fish/vendor_completions.d/ckpt-fs.fish"),
];

const NAME: &str = "ckpt-fs";

/// For bash, clap_complete 4.6 spells the name of a program that has a dash in two ways, and then completes no command of it.
const MISSPELLED: &str = "ckpt__subcmd__fs";
const SPELLED: &str = "ckpt__fs";

pub(super) fn run(args: &GenerateArgs) -> Result<Exit, CliError> {
    let command = shown();
    for (shell, place) in COMPLETIONS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), NAME, &mut text);
        let text = String::from_utf8_lossy(&text).replace(MISSPELLED, SPELLED);
        write(&args.directory, place, text.as_bytes())?;
    }
    // A page is of a version, whatever the build.
    let mut built = command;
    built.build();
    pages(&built, "1", &args.directory)?;
    let mut helper = HelperArgs::command().long_version(version::SHORT);
    helper.build();
    pages(&helper, "8", &args.directory)?;
    Ok(Exit::Success)
}

/// The command line without what only this program itself calls: completions would offer that.
fn shown() -> Command {
    let whole = Arguments::command();
    let shown: Vec<Command> =
        whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let mut command =
        Command::new(NAME).version(version::SHORT).propagate_version(true).disable_help_subcommand(true);
    if let (Some(about), Some(exit_codes)) = (whole.get_about(), whole.get_after_help()) {
        command = command.about(about.clone()).after_help(exit_codes.clone());
    }
    command.subcommands(shown)
}

/// A page for the command, and one for each below it.
fn pages(command: &Command, section: &str, directory: &Path) -> Result<(), CliError> {
    let page = Man::new(command.clone())
        .section(section)
        .manual("ckpt-fs")
        .source(format!("ckpt-fs {}", version::SHORT));
    let mut text = Vec::new();
    page.render(&mut text)?;
    write(directory, &format!("man/man{section}/{}", page.get_filename()), &text)?;
    command.get_subcommands().try_for_each(|command| pages(command, section, directory))
}

fn write(directory: &Path, place: &str, text: &[u8]) -> Result<(), CliError> {
    let path = directory.join(place);
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
    written.map_err(|source| CliError::Destination { path: path.display().to_string(), source })
}
