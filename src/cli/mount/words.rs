//! What `ckpt-fs mount` says: what is shown as what and where, how to go on, and what may not be as expected.
//!
//! Not here: what is said of a checkpoint whatever is made of it (`open`), and of a run (`run`).

use std::time::Instant;

use clap::CommandFactory;

use super::super::args::{Arguments, MOUNT, MountArgs};
use super::super::error::CliError;
use super::super::open::Opened;
use super::options_of;
use crate::fuse::{MountError, Mounted};
use crate::layout::{Format, LayoutSpec};
use crate::sys::process;
use crate::vfs::Shape;

/// Options of this command are written in -o by mount(8) alone.
pub(super) fn of_its_own(error: MountError) -> CliError {
    let MountError::Option { option, .. } = &error else { return error.into() };
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let name = name.replace('_', "-");
    let command = Arguments::command();
    let mount = command.find_subcommand(MOUNT).map(clap::Command::get_arguments);
    if !mount.into_iter().flatten().any(|argument| argument.get_long() == Some(&name)) {
        return error.into();
    }
    let typed = format!("--{name} {value}");
    CliError::Usage(format!(
        "-o {option}: that is no option of mounts, but of this command: {}",
        typed.trim_end()
    ))
}

/// What views are not what somebody might expect.
pub(super) fn say_what_is_shown(opened: &Opened, shape: &Shape, spec: Option<&LayoutSpec>, is_quiet: bool) {
    if let (Some(spec), Shape::One(_, layout)) = (spec, shape) {
        opened.say_how_experts_are_cut(spec, layout);
    }
    let layout = if let Shape::One(_, layout) = shape { Some(layout) } else { None };
    opened.say_what_is_left_out(layout);
    opened.say_what_is_missed(is_quiet);
}

/// In words, for whoever runs this as a service.
pub(super) fn what_is_served(args: &MountArgs, shape: &Shape) -> String {
    let (source, point) = (args.source.display(), args.mountpoint.display());
    match shape {
        Shape::One(format, layout) => format!("{source} as {format} {layout} at {point}"),
        Shape::Many(_) => format!("{source} in every layout at {point}"),
    }
}

/// Root's mounts are root's alone, which is seldom meant; in a namespace of users its root is the user.
pub(super) fn say_who_may_use_it(args: &MountArgs, mounted: &Mounted) {
    if mounted.unmounter().is_handed() {
        return;
    }
    let is_open = args.allow_other || options_of(args).any(|option| option == "allow_other");
    if !args.quiet && !is_open && process::is_root_of_all() {
        eprintln!("ckpt-fs: note: only root can use this mount (--allow-other lets everybody in)");
    }
}

/// Where the mount is, and how it goes away.
pub(super) fn way_out(args: &MountArgs, mounted: &Mounted) -> (String, String) {
    if mounted.unmounter().is_handed() {
        let way = "the program that mounted it takes it away".to_owned();
        return (mounted.point().display().to_string(), way);
    }
    let point = args.mountpoint.display().to_string();
    let way = format!("ckpt-fs unmount {point} takes it away");
    (point, way)
}

/// What was mounted, as what and where, and how to go on.
pub(super) fn say_what_is_mounted(
    args: &MountArgs,
    mounted: &Mounted,
    shape: &Shape,
    opened: &Opened,
    began: Instant,
) {
    if args.quiet {
        return;
    }
    let (point, way_out) = way_out(args, mounted);
    let source = args.source.display();
    let took = began.elapsed().as_secs_f64();
    eprintln!("ckpt-fs: {source} is at {point} as {shape} ({took:.2} s); {way_out}");
    let Shape::Many(_) = shape else { return };
    if opened.format.is_single() {
        let of_ranks = Format::ALL.into_iter().filter(|format| !format.is_single());
        let mut first = of_ranks.filter_map(|format| {
            let layout = opened.conversions.layouts(format).ok()?.into_iter().next()?;
            Some(format!(
                ", and every layout one in it, such as {point}/{format}/{}",
                format.layout_name(&layout)
            ))
        });
        let inner = first.next().unwrap_or_default();
        eprintln!(
            "ckpt-fs: every format is a directory of its name, such as {point}/{}{inner}",
            opened.format
        );
        return;
    }
    let Ok(basis) = opened.conversions.basis(opened.format) else { return };
    let possible: Vec<_> = basis.possible_tp().iter().map(u64::to_string).collect();
    let layout = opened.format.layout_name(&basis.catalog.layout);
    eprintln!(
        "ckpt-fs: every layout is a directory of its name, such as {point}/{layout}; possible TP: {}",
        possible.join(", ")
    );
}
