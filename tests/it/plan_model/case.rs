//! Tensors cut at random: what a source stores of them, what a target wants, and what the naive reading makes of it.

use ckpt_fs::catalog::{Chunk, Param, Period};
use ckpt_fs::extent::ObjectId;
use ckpt_fs::family::Arrangement;
use ckpt_fs::layout::Rank;
use ckpt_fs::plan::{Fill, Part, Source, Target};
use ckpt_fs::tensor::{Band, Dtype, Region, Shape};
use proptest::prelude::*;
use proptest::sample::Index;

use super::array::{Array, Position, Storage};

/// What new rows hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Filling {
    Zero,
    Float(f32),
    /// The last row of the first parameter.
    Last,
}

/// New rows of every rank's tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padding {
    pub(super) filling: Filling,
    pub(super) rows: u64,
    /// Before the others, or behind them.
    pub(super) first: bool,
}

/// Parameters that one tensor holds, and how source and target cut it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) dtype: Dtype,
    pub(super) sizes: Vec<u64>,
    pub(super) before: Vec<u64>,
    pub(super) after: Vec<u64>,
    pub(super) source: (Arrangement, u64),
    pub(super) target: (Arrangement, u64),
    /// How ranks with even numbers keep it, and how those with odd ones do.
    pub(super) storage: [Storage; 2],
    /// Files that each hold the same of it.
    pub(super) copies: u32,
    /// How each rank's tensor is cut again.
    pub(super) cut: Cut,
    /// Tensors like it that stand on each other in the target.
    pub(super) stack: usize,
    pub(super) padding: Option<Padding>,
    pub(super) seed: u16,
}

/// Pieces that a rank's tensor is stored in.
#[derive(Clone, Debug)]
pub(super) enum Cut {
    /// One.
    Whole,
    /// A grid: cuts on each axis.
    Grid(Vec<Vec<Index>>),
    /// Stretches of its elements.
    Flat(Vec<Index>),
}

/// The source's files, and what the catalog knows of each parameter: those of the first tensor of a stack, then those of the next.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) files: Vec<Vec<u8>>,
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let dtype = prop_oneof![
        Just(Dtype::Int8),
        Just(Dtype::Bfloat16),
        Just(Dtype::Float32),
        Just(Dtype::Float64),
        Just(Dtype::Complex128)
    ];
    // Groups of the source and of the target, some of which are groups of those.
    let sizes = (1u64..9, 1u64..4, any::<bool>(), proptest::collection::vec(0u64..3, 1..4));
    let around = (proptest::collection::vec(1u64..4, 0..4), proptest::collection::vec(1u64..4, 0..3));
    let storage = prop_oneof![
        Just(Storage::Contiguous),
        Just(Storage::Padded),
        Just(Storage::Transposed),
        Just(Storage::Turned)
    ];
    let cuts = (0usize..4, 0usize..4, 1u64..5, 1u64..5);
    let copies = (1u32..3, cut());
    let more = ([storage.clone(), storage], copies, 1usize..4, proptest::option::of(padding()), any::<u16>());
    (dtype, sizes, around, cuts, more).prop_map(
        |(dtype, sizes, (before, after), (source, target, source_tp, target_tp), more)| {
            let (groups, finer, source_is_finer, shares) = sizes;
            let (storage, (copies, cut), stack, padding, seed) = more;
            const PAIRED: usize = 2;
            let kind = |kind, is_finer: bool| match kind {
                0 => Arrangement::Replicated,
                1 => Arrangement::Concatenated,
                PAIRED => Arrangement::Paired { head: 2 * groups },
                _ => Arrangement::Interleaved { groups: if is_finer { groups * finer } else { groups } },
            };
            // Sizes that every TP divides, so that most cases are real ones.
            let halves = if source == PAIRED || target == PAIRED { 2 } else { 1 };
            let unit = halves * groups * finer * source_tp * target_tp;
            let sizes = shares.iter().map(|share| (share + 1) * unit).collect();
            let float = |filling| matches!(filling, Filling::Float(_));
            let fits = |padding: &Padding| dtype == Dtype::Float32 || !float(padding.filling);
            // New rows are rows: nothing is filled in the middle of one.
            let padding = padding.filter(|padding| before.iter().all(|size| *size == 1) && fits(padding));
            let source = (kind(source, source_is_finer), source_tp);
            let target = (kind(target, !source_is_finer), target_tp);
            Case { dtype, sizes, before, after, source, target, storage, copies, cut, stack, padding, seed }
        },
    )
}

fn cut() -> impl Strategy<Value = Cut> {
    let cuts = || proptest::collection::vec(any::<Index>(), 0..3);
    prop_oneof![
        Just(Cut::Whole),
        proptest::collection::vec(cuts(), 1..4).prop_map(Cut::Grid),
        proptest::collection::vec(any::<Index>(), 0..4).prop_map(Cut::Flat),
    ]
}

fn padding() -> impl Strategy<Value = Padding> {
    let filling = prop_oneof![Just(Filling::Zero), Just(Filling::Float(-1.5)), Just(Filling::Last)];
    (filling, 1u64..4, any::<bool>()).prop_map(|(filling, rows, first)| Padding { filling, rows, first })
}

/// What stands at each position of a rank's tensor, by the naive reading of an arrangement.
fn naive_positions(arrangement: Arrangement, sizes: &[u64], tp: u64, rank: u64) -> Vec<Position> {
    let all =
        |part: usize, range: std::ops::Range<u64>| range.map(move |position| Position::Of(part, position));
    match arrangement {
        Arrangement::Replicated => sizes.iter().enumerate().flat_map(|(p, n)| all(p, 0..*n)).collect(),
        Arrangement::Concatenated => {
            sizes.iter().enumerate().flat_map(|(p, n)| all(p, n / tp * rank..n / tp * (rank + 1))).collect()
        }
        Arrangement::Interleaved { groups } => {
            let mut whole = Vec::new();
            for g in 0..groups {
                whole.extend(
                    sizes.iter().enumerate().flat_map(|(p, n)| all(p, n / groups * g..n / groups * (g + 1))),
                );
            }
            let len = whole.len() / tp as usize;
            whole[len * rank as usize..len * (rank as usize + 1)].to_vec()
        }
        Arrangement::Paired { head } => {
            let heads = |part: usize, size: u64| {
                let own = size / head / tp;
                (own * rank..own * (rank + 1)).flat_map(move |number| {
                    // As the code of others turns them: row 2 i + j is row i of half j.
                    (0..head)
                        .map(move |row| number * head + row % 2 * (head / 2) + row / 2)
                        .map(move |row| Position::Of(part, row))
                })
            };
            sizes.iter().enumerate().flat_map(|(part, size)| heads(part, *size)).collect()
        }
    }
}

impl Case {
    pub(super) fn axis(&self) -> usize {
        self.before.len()
    }

    fn shape(&self, size: u64) -> Vec<u64> {
        [self.before.as_slice(), &[size], self.after.as_slice()].concat()
    }

    /// Writes the source's files and says what is in them: for each tensor of the stack its arrays, and the parameters that they are.
    pub(super) fn store(&self, files: &mut Files) -> Vec<(Vec<Array>, Vec<Param>)> {
        let mut state = u64::from(self.seed) + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let first_file = files.files.len();
        let number = self.source.1 as usize * self.copies as usize;
        files.files.resize(first_file + number, Vec::new());
        let each = (0..self.stack).map(|_| {
            let array = |size: &u64| Array::filled(self.dtype, self.shape(*size), &mut next);
            let arrays: Vec<Array> = self.sizes.iter().map(array).collect();
            let params = self.store_one(&arrays, &mut files.files[first_file..], first_file as u32);
            (arrays, params)
        });
        each.collect()
    }

    fn store_one(&self, arrays: &[Array], files: &mut [Vec<u8>], first_file: u32) -> Vec<Param> {
        let shapes = arrays.iter().map(|array| Shape(array.shape.clone()));
        let mut params: Vec<Param> =
            shapes.map(|shape| Param::new("p".into(), self.dtype, shape, self.axis())).collect();
        let (arrangement, tp) = self.source;
        for rank in 0..tp {
            let positions = naive_positions(arrangement, &self.sizes, tp, rank);
            let local = Array::pick(arrays, self.axis(), &positions);
            for copy in 0..self.copies {
                // Copies come in the wrong order, so that it takes more than the order of files to find the first.
                let number = (rank as u32) * self.copies + (self.copies - 1 - copy);
                let file = &mut files[number as usize];
                let place = Rank { pp: 0, tp: rank as u32, ep: copy };
                for region in self.cut.regions(&local.shape) {
                    let before = file.len();
                    let (start, strides) = self.storage[rank as usize % 2].write(&local.part(&region), file);
                    if copy > 0 {
                        // Only the first of several copies is read, so that all readers share its pages.
                        file[before..].fill(0xCC);
                    }
                    let object = ObjectId(first_file + number);
                    let piece = Chunk { region, rank: place, object, start, strides, period: None };
                    for band in arrangement.bands(&self.sizes, tp, rank).unwrap() {
                        let param = &mut params[band.part];
                        chunks(&band, self.axis(), &piece).into_iter().for_each(|chunk| param.add(chunk));
                    }
                }
            }
        }
        params.iter().for_each(|param| param.check().unwrap());
        params
    }

    /// What rank `rank` of the target holds, tensor by tensor of the stack.
    pub(super) fn wanted(&self, rank: u64, stored: &[(Vec<Array>, Vec<Param>)]) -> Vec<Array> {
        let mut positions = naive_positions(self.target.0, &self.sizes, self.target.1, rank);
        if let Some(padding) = self.padding {
            let new = match padding.filling {
                Filling::Zero => Position::Zero,
                Filling::Float(number) => Position::Filled(number.to_le_bytes()),
                Filling::Last => Position::Of(0, self.sizes[0] - 1),
            };
            let at = if padding.first { 0 } else { positions.len() };
            positions.splice(at..at, vec![new; padding.rows as usize]);
        }
        stored.iter().map(|(arrays, _)| Array::pick(arrays, self.axis(), &positions)).collect()
    }

    /// The bands of rank `rank` of the target, over these parameters.
    pub(super) fn bands<'p>(&self, rank: u64, params: &'p [Param]) -> Vec<(Band, Source<'p>)> {
        let (arrangement, tp) = self.target;
        let bands = arrangement.bands(&self.sizes, tp, rank).unwrap();
        let mut bands: Vec<_> =
            bands.into_iter().map(|band| (band, Source::Param(&params[band.part]))).collect();
        if let Some(padding) = self.padding {
            let fill = match padding.filling {
                Filling::Zero => Fill::Zero,
                Filling::Float(number) => Fill::Float(number),
                Filling::Last => Fill::Last(&params[0]),
            };
            let before = if padding.first { padding.rows } else { 0 };
            let old: u64 = bands.iter().map(|(band, _)| band.positions()).sum();
            bands.iter_mut().for_each(|(band, _)| band.at += before);
            let at = if padding.first { 0 } else { old };
            bands.push((Band::once(0, at, 0, padding.rows), Source::Fill(fill)));
        }
        bands
    }

    /// What rank `rank` of the target is to be made of.
    pub(super) fn target<'p>(&self, rank: u64, stored: &'p [(Vec<Array>, Vec<Param>)]) -> Target<'p> {
        let each = stored.iter().zip(self.wanted(rank, stored));
        let parts: Vec<Part<'p>> = each
            .map(|((_, params), wanted)| Part {
                shape: Shape(wanted.shape),
                axis: self.axis(),
                bands: self.bands(rank, params),
            })
            .collect();
        let shape = Shape([&[parts.len() as u64][..], &parts[0].shape.0].concat());
        Target { dtype: self.dtype, shape, parts }
    }
}

impl Cut {
    /// The pieces of a tensor of this shape.
    fn regions(&self, shape: &[u64]) -> Vec<Region> {
        let ends = |cuts: &[Index], size: u64| {
            let cuts = cuts.iter().map(|cut| cut.index(size as usize + 1) as u64);
            let mut ends: Vec<u64> = cuts.chain([0, size]).collect();
            ends.sort_unstable();
            ends.windows(2).map(|pair| pair[0]..pair[1]).filter(|range| !range.is_empty()).collect::<Vec<_>>()
        };
        let shape = Shape(shape.to_vec());
        match self {
            Self::Whole => vec![Region::whole(&shape)],
            Self::Grid(cuts) => {
                let mut regions = vec![vec![]];
                for (axis, size) in shape.0.iter().enumerate() {
                    let of_axis = ends(&cuts[axis % cuts.len()], *size);
                    let each = regions.into_iter().flat_map(|outer: Vec<_>| {
                        of_axis
                            .iter()
                            .map(move |range| [outer.as_slice(), std::slice::from_ref(range)].concat())
                    });
                    regions = each.collect();
                }
                // Not in the order of the tensor.
                regions.into_iter().rev().map(Region::new).collect()
            }
            Self::Flat(cuts) => {
                let stretches = ends(cuts, shape.elements().unwrap());
                stretches.into_iter().flat_map(|stretch| Region::of_flat(&shape, stretch).unwrap()).collect()
            }
        }
    }
}

/// What a piece of a rank's tensor has of a band: a chunk in groups where it has all of it, else one of each run.
fn chunks(band: &Band, axis: usize, piece: &Chunk) -> Vec<Chunk> {
    let (held, stride) = (piece.region.along(axis), piece.strides[axis]);
    let start = |at: u64| piece.start + (at - held.start) * stride;
    let end = band.at + (band.repeat - 1) * band.at_step + band.len;
    if held.start <= band.at && end <= held.end {
        let region = piece.region.clone().with(axis, band.from..band.from + band.positions());
        let period = (band.repeat > 1).then_some(Period { len: band.len, step: band.at_step * stride });
        return vec![Chunk { region, start: start(band.at), period, ..piece.clone() }];
    }
    let runs = band.runs().filter_map(|run| {
        let (from, to) = (run.at.max(held.start), (run.at + run.len).min(held.end));
        let span = run.from + from.saturating_sub(run.at)..run.from + to.saturating_sub(run.at);
        let region = piece.region.clone().with(axis, span);
        (from < to).then(|| Chunk { region, start: start(from), ..piece.clone() })
    });
    runs.collect()
}
