//! What every [`Store`] promises, checked on given samples.

use super::*;

/// An object and what it should hold.
pub(super) struct Sample {
    pub(super) object: ObjectId,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Runs every check on `store`.
pub(super) fn conformance(store: &dyn Store, samples: &[Sample]) {
    for sample in samples {
        metadata_is_right(store, sample);
        ranges_are_exact(store, sample);
        runs_scatter(store, sample);
        ranges_outside_are_errors(store, sample);
    }
    unknown_objects_are_errors(store, ObjectId(samples.len() as u32));
}

fn metadata_is_right(store: &dyn Store, sample: &Sample) {
    assert_eq!(store.len(sample.object).unwrap(), sample.bytes.len() as u64);
    assert_eq!(store.name(sample.object), sample.name);
    store.modified(sample.object).unwrap();
    store.check_unchanged(sample.object).unwrap();
}

fn ranges_are_exact(store: &dyn Store, sample: &Sample) {
    let size = sample.bytes.len();
    for (from, to) in
        [(0, size), (0, 0), (size, size), (size / 2, size), (size / 3, size / 2), (size - size.min(1), size)]
    {
        let mut out = vec![0; to - from];
        store.read_exact_at(sample.object, from as u64, &mut out).unwrap();
        assert_eq!(out, sample.bytes[from..to], "{} {from}..{to}", sample.name);
        out.fill(0);
        store.read_unchecked(sample.object, from as u64, &mut out).unwrap();
        assert_eq!(out, sample.bytes[from..to], "{} {from}..{to}", sample.name);
    }
}

/// Short and long runs in one call, out of order, with gaps that must stay as they were.
fn runs_scatter(store: &dyn Store, sample: &Sample) {
    let size = sample.bytes.len();
    let (short, long) = (size.min(700), size.min(100_000));
    let runs = [
        Run { from: (size - short) as u64, to: long + 3, len: short },
        Run { from: (size - long) as u64, to: 1, len: long },
        Run { from: 0, to: 0, len: 0 },
    ];
    let mut out = vec![0xee; long + short + 4];
    store.gather(sample.object, &runs, &mut out).unwrap();
    let mut expected = vec![0xee];
    expected.extend(&sample.bytes[size - long..]);
    expected.extend([0xee, 0xee]);
    expected.extend(&sample.bytes[size - short..]);
    expected.push(0xee);
    assert_eq!(out, expected, "{}", sample.name);
    store.gather(sample.object, &[], &mut []).unwrap();
}

fn ranges_outside_are_errors(store: &dyn Store, sample: &Sample) {
    let size = sample.bytes.len() as u64;
    let mut out = [0; 8];
    for run in [
        Run { from: size, to: 0, len: 1 },
        Run { from: u64::MAX, to: 0, len: 2 },
        Run { from: 0, to: 8, len: 1 },
        Run { from: 0, to: usize::MAX, len: 2 },
    ] {
        let error = store.gather(sample.object, &[run], &mut out).unwrap_err();
        assert!(matches!(error, StoreError::OutOfRange { .. }), "{run:?}: {error}");
        assert!(error.to_string().contains(&sample.name), "{error}");
    }
    for from in [size, u64::MAX] {
        let error = store.read_unchecked(sample.object, from, &mut out).unwrap_err();
        assert!(matches!(error, StoreError::OutOfRange { .. }), "{from}: {error}");
    }
}

fn unknown_objects_are_errors(store: &dyn Store, unknown: ObjectId) {
    assert!(matches!(store.len(unknown), Err(StoreError::Unknown(_))));
    assert!(matches!(store.modified(unknown), Err(StoreError::Unknown(_))));
    assert!(matches!(store.read_exact_at(unknown, 0, &mut []), Err(StoreError::Unknown(_))));
    assert!(matches!(store.read_unchecked(unknown, 0, &mut []), Err(StoreError::Unknown(_))));
    assert!(matches!(store.check_unchanged(unknown), Err(StoreError::Unknown(_))));
    assert_eq!(store.name(unknown), unknown.to_string());
}
