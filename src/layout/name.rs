//! What a user writes for a layout (`tp8`, `tp8pp4`, `tp1pp2@10,32`, or flags), and its resolution against a source.

use std::fmt;

use super::{Experts, Layout, LayoutError, Stages};

/// A layout as asked for: what is left out is the source's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayoutSpec {
    /// Tensor-parallel size.
    pub tp: Option<u32>,
    /// Pipeline size.
    pub pp: Option<u32>,
    /// Virtual stages on each pipeline rank.
    pub vpp: Option<u32>,
    /// Expert-parallel size.
    pub ep: Option<u32>,
    /// Expert-tensor-parallel size.
    pub etp: Option<u32>,
    /// Layers per (virtual) stage.
    pub stages: Option<Stages>,
    /// Multi-token-prediction layers, where the stages were said in Megatron's text: they then say the number of virtual stages too, and
    /// may hold no layer.
    pub in_text: Option<u32>,
}

/// A text that is no layout name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a layout name; layouts are written like tp8, tp8pp4, tp1pp2@10,32, tp2pp4vpp2 or tp2pp2ep4"
)]
pub struct NameError(pub String);

impl LayoutSpec {
    /// Reads a layout name. Only digits without leading zeros count, so that a layout has one spelling.
    ///
    /// # Errors
    /// [`NameError`] for anything that is not `[tpN][ppN][vppN][epN][etpN][@N,N,..]`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::read(text).ok_or_else(|| NameError(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let mut spec = Self::default();
        let (sizes, cut) = text.split_once('@').map_or((text, None), |(sizes, cut)| (sizes, Some(cut)));
        let mut rest = sizes;
        let fields = [
            ("tp", &mut spec.tp),
            ("pp", &mut spec.pp),
            ("vpp", &mut spec.vpp),
            ("ep", &mut spec.ep),
            ("etp", &mut spec.etp),
        ];
        for (prefix, size) in fields {
            if let Some(after) = rest.strip_prefix(prefix) {
                (*size, rest) = number(after).map(|(n, rest)| (Some(n), rest))?;
            }
        }
        if spec.vpp.is_some() {
            spec.pp?;
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
        // How many ranks stages make follows from the number of virtual stages, whichever of the two says it.
        let vpp = self.vpp.or(other.vpp);
        differ(self.tp.as_ref(), other.tp.as_ref())
            || differ(self.known_pp(vpp).as_ref(), other.known_pp(vpp).as_ref())
            || differ(self.vpp.as_ref(), other.vpp.as_ref())
            || differ(self.ep.as_ref(), other.ep.as_ref())
            || differ(self.etp.as_ref(), other.etp.as_ref())
            || differ(self.stages.as_ref(), other.stages.as_ref())
    }

    /// What both ask for together; `other` fills what `self` leaves out.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            tp: self.tp.or(other.tp),
            pp: self.pp.or(other.pp),
            vpp: self.vpp.or(other.vpp),
            ep: self.ep.or(other.ep),
            etp: self.etp.or(other.etp),
            stages: self.stages.or(other.stages),
            in_text: self.in_text.or(other.in_text),
        }
    }

    /// The pipeline size, where it is said or follows from the stages. Megatron's text for stages has virtual ones without saying so.
    fn known_pp(&self, vpp: Option<u32>) -> Option<u32> {
        let stages = self.stages.as_ref().filter(|_| self.in_text.is_none() || vpp.is_some());
        self.pp.or_else(|| Some(stages?.count() / vpp.unwrap_or(1).max(1)))
    }

    /// The layout meant, for a model cut as `source` is.
    ///
    /// A pipeline size without a cut means even stages, and without virtual stages none; without any, the source's stages. A
    /// tensor-parallel size means, as in Megatron, the same for experts unless `etp` is said.
    ///
    /// # Errors
    /// [`LayoutError`] where the stages do not fit the model's layers.
    pub fn resolve(&self, source: &Layout) -> Result<Layout, LayoutError> {
        let tp = self.tp.unwrap_or(source.tp);
        if tp == 0 {
            return Err(LayoutError::Zero { what: "the tensor-parallel size" });
        }
        let experts = self.experts(source, tp)?;
        let keeps = self.pp.is_none() && self.vpp.is_none() && self.stages.is_none();
        let vpp = if keeps { source.vpp } else { self.vpp_of_text()?.or(self.vpp).unwrap_or(1) };
        if vpp == 0 {
            return Err(LayoutError::Zero { what: "the number of virtual stages" });
        }
        // Virtual stages alone are for the source's pipeline ranks.
        let pp = self.pp.or_else(|| (self.stages.is_none() && !keeps).then(|| source.pp()));
        // With one pipeline rank there is nothing to take turns with.
        if vpp > 1 && pp == Some(1) {
            return Err(LayoutError::VirtualAlone { vpp });
        }
        let stages = self.stages(source, pp, vpp, (tp, experts))?;
        if stages.count() % vpp != 0 {
            let count = stages.count();
            return Err(LayoutError::NotVirtual { count, pp: pp.unwrap_or(count / vpp), vpp });
        }
        let layout = Layout { tp, stages, vpp, experts };
        if vpp > 1 && layout.pp() == 1 {
            return Err(LayoutError::VirtualAlone { vpp });
        }
        Ok(layout)
    }

    /// Virtual stages that Megatron's text for a cut means for the pipeline size asked for.
    fn vpp_of_text(&self) -> Result<Option<u32>, LayoutError> {
        let Some(count) = self.stages.as_ref().filter(|_| self.in_text.is_some()).map(Stages::count) else {
            return Ok(None);
        };
        match self.pp {
            None => Err(LayoutError::TextWithoutPp { count }),
            Some(pp)
                if pp == 0 || !count.is_multiple_of(pp) || self.vpp.is_some_and(|vpp| vpp != count / pp) =>
            {
                Err(LayoutError::NotVirtual { count, pp, vpp: self.vpp.unwrap_or(1) })
            }
            Some(pp) => Ok(Some(count / pp)),
        }
    }

    fn stages(
        &self,
        source: &Layout,
        pp: Option<u32>,
        vpp: u32,
        (tp, experts): (u32, Option<Experts>),
    ) -> Result<Stages, LayoutError> {
        let layers = u32::try_from(source.stages.total()).unwrap_or(u32::MAX);
        let count = pp.map(|pp| pp.saturating_mul(vpp));
        match (&self.stages, count) {
            // A cut that the source has is a cut, whatever it looks like: a stage of its own for the embedding holds no layer.
            (Some(stages), None) if *stages == source.stages => Ok(stages.clone()),
            (Some(stages), Some(count)) if *stages == source.stages && count == stages.count() => {
                Ok(stages.clone())
            }
            (Some(stages), count) => check_cut(stages, count, layers, self.in_text.is_some()),
            (None, Some(0)) => Err(LayoutError::Zero { what: "the pipeline-parallel size" }),
            (None, Some(count)) if count > layers.max(1) => {
                Err(LayoutError::TooManyStages { layers, pp: count })
            }
            (None, Some(count)) => Stages::even(layers, count).ok_or_else(|| {
                let stages = Stages::nearly_even(layers, count);
                let proposal = Layout { tp, stages: stages.clone(), vpp, experts }.to_string();
                LayoutError::Uneven { layers, pp: count, proposal, stages }
            }),
            (None, None) => Ok(source.stages.clone()),
        }
    }

    fn experts(&self, source: &Layout, tp: u32) -> Result<Option<Experts>, LayoutError> {
        let Some(known) = source.experts else {
            let asked = self.ep.is_some_and(|ep| ep != 1) || self.etp.is_some_and(|etp| etp != tp);
            return if asked { Err(LayoutError::NoExperts) } else { Ok(None) };
        };
        let default_etp = if self.tp.is_some() { tp } else { known.etp };
        let (ep, etp) = (self.ep.unwrap_or(known.ep), self.etp.unwrap_or(default_etp));
        if ep == 0 || etp == 0 {
            return Err(LayoutError::Zero { what: "the expert-parallel and expert-tensor-parallel sizes" });
        }
        if !tp.is_multiple_of(etp) {
            return Err(LayoutError::ExpertCut { etp, tp });
        }
        Ok(Some(Experts { ep, etp }))
    }
}

impl fmt::Display for LayoutSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tp) = self.tp {
            write!(f, "tp{tp}")?;
        }
        let sizes = [("pp", self.known_pp(self.vpp)), ("vpp", self.vpp), ("ep", self.ep), ("etp", self.etp)];
        for (prefix, size) in sizes {
            if let Some(size) = size {
                write!(f, "{prefix}{size}")?;
            }
        }
        if let Some(stages) = &self.stages { write!(f, "@{stages}") } else { Ok(()) }
    }
}

fn check_cut(
    stages: &Stages,
    pp: Option<u32>,
    layers: u32,
    may_be_empty: bool,
) -> Result<Stages, LayoutError> {
    if let Some(pp) = pp.filter(|pp| *pp != stages.count()) {
        return Err(LayoutError::WrongCount { pp, stages: stages.clone(), count: stages.layers().len() });
    }
    if !may_be_empty && stages.layers().contains(&0) {
        return Err(LayoutError::Zero {
            what: "the number of layers on each stage (--pp-layout can say stages without layers)",
        });
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
        Layout::dense(2, Stages::new(vec![2, 4]).unwrap())
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
    fn virtual_stages_are_asked_for_with_the_pipeline() {
        assert_eq!(resolved("tp1pp3vpp2"), Ok("tp1pp3vpp2".into()));
        assert_eq!(resolved("tp1pp2vpp2@1,2,2,1"), Ok("tp1pp2vpp2@1,2,2,1".into()));
        assert!(resolved("tp1pp2vpp2").unwrap_err().to_string().contains("tp1pp2vpp2@2,2,1,1"));
        assert!(matches!(resolved("tp1pp2vpp2@3,3"), Err(LayoutError::WrongCount { .. })));
        assert!(resolved("tp1pp1vpp2@3,3").is_err());
        let virtual_source = Layout { vpp: 3, ..Layout::dense(1, Stages::even(6, 6).unwrap()) };
        let name =
            |text: &str| LayoutSpec::parse(text).unwrap().resolve(&virtual_source).map(|l| l.to_string());
        assert_eq!(name("tp2"), Ok("tp2pp2vpp3".into()));
        assert_eq!(name("pp2"), Ok("tp1pp2".into()));
        let flag = LayoutSpec { vpp: Some(1), ..LayoutSpec::default() };
        assert_eq!(flag.resolve(&virtual_source).unwrap().to_string(), "tp1pp2");
    }

    #[test]
    fn megatrons_text_says_stages_and_virtual_stages() {
        let spec = |text: &str, pp, vpp| {
            let cut: super::super::PipelineLayout = text.parse().unwrap();
            let spec =
                LayoutSpec { pp, vpp, stages: Some(cut.stages), in_text: Some(0), ..LayoutSpec::default() };
            spec.resolve(&source()).map(|layout| layout.to_string())
        };
        assert_eq!(spec("Et|tt|tt|tL", Some(2), None), Ok("tp2pp2vpp2@1,2,2,1".into()));
        assert_eq!(spec("E|t*3|t*3|L", Some(4), None), Ok("tp2pp4@0,3,3,0".into()));
        assert_eq!(spec("Et|tt|tt|tL", None, None), Err(LayoutError::TextWithoutPp { count: 4 }));
        assert!(matches!(spec("Et|tt|tt|tL", Some(3), None), Err(LayoutError::NotVirtual { pp: 3, .. })));
        assert!(matches!(spec("Et|tt|tt|tL", Some(2), Some(4)), Err(LayoutError::NotVirtual { vpp: 4, .. })));
        assert!(matches!(spec("Et|tL", Some(2), None), Err(LayoutError::WrongSum { sum: 2, .. })));
    }

    #[test]
    fn experts_follow_the_source_and_megatron() {
        let source = Layout { experts: Some(Experts { ep: 4, etp: 1 }), ..source() };
        let name = |text: &str| LayoutSpec::parse(text).unwrap().resolve(&source).map(|l| l.to_string());
        assert_eq!(name("pp2"), Ok("tp2pp2ep4etp1".into()));
        assert_eq!(name("tp4"), Ok("tp4pp2ep4@2,4".into()));
        assert_eq!(name("tp4pp1ep2etp2"), Ok("tp4pp1ep2etp2".into()));
        assert!(matches!(name("tp4etp3"), Err(LayoutError::ExpertCut { etp: 3, tp: 4 })));
        assert_eq!(resolved("ep2"), Err(LayoutError::NoExperts));
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
            "tp2vpp2",
            "tp2ep2pp2",
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
        let cut = LayoutSpec { stages: Stages::new(vec![1, 2, 3, 4]), ..LayoutSpec::default() };
        assert!(name.contradicts(&cut));
        let virtually = LayoutSpec::parse("tp4pp2vpp2").unwrap();
        assert!(!virtually.contradicts(&cut) && !cut.contradicts(&virtually));
    }

    fn with_stages(layers: &[u32]) -> LayoutSpec {
        LayoutSpec { stages: Stages::new(layers.to_vec()), ..LayoutSpec::default() }
    }

    #[test]
    fn virtual_stages_need_ranks_that_take_turns() {
        let resolved_in = |layers: &[u32], spec: LayoutSpec| {
            spec.resolve(&Layout::dense(2, Stages::new(layers.to_vec()).unwrap()))
        };
        let name = |text: &str| LayoutSpec::parse(text).unwrap();
        let alone = Err(LayoutError::VirtualAlone { vpp: 2 });
        assert_eq!(resolved_in(&[2, 4], name("tp1pp1vpp2@3,3")), alone);
        // Also where the layers would not divide.
        assert_eq!(resolved_in(&[3, 4], name("pp1vpp2")), alone);
        assert_eq!(resolved_in(&[2, 4], LayoutSpec { vpp: Some(2), ..with_stages(&[3, 3]) }), alone);
        let none = resolved_in(&[2, 4], name("pp2vpp0"));
        assert_eq!(none, Err(LayoutError::Zero { what: "the number of virtual stages" }));
        let uneven = resolved_in(&[2, 4], LayoutSpec { vpp: Some(3), ..with_stages(&[1, 1, 1, 1, 2]) });
        assert_eq!(uneven, Err(LayoutError::NotVirtual { count: 5, pp: 1, vpp: 3 }));
    }

    #[test]
    fn a_text_is_for_any_pipeline_size_that_divides_its_stages() {
        let spec = |text: &str, pp, vpp| {
            let cut: super::super::PipelineLayout = text.parse().unwrap();
            let spec =
                LayoutSpec { pp, vpp, stages: Some(cut.stages), in_text: Some(0), ..LayoutSpec::default() };
            spec.resolve(&source()).map(|layout| layout.to_string())
        };
        assert_eq!(spec("Et|tt|tt|tL", Some(2), Some(2)), Ok("tp2pp2vpp2@1,2,2,1".into()));
        assert_eq!(spec("Et|tt|tt|tL", Some(1), None), Err(LayoutError::VirtualAlone { vpp: 4 }));
        assert_eq!(spec("Et*6L", Some(1), None), Ok("tp2pp1".into()));
        let not = |pp| Err(LayoutError::NotVirtual { count: 4, pp, vpp: 1 });
        assert_eq!(
            (spec("Et|tt|tt|tL", Some(3), None), spec("Et|tt|tt|tL", Some(0), None)),
            (not(3), not(0))
        );
    }

    #[test]
    fn stages_of_a_text_say_the_pipeline_size_with_the_virtual_stages_alone() {
        let cut = with_stages(&[1, 2, 2, 1]);
        assert_eq!(cut.to_string(), "pp4@1,2,2,1");
        let text = LayoutSpec { in_text: Some(0), ..cut.clone() };
        assert_eq!(text.to_string(), "@1,2,2,1");
        assert_eq!(LayoutSpec { vpp: Some(2), ..text }.to_string(), "pp2vpp2@1,2,2,1");
        // Refused later, but said as it was asked.
        assert_eq!(LayoutSpec { vpp: Some(0), ..cut }.to_string(), "pp4vpp0@1,2,2,1");
    }

    #[test]
    fn the_sources_own_cut_is_one_whatever_it_looks_like() {
        let source = Layout::dense(2, Stages::new(vec![0, 3, 3, 0]).unwrap());
        let cut = with_stages(&[0, 3, 3, 0]);
        assert_eq!(cut.resolve(&source).unwrap().to_string(), "tp2pp4@0,3,3,0");
        let said = LayoutSpec { pp: Some(4), ..cut };
        assert_eq!(said.resolve(&source).unwrap().to_string(), "tp2pp4@0,3,3,0");
        assert!(matches!(with_stages(&[1, 2]).resolve(&source), Err(LayoutError::WrongSum { sum: 3, .. })));
        assert!(matches!(with_stages(&[0, 6]).resolve(&source), Err(LayoutError::Zero { .. })));
    }

    #[test]
    fn a_model_of_few_layers_has_few_stages() {
        let of = |layers, pp| {
            let source = Layout::dense(1, Stages::new(vec![layers]).unwrap());
            LayoutSpec { pp: Some(pp), ..LayoutSpec::default() }.resolve(&source).map(|l| l.to_string())
        };
        assert_eq!((of(0, 1), of(1, 1)), (Ok("tp1pp1".into()), Ok("tp1pp1".into())));
        for layers in [0, 1] {
            assert_eq!(of(layers, 2), Err(LayoutError::TooManyStages { layers, pp: 2 }));
        }
    }

    #[test]
    fn sizes_of_experts_are_checked_with_and_without_experts() {
        assert_eq!(
            (resolved("ep1"), resolved("ep0")),
            (Ok("tp2pp2@2,4".into()), Err(LayoutError::NoExperts))
        );
        assert_eq!(resolved("tp4etp4"), Ok("tp4pp2@2,4".into()));
        assert_eq!(resolved("tp4etp2"), Err(LayoutError::NoExperts));
        let source = Layout { experts: Some(Experts { ep: 4, etp: 1 }), ..source() };
        let name = |text: &str| LayoutSpec::parse(text).unwrap().resolve(&source).map(|l| l.to_string());
        assert_eq!(name("tp4pp1ep1etp1"), Ok("tp4pp1ep1etp1".into()));
        for zero in ["ep0", "etp0"] {
            assert!(
                matches!(name(zero), Err(LayoutError::Zero { what }) if what.contains("expert-parallel"))
            );
        }
    }

    #[test]
    fn numbers_have_no_sign() {
        for bad in ["tp8pp2@+1,5", "tp8pp2@1,+5", "tp8pp2@1,-5", "tp8pp2@1,5 "] {
            assert_eq!(LayoutSpec::parse(bad), Err(NameError(bad.into())));
        }
    }
}
