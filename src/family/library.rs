//! The families there are: those of the user first, then the built-in ones, each built when somebody first asks for it.
//!
//! A small command needs one of many built-in families, so what it costs to start must not grow with their number: a table says what each
//! is called and what its files are, and its text is read once in a process, by the first who asks. Not here: what a family says.

use std::sync::{Arc, OnceLock};

use toml::Table;

use super::{Family, FamilyError, merge};
use crate::layout::Format;

/// A family that is part of the program.
#[derive(Debug)]
struct BuiltIn {
    /// What its file says its name is. A Hugging Face family is called what its configs call their `model_type`.
    name: &'static str,
    /// What its file says its files are.
    format: Format,
    text: &'static str,
    table: OnceLock<Table>,
    family: OnceLock<Arc<Family>>,
}

impl BuiltIn {
    const fn new(name: &'static str, format: Format, text: &'static str) -> Self {
        Self { name, format, text, table: OnceLock::new(), family: OnceLock::new() }
    }

    /// What its file says together with what that extends.
    fn table(&self) -> Result<&Table, FamilyError> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = merge::whole(merge::table(self.text)?, &built_in_table)?;
        Ok(self.table.get_or_init(|| table))
    }

    #[expect(clippy::expect_used, reason = "it is part of the program, and a test builds every one")]
    fn family(&self) -> &Arc<Family> {
        self.family.get_or_init(|| {
            let family = self.table().and_then(|table| Family::of_table(table.clone()));
            Arc::new(family.expect("a built-in family is well formed"))
        })
    }
}

/// In the order in which they are tried.
static BUILT_IN: [BuiltIn; 22] = [
    BuiltIn::new("yuan-2.0", Format::Megatron, include_str!("../../families/yuan.toml")),
    BuiltIn::new("megatron-core", Format::Megatron, include_str!("../../families/megatron-core.toml")),
    BuiltIn::new("megatron-legacy", Format::Megatron, include_str!("../../families/megatron-legacy.toml")),
    BuiltIn::new("llama", Format::Hf, include_str!("../../families/hf/llama.toml")),
    BuiltIn::new("mistral", Format::Hf, include_str!("../../families/hf/mistral.toml")),
    BuiltIn::new("qwen2", Format::Hf, include_str!("../../families/hf/qwen2.toml")),
    BuiltIn::new("qwen3", Format::Hf, include_str!("../../families/hf/qwen3.toml")),
    BuiltIn::new("mixtral", Format::Hf, include_str!("../../families/hf/mixtral.toml")),
    BuiltIn::new("qwen2_moe", Format::Hf, include_str!("../../families/hf/qwen2_moe.toml")),
    BuiltIn::new("qwen3_moe", Format::Hf, include_str!("../../families/hf/qwen3_moe.toml")),
    BuiltIn::new("yuan", Format::Hf, include_str!("../../families/hf/yuan.toml")),
    BuiltIn::new(
        "torchtitan-llama",
        Format::Dcp,
        include_str!("../../families/dcp/torchtitan-llama.toml"),
    ),
    BuiltIn::new(
        "torchtitan-qwen3",
        Format::Dcp,
        include_str!("../../families/dcp/torchtitan-qwen3.toml"),
    ),
    BuiltIn::new(
        "torchtitan-qwen3_moe",
        Format::Dcp,
        include_str!("../../families/dcp/torchtitan-qwen3_moe.toml"),
    ),
    BuiltIn::new("sglang-dense", Format::Sglang, include_str!("../../families/engines/sglang.toml")),
    BuiltIn::new(
        "sglang-mixtral",
        Format::Sglang,
        include_str!("../../families/engines/sglang-mixtral.toml"),
    ),
    BuiltIn::new(
        "sglang-qwen2_moe",
        Format::Sglang,
        include_str!("../../families/engines/sglang-qwen2_moe.toml"),
    ),
    BuiltIn::new(
        "sglang-qwen3_moe",
        Format::Sglang,
        include_str!("../../families/engines/sglang-qwen3_moe.toml"),
    ),
    BuiltIn::new("vllm-dense", Format::Vllm, include_str!("../../families/engines/vllm.toml")),
    BuiltIn::new("vllm-mixtral", Format::Vllm, include_str!("../../families/engines/vllm-mixtral.toml")),
    BuiltIn::new("vllm-qwen2_moe", Format::Vllm, include_str!("../../families/engines/vllm-qwen2_moe.toml")),
    BuiltIn::new("vllm-qwen3_moe", Format::Vllm, include_str!("../../families/engines/vllm-qwen3_moe.toml")),
];

/// The whole table of the built-in family of this name, where there is one.
pub(super) fn built_in_table(name: &str) -> Option<Result<&'static Table, FamilyError>> {
    BUILT_IN.iter().find(|family| family.name == name).map(BuiltIn::table)
}

/// The families there are. A clone costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Families {
    /// Those of the user, which are tried first.
    own: Arc<[Arc<Family>]>,
}

impl Families {
    /// These, in front of the built-in ones.
    #[must_use]
    pub fn with(own: Vec<Family>) -> Self {
        Self { own: own.into_iter().map(Arc::new).collect() }
    }

    /// All of one format, in the order in which they are tried.
    pub fn of(&self, format: Format) -> impl Iterator<Item = &Arc<Family>> {
        let own = self.own.iter().filter(move |family| family.format() == format);
        own.chain(BUILT_IN.iter().filter(move |family| family.format == format).map(BuiltIn::family))
    }

    /// The one of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Family>> {
        let built_in = || BUILT_IN.iter().find(|family| family.name == name).map(BuiltIn::family);
        self.own.iter().find(|family| family.name == name).or_else(built_in)
    }

    /// The one that describes Hugging Face models of this `model_type`.
    #[must_use]
    pub fn of_model_type(&self, model_type: &str) -> Option<&Arc<Family>> {
        let is_it = |family: &&BuiltIn| family.format == Format::Hf && family.name == model_type;
        let built_in = || BUILT_IN.iter().find(is_it).map(BuiltIn::family);
        let own = self.own.iter().filter(|family| family.format() == Format::Hf);
        own.into_iter().find(|family| family.model_type() == Some(model_type)).or_else(built_in)
    }

    /// Those that describe distributed checkpoints of models of this `model_type` under other names than Hugging Face's.
    pub fn distributed(&self, model_type: &str) -> impl Iterator<Item = &Arc<Family>> {
        self.of(Format::Dcp).filter(move |family| family.model_type() == Some(model_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_family_is_what_the_table_says() {
        for built_in in &BUILT_IN {
            let family = built_in.family();
            assert_eq!((&*family.name, family.format()), (built_in.name, built_in.format));
            let model_type = match built_in.format {
                Format::Hf => Some(built_in.name),
                Format::Dcp => built_in.name.strip_prefix("torchtitan-"),
                _ => None,
            };
            assert_eq!(family.model_type(), model_type);
        }
    }

    #[test]
    fn those_of_the_user_come_first() {
        let text = "name = 'mine'\ntitle = 'Mine'\nextends = 'llama'\n[config]\nmodel_type = 'llama'\n";
        let families = Families::with(vec![Family::parse(text).unwrap()]);
        assert_eq!(families.of_model_type("llama").unwrap().name, "mine");
        assert_eq!(families.of(Format::Hf).next().unwrap().name, "mine");
        assert_eq!(families.named("llama").unwrap().name, "llama");
        assert_eq!(families.of_model_type("qwen3").unwrap().name, "qwen3");
        assert!(families.of_model_type("megatron-core").is_none());
    }

    #[test]
    fn a_family_is_built_once_with_what_it_extends() {
        let named = |name: &str| BUILT_IN.iter().find(|family| family.name == name).unwrap();
        let family = named("sglang-qwen3_moe").family();
        assert!(named("sglang-dense").table.get().is_some());
        assert!(std::ptr::eq(family, Families::default().named("sglang-qwen3_moe").unwrap()));
    }
}
