//! The same parameters under the names of another family: what makes a view of one format out of a source in another.
//!
//! The result is a catalog as though the source had been of the other family all along, whole and on one rank. Nothing is moved: a
//! parameter is found where the source has it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::ViewError;
use crate::catalog::{Catalog, Param, Params, RankFile, RunState};
use crate::family::{Entry, Family, LayerKind, Model, Numbers};
use crate::layout::{Experts, Layout, Stages};

/// What makes a source another family's.
pub(super) struct Renaming<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) family: &'a Arc<Family>,
    /// What its rank files say of the run. The args are those that the family reads.
    pub(super) run: RunState,
    /// Which of the family's spellings of names.
    pub(super) dialect: Option<&'a str>,
}

impl Renaming<'_> {
    /// The source's parameters as this family's.
    pub(super) fn carry_out(self) -> Result<(Catalog, Model), ViewError> {
        let title = self.family.title.clone();
        let mut model = self
            .family
            .model(&self.run.args, self.family.fresh_version().unwrap_or(0.0))
            .map_err(|source| ViewError::Model { title: title.clone(), source })?;
        model.settle_unsaved(&self.run.args);
        let layers = u32::try_from(self.catalog.layout.stages.total()).unwrap_or(u32::MAX);
        let (params, unused) = (&self.catalog.weights, &self.catalog.unused);
        let renamed = Renamed { model: &model, params, unused, title: &title, layers };
        renamed.check_all_held()?;
        renamed.check_required()?;
        let experts = model.size("experts").map(|_| Experts { ep: 1, etp: 1 });
        let stages = Stages::new(vec![layers]).unwrap_or_else(|| Stages::nearly_even(0, 1));
        let layout = Layout { experts, ..Layout::dense(1, stages) };
        let mut catalog = Catalog::new(layout, self.catalog.iteration, vec![self.rank_file()?]);
        catalog.spellings = renamed.spellings(self.dialect);
        catalog.weights = self.catalog.weights.clone();
        Ok((catalog, model))
    }

    /// What one rank with everything would have saved, but for the model.
    fn rank_file(&self) -> Result<RankFile, ViewError> {
        let first = self.catalog.ranks.first().ok_or(ViewError::NoRank)?;
        Ok(RankFile::of_run(first.object, first.name.clone(), self.run.clone()))
    }
}

/// The catalog of a source of this model, with names that belong to no dialect in place of those that do.
pub(super) fn plainly_spelled(catalog: &Arc<Catalog>, model: &Model) -> Arc<Catalog> {
    let of_dialect =
        |entry: &Entry| entry.dialect.is_some() && !entry.is_copy() && catalog.spells(&entry.name, None);
    if !model.entries().iter().any(of_dialect) {
        return catalog.clone();
    }
    let layers = u32::try_from(catalog.layout.stages.total()).unwrap_or(u32::MAX);
    let (params, unused) = (&catalog.weights, &catalog.unused);
    let named = Renamed { model, params, unused, title: &model.family().title, layers };
    Arc::new(Catalog { spellings: named.spellings(None), ..Catalog::clone(catalog) })
}

/// The source's parameters and the family that is to hold them.
struct Renamed<'a> {
    model: &'a Model,
    params: &'a Params,
    /// Those of them that nothing computes with: another family need not have a place for them.
    unused: &'a BTreeSet<Arc<str>>,
    title: &'a str,
    layers: u32,
}

impl Renamed<'_> {
    /// Names of the parameters that the family's files hold, with `{layer}` and `{expert}`.
    fn templates(&self) -> BTreeSet<&str> {
        let held = self.model.entries().iter().flat_map(|entry| &entry.holds);
        held.map(|holding| holding.param.as_str()).collect()
    }

    /// Every parameter has a place: one that has none would be lost.
    fn check_all_held(&self) -> Result<(), ViewError> {
        let templates = self.templates();
        let held: HashSet<String> = templates
            .iter()
            .flat_map(|template| {
                self.model.numbers_of(template, self.layers).map(|numbers| numbers.fill(template))
            })
            .collect();
        let lost = |param: &&Param| !held.contains(&*param.name) && !self.unused.contains(&param.name);
        match self.params.all().iter().find(lost) {
            Some(param) => {
                Err(ViewError::NoPlace { title: self.title.to_owned(), param: param.name.to_string() })
            }
            None => Ok(()),
        }
    }

    /// The family's models have nothing that the source lacks.
    fn check_required(&self) -> Result<(), ViewError> {
        for template in self.model.required_parameters() {
            let mut names =
                self.model.numbers_of(&template, self.layers).map(|numbers| numbers.fill(&template));
            if let Some(param) = names.find(|name| self.params.get(name).is_none()) {
                return Err(ViewError::Lacks { title: self.title.to_owned(), param });
            }
        }
        Ok(())
    }

    /// For each parameter the entry that is to hold it, with the layers where: in the wanted dialect where the family has it there.
    fn spellings(&self, dialect: Option<&str>) -> BTreeMap<Arc<str>, BTreeSet<u32>> {
        let mut spellings: BTreeMap<Arc<str>, BTreeSet<u32>> = BTreeMap::new();
        let templates = self.templates();
        for template in templates {
            let holding: Vec<&Entry> =
                self.model.entries().iter().filter(|entry| holds(entry, template)).collect();
            let is_layered = template.contains(crate::family::LAYER);
            let kinds =
                [LayerKind::Dense, LayerKind::Expert].map(|kind| (kind, chosen(&holding, kind, dialect)));
            let layers =
                (0..self.layers).filter(|_| is_layered).map(Some).chain((!is_layered).then_some(None));
            for layer in layers {
                let kind = layer.map_or(LayerKind::Dense, |layer| self.model.kind_of(layer));
                let entry = kinds.iter().find(|(of, _)| *of == kind).and_then(|(_, entry)| *entry);
                let there = layer.map_or_else(Numbers::default, Numbers::of_layer).fill(template);
                if let Some(entry) = entry.filter(|_| self.params.get(&there).is_some()) {
                    spellings.entry(entry.name.clone()).or_default().extend(layer);
                }
            }
        }
        spellings
    }
}

fn holds(entry: &Entry, template: &str) -> bool {
    !entry.only_if_pipelined
        && !entry.is_copy()
        && entry.fixed_part.is_none()
        && entry.holds.iter().any(|holding| holding.param == template)
}

/// Of the entries that hold a parameter, the one for layers of this kind.
fn chosen<'e>(entries: &[&'e Entry], kind: LayerKind, dialect: Option<&str>) -> Option<&'e Entry> {
    let fitting = || entries.iter().copied().filter(|entry| entry.fits(Some(kind)));
    let of = |wanted: Option<&str>| fitting().find(move |entry| entry.dialect.as_deref() == wanted);
    of(dialect).or_else(|| of(None)).or_else(|| fitting().next())
}
