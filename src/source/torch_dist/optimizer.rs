//! The optimizer's state, in whichever of the ways Megatron saves it.

use super::buffers::Buffers;
use super::common::Common;
use super::names::Named;
use super::{run_ranks, tensors};
use crate::catalog::RankFile;
use crate::family::Model;
use crate::format::megatron::dist_keys::Spec;
use crate::format::megatron::keys::OPTIMIZER;
use crate::source::SourceError;
use crate::source::build::Builder;
use crate::source::dcp::Opened;
use crate::source::detect::leaves_of;
use crate::source::known::Known;
use crate::source::optimizer::keyed::{self, KeyedState};
use crate::store::Store;
use crate::value::Value;

/// What the checkpoint has of it.
pub(super) struct State<'a> {
    pub(super) opened: &'a Opened,
    pub(super) named: &'a Named<'a>,
    pub(super) common: &'a Common,
    pub(super) spec: Spec,
}

impl State<'_> {
    /// Adds it to the catalog.
    pub(super) fn read(
        &self,
        builder: &mut Builder<'_>,
        known: &[Known<'_>],
        store: &dyn Store,
    ) -> Result<(), SourceError> {
        if !self.named.buffers.is_empty() || !self.named.optimizer_objects.is_empty() {
            return self.read_buffers(builder, store);
        }
        let model = builder.model;
        let mut states = Vec::new();
        let all: Vec<_> = self.named.states.iter().collect();
        let wanted: Vec<_> = all.iter().map(|state| state.weight.tensor).collect();
        let mut pieces = self.opened.pieces(&wanted, store)?.into_iter();
        for of_state in all.chunk_by(|one, other| one.state == other.state) {
            let Some(first) = of_state.first() else { continue };
            let weights: Vec<_> = of_state.iter().map(|state| &state.weight).collect();
            let of_weights = pieces.by_ref().take(weights.len()).collect();
            let tensors = tensors::of_pieces(self.opened, &weights, of_weights, model, self.spec)?;
            states.push(KeyedState { name: first.state, tensors });
        }
        let optimizer = keyed::Keyed {
            file: &self.common.name,
            saved: self.common.optimizer.as_ref(),
            storages: &self.common.storages,
            states,
        };
        keyed::read(builder, known, optimizer, store)
    }

    /// Adds what is in flat buffers. Their ranks are those of the run, so for as long as that takes the catalog is of its layout.
    fn read_buffers(&self, builder: &mut Builder<'_>, store: &dyn Store) -> Result<(), SourceError> {
        let wrong = |what: String| SourceError::Optimizer { file: self.common.name.clone(), what };
        let model = builder.model;
        let args = &self.common.args;
        let Some(layout) = run_ranks::layout(args, model, &builder.catalog.layout) else {
            let what = "its flat buffers are laid out by the pipeline stages of the run, which its args say in a way that is not known";
            return Err(wrong(what.into()));
        };
        let buffers = Buffers::of(self.opened, self.named, &self.common.name)?;
        let mut unread = buffers.owners();
        let mut files = run_ranks::files(&builder.catalog, model, &layout, args, &self.common.name);
        for file in &mut files {
            let owners = run_ranks::owners(file.rank, &layout, &buffers.owners());
            let mut optimizers = Vec::new();
            for (owner, _) in &owners {
                let groups = buffers.groups(*owner, store)?;
                let groups = groups.ok_or_else(|| wrong(format!("there are no parameter groups of {owner}")))?;
                optimizers.push(Value::Dict([(Value::str(OPTIMIZER), groups)].into()));
                unread.remove(owner);
            }
            file.run.optimizer = Some(match <[Value; 1]>::try_from(optimizers) {
                Ok([only]) => only,
                Err(several) => Value::List(several.into()),
            });
            let kept: Vec<_> = owners.iter().map(|(owner, is_first)| is_first.then_some(*owner)).collect();
            file.buffers = Some(buffers.file(&kept, &self.common.name, store)?);
        }
        if let Some(owner) = unread.first() {
            return Err(wrong(format!("it has state under {owner}, which is of no rank of {layout}, the layout that its args say")));
        }
        // A rank without experts has one optimizer where others have two.
        let most = files.iter().map(|file| file.run.optimizers().len()).max();
        let saved = files.iter().find(|file| Some(file.run.optimizers().len()) == most);
        let saved = saved.and_then(|file| file.run.optimizer.clone());
        let whole = std::mem::replace(&mut builder.catalog.layout, layout);
        let ranks = std::mem::replace(&mut builder.catalog.ranks, files.clone());
        let known = known(&files, model);
        let read = known.and_then(|known| crate::source::optimizer::read(builder, &files, &known, store));
        builder.catalog.layout = whole;
        builder.catalog.ranks = ranks;
        read?;
        for file in &mut builder.catalog.ranks {
            file.run.optimizer.clone_from(&saved);
        }
        Ok(())
    }

    /// Says that it is there and was not wanted.
    pub(super) fn leave_out(&self, builder: &mut Builder<'_>) -> Result<(), SourceError> {
        if !self.named.states.is_empty() || !self.named.buffers.is_empty() || self.common.optimizer.is_some() {
            builder.catalog.left_out.insert("optimizer state (--optimizer none)".to_owned());
        }
        Ok(())
    }
}

/// What the weights of rank files are, all of which the family has.
fn known<'a>(files: &'a [RankFile], model: &'a Model) -> Result<Vec<Known<'a>>, SourceError> {
    let mut all = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for (chunk, leaf) in leaves_of(file)? {
            if let Some((entry, numbers)) = model.find(&leaf.path) {
                all.push(Known { file: index, chunk, leaf, entry, numbers });
            }
        }
    }
    Ok(all)
}
