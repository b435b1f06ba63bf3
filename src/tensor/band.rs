//! Bands: which positions along one axis of a stored tensor are which positions of a parameter.
//!
//! A fused tensor is a handful of bands, however many heads it has: a band repeats at a fixed step on both sides.
//! Not here: who cuts tensors into bands and why (`family`).

/// `repeat` runs of `len` positions: run `k` lies at `at + k * at_step` in the tensor and is `from + k * from_step` of parameter `part`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Which of the parameters that the tensor holds.
    pub part: usize,
    /// First position in the tensor.
    pub at: u64,
    /// First position in the parameter.
    pub from: u64,
    /// Positions per run, at least 1.
    pub len: u64,
    /// Number of runs, at least 1.
    pub repeat: u64,
    /// Distance between runs in the tensor; at least `len` where there is more than one run.
    pub at_step: u64,
    /// Distance between runs in the parameter; at least `len` where there is more than one run.
    pub from_step: u64,
}

impl Band {
    /// A band of one run.
    #[must_use]
    pub fn once(part: usize, at: u64, from: u64, len: u64) -> Self {
        Self { part, at, from, len, repeat: 1, at_step: len, from_step: len }
    }

    /// Positions in all runs together.
    #[must_use]
    pub fn positions(&self) -> u64 {
        self.len * self.repeat
    }

    /// The runs one by one, each a band of one run.
    pub fn runs(self) -> impl Iterator<Item = Self> {
        (0..self.repeat).map(move |k| {
            Self::once(self.part, self.at + k * self.at_step, self.from + k * self.from_step, self.len)
        })
    }
}
