//! An answer's body: read within its timeout and its cap, and decoded. Sizes are counted in decoded bytes, so that an
//! answer that unpacks to gigabytes ends at the cap like any other that is too large.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use flate2::write::GzDecoder;
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time;

use super::client::classify;
use crate::error::{Error, Kind, Result};

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// What the headers say.
    ///
    /// # Errors
    /// For every coding that was not asked for, and for one on top of another.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match codings.next().map(|coding| coding.as_bytes().trim_ascii()) {
            None => Some(Self::Identity),
            Some(word) if word.eq_ignore_ascii_case(b"identity") => Some(Self::Identity),
            // Both words mean the same (RFC 9110, section 8.4.1.3).
            Some(word) if word.eq_ignore_ascii_case(b"gzip") => Some(Self::Gzip),
            Some(word) if word.eq_ignore_ascii_case(b"x-gzip") => Some(Self::Gzip),
            Some(_) => None,
        };
        coding.filter(|_| codings.next().is_none()).ok_or_else(|| {
            let detail = "upstream's answer has a coding that was not asked for";
            Error::new(Kind::UpstreamEncoding, detail)
        })
    }
}

/// How much of a body is read, and how long is waited for its next piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// In bytes, as received and as decoded.
    pub cap: u64,
    pub between_bytes: Duration,
}

/// Reads a whole body and decodes it.
///
/// # Errors
/// If it is too large, too slow, broken off, or not what its coding says.
pub(super) async fn collect<B>(mut body: B, coding: Coding, bounds: Bounds) -> Result<Bytes>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > bounds.cap) {
        return Err(too_large(bounds.cap));
    }
    let mut decoder = Decoder::new(coding, announced, bounds.cap);
    let mut received = 0;
    while let Some(frame) = within(bounds.between_bytes, body.frame()).await? {
        let frame = frame.map_err(|error| classify(&error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        received += data.len() as u64;
        // What decodes to nothing has an end too.
        if received > bounds.cap {
            return Err(too_large(bounds.cap));
        }
        decoder.push(&data)?;
    }
    decoder.finish()
}

fn too_large(cap: u64) -> Error {
    let detail = format!("upstream's answer is larger than {cap} bytes");
    Error::new(Kind::UpstreamTooLarge, detail)
}

/// Ends with [`Kind::UpstreamTimeout`] where a future takes longer.
pub(super) async fn within<F: Future>(timeout: Duration, future: F) -> Result<F::Output> {
    time::timeout(timeout, future).await.map_err(|_| {
        Error::new(Kind::UpstreamTimeout, "upstream did not answer in time")
            .because(format!("nothing within {timeout:?}"))
    })
}

/// Decodes a body piece by piece.
enum Decoder {
    Identity(Capped),
    Gzip(Box<GzDecoder<Capped>>),
}

/// Memory of our own, of at most `cap` bytes: a piece as it arrives may hold on to a much larger read buffer.
struct Capped {
    bytes: Vec<u8>,
    cap: u64,
}

impl Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + piece.len()) as u64 > self.cap {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    fn new(coding: Coding, announced: Option<u64>, cap: u64) -> Self {
        let length = announced.unwrap_or(8 * 1024).min(cap);
        let capped = Capped {
            bytes: Vec::with_capacity(usize::try_from(length).unwrap_or(0)),
            cap,
        };
        match coding {
            Coding::Identity => Self::Identity(capped),
            Coding::Gzip => Self::Gzip(Box::new(GzDecoder::new(capped))),
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<()> {
        match self {
            Self::Identity(bytes) => bytes.write_all(piece).map_err(|_| too_large(bytes.cap)),
            Self::Gzip(decoder) => {
                let cap = decoder.get_ref().cap;
                let pushed = decoder.write_all(piece);
                pushed.map_err(|error| undecodable(&error, cap))
            }
        }
    }

    fn finish(self) -> Result<Bytes> {
        let bytes = match self {
            Self::Identity(capped) => capped.bytes,
            Self::Gzip(decoder) => {
                let cap = decoder.get_ref().cap;
                let finished = decoder.finish();
                finished.map_err(|error| undecodable(&error, cap))?.bytes
            }
        };
        Ok(bytes.into_boxed_slice().into())
    }
}

/// The decoder's errors name no content.
fn undecodable(error: &io::Error, cap: u64) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return too_large(cap);
    }
    let detail = "upstream's answer cannot be decompressed";
    Error::new(Kind::UpstreamEncoding, detail).because(error)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use flate2::{Compression, write::GzEncoder};
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The outcome for a body that comes in pieces of so many bytes.
    async fn read(bytes: &[u8], piece: usize, coding: Coding, cap: u64) -> Result<Bytes> {
        let pieces: Vec<_> = bytes
            .chunks(piece)
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let bounds = Bounds {
            cap,
            between_bytes: Duration::from_secs(5),
        };
        collect(StreamBody::new(stream::iter(pieces)), coding, bounds).await
    }

    fn coding(words: &[&'static str]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for word in words {
            headers.append(CONTENT_ENCODING, http::HeaderValue::from_static(word));
        }
        Coding::of(&headers).ok()
    }

    #[test]
    fn one_coding_is_read_and_no_other() {
        for (words, expected) in [
            (&[][..], Some(Coding::Identity)),
            (&["identity"], Some(Coding::Identity)),
            (&["GZIP"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["gzip, gzip"], None),
            (&["gzip", "gzip"], None),
            (&["identity", "gzip"], None),
            (&["br"], None),
            (&["deflate"], None),
            (&[""], None),
        ] {
            assert_eq!(coding(words), expected, "{words:?}");
        }
    }

    #[tokio::test]
    async fn the_cap_counts_what_is_decoded() {
        let zeros = vec![0; 100_000];
        let small = gzip(&zeros);
        assert!(small.len() < 1000);
        for (cap, kind) in [
            (100_000, None),
            (99_999, Some(Kind::UpstreamTooLarge)),
            (1000, Some(Kind::UpstreamTooLarge)),
            (10, Some(Kind::UpstreamTooLarge)),
        ] {
            for piece in [1, 7, 100_000] {
                let outcome = read(&small, piece, Coding::Gzip, cap).await;
                assert_eq!(outcome.err().map(|error| error.kind()), kind, "{cap}");
                let outcome = read(&zeros, piece, Coding::Identity, cap).await;
                assert_eq!(outcome.err().map(|error| error.kind()), kind, "{cap}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_gzip_is_said_to_be_none() {
        let whole = gzip(b"{}");
        let (mut followed, mut broken) = (whole.clone(), whole.clone());
        followed.extend_from_slice(b"{}");
        *broken.last_mut().unwrap() ^= 1;
        for bytes in [b"{}", &whole[..whole.len() - 1], &followed, &broken] {
            let error = read(bytes, 3, Coding::Gzip, 1000).await.unwrap_err();
            assert_eq!(error.kind(), Kind::UpstreamEncoding, "{error}");
        }
    }

    proptest! {
        /// Whatever the pieces, what was coded comes out.
        #[test]
        fn pieces_do_not_matter(bytes: Vec<u8>, piece in 1_usize..64) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let read = runtime.block_on(read(&gzip(&bytes), piece, Coding::Gzip, 1 << 20));
            prop_assert_eq!(read.unwrap(), Bytes::from(bytes));
        }
    }
}
