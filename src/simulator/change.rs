//! What can happen to a stream's records while somebody reads them.
//!
//! A change has one written form, `kind`, `kind=position` or `swap=position,position`, which flags and the control interface
//! share.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::{
    noise::Noise,
    records::{INSERTED_MAX, PIECES_MAX, Records},
};

/// The most changes before one call of a stream.
pub const CHURN_MAX: f64 = 100.0;

/// One change of a stream's records. Positions count from 0, in the order in which pages give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new record, created later than all others, before the one at this position, or at the end. Written `insert=5`.
    Insert(u64),
    /// The record is gone. Written `delete=5`.
    Delete(u64),
    /// The record has another `updatedAt`, `updatedBy` and `updatedByAId`. Written `update=5`.
    Update(u64),
    /// Two records change places. Written `swap=5,900`.
    Swap(u64, u64),
    /// All records in the opposite order. Written `reverse`.
    Reverse,
}

/// A kind of change, for changes at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Insert,
    Delete,
    Update,
    Swap,
    Reverse,
}

/// A change that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no record {position}: the stream has {len}, counted from 0")]
    NoRecord { position: u64, len: u64 },
    #[error(
        "the stream was changed too often: it holds {PIECES_MAX} pieces and {INSERTED_MAX} new records at most"
    )]
    TooMany,
    #[error("no more than {max} changes are scheduled at the same time", max = super::stream::SCHEDULED_MAX)]
    TooManyScheduled,
    #[error("calls are counted from 1, the next one: a change cannot come before call 0")]
    NoCall,
    #[error("so many changes before each call are a number from 0 to {CHURN_MAX}, not {0}")]
    Rate(f64),
    #[error("`{0}` is no change; there are insert=5, delete=5, update=5, swap=5,900 and reverse")]
    Unknown(String),
}

impl Change {
    /// Changes the records.
    pub(super) fn apply(self, records: &mut Records) -> Result<(), ChangeError> {
        match self {
            Self::Insert(position) => records.insert_at(position).map(drop),
            Self::Delete(position) => records.delete(position).map(drop),
            Self::Update(position) => records.update(position).map(drop),
            Self::Swap(one, other) => records.swap(one, other),
            Self::Reverse => {
                records.reverse();
                Ok(())
            }
        }
    }

    /// One of a kind, in a stream with so many records. Where there is none to change, there is none.
    fn random(kind: ChangeKind, len: u64, noise: &mut Noise) -> Option<Self> {
        Some(match kind {
            ChangeKind::Insert => Self::Insert(noise.below(len + 1)),
            ChangeKind::Reverse => Self::Reverse,
            _ if len == 0 => return None,
            ChangeKind::Delete => Self::Delete(noise.below(len)),
            ChangeKind::Update => Self::Update(noise.below(len)),
            ChangeKind::Swap => Self::Swap(noise.below(len), noise.below(len)),
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert(position) => write!(f, "insert={position}"),
            Self::Delete(position) => write!(f, "delete={position}"),
            Self::Update(position) => write!(f, "update={position}"),
            Self::Swap(one, other) => write!(f, "swap={one},{other}"),
            Self::Reverse => write!(f, "reverse"),
        }
    }
}

impl FromStr for Change {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let Some((kind, value)) = text.split_once('=') else {
                return (text == "reverse").then_some(Self::Reverse);
            };
            if kind == "swap" {
                let (one, other) = value.split_once(',')?;
                return Some(Self::Swap(one.parse().ok()?, other.parse().ok()?));
            }
            let position = value.parse().ok()?;
            match kind {
                "insert" => Some(Self::Insert(position)),
                "delete" => Some(Self::Delete(position)),
                "update" => Some(Self::Update(position)),
                _ => None,
            }
        };
        read().ok_or_else(|| ChangeError::Unknown(text.to_owned()))
    }
}

impl Serialize for Change {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Changes at random before the calls of a stream. Which ones follows from the simulator's seed and the calls before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Churn {
    rate: f64,
    kinds: Vec<ChangeKind>,
}

impl Churn {
    /// So many changes before each call, 0 to [`CHURN_MAX`]; 0.2 is one before every fifth on average. They insert, delete,
    /// update and swap.
    pub fn new(rate: f64) -> Result<Self, ChangeError> {
        if !(0.0..=CHURN_MAX).contains(&rate) {
            return Err(ChangeError::Rate(rate));
        }
        use ChangeKind::{Delete, Insert, Swap, Update};
        Ok(Self {
            rate,
            kinds: vec![Insert, Delete, Update, Swap],
        })
    }

    /// Only these kinds, one as often as another; none changes nothing.
    #[must_use]
    pub fn only(self, kinds: &[ChangeKind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            ..self
        }
    }

    /// How many changes come before one call.
    pub(super) fn count(&self, noise: &mut Noise) -> u32 {
        if self.kinds.is_empty() {
            return 0;
        }
        let whole = self.rate.trunc() as u32;
        whole + u32::from(super::noise::fraction(noise.next()) < self.rate.fract())
    }

    /// One of them. The kinds are not empty where one is asked for.
    pub(super) fn change(&self, len: u64, noise: &mut Noise) -> Option<Change> {
        Change::random(*noise.pick(&self.kinds), len, noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_and_written_back() {
        for text in ["insert=5", "delete=0", "update=5", "swap=5,900", "reverse"] {
            assert_eq!(text.parse::<Change>().unwrap().to_string(), text);
        }
        for text in [
            "insert",
            "insert=-1",
            "swap=1",
            "swap=1,x",
            "reverse=1",
            "move=1",
            "",
        ] {
            let error = text.parse::<Change>().unwrap_err().to_string();
            assert!(
                error.contains("there are insert=5, delete=5"),
                "{text}: {error}"
            );
        }
        for rate in [-0.1, 100.1, f64::NAN] {
            assert!(Churn::new(rate).is_err());
        }
    }

    #[test]
    fn churn_keeps_its_rate_and_its_kinds() {
        let churn = Churn::new(1.5).unwrap();
        let mut noise = Noise::new(7);
        let count: u32 = (0..1_000).map(|_| churn.count(&mut noise)).sum();
        assert!((1_430..1_570).contains(&count), "{count}");
        let only = churn.only(&[ChangeKind::Delete]);
        for len in [1, 50] {
            assert!(matches!(only.change(len, &mut noise), Some(Change::Delete(at)) if at < len));
        }
        assert_eq!(only.change(0, &mut noise), None);
        assert_eq!(only.only(&[]).count(&mut noise), 0);
    }
}
