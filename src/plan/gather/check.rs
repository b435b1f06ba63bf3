//! Whether bands and parameters fit the tensor that is to be made of them.

use super::{Fill, GatherError, Part, Source};
use crate::tensor::{Band, Dtype, Shape};

/// Checks that bands, sorted by position, are every position exactly once. Bands that repeat alike are a cell that fills its step.
pub(super) fn check_bands(bands: &[(Band, Source<'_>)], axis: usize, size: u64) -> Result<(), GatherError> {
    let wrong = |position| Err(GatherError::Bands { axis, position, size });
    let mut position = 0;
    for cell in cells(bands) {
        let mut within = position;
        for (band, _) in cell {
            if band.at != within {
                return wrong(within);
            }
            within += band.len;
        }
        let Some((first, _)) = cell.first() else { continue };
        // New positions among others that repeat would come before all of them.
        if cell.len() > 1 && cell.iter().any(|(_, source)| matches!(source, Source::Fill(_))) {
            return wrong(first.at);
        }
        if first.repeat > 1 && within - position != first.at_step {
            return wrong(within);
        }
        position += (within - position) * first.repeat;
    }
    if position == size { Ok(()) } else { wrong(position) }
}

/// Checks that every parameter has the type, the axis and, beside it, the sizes of the part: what is counted in positions is then the same
/// bytes in both.
pub(super) fn check_params(bands: &[(Band, Source<'_>)], part: &Part<'_>, dtype: Dtype) -> Result<(), GatherError> {
    let sizes = |shape: &Shape| shape.with(part.axis, 0);
    for (_, source) in bands {
        let (Source::Param(param) | Source::Fill(Fill::Last(param))) = source else { continue };
        if param.dtype != dtype {
            return Err(GatherError::Dtype {
                param: param.name.to_string(),
                dtype: param.dtype,
                wanted: dtype,
            });
        }
        if param.axis != part.axis || sizes(&param.shape) != sizes(&part.shape) {
            let (name, shape) = (param.name.to_string(), param.shape.clone());
            return Err(GatherError::Unlike { param: name, shape, axis: param.axis });
        }
    }
    Ok(())
}

/// Bands that repeat together, those within one step of the first, and bands of one run each alone.
pub(super) fn cells<'b, 'c>(bands: &'b [(Band, Source<'c>)]) -> impl Iterator<Item = &'b [(Band, Source<'c>)]> {
    let mut rest = bands;
    std::iter::from_fn(move || {
        let ((first, _), others) = rest.split_first()?;
        let is_with_it = |(band, _): &&(Band, Source<'_>)| {
            let alike = (band.repeat, band.at_step) == (first.repeat, first.at_step);
            first.repeat > 1 && alike && band.at.saturating_sub(first.at) < first.at_step
        };
        let (cell, further) = rest.split_at(1 + others.iter().take_while(is_with_it).count());
        rest = further;
        Some(cell)
    })
}
