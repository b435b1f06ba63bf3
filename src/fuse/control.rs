//! How other processes talk to a mount: by asking for an extended attribute that no listing shows. Who may read a file may ask.
//!
//! Not here: what is answered (`vfs`).

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{Errno, ReplyXattr};
use rustix::fs::getxattr;
use serde::de::DeserializeOwned;

use super::dispatch::{Dispatch, on_thread};
use super::requests::Operation;
use crate::vfs::{Ino, Message, Status, Warmed};

const STATUS: &str = "user.ckpt-fs.status";
const WARM: &str = "user.ckpt-fs.warm";
const MESSAGES: &str = "user.ckpt-fs.messages";

/// Room for an answer: far more than any has.
const LONGEST: usize = 60 << 10;

/// Why a mount did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It is no mount of ours, or one of an older version.
    #[error("{}: not in a ckpt-fs mount, or in one that an older version serves", .0.display())]
    NotOurs(PathBuf),
    /// It failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file was asked.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It does not answer: whoever asked would wait with those who read it.
    #[error("{}: the mount does not answer: its process is stopped, or its storage hangs (ckpt-fs unmount takes it away)", .0.display())]
    Silent(PathBuf),
    /// It answered in other words.
    #[error("{}: the mount answers in a way this version does not understand; mount it again", .0.display())]
    Answer(PathBuf),
}

/// Figures of the mount that `path` is in.
///
/// # Errors
/// [`ControlError`]
pub fn status(path: &Path) -> Result<Status, ControlError> {
    ask(path, STATUS)
}

/// Makes later reads of the file at `path` fast; blocks until that is done.
///
/// # Errors
/// [`ControlError`]
pub fn warm(path: &Path) -> Result<Warmed, ControlError> {
    ask(path, WARM)
}

/// What the mount that `path` is in said lately, the oldest first.
///
/// # Errors
/// [`ControlError`]
pub fn messages(path: &Path) -> Result<Vec<Message>, ControlError> {
    ask(path, MESSAGES)
}

fn ask<T: DeserializeOwned>(path: &Path, name: &str) -> Result<T, ControlError> {
    let mut room = vec![0; LONGEST];
    let len = getxattr(path, name, &mut room).map_err(|error| match error {
        rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP => ControlError::NotOurs(path.to_owned()),
        error => ControlError::Io { path: path.to_owned(), source: error.into() },
    })?;
    let answer = room.get(..len).and_then(|answer| serde_json::from_slice(answer).ok());
    answer.ok_or_else(|| ControlError::Answer(path.to_owned()))
}

/// A question to the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Status,
    Warm,
    Messages,
}

impl Control {
    /// The question that an attribute's name is, if it is one.
    pub(super) fn named(name: &OsStr) -> Option<Self> {
        match name.to_str()? {
            STATUS => Some(Self::Status),
            WARM => Some(Self::Warm),
            MESSAGES => Some(Self::Messages),
            _ => None,
        }
    }
}

/// Answers a question about node `ino`. `size` is the room there is for it; with none only its length is asked for, and nothing is done.
pub(super) fn answer(dispatch: &Arc<Dispatch>, question: Control, ino: Ino, size: u32, reply: ReplyXattr) {
    if size == 0 {
        return reply.size(LONGEST as u32);
    }
    match question {
        // Looking at the files of a source may take a while.
        Control::Status => {
            let mine = Arc::clone(dispatch);
            on_thread("status", reply, move |reply| match mine.status() {
                Ok(status) => send(&mine, serde_json::to_vec(&status), size, reply),
                Err(errno) => refuse(&mine, errno, reply),
            });
        }
        Control::Messages => match dispatch.ask(|tree| Ok(tree.messages())) {
            Ok(messages) => send(dispatch, last(&messages, size as usize), size, reply),
            Err(errno) => refuse(dispatch, errno, reply),
        },
        Control::Warm => {
            let mine = Arc::clone(dispatch);
            on_thread("warm", reply, move |reply| {
                match mine.ask(|tree| tree.warm(ino, mine.passthrough().is_possible())) {
                    Ok(warmed) => send(&mine, serde_json::to_vec(&warmed), size, reply),
                    Err(errno) => refuse(&mine, errno, reply),
                }
            });
        }
    }
}

/// As many of the last messages as there is room for.
fn last(mut messages: &[Message], room: usize) -> serde_json::Result<Vec<u8>> {
    loop {
        let answer = serde_json::to_vec(messages)?;
        match messages.split_first() {
            Some((_, rest)) if answer.len() > room => messages = rest,
            _ => return Ok(answer),
        }
    }
}

fn send(dispatch: &Dispatch, answer: serde_json::Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match answer {
        Ok(answer) if answer.len() <= size as usize => reply.data(&answer),
        Ok(_) => refuse(dispatch, Errno::ERANGE, reply),
        Err(_) => refuse(dispatch, Errno::EIO, reply),
    }
}

fn refuse(dispatch: &Dispatch, errno: Errno, reply: ReplyXattr) {
    dispatch.requests().failed(Operation::Getxattr, errno, reply);
}
