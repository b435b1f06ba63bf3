//! Megatron's text for a pipeline cut, `Et*2|t*3|tL`: embedding, layers and loss, with `|` between stages.
//!
//! Source: `PipelineParallelLayerLayout.parse_str_to_list` of megatron-core, whose two passes of substitution are followed to the letter:
//! what it does not understand is refused here too. Not here: how many pipeline ranks take turns with the stages (`name`).

use std::fmt;
use std::str::FromStr;

use super::Stages;

/// A cut as such a text says it. Stages may hold no layer: that is what the text is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineLayout {
    /// Layers per (virtual) stage, in the order of the model.
    pub stages: Stages,
    /// Multi-token-prediction layers, which stand on the last stage.
    pub prediction_layers: u32,
}

/// A text that is no cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a pipeline layout: {what}")]
pub struct PipelineLayoutError {
    text: String,
    what: String,
}

/// No model has as many layers and stages: a multiplication beyond it is a mistake.
const LONGEST: usize = 1 << 16;

impl FromStr for PipelineLayout {
    type Err = PipelineLayoutError;

    fn from_str(text: &str) -> Result<Self, PipelineLayoutError> {
        read(text).map_err(|what| PipelineLayoutError { text: text.chars().take(200).collect(), what })
    }
}

fn read(text: &str) -> Result<PipelineLayout, String> {
    let plain: String = text.chars().filter(|c| *c != ',').collect();
    let unrolled = replace(&plain, group)?;
    let unrolled = replace(&unrolled, single)?;
    let all: Vec<&str> = unrolled.split('|').collect();
    let count = all.len();
    let mut layers = Vec::with_capacity(count);
    let mut prediction_layers = 0;
    for (index, stage) in all.into_iter().enumerate() {
        let (first, last) = (index == 0, index + 1 == count);
        check_stage(stage, first, last)?;
        let number = |layer: char| u32::try_from(stage.matches(layer).count()).unwrap_or(u32::MAX);
        layers.push(number('t'));
        prediction_layers += number('m');
    }
    let stages = Stages::new(layers).ok_or("it has no stages")?;
    Ok(PipelineLayout { stages, prediction_layers })
}

/// The embedding opens the first stage, the loss closes the last one, and predictions stand right before it.
fn check_stage(stage: &str, first: bool, last: bool) -> Result<(), String> {
    if let Some(other) = stage.chars().find(|c| !"EtmL".contains(*c)) {
        return Err(format!(
            "'{other}' is none of E (embedding), t (layer), m (multi-token prediction) and L (loss)"
        ));
    }
    let rest = match stage.strip_prefix('E') {
        Some(rest) if first => rest,
        None if first => return Err("its first stage must begin with E, the embedding".into()),
        _ => stage,
    };
    let rest = match rest.strip_suffix('L') {
        Some(rest) if last => rest,
        None if last => return Err("its last stage must end with L, the loss".into()),
        _ => rest,
    };
    if rest.contains(['E', 'L']) {
        return Err("E (embedding) and L (loss) stand in it once, at either end".into());
    }
    if !last && rest.contains('m') {
        return Err("m (multi-token prediction) is supported on the last stage only".into());
    }
    if rest.trim_start_matches('t').contains('t') {
        return Err("layers (t) come before multi-token prediction (m)".into());
    }
    Ok(())
}

/// Every match of `unroll` at a place of `text`, from left to right, replaced by what it makes of it.
fn replace(text: &str, unroll: fn(&str) -> Option<(&str, usize, &str)>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((what, times, after)) = unroll(rest) {
            // All of them together: a text of many short multiplications is as long.
            if what.len().saturating_mul(times).saturating_add(out.len()) > LONGEST {
                return Err("it has more stages and layers than any model".into());
            }
            out.push_str(&what.repeat(times));
            rest = after;
        } else {
            out.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    Ok(out)
}

/// `(..)*N` at the start of `text`: what stands within the parentheses, N, and what follows.
fn group(text: &str) -> Option<(&str, usize, &str)> {
    let (within, after) = text.strip_prefix('(')?.split_once(')')?;
    let (times, after) = number(after.strip_prefix('*')?)?;
    (!within.is_empty()).then_some((within, times, after))
}

/// `x*N` at the start of `text`, likewise.
fn single(text: &str) -> Option<(&str, usize, &str)> {
    let first = text.chars().next()?.len_utf8();
    let (what, after) = text.split_at_checked(first)?;
    let (times, after) = number(after.strip_prefix('*')?)?;
    Some((what, times, after))
}

fn number(text: &str) -> Option<(usize, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, after) = text.split_at_checked(digits)?;
    // What is beyond a machine word is beyond the bound too.
    (digits > 0).then(|| (number.parse().unwrap_or(usize::MAX), after))
}

impl fmt::Display for PipelineLayout {
    /// The one canonical text: `Et*2|t*3|tL`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.stages.layers().len();
        for (index, layers) in self.stages.layers().iter().enumerate() {
            f.write_str(if index == 0 { "E" } else { "|" })?;
            run(f, 't', *layers)?;
            if index + 1 == count {
                run(f, 'm', self.prediction_layers)?;
                f.write_str("L")?;
            }
        }
        Ok(())
    }
}

fn run(f: &mut fmt::Formatter<'_>, layer: char, count: u32) -> fmt::Result {
    match count {
        0 => Ok(()),
        1 => write!(f, "{layer}"),
        _ => write!(f, "{layer}*{count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(text: &str) -> Result<Vec<u32>, String> {
        let read: Result<PipelineLayout, _> = text.parse();
        read.map(|cut| cut.stages.layers().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_are_read_as_megatron_reads_them() {
        assert_eq!(layers("Et*2|t*3|tL"), Ok(vec![2, 3, 1]));
        assert_eq!(layers("E|t|L"), Ok(vec![0, 1, 0]));
        assert_eq!(layers("EttL"), Ok(vec![2]));
        assert_eq!(layers("Ettt|(tt|)*29,m|L").unwrap_err().matches("last stage only").count(), 1);
        assert_eq!(layers("Ettt|(tt|)*3,L"), Ok(vec![3, 2, 2, 2, 0]));
        assert_eq!(layers("E(t|t*2|)*2,tL"), Ok(vec![1, 2, 1, 2, 1]));
        assert_eq!(layers("Et(|tt)*2,L"), Ok(vec![1, 2, 2]));
        assert_eq!(layers("Et|*3tL"), Ok(vec![1, 0, 0, 1]));
        assert_eq!(layers("Et*0|t*2L"), Ok(vec![0, 2]));
        let predicted: PipelineLayout = "Et|tmmL".parse().unwrap();
        assert_eq!((predicted.prediction_layers, predicted.to_string()), (2, "Et|tm*2L".to_owned()));
    }

    #[test]
    fn what_megatron_refuses_is_refused() {
        for (bad, word) in [
            ("", "must begin with E"),
            ("tt|L", "must begin with E"),
            ("Et|t", "must end with L"),
            ("Et L", "' '"),
            ("((t|)*2t)*2L", "'('"),
            ("E((t|)*2t)*2L", "'('"),
            ("Et*2*3L", "'*'"),
            ("EtE|L", "once"),
            ("Et|LtL", "once"),
            ("Et|EtL", "once"),
            ("EtL|tL", "once"),
            ("Et*L", "'*'"),
            ("E(tt)*40000L", "than any model"),
            ("Et*65536L", "than any model"),
            ("|Et|L", "must begin with E"),
            ("EtmtL", "before multi-token"),
            ("Et*99999999999999999999L", "than any model"),
            ("E(t*65000|)*7000L", "than any model"),
        ] {
            let error = layers(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn the_canonical_text_is_read_back() {
        for text in ["Et*2|t*3|tL", "E|t|L", "Et*4L", "Et|t*2m|L"] {
            if let Ok(cut) = text.parse::<PipelineLayout>() {
                assert_eq!(cut.to_string(), text);
            }
        }
    }

    #[test]
    fn the_longest_text_is_read_and_a_longer_one_is_shown_in_part() {
        assert_eq!(layers("Et*65535L"), Ok(vec![65_535]));
        let error = layers(&"x".repeat(300)).unwrap_err();
        assert_eq!(error.split('\'').nth(1).map(str::len), Some(200));
    }
}
