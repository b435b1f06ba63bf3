//! What is refused: parameters and tensors that do not fit each other, which no source and no family should bring about.

use super::*;
use crate::extent::ObjectId;
use crate::layout::Rank;

/// A parameter of these sizes, whole in one file, contiguous.
fn param(sizes: &[u64], axis: usize, dtype: Dtype) -> Param {
    let shape = Shape(sizes.to_vec());
    let strides = shape.contiguous_strides().unwrap().iter().map(|stride| stride * dtype.size()).collect();
    let mut param = Param::new("p".into(), dtype, shape, axis);
    let (rank, object) = (Rank { pp: 0, tp: 0, ep: 0 }, ObjectId(0));
    param.add(Chunk { region: Region::whole(&param.shape), rank, object, start: 0, strides, period: None });
    param
}

fn planned(param: &Param, sizes: &[u64], axis: usize, dtype: Dtype) -> Result<u64, GatherError> {
    // One position of an axis that is not there: it is refused for that.
    let size = if axis < sizes.len() { sizes[axis] } else { 1 };
    let bands = vec![(Band::once(0, 0, 0, size), Source::Param(param))];
    let mut out = Builder::new();
    gather(&Target::single(dtype, Shape(sizes.to_vec()), axis, bands), &mut out)?;
    Ok(out.position())
}

#[test]
fn a_parameter_that_fits_is_planned_whole() {
    for (sizes, axis) in [([4, 6].as_slice(), 0), (&[4, 6], 1), (&[], 0), (&[0, 6], 1)] {
        let bytes = Shape(sizes.to_vec()).bytes(Dtype::Bfloat16).unwrap();
        assert_eq!(planned(&param(sizes, axis, Dtype::Bfloat16), sizes, axis, Dtype::Bfloat16), Ok(bytes));
    }
}

#[test]
fn a_parameter_of_another_type_shape_or_axis_is_refused() {
    let own = param(&[4, 6], 0, Dtype::Bfloat16);
    let to = |sizes: &[u64], axis, dtype| planned(&own, sizes, axis, dtype).unwrap_err();
    assert!(matches!(to(&[4, 6], 0, Dtype::Float32), GatherError::Dtype { .. }));
    // As many bytes, but other ones: fewer of each row, another axis, one axis more or less.
    assert!(matches!(to(&[4, 5], 0, Dtype::Bfloat16), GatherError::Unlike { .. }));
    assert!(matches!(to(&[4, 6], 1, Dtype::Bfloat16), GatherError::Unlike { .. }));
    assert!(matches!(to(&[4, 6, 1], 0, Dtype::Bfloat16), GatherError::Unlike { .. }));
    assert!(matches!(to(&[4], 0, Dtype::Bfloat16), GatherError::Unlike { .. }));
    assert_eq!(to(&[4, 6], 2, Dtype::Bfloat16), GatherError::Axis { axis: 2 });
    // Words that name it.
    let said = to(&[4, 6], 0, Dtype::Float32).to_string();
    assert_eq!(said, "p is bfloat16, and is to share one tensor with what is float32; save both in one type");
}

#[test]
fn a_tensor_that_is_not_planned_to_its_end_is_refused() {
    let own = param(&[4, 6], 0, Dtype::Float32);
    let part = || Part {
        shape: Shape(vec![4, 6]),
        axis: 0,
        bands: vec![(Band::once(0, 0, 0, 4), Source::Param(&own))],
    };
    let stacked = |experts: u64, parts: usize| {
        let target = Target {
            dtype: Dtype::Float32,
            shape: Shape(vec![experts, 4, 6]),
            parts: (0..parts).map(|_| part()).collect(),
        };
        gather(&target, &mut Builder::new())
    };
    assert_eq!(stacked(2, 2), Ok(()));
    assert_eq!(stacked(2, 1), Err(GatherError::Length { planned: 96, wanted: Some(192) }));
    assert_eq!(stacked(2, 3), Err(GatherError::Length { planned: 288, wanted: Some(192) }));
    assert_eq!(stacked(u64::MAX, 1), Err(GatherError::Length { planned: 96, wanted: None }));
}

#[test]
fn a_chunk_without_a_stride_for_each_axis_is_refused() {
    for axis in [0, 1] {
        let whole = param(&[4, 6], axis, Dtype::Float32);
        let mut lacking = Param::new("p".into(), Dtype::Float32, Shape(vec![4, 6]), axis);
        for chunk in whole.chunks() {
            lacking.add(Chunk { strides: chunk.strides[..1].to_vec(), ..chunk.clone() });
        }
        assert_eq!(planned(&lacking, &[4, 6], axis, Dtype::Float32), Err(GatherError::Axis { axis }));
    }
}

#[test]
fn an_axis_that_a_parameter_does_not_have_has_no_positions() {
    assert_eq!(Param::new("p".into(), Dtype::Int8, Shape(vec![3]), 1).size(), 0);
    assert_eq!(Param::new("p".into(), Dtype::Int8, Shape(vec![]), 0).size(), 1);
}
