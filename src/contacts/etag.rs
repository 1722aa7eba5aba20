//! Strong validators (RFC 9110, section 8.8.3): made from the content alone, so equal wherever the bytes are.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::cache::entry::shared;

/// A strong ETag with its quotes: half of the content's SHA-256 in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(Bytes);

impl ETag {
    /// In bytes, quotes included.
    pub const LENGTH: usize = 34;

    /// What it holds, in bytes.
    pub const WEIGHT: usize = shared(Self::LENGTH);

    pub fn of<'a>(content: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for piece in content {
            context.update(piece);
        }
        let digest = context.finish();
        let mut text = Vec::with_capacity(Self::LENGTH);
        text.push(b'"');
        for byte in &digest.as_ref()[..16] {
            for digit in [byte >> 4, byte & 0xf] {
                text.push(b"0123456789abcdef"[usize::from(digit)]);
            }
        }
        text.push(b'"');
        Self(text.into())
    }

    /// The one of the same content in gzip. It is told apart by its ending alone, so that it too is equal wherever the
    /// content is.
    pub fn gzipped(&self) -> Self {
        let opaque = self.0.strip_suffix(b"\"").unwrap_or(&self.0);
        Self([opaque, b"-gzip\""].concat().into())
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_matter() {
        let whole = ETag::of([&b"{\"results\":[]}"[..]]);
        assert_eq!(whole, ETag::of([&b"{\"results\""[..], b"", b":[]}"]));
        assert_ne!(whole, ETag::of([&b"{\"results\":[] }"[..]]));
        assert_eq!(whole.as_bytes().len(), ETag::LENGTH);
    }

    #[test]
    fn another_coding_has_another() {
        let gzipped = ETag::of([]).gzipped();
        assert_eq!(
            gzipped.as_bytes(),
            &b"\"e3b0c44298fc1c149afbf4c8996fb924-gzip\""[..]
        );
    }

    #[test]
    fn it_is_the_hash_of_the_content() {
        // SHA-256 of the empty string, FIPS 180-4.
        let empty = ETag::of([]);
        assert_eq!(
            empty.as_bytes(),
            &b"\"e3b0c44298fc1c149afbf4c8996fb924\""[..]
        );
    }
}
