//! Plans against a naive model: every byte of a small plan and where it comes from, one by one, and the plan resolved whole and in parts.

use arbitrary::{Arbitrary, Unstructured};
use ckpt_fs::extent::ObjectId;
use ckpt_fs::plan::{Builder, Dim, FilePlan, Piece, Read, Stripe};

/// Bytes of a plan that are still enumerated.
const LARGEST: u64 = 1 << 13;

#[derive(Arbitrary, Debug)]
enum Part {
    Literal(u8),
    Zero(u8),
    Crc {
        from: u16,
    },
    Cut,
    /// Bytes that may read on from those before.
    Run {
        object: bool,
        start: u8,
        len: u8,
    },
    Stripe {
        repeat: u8,
        row: Vec<Loops>,
    },
}

#[derive(Arbitrary, Debug)]
struct Loops {
    object: bool,
    start: u8,
    step: u8,
    dims: Vec<(u8, u8)>,
    run: u8,
    /// Written as simply as can be, or as it stands.
    reduced: bool,
}

/// Where a byte comes from.
#[derive(Clone, Debug, PartialEq)]
enum Byte {
    Of(ObjectId, u64),
    Literal(u8),
    Zero,
    Crc(u64, u64, u64),
}

impl Loops {
    fn piece(&self) -> Piece {
        let (object, start, step) = (ObjectId(self.object.into()), self.start.into(), self.step.into());
        let dims: Vec<Dim> = self.dims().map(|(count, step)| Dim { count, step }).collect();
        match self.reduced {
            true => Piece::new(object, start, step, &dims, self.run.into()),
            false => Piece { object, start, step, dims, run: self.run.into() },
        }
    }

    fn dims(&self) -> impl Iterator<Item = (u64, u64)> {
        self.dims.iter().take(3).map(|(count, step)| (u64::from(count % 8), u64::from(*step)))
    }

    fn bytes(&self) -> u64 {
        self.dims().map(|(count, _)| count).product::<u64>() * u64::from(self.run)
    }

    /// The bytes of row `row`.
    fn naive(&self, row: u64, out: &mut Vec<Byte>) {
        let mut starts = vec![u64::from(self.start) + row * u64::from(self.step)];
        for (count, step) in self.dims() {
            starts = starts.iter().flat_map(|start| (0..count).map(move |n| start + n * step)).collect();
        }
        let object = ObjectId(self.object.into());
        let run = u64::from(self.run);
        out.extend(starts.iter().flat_map(|start| (0..run).map(move |n| Byte::Of(object, start + n))));
    }
}

/// The plan and its bytes; `None` where there are too many.
fn made(parts: &[Part]) -> Option<(FilePlan, Vec<Byte>)> {
    let (mut builder, mut bytes) = (Builder::new(), Vec::new());
    for part in parts {
        match part {
            Part::Literal(byte) => {
                builder.literal([*byte; 3].as_slice());
                bytes.extend(std::iter::repeat_n(Byte::Literal(*byte), 3));
            }
            Part::Zero(len) => {
                builder.zero((*len).into());
                bytes.extend(std::iter::repeat_n(Byte::Zero, (*len).into()));
            }
            Part::Crc { from } => {
                let of = builder.position().min((*from).into())..builder.position();
                builder.crc32(of.clone());
                bytes.extend((0..4).map(|n| Byte::Crc(of.start, of.end, n)));
            }
            Part::Cut => builder.cut(),
            Part::Run { object, start, len } => {
                let (object, start) = (ObjectId((*object).into()), u64::from(*start));
                builder.stripe(Stripe::contiguous(object, start, (*len).into()));
                bytes.extend((0..u64::from(*len)).map(|n| Byte::Of(object, start + n)));
            }
            Part::Stripe { repeat, row } => {
                let repeat = u64::from(*repeat);
                let size = row.iter().map(Loops::bytes).sum::<u64>() * repeat;
                if bytes.len() as u64 + size > LARGEST || row.len() > 64 {
                    return None;
                }
                builder.stripe(Stripe::new(repeat, row.iter().map(Loops::piece).collect()));
                (0..repeat).for_each(|n| row.iter().for_each(|piece| piece.naive(n, &mut bytes)));
            }
        }
        assert_eq!(builder.position(), bytes.len() as u64);
    }
    (bytes.len() as u64 <= LARGEST).then(|| (builder.finish(), bytes))
}

fn resolved(plan: &FilePlan, range: std::ops::Range<u64>) -> Vec<Byte> {
    let mut out = Vec::new();
    plan.resolve(range, |read| match read {
        Read::Copy { object, from, to, len } => {
            assert_eq!(to, out.len() as u64);
            out.extend((from..from + len).map(|at| Byte::Of(object, at)));
        }
        Read::Literal { bytes, to } => {
            assert_eq!(to, out.len() as u64);
            out.extend(bytes.iter().map(|byte| Byte::Literal(*byte)));
        }
        Read::Zero { to, len } => {
            assert_eq!(to, out.len() as u64);
            out.extend((0..len).map(|_| Byte::Zero));
        }
        Read::Crc32 { of, part, to } => {
            assert_eq!(to, out.len() as u64);
            out.extend(part.map(|n| Byte::Crc(of.start, of.end, n)));
        }
    });
    out
}

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let Ok((parts, cuts)) = <(Vec<Part>, [u16; 3])>::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let Some((plan, bytes)) = made(&parts) else { return };
    let len = plan.len();
    assert_eq!((len, plan.located().map(|(_, segment)| segment.bytes()).sum()), (bytes.len() as u64, len));
    let mut cuts = cuts.map(|at| u64::from(at) % (len + 2));
    cuts.sort_unstable();
    let [a, b, c] = cuts;
    let whole = resolved(&plan, a..c);
    let naive = bytes.get(a as usize..(c.min(len)) as usize).unwrap_or_default();
    assert!(whole == naive, "bytes {a} to {c}");
    assert!([resolved(&plan, a..b), resolved(&plan, b..c)].concat() == whole, "bytes {a} to {c}, cut at {b}");
    // All source bytes up to where they are said to end, and something else there.
    let end = plan.stripes_end(b);
    let is_source = |at: u64| matches!(bytes.get(at as usize), Some(Byte::Of(..)));
    assert!((b..end).all(is_source) && (end == b || !is_source(end)));
}
