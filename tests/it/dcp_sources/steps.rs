//! How many steps an optimizer took, which FSDP and accelerate save for each parameter.

use super::*;
use crate::common::dcp_source::rows;

/// A checkpoint with the state of an optimizer that took three steps, and of one parameter another number.
fn run(model: &Model, name: &str, other: Option<(&str, f32)>) {
    let cut = |shape: &[u64]| rows(shape, 2);
    let mut draft = model.draft("model.", 2, cut);
    optimizer_of_steps(&mut draft, "optim", "", &model.tensors, cut, |name| match other {
        Some((other, steps)) if other == name => steps,
        _ => 3.0,
    });
    draft.write(&model.path(name));
}

#[test]
fn a_step_of_one_parameter_is_part_of_the_state() {
    let model = Model::llama();
    let (name, _) = model.tensors.last().unwrap();
    run(&model, "run", None);
    run(&model, "same", Some((name, 3.0)));
    run(&model, "other", Some((name, 4.0)));
    let template = model.path("template");
    let verify =
        |second: &str| ckpt!("verify", model.path("run"), model.path(second), "--template", &template);
    verify("same").ok();
    let said = verify("other");
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(
        said.out.contains("different: step of ")
            && said.out.contains("is 3 in the first checkpoint, 4 in the second"),
        "{}",
        said.out
    );
    assert_eq!(said.out.matches("different:").count(), 1, "{}", said.out);
    let digest = |name: &str| model.digest(&model.path(name)).ok().json()["optimizer_digest"].clone();
    assert_eq!(digest("run"), digest("same"));
    assert_ne!(digest("run"), digest("other"));
    // The first as well as the last; and one that is not said is another difference.
    let first = model.tensors.iter().map(|(name, _)| name.as_str()).min().unwrap();
    run(&model, "first", Some((first, 4.0)));
    let said = verify("first");
    assert!(
        said.out.contains("different: step of ") && said.out.matches("different:").count() == 1,
        "{}",
        said.out
    );
    run(&model, "lacking", Some((name, f32::NAN)));
    let said = verify("lacking");
    assert!(
        said.out.contains("different: step of ") && said.out.matches("different:").count() == 1,
        "{}",
        said.out
    );
    // Of all parameters it is one difference.
    let mut draft = model.draft("model.", 1, |shape| rows(shape, 1));
    optimizer_of_steps(&mut draft, "optim", "", &model.tensors, |shape| rows(shape, 1), |_| 5.0);
    draft.write(&model.path("later"));
    let said = verify("later");
    assert!(
        said.out.contains("the optimizer's step is 3 in the first checkpoint, 5 in the second"),
        "{}",
        said.out
    );
    assert_eq!(said.out.matches("different:").count(), 1, "{}", said.out);
}
