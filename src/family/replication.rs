//! Tensors of which only the checkpoint says whether ranks hold parts or copies: megatron-core cuts the down projections of latent attention
//! or copies them, as its layers are its own or Transformer Engine's.

use std::collections::HashMap;

use super::file::{CopiesFile, TensorFile};
use super::{Arrangement, Copies, Entry, Model};
use crate::value::Value;

impl Copies {
    /// What is to be asked about a tensor.
    pub(super) fn of(tensor: &TensorFile, args: &Value) -> Self {
        if tensor.copied_rows.is_empty() {
            return Self::Settled;
        }
        let number = |field: &String| {
            let value = args.attribute(field).and_then(Value::as_int);
            value.and_then(|n| u64::try_from(n).ok()).filter(|n| *n < 1 << 32)
        };
        let rows = tensor.copied_rows.iter().map(number).sum::<Option<u64>>();
        rows.map_or(Self::Unknown, |rows| Self::Ask { rows })
    }
}

impl Model {
    /// Answers what is open from the rows that a rank of `tp` has of each tensor, by the name of its entry, or else from `args`.
    pub fn settle(&mut self, tp: u32, args: &Value, rows: &HashMap<String, u64>) {
        let by_args = self.family.file.copies.as_ref().and_then(|file| copied_by_args(file, args));
        for entry in &mut self.entries {
            let Copies::Ask { rows: whole } = entry.copies else { continue };
            let copied = match rows.get(&*entry.name) {
                Some(local) if tp > 1 && *local == whole => Some(true),
                Some(local) if tp > 1 && local.checked_mul(u64::from(tp)) == Some(whole) => Some(false),
                // At one rank a copy and a part are the same.
                Some(local) if tp == 1 && *local == whole => by_args,
                _ => None,
            };
            entry.answer(copied);
        }
    }

    /// Answers what is open from `args` alone, for a model that no rank file is of yet.
    pub fn settle_unsaved(&mut self, args: &Value) {
        let by_args = self.family.file.copies.as_ref().and_then(|file| copied_by_args(file, args));
        let open = self.entries.iter_mut().filter(|entry| entry.copies != Copies::Settled);
        open.for_each(|entry| entry.answer(by_args));
    }
}

impl Entry {
    /// Ranks hold copies of it, or parts; `None` where that is not known.
    fn answer(&mut self, copied: Option<bool>) {
        self.copies = if copied.is_some() { Copies::Settled } else { Copies::Unknown };
        if copied == Some(true) {
            self.arrangement = Arrangement::Replicated;
        }
    }
}

fn copied_by_args(file: &CopiesFile, args: &Value) -> Option<bool> {
    args.attribute(&file.known_with)?;
    match args.attribute(&file.arg)?.as_str()? {
        value if value == file.copied => Some(true),
        value if value == file.cut => Some(false),
        _ => None,
    }
}
