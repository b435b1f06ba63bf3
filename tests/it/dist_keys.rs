//! Every tensor of megatron-core's family has a key in torch_dist, the key of no other one, and comes back from it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use ckpt_fs::format::megatron::dist_keys::{DistKey, DistName, Of, Spec};

/// Names of the family's entries as its file lists them, with the dialect of each, and whether only layers with experts have it.
fn entries() -> BTreeSet<(String, Option<String>, bool)> {
    let file: toml::Table = toml::from_str(include_str!("../../families/megatron-core.toml")).unwrap();
    let text =
        |entry: &toml::Value, field: &str| entry.get(field).and_then(|v| v.as_str()).map(ToOwned::to_owned);
    let all = file["tensor"].as_array().unwrap();
    let own = all.iter().filter(|entry| entry.get("like_layer").is_none()).map(|entry| {
        let name = text(entry, "name").unwrap();
        (name, text(entry, "dialect"), text(entry, "layers").as_deref() == Some("expert"))
    });
    let own: BTreeSet<_> = own.collect();
    let inner = all.iter().filter_map(|entry| Some((text(entry, "name")?, text(entry, "like_layer")?)));
    let like = inner.flat_map(|(name, layer)| {
        let layered = own.iter().filter_map(move |(other, dialect, expert)| {
            Some((format!("{name}{}", other.strip_prefix(&layer)?), dialect.clone(), *expert))
        });
        layered.collect::<Vec<_>>()
    });
    own.iter().cloned().chain(like).collect()
}

/// The specs of models that have an entry.
fn specs(name: &str, dialect: Option<&str>) -> impl Iterator<Item = Spec> {
    let engines = match dialect {
        None => vec![false, true],
        Some(dialect) => vec![dialect == "te"],
    };
    let grouped_experts = !name.contains("local_experts");
    let mtp_model_layer = name.contains("mtp_model_layer");
    engines.into_iter().flat_map(move |transformer_engine| {
        [false, true].map(|latent| Spec { transformer_engine, grouped_experts, latent, mtp_model_layer })
    })
}

#[test]
fn every_entry_comes_back_from_its_key() {
    let entries = entries();
    assert!(entries.len() > 200, "{} entries were found", entries.len());
    let mut keys: BTreeMap<(String, String), String> = BTreeMap::new();
    for (name, dialect, has_experts) in &entries {
        for spec in specs(name, dialect.as_deref()) {
            let Some(dist) = DistName::of_rank(name, spec) else {
                assert_eq!(name, "output_layer._extra_state");
                continue;
            };
            assert_eq!(dist.is_extra_state(), name.contains("_extra_state"), "{name}");
            assert_eq!(dist.of_experts, name.contains(".experts."), "{name}");
            let numbers = if dist.of == Of::Predictions { [Some(7), Some(0)] } else { [None, Some(12)] };
            let has_layer = |layer: &Option<u32>| layer.is_none() || dist.of != Of::Model;
            let forms = numbers.into_iter().filter(has_layer).map(|layer| (dist.key(layer), layer));
            for (key, layer) in forms {
                let parsed = DistKey::parse(&key);
                assert_eq!((&parsed.name, parsed.layer, parsed.half), (&dist, layer, None), "{key}");
                assert_eq!(&parsed.name.rank_template(spec, *has_experts), name, "{key}");
            }
            let known = keys.entry((format!("{spec:?}"), dist.key(None))).or_insert_with(|| name.clone());
            assert_eq!(known, name, "two names have one key");
        }
    }
}
