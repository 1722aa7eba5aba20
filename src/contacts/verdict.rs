//! What is known about a list's completeness, and which of it a caller accepts.

use std::fmt;

use crate::error::{Error, Kind, Result};

/// What is known about a list's completeness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No record that was there throughout is missing and none is twice, while records that stay keep their order.
    Verified(Checks),
    /// One walk without overlaps: totals equal, ids unique and as many.
    Consistent,
    /// Two walks agree with each other, and not with upstream's total.
    Settled,
    /// The list changed faster than it could be read: what was found, each once.
    Drifting,
}

/// What a verified list was verified by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Neighbouring pages overlap, and agree where they do.
    Seam,
    /// Two walks are equal.
    Twice,
}

impl Verdict {
    /// The words of all lists that are answered unless a caller says otherwise, for metrics that are present from the
    /// start.
    pub const ACCEPTED: [&str; 3] = ["verified", "consistent", "settled"];

    /// The word for it in `Merge-Status`, logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Verified(_) => Self::ACCEPTED[0],
            Self::Consistent => Self::ACCEPTED[1],
            Self::Settled => Self::ACCEPTED[2],
            Self::Drifting => "drifting",
        }
    }

    /// What stood in for the guarantee, where there is one.
    pub const fn checks(self) -> Option<&'static str> {
        match self {
            Self::Verified(Checks::Seam) => Some("seam"),
            Self::Verified(Checks::Twice) => Some("twice"),
            Self::Consistent | Self::Settled | Self::Drifting => None,
        }
    }

    /// Whether windows may be cut from such a list.
    pub const fn is_verified(self) -> bool {
        matches!(self, Self::Verified(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which verdicts a caller accepts (`Prefer: handling`, RFC 7240, section 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handling {
    /// None but verified.
    Strict,
    /// All but drifting.
    #[default]
    Default,
    /// Any.
    Lenient,
}

impl Handling {
    /// Whether a list will do.
    ///
    /// # Errors
    /// [`Kind::MergeDrifting`] where asking again may help, [`Kind::MergeUnverified`] where it will not.
    pub fn accept(self, verdict: Verdict) -> Result<()> {
        let unverified = |detail| Err(Error::new(Kind::MergeUnverified, detail));
        match (verdict, self) {
            (Verdict::Verified(_), _) | (_, Self::Lenient) => Ok(()),
            (Verdict::Consistent | Verdict::Settled, Self::Default) => Ok(()),
            (Verdict::Consistent, Self::Strict) => {
                unverified("the list is only consistent: its pages cannot overlap")
            }
            (Verdict::Settled, Self::Strict) => {
                unverified("the list is only settled: upstream says another number of contacts")
            }
            (Verdict::Drifting, Self::Strict | Self::Default) => Err(Error::new(
                Kind::MergeDrifting,
                "the list kept changing while it was read",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_what() {
        let verified = [Checks::Seam, Checks::Twice].map(Verdict::Verified);
        let rest = [Verdict::Consistent, Verdict::Settled, Verdict::Drifting];
        let kind = |handling: Handling, verdict| {
            handling
                .accept(verdict)
                .err()
                .map(|error| error.kind().code())
        };
        for handling in [Handling::Strict, Handling::Default, Handling::Lenient] {
            assert_eq!(
                verified.map(|verdict| kind(handling, verdict)),
                [None, None]
            );
        }
        let (unverified, drifting) = (Some("merge_unverified"), Some("merge_drifting"));
        assert_eq!(
            rest.map(|verdict| kind(Handling::Strict, verdict)),
            [unverified, unverified, drifting]
        );
        assert_eq!(
            rest.map(|verdict| kind(Handling::Default, verdict)),
            [None, None, drifting]
        );
        assert_eq!(
            rest.map(|verdict| kind(Handling::Lenient, verdict)),
            [None, None, None]
        );
    }
}
