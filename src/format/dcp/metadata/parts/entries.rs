//! From the objects of DCP to parts: fields by name, every number checked.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use super::{Part, Parts, RawChunk, RawIndex, RawInfo, RawTensor, describe, unlike};
use super::super::{DcpError, Encoding};
use crate::format::dcp::error::Name;
use crate::format::pickle::Item;
use crate::tensor::Dtype;

/// Most axes of a tensor in torch.
const AXES: usize = 64;

/// The one way of storing pieces that is known beside storing them as they are.
const ZSTD: &str = "stream.zstd/1";

/// The fields of an object by name, each at most once and no others.
fn fields<'a, const N: usize>(
    state: Item<'a>,
    class: &'static str,
    names: [&'static str; N],
) -> Result<[Option<Item<'a>>; N], DcpError> {
    let Some(items) = state.dict() else { return Err(expected("the fields of an object", state)) };
    let mut found = [None; N];
    for (key, value) in items {
        let Some(name) = key.text() else { return Err(expected("the name of a field", key)) };
        let slot = names.iter().zip(&mut found).find(|(other, _)| ***other == **name);
        let Some((_, slot)) = slot else { return Err(DcpError::UnknownField { class, field: Name::new(name) }) };
        if slot.replace(value).is_some() {
            return Err(DcpError::Twice { what: "field", name: Name::new(name) });
        }
    }
    Ok(found)
}

fn expected(expected: &'static str, found: Item<'_>) -> DcpError {
    DcpError::Expected { expected, found: describe(found) }
}

/// A number that is not negative.
fn number(what: &'static str, item: Item<'_>) -> Result<u64, DcpError> {
    let Some(number) = item.int() else { return Err(expected(what, item)) };
    u64::try_from(number).map_err(|_| DcpError::Negative { what, number })
}

/// `_get_layout(name)`
pub(super) fn layout(args: Item<'_>) -> Result<Part, DcpError> {
    let mut args = args.tuple().into_iter().flatten();
    match args.next().and_then(Item::text) {
        Some(name) if **name == *"torch.strided" => Ok(Part::Strided),
        Some(name) => Err(DcpError::Layout { found: Name::new(name) }),
        None => Err(DcpError::Layout { found: Name::new("not named") }),
    }
}

impl Parts {
    /// `torch.Size(numbers)`
    pub(super) fn size(&mut self, args: Item<'_>) -> Result<Part, DcpError> {
        let mut inner = args.tuple().into_iter().flatten();
        match (inner.next(), inner.next()) {
            (Some(numbers), None) => Ok(Part::Size(self.plain(numbers)?)),
            _ => Err(expected("one argument of torch.Size", args)),
        }
    }

    /// A tuple of numbers.
    fn plain(&mut self, item: Item<'_>) -> Result<u32, DcpError> {
        let Some(items) = item.tuple() else { return Err(expected("a tuple of sizes", item)) };
        let axes = items.len();
        if axes > AXES {
            return Err(DcpError::Axes { found: axes });
        }
        self.spend(axes.saturating_mul(8))?;
        let mut numbers = [0; AXES];
        for (slot, item) in numbers.iter_mut().zip(items) {
            *slot = number("a size or offset", item)?;
        }
        Ok(self.lists.number(numbers.get(..axes).unwrap_or_default())?)
    }

    /// A `torch.Size`, or the tuple that it is to Python.
    pub(in super::super) fn numbers(&mut self, item: Item<'_>) -> Result<u32, DcpError> {
        if item.tuple().is_some() {
            return self.plain(item);
        }
        match self.part(item, "a torch.Size")? {
            Part::Size(numbers) => Ok(numbers),
            other => Err(unlike("a torch.Size", other)),
        }
    }

    /// `TensorProperties`: dtype, layout, and what nobody needs who reads bytes (`requires_grad`, memory format, `pin_memory`, since torch 2.15
    /// the strides of the shard that one rank had in memory).
    pub(super) fn properties(&mut self, state: Item<'_>) -> Result<Part, DcpError> {
        let items = state.tuple().filter(|items| (5..=6).contains(&items.len()));
        let Some(mut items) = items else { return Err(expected("the five or six properties of a tensor", state)) };
        let (Some(dtype), Some(layout)) = (items.next(), items.next()) else {
            return Err(expected("the properties of a tensor", state));
        };
        match self.part(layout, "a layout")? {
            Part::Strided => {}
            other => return Err(unlike("a layout", other)),
        }
        let Some(global) = dtype.global() else { return Err(expected("a dtype", dtype)) };
        let known = Dtype::from_name(&global.name).filter(|_| &*global.module == "torch");
        let number = Dtype::all().zip(0..).find(|(other, _)| Some(*other) == known);
        match number {
            Some((_, number)) => Ok(Part::Properties(number)),
            None => Err(DcpError::Dtype { found: Name::new(&format!("{}.{}", global.module, global.name)) }),
        }
    }

    pub(super) fn chunk(&mut self, state: Item<'_>) -> Result<Part, DcpError> {
        const CLASS: &str = "ChunkStorageMetadata";
        let [offsets, sizes] = fields(state, CLASS, ["offsets", "sizes"])?;
        let offsets = offsets.ok_or(DcpError::NoField { class: CLASS, field: "offsets" })?;
        let sizes = sizes.ok_or(DcpError::NoField { class: CLASS, field: "sizes" })?;
        let chunk = RawChunk { offsets: self.numbers(offsets)?, sizes: self.numbers(sizes)? };
        self.chunks.push(chunk);
        Ok(Part::Chunk(Self::last(&self.chunks)?))
    }

    pub(super) fn tensor(&mut self, state: Item<'_>) -> Result<Part, DcpError> {
        const CLASS: &str = "TensorStorageMetadata";
        let [properties, size, chunks] = fields(state, CLASS, ["properties", "size", "chunks"])?;
        let properties = properties.ok_or(DcpError::NoField { class: CLASS, field: "properties" })?;
        let dtype = match self.part(properties, "a TensorProperties")? {
            Part::Properties(number) => Dtype::all().nth(number as usize),
            other => return Err(unlike("a TensorProperties", other)),
        };
        let dtype = dtype.ok_or_else(|| expected("a dtype", properties))?;
        let size = self.numbers(size.ok_or(DcpError::NoField { class: CLASS, field: "size" })?)?;
        let list = chunks.ok_or(DcpError::NoField { class: CLASS, field: "chunks" })?;
        let Some(items) = list.list() else { return Err(expected("a list of chunks", list)) };
        self.spend(items.len().saturating_mul(4))?;
        let chunks = items.map(|item| match self.part(item, "a ChunkStorageMetadata")? {
            Part::Chunk(number) => Ok(number),
            other => Err(unlike("a ChunkStorageMetadata", other)),
        });
        let chunks = chunks.collect::<Result<_, DcpError>>()?;
        self.tensors.push(RawTensor { dtype, size, chunks });
        Ok(Part::Tensor(Self::last(&self.tensors)?))
    }

    /// `MetadataIndex`. Its `index` is a hint for Python, and not compared there either.
    pub(super) fn index(&mut self, state: Item<'_>) -> Result<Part, DcpError> {
        const CLASS: &str = "MetadataIndex";
        let [fqn, _, offset] = fields(state, CLASS, ["fqn", "index", "offset"])?;
        let fqn = fqn.ok_or(DcpError::NoField { class: CLASS, field: "fqn" })?;
        let Some(text) = fqn.text() else { return Err(expected("a key", fqn)) };
        let key = self.key(text)?;
        let offset = offset.filter(|offset| !offset.is_none());
        let offsets = offset.map(|offset| self.numbers(offset)).transpose()?;
        self.indices.push(RawIndex { key, offsets });
        Ok(Part::Index(Self::last(&self.indices)?))
    }

    /// Number of a key.
    pub(in super::super) fn key(&mut self, text: &Arc<str>) -> Result<u32, DcpError> {
        self.spend(text.len())?;
        Ok(self.keys.number(text)?)
    }

    pub(super) fn info(&mut self, state: Item<'_>) -> Result<Part, DcpError> {
        const CLASS: &str = "_StorageInfo";
        const NAMES: [&str; 4] = ["relative_path", "offset", "length", "transform_descriptors"];
        let [path, offset, len, transforms] = fields(state, CLASS, NAMES)?;
        let path = path.ok_or(DcpError::NoField { class: CLASS, field: "relative_path" })?;
        let offset = offset.ok_or(DcpError::NoField { class: CLASS, field: "offset" })?;
        let len = len.ok_or(DcpError::NoField { class: CLASS, field: "length" })?;
        let encoding = match transforms {
            Some(transforms) if !transforms.is_none() => encoding(transforms)?,
            _ => Encoding::Plain,
        };
        let Some(text) = path.text() else { return Err(expected("a path", path)) };
        self.spend(text.len())?;
        check_path(text)?;
        let path = self.paths.number(text)?;
        let (offset, len) = (number("the offset of a piece", offset)?, number("the length of a piece", len)?);
        if offset.checked_add(len).is_none() {
            return Err(DcpError::Overflow { what: "the end of a piece", numbers: vec![offset, len] });
        }
        self.infos.push(RawInfo { path, encoding, offset, len });
        Ok(Part::Info(Self::last(&self.infos)?))
    }
}

/// `transform_descriptors`: in the order in which a reader applies them.
fn encoding(transforms: Item<'_>) -> Result<Encoding, DcpError> {
    let Some(mut items) = transforms.list() else { return Err(expected("a list of transformations", transforms)) };
    match (items.next(), items.next()) {
        (None, _) => Ok(Encoding::Plain),
        (Some(item), None) if item.text().is_some_and(|text| **text == *ZSTD) => Ok(Encoding::Zstd),
        (first, second) => {
            let names = [first, second].into_iter().flatten();
            let names: Vec<_> = names.map(|item| item.text().map_or_else(|| describe(item), |text| text.to_string())).collect();
            let more = if items.len() > 0 { ", .." } else { "" };
            Err(DcpError::Transforms { found: Name::new(&format!("{}{more}", names.join(", "))) })
        }
    }
}

/// A path to a file within the directory.
fn check_path(path: &Arc<str>) -> Result<(), DcpError> {
    let leads_out = path.starts_with('/') || path.split('/').any(|part| part == "..");
    if path.is_empty() || path.ends_with('/') || path.contains('\0') || leads_out {
        return Err(DcpError::Path { path: Name::new(path) });
    }
    Ok(())
}
