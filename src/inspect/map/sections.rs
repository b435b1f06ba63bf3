//! Sections of a model, in the order in which data passes through them.

use std::fmt;

use serde::{Serialize, Serializer};

/// A section of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// What stands in front of the layers.
    Embedding,
    /// A layer.
    Layer(u32),
    /// A prediction of tokens beyond the next one, with its layer.
    Prediction(u32),
    /// What stands behind the layers, the copy of the embedding there included.
    Head,
    /// Nobody knows where.
    Other,
}

impl Section {
    /// Where the parameter of this canonical name belongs; a model that no family describes has names of its own.
    pub(super) fn of_param(name: &str) -> Self {
        let numbered = |rest: &str| rest.split('.').next().and_then(|number| number.parse().ok());
        let after = |start: &str| name.strip_prefix(start).and_then(numbered);
        if let Some(number) = after("layers.") {
            return Self::Layer(number);
        }
        if let Some(number) = after("predictions.") {
            return Self::Prediction(number);
        }
        if let Some(number) = name.split('.').find_map(|part| part.parse().ok()) {
            return Self::Layer(number);
        }
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        match name {
            name if has(&["embed", "wte", "wpe"]) && !name.contains("norm") => Self::Embedding,
            _ if has(&["norm", "output", "head", "ln_f"]) => Self::Head,
            _ => Self::Other,
        }
    }
}

/// The section of a unit that a parameter of `section` is in: an embedding where the first stage is not is its copy at the head.
pub(super) fn placed(section: Section, is_first: bool) -> Section {
    if section == Section::Embedding && !is_first { Section::Head } else { section }
}

/// Whether a tensor of a view is called a head: one may hold the embedding, and be beside it.
pub(super) fn is_head(name: &str) -> bool {
    name.contains("head") || name.contains("output")
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("embedding"),
            Self::Layer(number) => write!(f, "layer {number}"),
            Self::Prediction(number) => write!(f, "prediction {number}"),
            Self::Head => f.write_str("head"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl Serialize for Section {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_a_parameter_belongs() {
        let cases = [
            ("embedding.weight", Section::Embedding),
            ("position_embedding.weight", Section::Embedding),
            ("layers.12.mlp.experts.3.up.weight", Section::Layer(12)),
            ("predictions.1.embedding_norm.weight", Section::Prediction(1)),
            ("final_norm.weight", Section::Head),
            ("output.bias", Section::Head),
            ("unused_output.weight", Section::Head),
            ("model.blocks.7.attn.weight", Section::Layer(7)),
            ("model.embed_tokens.weight", Section::Embedding),
            ("embeddings_norm.weight", Section::Head),
            ("lm_head.weight", Section::Head),
            ("layers.many.weight", Section::Other),
        ];
        for (name, section) in cases {
            assert_eq!(Section::of_param(name), section, "{name}");
        }
    }

    #[test]
    fn an_embedding_behind_the_first_stage_is_at_the_head() {
        assert_eq!(placed(Section::Embedding, true), Section::Embedding);
        assert_eq!(placed(Section::Embedding, false), Section::Head);
        assert_eq!(placed(Section::Layer(0), false), Section::Layer(0));
    }
}
