//! What a user writes for a layout (`tp8`, `tp8pp4`, `tp1pp2@10,32`, or flags), and its resolution against a source.

use std::fmt;

use super::{Layout, LayoutError, Stages};

/// A layout as asked for: what is left out is the source's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayoutSpec {
    /// Tensor-parallel size.
    pub tp: Option<u32>,
    /// Pipeline size.
    pub pp: Option<u32>,
    /// Layers per stage.
    pub stages: Option<Stages>,
}

/// A text that is no layout name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a layout name; layouts are written like tp8, tp8pp4 or tp1pp2@10,32")]
pub struct NameError(pub String);

impl LayoutSpec {
    /// Reads a layout name. Only digits without leading zeros count, so that a layout has one spelling.
    ///
    /// # Errors
    /// [`NameError`] for anything that is not `[tpN][ppN[@N,N,..]]`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::read(text).ok_or_else(|| NameError(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let mut spec = Self::default();
        let (sizes, cut) = text.split_once('@').map_or((text, None), |(sizes, cut)| (sizes, Some(cut)));
        let mut rest = sizes;
        if let Some(after) = rest.strip_prefix("tp") {
            (spec.tp, rest) = number(after).map(|(n, rest)| (Some(n), rest))?;
        }
        if let Some(after) = rest.strip_prefix("pp") {
            (spec.pp, rest) = number(after).map(|(n, rest)| (Some(n), rest))?;
        }
        if let Some(cut) = cut {
            let layers: Option<Vec<u32>> = cut.split(',').map(whole_number).collect();
            spec.stages = Some(Stages::new(layers?)?);
            spec.pp?;
        }
        (rest.is_empty() && !text.is_empty()).then_some(spec)
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Whether the two ask for different things where both ask.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            matches!((a, b), (Some(a), Some(b)) if a != b)
        }
        let own_pp = self.pp.or(self.stages.as_ref().map(Stages::count));
        let other_pp = other.pp.or(other.stages.as_ref().map(Stages::count));
        differ(self.tp.as_ref(), other.tp.as_ref())
            || differ(own_pp.as_ref(), other_pp.as_ref())
            || differ(self.stages.as_ref(), other.stages.as_ref())
    }

    /// What both ask for together; `other` fills what `self` leaves out.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { tp: self.tp.or(other.tp), pp: self.pp.or(other.pp), stages: self.stages.or(other.stages) }
    }

    /// The layout meant, for a model cut as `source` is.
    ///
    /// A pipeline size without a cut means even stages; without either, the source's stages.
    ///
    /// # Errors
    /// [`LayoutError`] where the stages do not fit the model's layers.
    pub fn resolve(&self, source: &Layout) -> Result<Layout, LayoutError> {
        let layers = u32::try_from(source.stages.total()).unwrap_or(u32::MAX);
        let tp = self.tp.unwrap_or(source.tp);
        if tp == 0 {
            return Err(LayoutError::Zero { what: "the tensor-parallel size" });
        }
        let stages = match (&self.stages, self.pp) {
            // A cut that the source has is a cut, whatever it looks like: a stage of its own for the embedding holds no layer.
            (Some(stages), None) if *stages == source.stages => stages.clone(),
            (Some(stages), Some(pp)) if *stages == source.stages && pp == stages.count() => stages.clone(),
            (Some(stages), pp) => check_cut(stages, pp, layers)?,
            (None, Some(0)) => return Err(LayoutError::Zero { what: "the pipeline-parallel size" }),
            (None, Some(pp)) if pp > layers.max(1) => return Err(LayoutError::TooManyStages { layers, pp }),
            (None, Some(pp)) => Stages::even(layers, pp).ok_or_else(|| LayoutError::Uneven {
                layers,
                pp,
                proposal: Layout { tp, stages: Stages::nearly_even(layers, pp) }.to_string(),
                stages: Stages::nearly_even(layers, pp),
            })?,
            (None, None) => source.stages.clone(),
        };
        Ok(Layout { tp, stages })
    }
}

impl fmt::Display for LayoutSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tp) = self.tp {
            write!(f, "tp{tp}")?;
        }
        if let Some(pp) = self.pp.or(self.stages.as_ref().map(Stages::count)) {
            write!(f, "pp{pp}")?;
        }
        if let Some(stages) = &self.stages { write!(f, "@{stages}") } else { Ok(()) }
    }
}

fn check_cut(stages: &Stages, pp: Option<u32>, layers: u32) -> Result<Stages, LayoutError> {
    if let Some(pp) = pp.filter(|pp| *pp != stages.count()) {
        return Err(LayoutError::WrongCount { pp, stages: stages.clone(), count: stages.layers().len() });
    }
    if stages.layers().contains(&0) {
        return Err(LayoutError::Zero { what: "the number of layers on each stage" });
    }
    let sum = stages.total();
    if sum != u64::from(layers) {
        return Err(LayoutError::WrongSum { stages: stages.clone(), sum, layers });
    }
    Ok(stages.clone())
}

/// A number without sign or leading zero at the start of `text`, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    Some((whole_number(number)?, rest))
}

fn whole_number(text: &str) -> Option<u32> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Layout {
        Layout { tp: 2, stages: Stages::new(vec![2, 4]).unwrap() }
    }

    fn resolved(text: &str) -> Result<String, LayoutError> {
        LayoutSpec::parse(text).unwrap().resolve(&source()).map(|l| l.to_string())
    }

    #[test]
    fn what_is_left_out_is_the_sources() {
        assert_eq!(resolved("tp8"), Ok("tp8pp2@2,4".into()));
        assert_eq!(resolved("pp3"), Ok("tp2pp3".into()));
        assert_eq!(resolved("tp8pp2"), Ok("tp8pp2".into()));
        assert_eq!(resolved("tp1pp2@3,3"), Ok("tp1pp2".into()));
        assert_eq!(resolved("tp1pp2@1,5"), Ok("tp1pp2@1,5".into()));
    }

    #[test]
    fn stages_that_do_not_fit_are_refused_with_a_way_out() {
        let uneven = resolved("tp4pp4").unwrap_err().to_string();
        assert!(uneven.contains("tp4pp4@2,2,1,1"), "{uneven}");
        assert!(resolved("pp7").unwrap_err().to_string().contains("possible: 1 to 6"));
        assert!(matches!(resolved("pp2@1,2"), Err(LayoutError::WrongSum { sum: 3, layers: 6, .. })));
        assert!(matches!(resolved("pp3@1,5"), Err(LayoutError::WrongCount { pp: 3, count: 2, .. })));
        assert!(matches!(resolved("pp2@0,6"), Err(LayoutError::Zero { .. })));
        assert!(matches!(resolved("tp0"), Err(LayoutError::Zero { .. })));
        assert!(matches!(resolved("pp0"), Err(LayoutError::Zero { .. })));
    }

    #[test]
    fn only_one_spelling_is_read() {
        for bad in [
            "",
            "8",
            "tp",
            "tp08",
            "tp+8",
            "tp8pp",
            "tp8pp4@",
            "tp8@1,2",
            "pp2tp4",
            "tp8 ",
            "TP8",
            "tp8pp2@1,,2",
            "tp99999999999",
        ] {
            assert_eq!(LayoutSpec::parse(bad), Err(NameError(bad.into())), "{bad}");
        }
    }

    #[test]
    fn flags_and_names_may_say_the_same_thing_twice() {
        let name = LayoutSpec::parse("tp4pp2").unwrap();
        let cut = LayoutSpec { stages: Stages::new(vec![1, 5]), ..LayoutSpec::default() };
        assert!(!name.contradicts(&cut));
        assert_eq!(name.clone().or(cut).to_string(), "tp4pp2@1,5");
        assert!(name.contradicts(&LayoutSpec { tp: Some(2), ..LayoutSpec::default() }));
        assert!(name.contradicts(&LayoutSpec { stages: Stages::new(vec![6]), ..LayoutSpec::default() }));
    }
}
