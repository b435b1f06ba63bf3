//! A mount from its making to its end.
//!
//! Not here: how a mount is had from the kernel (`device`), what it answers (`adapter`).

#![expect(
    clippy::disallowed_methods,
    reason = "nothing here is on the way of a read; what is not said has a default"
)]

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{BackgroundSession, Config, Session, SessionACL};
use rustix::process::{getgid, getuid};

use super::adapter::Adapter;
use super::attr::Owner;
use super::device;
use super::dispatch::Dispatch;
use super::error::{MountError, UnmountError};
use super::figures::Figures;
use super::handed::{self, Connection};
use super::mounts::{self, Detach, MountEntry};
use super::options::{Access, MountOptions, Resolved};
use crate::sys::process;
use crate::vfs::Tree;

/// Mounts `tree` at `point` and serves it from threads of its own. A dead mount of ours at `point` is replaced.
///
/// # Errors
/// [`MountError`]; nothing is left mounted then.
pub fn mount(tree: Arc<dyn Tree>, point: &Path, options: &MountOptions) -> Result<Mounted, MountError> {
    let options = options.resolve()?;
    let point = prepare(point, &options)?;
    let connection = device::open(&point, &options)?;
    let over = Arc::new(AtomicBool::new(false));
    let session = serve(tree, connection, &options, &over).inspect_err(|_| {
        // Without a session it could only be dead.
        let _ = mounts::take_away(&point, Detach::Lazily);
    });
    let (session, dispatch) = session.map_err(|source| failed(&point, "serve", source))?;
    let device = mounts::at(&point).ok().flatten().filter(MountEntry::is_ours).map(|entry| entry.device);
    Ok(live(session, dispatch, options, Unmounter { point, device, over, is_handed: false }))
}

/// Serves `tree` over a connection that another program has mounted. Who may use the mount, and how it is called, that program has decided.
///
/// # Errors
/// [`MountError`]
pub fn serve_handed(
    tree: Arc<dyn Tree>,
    connection: Connection,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let mut options = options.resolve()?;
    if options.base.access == Access::Owner {
        // The kernel holds everybody else off where whoever mounted did not let them in.
        options.base.access = Access::All;
    }
    let Connection { descriptor, point } = connection;
    let told = handed::device(&descriptor);
    let over = Arc::new(AtomicBool::new(false));
    let (session, dispatch) =
        serve(tree, descriptor, &options, &over).map_err(|source| failed(&point, "serve", source))?;
    let there = mounts::at(&point).ok().flatten().filter(MountEntry::is_fuse).map(|entry| entry.device);
    Ok(live(session, dispatch, options, Unmounter { point, device: told.or(there), over, is_handed: true }))
}

fn live(
    session: BackgroundSession,
    dispatch: Weak<Dispatch>,
    options: Resolved,
    unmounter: Unmounter,
) -> Mounted {
    if let Some(device) = unmounter.device {
        raise_read_ahead(device, options.base.read_ahead_kib);
    }
    let figures = Figures { point: unmounter.point.clone(), source: options.base.fsname, dispatch };
    Mounted { session: Some(session), figures, unmounter }
}

/// The absolute path of a directory that can be mounted on.
fn prepare(point: &Path, options: &Resolved) -> Result<PathBuf, MountError> {
    let missing = || MountError::NoMountPoint { path: point.to_owned() };
    let examine = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => failed(point, "examine", source),
    };
    let absolute = mounts::absolute(point).map_err(examine)?;
    if !process::has_proc() {
        return Err(MountError::NoProc);
    }
    let there = mounts::at(&absolute).map_err(examine)?.filter(MountEntry::is_ours);
    if let Some(entry) = there {
        if !mounts::is_dead(&absolute) {
            let fsname = mounts::source_name(&entry);
            return Err(MountError::AlreadyMounted { path: point.to_owned(), fsname });
        }
        options.base.warn.say(&format!("{}: replacing a mount whose process is gone", point.display()));
        mounts::take_away(&absolute, Detach::Lazily)
            .map_err(|error| failed(point, "detach the dead mount at", io::Error::other(error)))?;
    }
    match fs::metadata(&absolute).map_err(examine)?.is_dir() {
        true => Ok(absolute),
        false => Err(MountError::NotADirectory { path: point.to_owned() }),
    }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> MountError {
    MountError::Io { path: path.to_owned(), action, source }
}

fn serve(
    tree: Arc<dyn Tree>,
    connection: OwnedFd,
    options: &Resolved,
    over: &Arc<AtomicBool>,
) -> io::Result<(BackgroundSession, Weak<Dispatch>)> {
    let owner = Owner {
        uid: options.base.uid.unwrap_or_else(|| getuid().as_raw()),
        gid: options.base.gid.unwrap_or_else(|| getgid().as_raw()),
        modes: options.base.modes,
    };
    let adapter = Adapter::new(tree, owner, options.base.warn.clone(), Arc::clone(over));
    let dispatch = Arc::downgrade(adapter.dispatch());
    let access = match options.base.access {
        Access::Owner => SessionACL::Owner,
        Access::Root => SessionACL::RootAndOwner,
        Access::All => SessionACL::All,
    };
    let mut config = Config::default();
    // All threads share one connection: a clone for each measured no faster, and needs the right to open /dev/fuse.
    config.n_threads = Some(options.base.threads);
    Ok((Session::from_fd(adapter, connection, access, config)?.spawn()?, dispatch))
}

/// Mapped files are read 2.3 times as fast with 1 MiB of read-ahead as with the default 128 KiB (measured). Only root may
/// raise it; for others the default stays.
fn raise_read_ahead((major, minor): (u32, u32), kib: u32) {
    let _ = fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string());
}

/// A live mount; taken away when dropped.
#[derive(Debug)]
pub struct Mounted {
    session: Option<BackgroundSession>,
    figures: Figures,
    unmounter: Unmounter,
}

impl Mounted {
    /// Where it is.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.unmounter.point
    }

    /// Where its figures are had.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// A handle that takes it away from another thread, while this one waits.
    #[must_use]
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Blocks until it is unmounted, by whom ever.
    ///
    /// # Errors
    /// The connection to the kernel broke.
    pub fn wait(mut self) -> Result<(), MountError> {
        let session = self.session.take();
        match session.map_or(Ok(()), BackgroundSession::join) {
            // How the kernel says that the mount went away while a thread was asking for the next request.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            ended => ended.map_err(|source| failed(self.point(), "go on serving", source)),
        }
    }

    /// Takes it away and waits for the end.
    ///
    /// # Errors
    /// [`UnmountError::Busy`] and others of [`Unmounter::unmount`]; it is then still mounted and detached lazily.
    #[cfg(feature = "internals")]
    pub fn unmount(self) -> Result<(), UnmountError> {
        self.unmounter.unmount(Detach::WhenIdle)?;
        // How a connection ends that was told to end is of no interest.
        let _ = self.wait();
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.session.is_some() && self.unmounter.unmount(Detach::WhenIdle).is_err() {
            // Nobody is left to tell; a process that still uses it keeps what it has open until this one ends.
            let _ = self.unmounter.unmount(Detach::Lazily);
        }
    }
}

/// Takes one mount away, and never another that took its place.
#[derive(Debug, Clone)]
pub struct Unmounter {
    point: PathBuf,
    /// `None` where the mount was gone before it could be looked up.
    device: Option<(u32, u32)>,
    /// Set when the session ends: device numbers are given out again at once.
    over: Arc<AtomicBool>,
    /// Whether another program made the mount.
    is_handed: bool,
}

impl Unmounter {
    /// Whether another program made the mount, and has to take it away where this one cannot.
    #[must_use]
    pub fn is_handed(&self) -> bool {
        self.is_handed
    }

    /// Unmounts; does nothing where the mount is already gone.
    ///
    /// # Errors
    /// [`UnmountError::Busy`] (only with [`Detach::WhenIdle`]), or that the system refused.
    pub fn unmount(&self, detach: Detach) -> Result<(), UnmountError> {
        if self.over.load(Ordering::Acquire) {
            return Ok(());
        }
        let path = || self.point.clone();
        let table = mounts::all().map_err(|source| UnmountError::Io {
            path: path(),
            action: "look up mounts of",
            source,
        })?;
        let here: Vec<_> = table.iter().filter(|entry| entry.point == self.point).collect();
        let is_this = |entry: &&&MountEntry| entry.is_fuse() && Some(entry.device) == self.device;
        match (here.last().filter(is_this), here.iter().find(is_this)) {
            (Some(_), _) => mounts::take_away(&self.point, detach),
            (None, Some(_)) => {
                let message = "another mount lies over it; unmount that first".to_owned();
                Err(UnmountError::Helper { path: path(), message })
            }
            // It may be somewhere else, or where this process does not see it.
            (None, None) if self.is_handed => Err(UnmountError::Handed { path: path() }),
            (None, None) => Ok(()),
        }
    }
}
