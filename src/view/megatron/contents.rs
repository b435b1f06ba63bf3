//! What the storages of a file hold, and the file as a zip archive of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::extent::Extent;
use crate::format::{torch, zip};
use crate::plan::{Builder, Stripe, Target, gather};
use crate::tensor::{Dtype, Shape};
use crate::value::{Storage, TensorRef, Value};
use crate::view::{PlacedTensor, PlannedFile, ViewError};

/// The storages of a file, by the key its tree refers to them with.
#[derive(Default)]
pub(in crate::view) struct Contents<'a> {
    by_key: HashMap<Arc<str>, Payload<'a>>,
}

/// The bytes of one storage.
enum Payload<'a> {
    /// A tensor.
    Tensor(Named<'a>),
    /// Tensors one after the other, each at its first element, with zeros between them.
    Flat(Vec<(u64, Named<'a>)>),
    /// A storage of the source, as it is.
    Verbatim(Extent),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A tensor and the name it is listed under.
struct Named<'a> {
    name: Arc<str>,
    target: &'a Target<'a>,
}

impl<'a> Contents<'a> {
    /// The value that stands for a tensor in the tree. `name` is its own within the file.
    pub(in crate::view) fn tensor(&mut self, name: &str, target: &'a Target<'a>) -> Value {
        let key: Arc<str> = format!("tensor {name}").into();
        self.by_key.insert(key.clone(), Payload::Tensor(Named { name: name.into(), target }));
        reference(key, target.dtype, target.shape.clone())
    }

    /// The value that stands for a row of `len` elements with these tensors at these first elements, in order.
    pub(in crate::view) fn flat(
        &mut self,
        name: &str,
        dtype: Dtype,
        len: u64,
        parts: Vec<(u64, Arc<str>, &'a Target<'a>)>,
    ) -> Value {
        let key: Arc<str> = format!("flat {name}").into();
        let parts = parts.into_iter().map(|(start, name, target)| (start, Named { name, target })).collect();
        self.by_key.insert(key.clone(), Payload::Flat(parts));
        reference(key, dtype, Shape(vec![len]))
    }

    /// The value that stands for a tensor of these bytes. `name` is its own within the file.
    pub(in crate::view) fn bytes(&mut self, name: &str, dtype: Dtype, shape: Shape, bytes: Vec<u8>) -> Value {
        let key: Arc<str> = format!("bytes {name}").into();
        self.by_key.insert(key.clone(), Payload::Bytes(bytes));
        reference(key, dtype, shape)
    }

    /// Takes over a storage of the source.
    pub(in crate::view) fn carry(&mut self, key: Arc<str>, extent: Extent) {
        self.by_key.insert(key, Payload::Verbatim(extent));
    }

    /// Where the storages of the source are that were taken over.
    pub(in crate::view) fn carried(self) -> HashMap<Arc<str>, Extent> {
        let known = |payload| if let Payload::Verbatim(extent) = payload { Some(extent) } else { None };
        self.by_key.into_iter().filter_map(|(key, payload)| Some((key, known(payload)?))).collect()
    }

    /// The file: pickle and storages as records of a zip archive named as `file` is: torch begins their names with its stem.
    /// `source` is the name of the file that it takes values from.
    #[expect(clippy::indexing_slicing, reason = "pieces are of these records, and there is a place for each")]
    pub(in crate::view) fn lay_out(
        &self,
        tree: Value,
        file_name: &str,
        source: &str,
    ) -> Result<PlannedFile, ViewError> {
        let mut encoded = torch::encode_pickle(&tree)
            .map_err(|error| ViewError::Pickle { file: source.to_owned(), source: error })?;
        // As large as the plan that comes now, where tensors are many.
        drop(tree);
        let sizes: Vec<u64> = encoded.storages.iter().map(|storage| storage.bytes).collect();
        let records = torch::records(encoded.pickle.len() as u64, &sizes);
        let mut file =
            FileBuilder { builder: Builder::new(), at: vec![0..0; records.len()], tensors: Vec::new() };
        let sums: Vec<Option<u32>> =
            records.iter().map(|record| self.known_sum(&record.content, &encoded)).collect();
        let specs = records.iter().map(|record| &record.spec);
        for piece in zip::Layout::new(file_name.trim_end_matches(".pt"), specs)?.pieces {
            match piece {
                zip::Piece::Bytes(bytes) => file.builder.literal(bytes),
                // Readers that check a record before the tensors (zipfile, lazy ones) get by with those that are known.
                zip::Piece::Crc(index) => match sums[index] {
                    Some(sum) => file.builder.literal(sum.to_le_bytes()),
                    None => file.builder.crc32(file.at[index].clone()),
                },
                zip::Piece::Record(index) => {
                    let record = &records[index];
                    let start = file.builder.position();
                    match &record.content {
                        torch::Content::Pickle => file.builder.literal(std::mem::take(&mut encoded.pickle)),
                        torch::Content::Bytes(bytes) => file.builder.literal(bytes.as_slice()),
                        torch::Content::Storage(number) => {
                            self.storage(encoded.storages.get(*number), source, &mut file)?;
                        }
                    }
                    let end = file.builder.position();
                    // Every later offset counts on it.
                    let (planned, wanted) = (end - start, record.spec.size);
                    if planned != wanted {
                        return Err(ViewError::RecordSize {
                            record: record.spec.name.clone(),
                            wanted,
                            planned,
                        });
                    }
                    file.at[index] = start..end;
                }
            }
        }
        Ok(PlannedFile { plan: file.builder.finish(), tensors: file.tensors })
    }

    /// The checksum of a record, where its bytes are here and not in the source.
    fn known_sum(&self, content: &torch::Content, encoded: &torch::Encoded) -> Option<u32> {
        match content {
            torch::Content::Pickle => Some(crc32fast::hash(&encoded.pickle)),
            torch::Content::Bytes(bytes) => Some(crc32fast::hash(bytes)),
            torch::Content::Storage(number) => match self.by_key.get(&encoded.storages.get(*number)?.key)? {
                Payload::Bytes(bytes) => Some(crc32fast::hash(bytes)),
                Payload::Tensor(_) | Payload::Flat(_) | Payload::Verbatim(_) => None,
            },
        }
    }

    fn storage(
        &self,
        storage: Option<&Storage>,
        source: &str,
        file: &mut FileBuilder,
    ) -> Result<(), ViewError> {
        let Some(content) = storage.and_then(|storage| self.by_key.get(&storage.key)) else {
            let key = match storage {
                Some(storage) => storage.key.to_string(),
                None => "?".to_owned(),
            };
            return Err(ViewError::Storage { file: source.to_owned(), key });
        };
        match content {
            Payload::Bytes(bytes) if bytes.is_empty() => {}
            Payload::Bytes(bytes) => file.builder.literal(bytes.as_slice()),
            Payload::Verbatim(extent) => {
                file.builder.stripe(Stripe::contiguous(extent.object, extent.offset, extent.len));
            }
            Payload::Tensor(named) => file.tensor(named)?,
            Payload::Flat(parts) => {
                let start = file.builder.position();
                for (first, named) in parts {
                    // Starts ascend, and every part ends before the next one starts; the record's size is checked at the end.
                    let at = start + first * named.target.dtype.size();
                    file.builder.zero(at.saturating_sub(file.builder.position()));
                    file.tensor(named)?;
                }
            }
        }
        Ok(())
    }
}

fn reference(key: Arc<str>, dtype: Dtype, shape: Shape) -> Value {
    Value::Tensor(Arc::new(TensorRef::whole(key, dtype, shape)))
}

struct FileBuilder {
    builder: Builder,
    /// Bytes of the file that each record is.
    at: Vec<Range<u64>>,
    tensors: Vec<PlacedTensor>,
}

impl FileBuilder {
    fn tensor(&mut self, named: &Named<'_>) -> Result<(), ViewError> {
        let Named { name, target } = named;
        let start = self.builder.position();
        self.builder.cut();
        gather(target, &mut self.builder)
            .map_err(|source| ViewError::Gather { tensor: name.to_string(), source })?;
        self.tensors.push(PlacedTensor {
            name: name.clone(),
            dtype: target.dtype,
            shape: target.shape.clone(),
            bytes: start..self.builder.position(),
        });
        Ok(())
    }
}
