//! `mount --metrics-addr`: figures of the mount over HTTP, from the process that serves it.
//!
//! Not here: the answers (`metrics`).

use log::Level;

use super::error::CliError;
use super::log::Log;
use crate::fuse::Figures;
use crate::metrics::{self, Exporter, Mount};

/// Listens at an address, before there is a mount.
pub(super) fn bind(address: &str) -> Result<Exporter, CliError> {
    metrics::bind(address).map_err(|source| CliError::MetricsAddress { address: address.to_owned(), source })
}

/// Answers there with the figures of a mount, and says where that is.
pub(super) fn answer(exporter: Exporter, figures: Figures, quiet: bool, log: &Log) -> Result<(), CliError> {
    let failed = |source| CliError::System { what: "answer for metrics", source };
    let said = format!("metrics are at http://{}/metrics", exporter.address().map_err(failed)?);
    exporter.answer(move || Some(text(&figures, figures.status()?))).map_err(failed)?;
    log.say(Level::Info, &said);
    if !quiet {
        eprintln!("ckpt-fs: {said}");
    }
    Ok(())
}

fn text(figures: &Figures, status: crate::vfs::Status) -> String {
    let (point, source) = (figures.point().display().to_string(), figures.source().to_owned());
    metrics::text(&[Mount { point, source, status: Some(status) }])
}
