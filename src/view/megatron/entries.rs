//! The entries of a rank file in their order: the source's own, or, of a source that is no pickle, those that Megatron would have saved.
//!
//! Not here: what becomes of them in another layout (`args`, `optimizer`, `verbatim`).

use std::borrow::Cow;

use crate::catalog::{EntryKind, RankFile, RunState, SavedEntry};
use crate::format::megatron::keys::{ARGS, CHECKPOINT_VERSION, ITERATION, model_entry};
use crate::value::Value;

/// The entries that the file of a view is made after.
pub(in crate::view) fn of(source: &RankFile) -> Cow<'_, [SavedEntry]> {
    if source.entries.is_empty() { Cow::Owned(fresh(&source.run)) } else { Cow::Borrowed(&source.entries) }
}

/// What a run in this state saves of what loading a model asks for.
fn fresh(run: &RunState) -> Vec<SavedEntry> {
    let entry = |key: &str, kind, value| SavedEntry { key: Value::str(key), kind, value };
    let mut entries = vec![entry(ARGS, EntryKind::Args, run.args.clone())];
    let version = run.checkpoint_version.map(Value::Float);
    entries.extend(version.map(|version| entry(CHECKPOINT_VERSION, EntryKind::Progress, version)));
    // No run takes more steps than an `int` of 64 bits counts.
    let iteration = run.iteration.and_then(|number| i64::try_from(number).ok()).map(Value::Int);
    entries.extend(iteration.map(|number| entry(ITERATION, EntryKind::Progress, number)));
    // Where the model stands among them; views put their own there.
    entries.push(entry(&model_entry(0, 1), EntryKind::Model(0), Value::None));
    entries
}
