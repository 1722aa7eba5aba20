//! The written form of a fault, read: one parser for flags, control calls and serde.

use std::{str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::ValueEnum;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Claim, Denial, Fault};

/// The default of `nesting`: one level more than a gateway accepts.
const NESTING: u32 = 65;
/// The default of `oversize`: more than a gateway reads of a page.
const OVERSIZE_BYTES: u64 = 9 << 20;
/// The default of `gzip-bomb`: far more than anybody reads.
const BOMB_BYTES: u64 = 1 << 30;
/// The default of the stalls: longer than any timeout of a gateway.
const STALL: Duration = Duration::from_secs(60);
/// The default of `drip`: often enough to outwit a timeout between bytes.
const DRIP_EVERY: Duration = Duration::from_millis(100);
/// The longest time, so that a typing error does not look like a hang for ever.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// A text that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFaultError {
    #[error("there is no fault `{0}`; there are {names}", names = names())]
    Unknown(String),
    #[error("`{name}` needs a value, as in `{example}`")]
    NoValue { name: String, example: &'static str },
    #[error("`{name}` takes no value")]
    Value { name: String },
    #[error("`{name}` cannot be `{value}`: {accepted}")]
    BadValue {
        name: String,
        value: String,
        accepted: &'static str,
    },
}

fn names() -> String {
    let names: Vec<&str> = Fault::GUIDE
        .iter()
        .map(|(example, _)| name(example))
        .collect();
    names.join(", ")
}

fn name(text: &str) -> &str {
    text.split_once('=').map_or(text, |(name, _)| name)
}

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let part = Part { name, value };
        Ok(match name {
            "status" => return part.status(),
            "rate-limited" => Self::RateLimited {
                status: part.code_or(StatusCode::TOO_MANY_REQUESTS, 200..600)?,
            },
            "denied" => Self::Denied(part.read(
                |value| Denial::from_str(value, false).ok(),
                "credentials, token, scope, scope-message, jti-expiry, replay, no-jti or authenticate",
            )?),
            "delay" => Self::Delay(part.time(None)?),
            "content-type" => Self::ContentType(match part.needed()? {
                "none" => None,
                _ => Some(part.header()?),
            }),
            "invalid-json" => part.alone(Self::InvalidJson)?,
            "bad-utf8" => part.alone(Self::BadUtf8)?,
            "nesting" => {
                let depth = part.read_or(NESTING, |v| v.parse().ok(), "4 to 100000")?;
                if !(4..=100_000).contains(&depth) {
                    return Err(part.bad("4 to 100000"));
                }
                Self::Nesting(depth)
            }
            "repeated-key" => {
                let key = value.unwrap_or("skip");
                if !KEYS.contains(&key) {
                    return Err(
                        part.bad("results, skip, limit, hasMore, totalPages or totalResults")
                    );
                }
                Self::RepeatedKey(key.to_owned())
            }
            "trailing-bytes" => Self::TrailingBytes(value.unwrap_or("{}").to_owned()),
            "empty-body" => part.alone(Self::EmptyBody)?,
            "html" => part.alone(Self::Html)?,
            "null" => part.alone(Self::Null)?,
            "array" => part.alone(Self::Array)?,
            "no-results" => part.alone(Self::NoResults)?,
            "results-object" => part.alone(Self::ResultsObject)?,
            "no-ids" => part.alone(Self::NoIds)?,
            "encrypted" => part.alone(Self::Encrypted)?,
            "has-more" => Self::HasMore(part.read(|v| v.parse().ok(), "true or false")?),
            "total" => Self::Total(part.claim()?),
            "total-pages" => Self::TotalPages(part.claim()?),
            "no-records" => part.alone(Self::NoRecords)?,
            "echo-skip" => Self::EchoSkip(part.claim()?),
            "echo-limit" => Self::EchoLimit(part.claim()?),
            "extra-records" => {
                Self::ExtraRecords(part.read_or(1, |v| v.parse().ok(), "a count of records")?)
            }
            "shift" => Self::Shift(part.read_or(
                -1,
                |v| v.parse().ok(),
                "a count of records, such as -1",
            )?),
            "stuck" => part.alone(Self::Stuck)?,
            "twice" => part.alone(Self::Twice)?,
            "other-account" => part.alone(Self::OtherAccount)?,
            "other-stream" => part.alone(Self::OtherStream)?,
            "truncate" => Self::Truncate { keep: part.keep()? },
            "truncate-chunked" => Self::TruncateChunked { keep: part.keep()? },
            "oversize" => Self::Oversize {
                bytes: part.size(OVERSIZE_BYTES)?,
            },
            "oversize-chunked" => Self::OversizeChunked {
                bytes: part.size(OVERSIZE_BYTES)?,
            },
            "redirect" => return part.redirect(),
            "encoding" => Self::Encoding(part.header()?),
            "gzip" => part.alone(Self::Gzip)?,
            "gzip-twice" => part.alone(Self::GzipTwice)?,
            "gzip-bomb" => Self::GzipBomb {
                bytes: part.size(BOMB_BYTES)?,
            },
            "gzip-bomb-twice" => Self::GzipBombTwice {
                bytes: part.size(BOMB_BYTES)?,
            },
            "reset" => part.alone(Self::Reset)?,
            "reset-reused" => part.alone(Self::ResetReused)?,
            "reset-body" => Self::ResetBody { keep: part.keep()? },
            "close" => part.alone(Self::Close)?,
            "stall" => Self::Stall(part.time(Some(STALL))?),
            "stall-head" => Self::StallHead(part.time(Some(STALL))?),
            "stall-body" => Self::StallBody(part.time(Some(STALL))?),
            "drip" => {
                let every = part.time(Some(DRIP_EVERY))?;
                if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&every) {
                    return Err(part.bad("1ms to 1h"));
                }
                Self::Drip(every)
            }
            "long-length" => Self::LongLength(part.count(1, 1..=1_000_000)?),
            "short-length" => Self::ShortLength(part.count(1, 1..=1_000_000)?),
            "two-lengths" => part.alone(Self::TwoLengths)?,
            "length-and-chunks" => part.alone(Self::LengthAndChunks)?,
            "bad-chunk" => part.alone(Self::BadChunk)?,
            "no-last-chunk" => part.alone(Self::NoLastChunk)?,
            "many-headers" => Self::ManyHeaders(part.count(1_000, 1..=100_000)?),
            "huge-header" => {
                let bytes = part.size(1 << 20)?;
                if bytes > 64 << 20 {
                    return Err(part.bad("a size such as 1MiB, from 1KiB to 64MiB"));
                }
                Self::HugeHeader { bytes }
            }
            "informational" => Self::Informational(part.count(1_000, 1..=1_000_000)?),
            "switching" => Self::Switching(part.time(Some(STALL))?),
            "garbage" => part.alone(Self::Garbage)?,
            "no-head" => part.alone(Self::NoHead)?,
            "second-answer" => Self::SecondAnswer(part.time(Some(Duration::ZERO))?),
            _ => return Err(ParseFaultError::Unknown(name.to_owned())),
        })
    }
}

const KEYS: [&str; 6] = [
    "results",
    "skip",
    "limit",
    "hasMore",
    "totalPages",
    "totalResults",
];

struct Part<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn bad(&self, accepted: &'static str) -> ParseFaultError {
        ParseFaultError::BadValue {
            name: self.name.to_owned(),
            value: self.value.unwrap_or_default().to_owned(),
            accepted,
        }
    }

    fn alone(&self, fault: Fault) -> Result<Fault, ParseFaultError> {
        match self.value {
            None => Ok(fault),
            Some(_) => Err(ParseFaultError::Value {
                name: self.name.to_owned(),
            }),
        }
    }

    fn needed(&self) -> Result<&'a str, ParseFaultError> {
        self.value.ok_or_else(|| ParseFaultError::NoValue {
            name: self.name.to_owned(),
            example: Fault::GUIDE
                .iter()
                .find(|(example, _)| name(example) == self.name)
                .map_or("", |(example, _)| example),
        })
    }

    fn read<T>(
        &self,
        parse: impl FnOnce(&str) -> Option<T>,
        accepted: &'static str,
    ) -> Result<T, ParseFaultError> {
        parse(self.needed()?).ok_or_else(|| self.bad(accepted))
    }

    fn read_or<T>(
        &self,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
        accepted: &'static str,
    ) -> Result<T, ParseFaultError> {
        self.value
            .map_or(Ok(default), |_| self.read(parse, accepted))
    }

    fn claim(&self) -> Result<Claim, ParseFaultError> {
        let parse = |value: &str| match value.starts_with(['+', '-']) {
            true => value.parse().ok().map(Claim::Off),
            false => value.parse().ok().map(Claim::Exactly),
        };
        self.read(parse, "a number, or a difference such as +1 or -1")
    }

    fn code_or(
        &self,
        default: StatusCode,
        range: std::ops::Range<u16>,
    ) -> Result<StatusCode, ParseFaultError> {
        self.read_or(
            default,
            |value| code(value, range),
            "a status from 200 to 599",
        )
    }

    fn keep(&self) -> Result<Option<usize>, ParseFaultError> {
        self.read_or(
            None,
            |value| value.parse().ok().map(Some),
            "a number of bytes",
        )
    }

    /// To 24 h; without a default, a value is needed.
    fn time(&self, default: Option<Duration>) -> Result<Duration, ParseFaultError> {
        let accepted = "a time such as 500ms or 2s, to 24h";
        let parse = |text: &str| {
            let time = humantime::parse_duration(text).ok();
            time.filter(|&time| time <= TIME_MAX)
        };
        match default {
            Some(default) => self.read_or(default, parse, accepted),
            None => self.read(parse, accepted),
        }
    }

    fn count(
        &self,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, ParseFaultError> {
        let most = match range.end() {
            100_000 => "1 to 100000",
            _ => "1 to 1000000",
        };
        let parse = |text: &str| text.parse().ok().filter(|count| range.contains(count));
        self.read_or(default, parse, most)
    }

    /// 1 KiB to 16 GiB.
    fn size(&self, default: u64) -> Result<u64, ParseFaultError> {
        let accepted = "a size such as 9MiB, from 1KiB to 16GiB";
        let bytes = self
            .read_or(ByteSize(default), |value| value.parse().ok(), accepted)?
            .0;
        if (1 << 10..=16 << 30).contains(&bytes) {
            Ok(bytes)
        } else {
            Err(self.bad(accepted))
        }
    }

    fn header(&self) -> Result<HeaderValue, ParseFaultError> {
        self.read(
            |value| HeaderValue::from_str(value).ok(),
            "a header's value",
        )
    }

    /// `CODE`, then any number of `;header=NAME: VALUE`, then at most one `;body=TEXT` that reaches to the end.
    fn status(&self) -> Result<Fault, ParseFaultError> {
        let accepted = "CODE[;header=NAME: VALUE]...[;body=TEXT], the code from 200 to 599";
        let text = self.needed()?;
        let (head, body) = match text.split_once(";body=") {
            Some((head, body)) => (head, Some(body.to_owned())),
            None => (text, None),
        };
        let mut parts = head.split(';');
        let status = parts
            .next()
            .and_then(|text| code(text, 200..600))
            .ok_or_else(|| self.bad(accepted))?;
        let mut headers = HeaderMap::new();
        for part in parts {
            let header = part
                .strip_prefix("header=")
                .and_then(|header| header.split_once(':'));
            let header = header.and_then(|(name, value)| {
                Some((
                    name.parse::<HeaderName>().ok()?,
                    HeaderValue::from_str(value.trim()).ok()?,
                ))
            });
            let (name, value) = header.ok_or_else(|| self.bad(accepted))?;
            headers.append(name, value);
        }
        Ok(Fault::Status {
            status,
            headers,
            body,
        })
    }

    fn redirect(&self) -> Result<Fault, ParseFaultError> {
        let accepted = "URL[;status=CODE], the code from 300 to 399";
        let text = self.needed()?;
        let (location, status) = match text.rsplit_once(";status=") {
            Some((location, status)) => (location, code(status, 300..400)),
            None => (text, Some(StatusCode::FOUND)),
        };
        match (HeaderValue::from_str(location), status) {
            (Ok(location), Some(status)) => Ok(Fault::Redirect { location, status }),
            _ => Err(self.bad(accepted)),
        }
    }
}

fn code(text: &str, range: std::ops::Range<u16>) -> Option<StatusCode> {
    let number = text.parse().ok().filter(|number| range.contains(number))?;
    StatusCode::from_u16(number).ok()
}

impl TryFrom<String> for Fault {
    type Error = ParseFaultError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_guide_is_read_and_written_back() {
        let more = [
            "status=503;header=retry-after: 7;header=x-a: b;body=a;body=b; c",
            "content-type=none",
            "total=7",
            "shift=2",
            "truncate=100",
            "delay=1m 30s",
            "nesting",
            "oversize",
            "gzip-bomb",
            "reset-body=100",
            "stall",
            "drip",
            "long-length",
            "many-headers",
            "huge-header",
            "informational",
            "second-answer=1m 30s",
            "extra-records",
            "rate-limited",
            "repeated-key",
            "trailing-bytes",
            "denied=credentials",
            "denied=token",
            "denied=scope-message",
            "denied=jti-expiry",
            "denied=replay",
            "denied=no-jti",
            "denied=authenticate",
            "redirect=/x;status=307",
        ];
        for text in Fault::GUIDE.iter().map(|(example, _)| *example).chain(more) {
            let fault: Fault = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                fault.to_string().parse(),
                Ok(fault.clone()),
                "{text} -> {fault}"
            );
            let json = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&json).unwrap(), fault);
        }
    }

    #[test]
    fn a_mistake_is_answered_with_what_is_accepted() {
        for (text, said) in [
            (
                "statsu=503",
                "there is no fault `statsu`; there are status, rate-limited, denied, delay",
            ),
            ("status", "needs a value, as in `status=503`"),
            ("status=99", "the code from 200 to 599"),
            ("status=503;x=y", "header=NAME: VALUE"),
            ("denied", "needs a value, as in `denied=scope`"),
            ("denied=all", "jti-expiry, replay, no-jti or authenticate"),
            ("delay=2", "a time such as 500ms"),
            ("delay=2years", "to 24h"),
            ("html=1", "takes no value"),
            ("nesting=3", "4 to 100000"),
            ("repeated-key=id", "totalResults"),
            ("oversize=1TiB", "16GiB"),
            ("has-more=maybe", "true or false"),
            ("stall=25h", "to 24h"),
            ("drip=0s", "1ms to 1h"),
            ("many-headers=0", "1 to 100000"),
            ("informational=1000001", "1 to 1000000"),
            ("huge-header=65MiB", "64MiB"),
            ("reset=1", "takes no value"),
            ("total=x", "a difference such as +1"),
            ("redirect=/;status=200", "300 to 399"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
