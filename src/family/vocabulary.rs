//! Padding of the vocabulary: how many rows the embedding has at a tensor-parallel size, and what of them is real.

use super::{Model, Padding};
use crate::value::Value;

/// The vocabulary of one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// How it is padded.
    pub padding: Padding,
    /// What the padded size is a multiple of (before TP); `None` where `args` do not say.
    pub multiple: Option<u64>,
    /// Rows the source has.
    pub stored: u64,
    /// Tensor-parallel size of the source; `None` where it is not padded by this rule.
    pub stored_tp: Option<u64>,
    /// Real tokens, where known: the rest is padding.
    pub true_size: Option<u64>,
}

/// A vocabulary that cannot be padded for a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// The padded size depends on a number the files do not have.
    #[error(
        "the padded vocabulary at TP {tp} depends on the true vocabulary size, which this checkpoint does not record \
         (it stores {stored} rows); say it with --vocab-size N"
    )]
    Unknown {
        /// Tensor-parallel size asked for.
        tp: u64,
        /// Rows the source has.
        stored: u64,
    },
    /// The rule of the padding is not known.
    #[error(
        "the padded vocabulary at TP {tp} is a multiple of a number that args do not say, or of one beyond reason \
         (make_vocab_size_divisible_by in Megatron's args)"
    )]
    NoMultiple {
        /// Tensor-parallel size asked for.
        tp: u64,
    },
    /// A size from the command line that cannot be.
    #[error("--vocab-size {given} is more than the {stored} rows this checkpoint stores")]
    TooLarge {
        /// Size given.
        given: u64,
        /// Rows the source has.
        stored: u64,
    },
    /// A size from the command line that would have been padded differently.
    #[error(
        "--vocab-size {given} would be padded to {padded} at the source's TP {tp}, but it stores {stored} rows"
    )]
    Contradiction {
        /// Size given.
        given: u64,
        /// What it would be padded to.
        padded: u64,
        /// Rows the source has.
        stored: u64,
        /// TP of the source.
        tp: u64,
    },
}

impl Model {
    /// The vocabulary, for a source that stores `stored` rows of it at tensor-parallel size `tp`.
    #[must_use]
    pub fn vocabulary(&self, args: &Value, stored: u64, tp: u32) -> Vocabulary {
        let rule = &self.family.file.vocabulary;
        let number =
            |field: &str| args.attribute(field).and_then(Value::as_int).and_then(|n| u64::try_from(n).ok());
        let unpadded = rule
            .unpadded_if_false
            .as_ref()
            .and_then(|field| args.attribute(field))
            .is_some_and(|v| !v.is_truthy());
        let (padding, multiple) = if unpadded {
            (Padding::Fixed, Some(1))
        } else {
            let stated = rule.multiple.as_deref().and_then(number).filter(|n| *n > 0);
            (rule.padding, stated.or(rule.multiple_of))
        };
        let mut vocabulary =
            Vocabulary { padding, multiple, stored, stored_tp: Some(u64::from(tp)), true_size: None };
        vocabulary.trust(rule.true_size.as_deref().and_then(number));
        vocabulary
    }
}

impl super::Family {
    /// How files of this family pad the vocabulary.
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.file.vocabulary.padding
    }

    /// What its rows are a multiple of, where that is fixed.
    #[must_use]
    pub fn padded_to(&self) -> Option<u64> {
        self.file.vocabulary.multiple_of
    }
}

/// More rows than any vocabulary has: a number from a damaged file must not become the size of a tensor.
const MOST_ROWS: u64 = 1 << 40;

impl Vocabulary {
    /// Takes over what `args` say the true size is, if padding it gives the rows that are stored; otherwise the field means something else.
    pub fn trust(&mut self, stated: Option<u64>) {
        let padded = |size| self.stored_tp.is_none_or(|tp| self.padded(size, tp) == Some(self.stored));
        self.true_size = stated.filter(|size| *size == self.stored || (*size < self.stored && padded(*size)));
    }

    /// Takes over what the user says the true size is.
    ///
    /// # Errors
    /// [`VocabularyError`] where that cannot be.
    pub fn state(&mut self, given: u64) -> Result<(), VocabularyError> {
        if given > self.stored {
            return Err(VocabularyError::TooLarge { given, stored: self.stored });
        }
        match self.stored_tp.and_then(|tp| self.padded(given, tp)) {
            // More rows than stored only means that whoever wrote the source did not pad; fewer would drop rows that may be real.
            Some(padded) if padded < self.stored => Err(VocabularyError::Contradiction {
                given,
                padded,
                stored: self.stored,
                tp: self.stored_tp.unwrap_or(1),
            }),
            _ => {
                self.true_size = Some(given);
                Ok(())
            }
        }
    }

    /// Rows at tensor-parallel size `tp`.
    ///
    /// # Errors
    /// [`VocabularyError::Unknown`] where the answer depends on an unknown true size.
    pub fn rows(&self, tp: u64) -> Result<u64, VocabularyError> {
        let unknown = VocabularyError::Unknown { tp, stored: self.stored };
        let no_multiple = VocabularyError::NoMultiple { tp };
        if self.padding == Padding::Exact {
            return Ok(self.true_size.unwrap_or(self.stored));
        }
        let Some(stored_tp) = self.stored_tp else {
            // Rows that nobody knows to be padding count as real.
            return self.padded(self.true_size.unwrap_or(self.stored), tp).ok_or(no_multiple);
        };
        if self.padding == Padding::Fixed || tp == stored_tp {
            return Ok(self.stored);
        }
        if let Some(size) = self.true_size {
            return self.padded(size, tp).ok_or(no_multiple);
        }
        // Any true size between these would have given the stored rows; if they all give the same now, it need not be known.
        let slack = self.multiple.and_then(|multiple| multiple.checked_mul(stored_tp)).ok_or(no_multiple)?;
        if !self.stored.is_multiple_of(slack) {
            // Whoever wrote the rows did not pad them by this rule.
            return Err(unknown);
        }
        let least = self.stored.saturating_sub(slack).saturating_add(1);
        match (self.padded(least, tp), self.padded(self.stored, tp)) {
            (Some(low), Some(high)) if low == high => Ok(high),
            _ => Err(unknown),
        }
    }

    fn padded(&self, size: u64, tp: u64) -> Option<u64> {
        let unit = match self.padding {
            Padding::Fixed => self.multiple?,
            Padding::PerTp => self.multiple?.checked_mul(tp)?,
            Padding::Exact => 1,
        };
        size.checked_next_multiple_of(unit).filter(|rows| *rows <= MOST_ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn megatron(stored: u64, stored_tp: u64) -> Vocabulary {
        Vocabulary {
            padding: Padding::PerTp,
            multiple: Some(64),
            stored,
            stored_tp: Some(stored_tp),
            true_size: None,
        }
    }

    #[test]
    fn a_true_size_is_trusted_only_if_it_reproduces_the_stored_rows() {
        let mut vocabulary = megatron(576, 1);
        vocabulary.trust(Some(530));
        assert_eq!(vocabulary.true_size, Some(530));
        assert_eq!((vocabulary.rows(1), vocabulary.rows(2), vocabulary.rows(4)), (Ok(576), Ok(640), Ok(768)));
        vocabulary.trust(Some(500));
        assert_eq!(vocabulary.true_size, None);
        vocabulary.trust(Some(577));
        assert_eq!(vocabulary.true_size, None);
    }

    #[test]
    fn an_unknown_true_size_matters_only_where_padding_depends_on_it() {
        assert_eq!(megatron(512, 1).rows(8), Ok(512));
        assert_eq!(megatron(640, 2).rows(2), Ok(640));
        assert_eq!(megatron(640, 2).rows(1), Err(VocabularyError::Unknown { tp: 1, stored: 640 }));
        assert_eq!(megatron(576, 1).rows(2), Ok(640));
        let silent = Vocabulary { multiple: None, ..megatron(576, 1) };
        assert!(silent.rows(2).is_err());
    }

    #[test]
    fn a_given_size_must_fit_the_stored_rows() {
        let mut vocabulary = megatron(640, 2);
        assert!(matches!(vocabulary.state(641), Err(VocabularyError::TooLarge { .. })));
        assert!(matches!(vocabulary.state(500), Err(VocabularyError::Contradiction { padded: 512, .. })));
        assert_eq!(vocabulary.state(530), Ok(()));
        assert_eq!(vocabulary.rows(1), Ok(576));
    }

    #[test]
    fn a_fixed_padding_is_the_same_everywhere() {
        let yuan = Vocabulary { padding: Padding::Fixed, ..megatron(384, 1) };
        assert_eq!((yuan.rows(1), yuan.rows(3)), (Ok(384), Ok(384)));
    }
}
