//! Rank files of inference engines: for which models and versions of an engine a family is, and what its tensors are called in a version.

use super::Family;
use super::file::TensorFile;

impl Family {
    /// Whether models with this `model_type` have such files.
    #[must_use]
    pub fn serves(&self, model_type: &str) -> bool {
        self.file.engine.as_ref().is_some_and(|engine| engine.models.contains_key(model_type))
    }

    /// The family as this version of the engine names tensors, the newest where it is not said; `None` where its names for the model are
    /// not known.
    #[must_use]
    pub fn at_version(&self, model_type: &str, version: Option<&str>) -> Option<Self> {
        let engine = self.file.engine.as_ref()?;
        let version = numbers(version.unwrap_or(&engine.newest))?;
        if version < numbers(engine.models.get(model_type)?)? {
            return None;
        }
        let mut family = self.clone();
        family.file.tensor.retain(|tensor| is_of(tensor, &version));
        Some(family)
    }

    /// Whether this version of the engine loads several pipeline stages.
    #[must_use]
    pub fn has_pipelines(&self, version: Option<&str>) -> bool {
        let Some(engine) = &self.file.engine else { return true };
        let version = numbers(version.unwrap_or(&engine.newest));
        let since = engine.pipelines_since.as_deref().and_then(numbers);
        since.is_some_and(|since| Some(since) <= version)
    }

    /// The versions whose names for the model are known, for people.
    #[must_use]
    pub fn versions(&self, model_type: &str) -> String {
        let engine = self.file.engine.as_ref();
        let first = engine.and_then(|engine| engine.models.get(model_type)).map_or("", String::as_str);
        let newest = engine.map_or("", |engine| &engine.newest);
        format!("{first} and later, of which {newest} is the newest that was looked at")
    }
}

/// Whether a version has the tensor.
fn is_of(tensor: &TensorFile, version: &[u64]) -> bool {
    let bound = |text: &Option<String>| text.as_deref().and_then(numbers);
    bound(&tensor.since).is_none_or(|since| since.as_slice() <= version)
        && bound(&tensor.before).is_none_or(|before| version < before.as_slice())
}

/// `0.10.2` as numbers; what follows them, such as `rc1` or `post1`, does not count.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    let numbers: Vec<u64> =
        version.trim_start_matches('v').split('.').map_while(|part| digits(part).parse().ok()).collect();
    (!numbers.is_empty()).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Families;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("0.9.2") < numbers("0.10"));
        assert!(numbers("v0.33.0rc1") >= numbers("0.33"));
        assert!(numbers("0.6.6.post1") >= numbers("0.6.6"));
        assert_eq!(numbers("newest"), None);
    }

    /// Names as the engines themselves have them, release by release.
    #[test]
    fn names_change_with_versions() {
        let all = Families::default();
        let names = |family: &str, model: &str, version: &str, part: &str| {
            let family = all.named(family).unwrap();
            let family = family.at_version(model, Some(version)).unwrap();
            let named =
                family.file.tensor.iter().map(|tensor| tensor.name.replace("model.layers.{layer}.", ""));
            let named: Vec<String> = named.filter(|name| name.contains(part)).collect();
            named.join(" ")
        };
        let router = |version| names("vllm-qwen3_moe", "qwen3_moe", version, "gate.weight");
        assert_eq!(router("0.14.1"), "mlp.gate.weight");
        assert_eq!(router("0.15.0"), "mlp.experts._gate.weight");
        assert_eq!(router("0.20.2"), "mlp.gate.weight");
        assert_eq!(router("0.23"), "mlp.experts.runner.gate.weight");
        assert_eq!(router("0.24.0"), "mlp.experts.gate.weight");
        let w2 = |version| names("vllm-mixtral", "mixtral", version, "w2");
        assert_eq!(
            (w2("0.23.0").as_str(), w2("0.24").as_str()),
            ("block_sparse_moe.experts.w2_weight", "block_sparse_moe.experts.routed_experts.w2_weight")
        );
        let scales = |version| names("vllm-dense", "llama", version, "_scale").split_whitespace().count();
        assert_eq!((scales("0.13.0"), scales("0.14.0")), (0, 4));
        let shared = |version| names("vllm-qwen2_moe", "qwen2_moe", version, "expert_gate");
        assert_eq!(shared("0.11.0"), "mlp.shared_expert_gate.weight");
        assert_eq!(shared("0.11.2"), "mlp.experts._shared_experts.expert_gate.weight");
        assert_eq!(shared("0.21"), "mlp.shared_expert.expert_gate.weight");
        assert_eq!(names("sglang-dense", "qwen3", "0.5.9", "_scale"), "");
        let dense = all.named("vllm-dense").unwrap();
        assert!(
            dense.at_version("qwen3", Some("0.8.3")).is_none() && dense.at_version("qwen3", None).is_some()
        );
        assert!(!dense.has_pipelines(Some("0.31.0")) && dense.has_pipelines(None));
        let moe = all.named("vllm-mixtral").unwrap();
        assert!(!moe.has_pipelines(None));
    }
}
