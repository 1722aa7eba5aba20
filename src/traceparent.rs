//! The trace that a request belongs to (W3C Trace Context, header `traceparent`).
//!
//! What a caller has begun is continued to upstream: the same trace, and a new parent for each attempt. None is begun
//! here, since a request has an id already. `tracestate` is neither read nor passed on: it may hold anything, and upstream
//! is somebody else's; the specification lets a trace go on without it.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    num::{NonZeroU64, NonZeroU128},
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What version 00 says of flags: sampled, and that the trace's id was made at random. Others are not known, and not
/// passed on.
const FLAGS_KNOWN: u8 = 0b11;

/// A caller's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    id: NonZeroU128,
    flags: u8,
}

impl TraceContext {
    /// The one that a request's headers tell of; `None` without one, with several, and with one that is not well-formed.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut told = headers.get_all(TRACEPARENT).iter();
        match (told.next(), told.next()) {
            (Some(one), None) => Self::parse(one.as_bytes()),
            _ => None,
        }
    }

    /// Reads `00-{32 hexadecimal digits}-{16}-{2}`. Of a later version this is the beginning, before another `-`.
    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(55)?;
        let version = hex(&known[..2])?;
        let well_formed = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.first().is_none_or(|byte| *byte == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&place| known[place] == b'-');
        if !well_formed || !dashes {
            return None;
        }
        // That of whoever asked need not be known, but has to be one.
        hex(&known[36..52]).filter(|parent| *parent != 0)?;
        let flags = hex(&known[53..])? as u8;
        Some(Self {
            id: NonZeroU128::new(hex(&known[3..35])?)?,
            flags: flags & FLAGS_KNOWN,
        })
    }

    /// The header of one attempt, which is a parent of its own.
    pub fn next(self) -> HeaderValue {
        let Self { id, flags } = self;
        let text = format!("00-{id:032x}-{:016x}-{flags:02x}", number());
        // Nothing but hexadecimal digits and dashes.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Its id, as logs show it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.id)
    }
}

/// A number of lower-case digits; others are not allowed here.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// A number at random.
fn number() -> NonZeroU64 {
    // Its keys are random, and others each time; this needs no more than that.
    NonZeroU64::new(RandomState::new().hash_one(())).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text.as_bytes())
    }

    #[test]
    fn what_is_well_formed_is_read() {
        for (good, flags) in [
            (GOOD.to_owned(), "01"),
            (GOOD.replace("-01", "-00"), "00"),
            (GOOD.replace("-01", "-03"), "03"),
            // Flags that nobody knows yet are not repeated.
            (GOOD.replace("-01", "-ff"), "03"),
            // A later version is continued as this one.
            (GOOD.replacen("00-", "01-", 1), "01"),
            (GOOD.replacen("00-", "fe-", 1) + "-what-comes-later", "01"),
        ] {
            let trace = parse(&good).unwrap_or_else(|| panic!("{good}"));
            assert_eq!(trace.to_string(), ID);
            let next = trace.next();
            let next = next.to_str().unwrap();
            assert!(next.starts_with(&format!("00-{ID}-")), "{next}");
            assert!(next.ends_with(&format!("-{flags}")), "{next}");
            assert_eq!(parse(next), Some(trace));
        }
    }

    #[test]
    fn what_is_not_well_formed_is_no_trace() {
        let zeros = |digits: &str| GOOD.replace(digits, &"0".repeat(digits.len()));
        for bad in [
            String::new(),
            zeros(ID),
            zeros("00f067aa0ba902b7"),
            GOOD.to_uppercase(),
            GOOD.replacen("00-", "ff-", 1),
            GOOD.replacen("00-", "0g-", 1),
            GOOD.replace('-', "_"),
            GOOD.replace("-01", "-1"),
            GOOD.replace("-01", "-0x"),
            GOOD.replace("-01", ""),
            GOOD.replace("4bf", "4 f"),
            // Version 00 ends here.
            format!("{GOOD}-"),
            format!("{GOOD}-more"),
            format!("{GOOD}0"),
            // And a later one goes on with a dash, if it does.
            GOOD.replacen("00-", "01-", 1) + "x",
            format!(" {GOOD}"),
            format!("{GOOD},{GOOD}"),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn two_headers_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::of(&headers), parse(GOOD));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::of(&headers), None);
    }

    #[test]
    fn each_attempt_is_another_parent() {
        let trace = parse(GOOD).unwrap();
        let parents: HashSet<_> = (0..1000).map(|_| trace.next()).collect();
        assert_eq!(parents.len(), 1000);
    }

    proptest! {
        /// Whatever is sent, what goes on is well-formed.
        #[test]
        fn nothing_else_travels_on(text in "[0-9a-fA-F-]{0,60}|\\PC{0,60}") {
            if let Some(trace) = parse(&text) {
                prop_assert_eq!(parse(trace.next().to_str().unwrap()), Some(trace));
            }
        }
    }
}
