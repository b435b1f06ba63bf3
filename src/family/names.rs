//! Numbers in names: which layer and which expert a tensor or a parameter is of.
//!
//! Templates have `{layer}`, `{expert}` and `{depth}` where names have numbers. Files count from 0 on each rank, canonical parameters through the model.

/// The numbers in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Number of the layer.
    pub layer: Option<u32>,
    /// Number of the expert.
    pub expert: Option<u32>,
    /// Number of the layer that predicts a token beyond the next one.
    pub depth: Option<u32>,
}

impl Numbers {
    /// The first expert of this layer, and the first prediction: what stands for all of them.
    #[must_use]
    pub fn of_layer(layer: u32) -> Self {
        Self { layer: Some(layer), expert: Some(0), depth: Some(0) }
    }

    /// The name that `template` has with these numbers.
    #[must_use]
    pub fn fill(self, template: &str) -> String {
        let mut name = template.to_owned();
        for (place, number) in [(LAYER, self.layer), (EXPERT, self.expert), (DEPTH, self.depth)] {
            if let Some(number) = number {
                name = name.replace(place, &number.to_string());
            }
        }
        name
    }
}

/// Stands for the number of a layer.
pub const LAYER: &str = "{layer}";
/// Stands for the number of an expert.
pub const EXPERT: &str = "{expert}";
/// Stands for the number of a layer that predicts a token beyond the next one.
pub const DEPTH: &str = "{depth}";

/// No name has more numbers that matter; a hostile one has any.
const MOST: usize = 8;

/// The names with `{layer}` that `name` could be of, one for each number in it that may matter, with that number.
pub fn layer_templates(name: &str) -> impl Iterator<Item = (String, u32)> {
    numbers(name).take(MOST).filter(|number| number.whole).filter_map(move |number| {
        let (before, after) = (name.get(..number.at)?, name.get(number.end..)?);
        Some((format!("{before}{LAYER}{after}"), number.value))
    })
}

/// The names with `{layer}` or `{depth}`, and `{expert}`, that `name` could be of, with their numbers. Layers stand before their experts.
pub fn templates(name: &str) -> impl Iterator<Item = (String, Numbers)> {
    let found: Vec<Number> = numbers(name).take(MOST).collect();
    let outer = [LAYER, DEPTH].into_iter().flat_map(move |place| {
        let found = found.clone();
        let whole = found.clone().into_iter().enumerate().filter(|(_, number)| number.whole);
        whole.flat_map(move |(index, outer)| {
            let experts: Vec<Number> = found.iter().skip(index + 1).copied().collect();
            let inner = std::iter::once(None).chain(experts.into_iter().map(Some));
            inner.map(move |expert| (place, outer, expert))
        })
    });
    outer.filter_map(move |(place, outer, expert)| {
        let before = name.get(..outer.at)?;
        let after = match expert {
            None => name.get(outer.end..)?.to_owned(),
            Some(expert) => format!("{}{EXPERT}{}", name.get(outer.end..expert.at)?, name.get(expert.end..)?),
        };
        let is_layer = place == LAYER;
        let numbers = Numbers {
            layer: is_layer.then_some(outer.value),
            depth: (!is_layer).then_some(outer.value),
            expert: expert.map(|expert| expert.value),
        };
        Some((format!("{before}{place}{after}"), numbers))
    })
}

/// A number in a name.
#[derive(Debug, Clone, Copy)]
struct Number {
    at: usize,
    end: usize,
    value: u32,
    /// Whether it stands alone between dots, and not at the end of a word.
    whole: bool,
}

/// Plain numbers that are a part of `name` between dots, or end it.
fn numbers(name: &str) -> impl Iterator<Item = Number> {
    let mut start = 0;
    name.split('.').filter_map(move |part| {
        let end = start + part.len();
        start = end + 1;
        let digits = part.bytes().rev().take_while(u8::is_ascii_digit).count();
        let at = end - digits;
        let text = name.get(at..end)?;
        let plain = !text.is_empty() && (text == "0" || !text.starts_with('0'));
        let whole = digits == part.len();
        let value = if plain && (whole || end == name.len()) { text.parse().ok()? } else { return None };
        Some(Number { at, end, value, whole })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_are_layers() {
        let all: Vec<_> = layer_templates("a.0.b.12.c").collect();
        assert_eq!(all, [("a.{layer}.b.12.c".to_owned(), 0), ("a.0.b.{layer}.c".to_owned(), 12)]);
        assert_eq!(layer_templates("a.01.b").count(), 0);
        assert_eq!(layer_templates("weight7.a").count(), 0);
        assert_eq!(layer_templates("a.weight7").count(), 0);
    }

    /// Each number makes another name of the same length: together they would take the square of it.
    #[test]
    fn a_name_of_numbers_alone_is_not_read_in_every_way() {
        let name = "0.".repeat(1 << 16);
        assert!(layer_templates(&name).count() <= MOST);
        assert!(templates(&name).count() <= 2 * MOST * MOST);
    }

    #[test]
    fn experts_are_parts_or_end_the_name() {
        let of =
            |name: &str, template: &str| templates(name).find(|(found, _)| found == template).map(|t| t.1);
        let numbers = |layer, expert| Some(Numbers { layer: Some(layer), expert: Some(expert), depth: None });
        assert_eq!(of("l.3.e.5.w", "l.{layer}.e.{expert}.w"), numbers(3, 5));
        assert_eq!(of("l.3.fc1.weight12", "l.{layer}.fc1.weight{expert}"), numbers(3, 12));
        assert_eq!(of("l.3.fc1.weight01", "l.{layer}.fc1.weight{expert}"), None);
        let depth = Some(Numbers { depth: Some(0), ..Numbers::default() });
        assert_eq!(of("mtp.layers.0.enorm.weight", "mtp.layers.{depth}.enorm.weight"), depth);
        assert_eq!(numbers(3, 12).unwrap().fill("l.{layer}.e.{expert}.w"), "l.3.e.12.w");
    }
}
