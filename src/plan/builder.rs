//! Strings segments together, joining neighbours that read on where the one before stopped.

use std::ops::Range;
use std::sync::Arc;

use super::{FilePlan, Segment, Stripe};

/// Builds a [`FilePlan`] front to back.
#[derive(Debug, Default)]
pub struct Builder {
    plan: FilePlan,
    /// Set where the next segment stands for itself.
    is_cut: bool,
}

impl Builder {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far: where the next segment will start.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.plan.len
    }

    /// Appends `bytes`.
    pub fn literal(&mut self, bytes: impl Into<Arc<[u8]>>) {
        self.push(Segment::Literal(bytes.into()));
    }

    /// Appends `len` zero bytes.
    pub fn zero(&mut self, len: u64) {
        if !self.is_cut
            && let Some(Segment::Zero(before)) = self.plan.segments.last_mut()
        {
            *before += len;
            self.plan.len += len;
            return;
        }
        self.push(Segment::Zero(len));
    }

    /// Appends the CRC-32 of bytes `of` of this file.
    pub fn crc32(&mut self, of: Range<u64>) {
        self.push(Segment::Crc32(of));
    }

    /// Keeps what comes next apart from what came before, so that segments can be told by the tensor they are of.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Appends source bytes.
    pub fn stripe(&mut self, stripe: Stripe) {
        if !self.is_cut
            && let Some(Segment::Stripe(before)) = self.plan.segments.last_mut()
            && let Some(joined) = before.join(&stripe)
        {
            self.plan.len += stripe.bytes();
            *before = joined;
            return;
        }
        self.push(Segment::Stripe(stripe));
    }

    /// The finished plan.
    #[must_use]
    pub fn finish(mut self) -> FilePlan {
        self.plan.segments.shrink_to_fit();
        self.plan.starts.shrink_to_fit();
        self.plan
    }

    fn push(&mut self, segment: Segment) {
        let bytes = segment.bytes();
        if bytes > 0 {
            self.is_cut = false;
            self.plan.starts.push(self.plan.len);
            self.plan.segments.push(segment);
            self.plan.len += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::ObjectId;

    /// Lengths of the segments that come of these steps.
    fn lengths(steps: &[fn(&mut Builder)]) -> Vec<u64> {
        let mut builder = Builder::new();
        steps.iter().for_each(|step| step(&mut builder));
        let plan = builder.finish();
        assert_eq!(plan.len(), plan.segments().iter().map(Segment::bytes).sum::<u64>());
        plan.segments().iter().map(Segment::bytes).collect()
    }

    #[test]
    fn what_reads_on_is_one_segment_unless_it_is_cut() {
        let source = |builder: &mut Builder| {
            let at = builder.position();
            builder.stripe(Stripe::contiguous(ObjectId(0), at, 3));
        };
        let zeros = |builder: &mut Builder| builder.zero(3);
        let cut = Builder::cut;
        for step in [source as fn(&mut Builder), zeros] {
            assert_eq!(lengths(&[step, step, step]), [9]);
            assert_eq!(lengths(&[step, cut, step]), [3, 3]);
            // Apart from what came before, but not from what comes after.
            assert_eq!(lengths(&[cut, step, cut, step, step]), [3, 6]);
            // What is empty is nothing, and leaves the cut to what comes.
            assert_eq!(lengths(&[step, cut, |builder| builder.literal(Vec::new()), step]), [3, 3]);
            assert_eq!(lengths(&[step, cut, |builder| builder.zero(0), step]), [3, 3]);
        }
        assert_eq!(lengths(&[source, zeros, source]), [3, 3, 3]);
    }
}
