//! Tensors that are known by their names and that no family describes: what they are, in words.
//!
//! The table is `families/undescribed.toml`, which is read where something is refused and not before. Not here: what families describe.

use serde::Deserialize;

use crate::layout::Format;

const TABLE: &str = include_str!("../../families/undescribed.toml");

/// `families/undescribed.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    tensor: Vec<KindFile>,
}

/// One kind of tensor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindFile {
    /// Starts of names; one that begins with a dot is looked for anywhere.
    names: Vec<String>,
    /// Only in files of this format.
    #[serde(default)]
    format: Option<Format>,
    /// What such a tensor is, as a sentence goes on behind "it is".
    is: String,
    /// What to do.
    #[serde(default)]
    way: Option<String>,
}

/// Of these names, which are of tensors that a family does not have, the first that is known all the same, and what it is.
#[must_use]
pub fn undescribed<'n>(
    names: impl IntoIterator<Item = &'n str>,
    format: Format,
) -> Option<(&'n str, String)> {
    // A table that is not well-formed is found by its test; here it would only cost the better message.
    let table: TableFile = toml::from_str(TABLE).ok()?;
    names.into_iter().find_map(|name| {
        let kinds = table.tensor.iter().filter(|kind| kind.format.is_none_or(|of| of == format));
        let mut kinds = kinds.filter(|kind| kind.names.iter().any(|text| fits(name, text)));
        kinds.next().map(|kind| (name, kind.words()))
    })
}

fn fits(name: &str, text: &str) -> bool {
    if text.starts_with('.') { name.contains(text) } else { name.starts_with(text) }
}

impl KindFile {
    fn words(&self) -> String {
        let way = self.way.as_ref().map(|way| format!("; {way}")).unwrap_or_default();
        format!("{}, which this version does not reshard{way}", self.is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, format: Format) -> Option<String> {
        undescribed([name], format).map(|(_, said)| said)
    }

    #[test]
    fn the_table_is_well_formed_and_each_entry_is_met() {
        let table: TableFile = toml::from_str(TABLE).unwrap();
        for (index, kind) in table.tensor.iter().enumerate() {
            for text in &kind.names {
                let name = if text.starts_with('.') { format!("a{text}b") } else { format!("{text}b") };
                let format = kind.format.unwrap_or_default();
                assert_eq!(said(&name, format), Some(kind.words()), "{text} of entry {index}");
            }
        }
    }

    #[test]
    fn what_a_family_file_could_describe_is_not_known() {
        for name in ["decoder.layers.0.mlp.extra.weight", "output_layer.weight", "layers.0.attn.qkv.weight"] {
            assert_eq!(said(name, Format::Megatron), None, "{name}");
        }
        let bare = said("layers.0.self_attn.q_proj.weight", Format::Hf).unwrap();
        assert!(bare.contains("without the head"), "{bare}");
        assert_eq!(said("model.layers.0.mlp.gate.e_score_correction_bias", Format::Hf), None);
    }

    #[test]
    fn the_first_known_one_of_several_names_is_it() {
        let names = ["a.weight", "decoder.layers.0.mlp.experts.weight1", "score.weight"];
        let (name, said) = undescribed(names, Format::Megatron).unwrap();
        assert_eq!(name, names[1]);
        assert!(said.contains("legacy grouped experts") && said.ends_with("does not reshard"), "{said}");
    }
}
