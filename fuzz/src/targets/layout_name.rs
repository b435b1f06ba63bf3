//! Names of layouts, and Megatron's text for stages: what is read prints as it was, and a layout's own name means that layout.

use crate::{bounded, text};
use ckpt_fs::layout::{Experts, Layout, LayoutSpec, PipelineLayout, Stages};

fn sources() -> [Layout; 2] {
    let stages = |layers: &[u32]| Stages::new(layers.to_vec()).expect("some");
    let experts = Some(Experts { ep: 2, etp: 1 });
    [Layout::dense(2, stages(&[3, 5])), Layout { experts, vpp: 2, ..Layout::dense(4, stages(&[2, 1, 3, 2])) }]
}

fn check(spec: &LayoutSpec) {
    for source in sources() {
        // Stages without layers are said in Megatron's text only: in a name they are mostly a mistake.
        let said = |layout: &Layout| layout.stages == source.stages || !layout.stages.layers().contains(&0);
        if let Some(layout) = spec.resolve(&source).ok().filter(said) {
            let again = LayoutSpec::parse(&layout.to_string()).expect("its own name");
            assert_eq!(again.resolve(&source).as_ref(), Ok(&layout), "{layout}");
        }
    }
}

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let text = text(input);
    bounded(text.len(), 64, 1 << 22, || {
        if let Ok(spec) = LayoutSpec::parse(text) {
            assert_eq!(spec.to_string(), text, "a layout has one spelling");
            check(&spec);
        }
        if let Ok(cut) = text.parse::<PipelineLayout>() {
            assert_eq!(cut.to_string().parse().as_ref(), Ok(&cut));
            let in_text = Some(cut.prediction_layers);
            check(&LayoutSpec { pp: Some(2), stages: Some(cut.stages), in_text, ..LayoutSpec::default() });
        }
    });
}
