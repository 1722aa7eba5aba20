//! A file that is part of the program: a browser keeps it for as long as its ETag holds.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG},
};

/// Such a file, with what is said of it.
#[derive(Debug)]
pub struct File {
    media_type: &'static str,
    content: Bytes,
    etag: Option<HeaderValue>,
    headers: &'static [(HeaderName, HeaderValue)],
}

impl File {
    /// `headers` go with every answer.
    pub fn new(
        media_type: &'static str,
        content: Bytes,
        headers: &'static [(HeaderName, HeaderValue)],
    ) -> Self {
        let hash = digest(&SHA256, &content);
        let hash = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]);
        Self {
            media_type,
            content,
            etag: HeaderValue::try_from(format!("\"{hash}\"")).ok(),
            headers,
        }
    }

    pub fn content(&self) -> &Bytes {
        &self.content
    }

    pub(super) fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.content.len()));
        // Asked for each time, and sent only when it is another program's.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(etag) = &self.etag {
            headers.insert(ETAG, etag.clone());
        }
        headers.extend(self.headers.iter().cloned());
    }
}
