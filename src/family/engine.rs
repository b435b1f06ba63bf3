//! Which models, and which versions of an inference engine, a family of rank files is for.

use super::Family;

impl Family {
    /// Whether models with this `model_type` have such files.
    #[must_use]
    pub fn serves(&self, model_type: &str) -> bool {
        self.file.engine.as_ref().is_some_and(|engine| engine.models.iter().any(|model| model == model_type))
    }

    /// Whether this version of the engine takes such files; `None` is the newest.
    #[must_use]
    pub fn is_of_version(&self, version: Option<&str>) -> bool {
        let Some(engine) = &self.file.engine else { return false };
        let Some(version) = version else { return engine.before.is_none() };
        let version = numbers(version);
        engine.since.as_deref().is_none_or(|since| numbers(since) <= version)
            && engine.before.as_deref().is_none_or(|before| version < numbers(before))
    }

    /// The versions that take such files, for people.
    #[must_use]
    pub fn versions(&self) -> String {
        let engine = self.file.engine.as_ref();
        let since = engine.and_then(|engine| engine.since.as_deref());
        let before = engine.and_then(|engine| engine.before.as_deref());
        match (since, before) {
            (Some(since), Some(before)) => format!("{since} to before {before}"),
            (Some(since), None) => format!("{since} and later"),
            (None, Some(before)) => format!("before {before}"),
            (None, None) => "all".to_owned(),
        }
    }
}

/// `0.10.2` as numbers; what follows them does not count.
fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("0.9.2") < numbers("0.10"));
        assert!(numbers("0.33.0") >= numbers("0.33"));
        assert!(numbers("0.33.0rc1") >= numbers("0.33"));
    }
}
