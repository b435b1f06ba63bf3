//! A family of tensors of which nothing is known but their names: every tensor is a parameter that is called as it is, and none is ever cut.

use toml::{Table, Value};

use super::{Family, FamilyError};

/// What it is called.
const NAME: &str = "undescribed";

impl Family {
    /// The family of a model with these tensors, each with the number of its axes.
    ///
    /// # Errors
    /// [`FamilyError`] where a name is one that no tensor can have, such as one with `{layer}` in it.
    pub fn of_names<'n>(tensors: impl Iterator<Item = (&'n str, usize)>) -> Result<Self, FamilyError> {
        let (mut parameters, mut all) = (Table::new(), Vec::new());
        for (name, axes) in tensors {
            let dimensions = (0..axes).map(|axis| Value::String(format!("{name} {axis}")));
            parameters.insert(name.to_owned(), Value::Array(dimensions.collect()));
            let mut tensor = Table::new();
            tensor.insert("name".into(), name.into());
            tensor.insert("holds".into(), Value::Array(vec![name.into()]));
            tensor.insert("stage".into(), "first".into());
            all.push(Value::Table(tensor));
        }
        let vocabulary = Table::from_iter([("padding".to_owned(), Value::from("exact"))]);
        let table = Table::from_iter([
            ("name".to_owned(), Value::from(NAME)),
            ("title".to_owned(), "model that no family describes".into()),
            ("format".to_owned(), "dcp".into()),
            ("global_layers".to_owned(), true.into()),
            ("vocabulary".to_owned(), vocabulary.into()),
            ("parameters".to_owned(), parameters.into()),
            ("tensor".to_owned(), Value::Array(all)),
        ]);
        Self::of_table(table)
    }

    /// Whether nothing is known of its models but the names of their tensors.
    #[must_use]
    pub fn is_undescribed(&self) -> bool {
        self.name == NAME && self.model_type().is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::value::Value as Pickled;

    #[test]
    fn tensors_are_what_they_are_called() {
        let names = [("blocks.0.w", 2), ("blocks.1.w", 2), ("scale", 0)];
        let family = Arc::new(Family::of_names(names.into_iter()).unwrap());
        assert!(family.is_undescribed());
        let model = family.model(&Pickled::namespace(Vec::new()), 0.0).unwrap();
        let (entry, numbers) = model.find("blocks.1.w").unwrap();
        assert_eq!((&*entry.name, &*entry.holds[0].param, numbers.layer), ("blocks.1.w", "blocks.1.w", None));
        assert!(model.find("blocks.2.w").is_none());
    }

    #[test]
    fn names_that_stand_for_others_are_refused() {
        assert!(Family::of_names([("a.{layer}.b", 1)].into_iter()).is_err());
    }
}
