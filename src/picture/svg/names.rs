//! What units are called: over lanes all of a side in one way, the longest that there is room for; within stretches as fits.

use crate::inspect::{Side, Unit};

/// How the units of a side are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Files by their names.
    Whole,
    /// `pp3`, `file 3`
    Numbered,
    /// `3`, where the side says of what.
    Bare,
}

impl Naming {
    /// The longest that is `fit` for every unit.
    pub(super) fn of(side: &Side, fit: impl Fn(&Unit, &str) -> bool) -> Self {
        let all = |naming: &Self| {
            let mut units = side.units.iter().enumerate();
            units.all(|(number, unit)| naming.name(unit, number).is_none_or(|name| fit(unit, &name)))
        };
        [Self::Whole, Self::Numbered].into_iter().find(all).unwrap_or(Self::Bare)
    }

    /// What a unit is called over its lane, which says of ranks all but the stage.
    pub(super) fn name(self, unit: &Unit, number: usize) -> Option<String> {
        let word = word(unit)?;
        match (self, unit.rank) {
            (Self::Whole, None) => Some(unit.name.clone()),
            (Self::Bare, None) => Some((number + 1).to_string()),
            (_, None) => Some(format!("{word} {}", number + 1)),
            (Self::Bare, Some(rank)) => Some(rank.pp.to_string()),
            (_, Some(rank)) => Some(format!("{word}{}", rank.pp)),
        }
    }

    /// What numbers are of that stand alone.
    pub(super) fn of_what(self, side: &Side) -> Option<&'static str> {
        side.units.first().and_then(word).filter(|_| self == Self::Bare)
    }
}

/// What units are counted as; nothing for ranks without stages.
fn word(unit: &Unit) -> Option<&'static str> {
    match unit.rank {
        None => Some("file"),
        Some(_) => unit.name.starts_with("pp").then_some("pp"),
    }
}

/// What a unit of the source may be called in a stretch, the best first.
pub(super) fn within(unit: &Unit, number: usize) -> Vec<String> {
    match unit.rank {
        None => vec![unit.name.clone(), format!("file {}", number + 1), (number + 1).to_string()],
        // With a number alone it is not said which rank of the stage.
        Some(rank) if word(unit).is_some() && !unit.name.contains(' ') => {
            vec![unit.name.clone(), rank.pp.to_string()]
        }
        Some(_) => vec![unit.name.clone()],
    }
}
