//! Pipeline stages: how many layers each of them holds.
//!
//! With virtual stages a pipeline rank holds several; they are listed in the order of the model all the same, as the data passes through.

use std::fmt;

/// Layers per (virtual) pipeline stage, in the order of the model. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stages(Vec<u32>);

impl Stages {
    /// Stages of these sizes; at least one.
    #[must_use]
    pub fn new(layers: Vec<u32>) -> Option<Self> {
        (!layers.is_empty()).then_some(Self(layers))
    }

    /// `layers` over `pp` equal stages; `None` where they do not divide or `pp` is zero.
    #[must_use]
    pub fn even(layers: u32, pp: u32) -> Option<Self> {
        let each = layers.checked_div(pp)?;
        (each * pp == layers).then(|| Self(vec![each; pp as usize]))
    }

    /// `layers` over `pp` stages as evenly as can be, the longer stages first.
    #[must_use]
    pub fn nearly_even(layers: u32, pp: u32) -> Self {
        let (each, longer) = (layers / pp.max(1), layers % pp.max(1));
        Self((0..pp.max(1)).map(|stage| each + u32::from(stage < longer)).collect())
    }

    /// Number of stages.
    #[must_use]
    pub fn count(&self) -> u32 {
        // Built from rank numbers and `u32` sizes only.
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Layers per stage.
    #[must_use]
    pub fn layers(&self) -> &[u32] {
        &self.0
    }

    /// All layers together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|n| u64::from(*n)).sum()
    }

    /// Whether every stage holds the same number of layers.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.0.windows(2).all(|pair| pair.first() == pair.last())
    }

    /// Global numbers of the layers on stage `pp`; empty for a stage there is none of.
    #[must_use]
    pub fn layers_of(&self, pp: u32) -> std::ops::Range<u32> {
        let before: u32 = self.0.iter().take(pp as usize).sum();
        before..before + self.0.get(pp as usize).copied().unwrap_or(0)
    }
}

impl fmt::Display for Stages {
    /// `2,3,3,2`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&texts.join(","))
    }
}
