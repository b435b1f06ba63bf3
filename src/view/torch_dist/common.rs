//! `common.pt`: what all ranks of a run save alike. The source's own entries, with args of a run without parallelism.

use crate::catalog::{Encoding, EntryKind, SavedEntry};
use crate::format::megatron::dist_keys::{COMMON_FILE, CONTENT_METADATA, content_metadata};
use crate::layout::Layout;
use crate::value::Value;
use crate::view::hf::WHOLE;
use crate::view::megatron::{Contents, RankOptimizer, Verbatim, entries_of, rewrite_args};
use crate::view::{Basis, PlannedFile, ViewError};

/// Lays out the file.
pub(super) fn file(basis: &Basis, layout: &Layout) -> Result<PlannedFile, ViewError> {
    let source = basis.nearest(WHOLE.rank, layout)?;
    // Experts have an optimizer of their own where the source's have: in layouts where they would have none, such a checkpoint does not load,
    // nor does Megatron's own.
    let experts_apart = basis.has_expert_optimizer(&basis.catalog.layout);
    let optimizer = RankOptimizer::with_experts(basis, layout, WHOLE.rank, experts_apart)?;
    let mut contents = Contents::default();
    let mut entries = Vec::new();
    for SavedEntry { key, kind, value } in entries_of(source).iter() {
        let value = match kind {
            EntryKind::Args => {
                let args = args(rewrite_args(value, basis, layout, WHOLE.rank)?, basis);
                Verbatim::new(source, &mut contents).value(&args)
            }
            EntryKind::Optimizer => match &optimizer {
                Some(optimizer) => optimizer.common(&mut contents),
                None => continue,
            },
            EntryKind::Schedule if basis.optimizer.is_none() => continue,
            // Random numbers and the like are of one rank.
            EntryKind::Model(_) | EntryKind::Rng | EntryKind::RankState => continue,
            EntryKind::Other if key.as_str() == Some(CONTENT_METADATA) => continue,
            EntryKind::Schedule | EntryKind::Progress | EntryKind::Other => {
                Verbatim::new(source, &mut contents).value(value)
            }
        };
        entries.push((key.clone(), value));
    }
    let is_distributed = matches!(basis.optimizer, Some(Encoding::Distributed(_)));
    entries.push((Value::str(CONTENT_METADATA), content_metadata(is_distributed)));
    contents.lay_out(Value::Dict(entries.into()), COMMON_FILE, &source.name)
}

/// Args with what they say of checkpoints: of which kind this one is, and what is not in it, for then loaders do not ask for it. Only fields
/// that are there.
fn args(args: Value, basis: &Basis) -> Value {
    let Some(fields) = args.fields() else { return args };
    let of = |name: &str, old: &Value| match name {
        "ckpt_format" => Value::str("torch_dist"),
        "no_save_optim" if basis.optimizer.is_none() => Value::Bool(true),
        "no_save_rng" => Value::Bool(true),
        _ => old.clone(),
    };
    let fields = fields.iter().map(|(key, old)| {
        let value = match key.as_str() {
            Some(name) => of(name, old),
            None => old.clone(),
        };
        (key.clone(), value)
    });
    match args.with_fields(fields.collect()) {
        Some(args) => args,
        None => args,
    }
}
