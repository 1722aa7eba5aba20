//! A copy's content compressed, kept beside the copy: made once, and as long as nobody has wanted it not there at all.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use tokio::sync::Notify;

use super::entry::{Cached, Entry, block, shared};
use crate::contacts::etag::ETag;

/// What a caller can be given in another coding.
pub trait Content: Cached {
    /// The bytes, in pieces that are sent one after another.
    fn pieces(&self) -> &[Bytes];

    fn etag(&self) -> &ETag;

    /// In bytes.
    fn length(&self) -> u64 {
        self.pieces().iter().map(|piece| piece.len() as u64).sum()
    }
}

/// A content in gzip (RFC 1952), with an ETag of its own.
#[derive(Debug)]
pub struct Encoded {
    pub body: Bytes,
    pub etag: ETag,
}

impl Encoded {
    /// What it and its place hold, in blocks as [`block`] says.
    pub fn weight(&self) -> usize {
        block(size_of::<Making>()) + shared(self.body.len()) + shared(self.etag.as_bytes().len())
    }
}

/// Makes encodings, one after another. What it needs to make them, a quarter of a megabyte, it takes once: taken and given
/// back for each, it left holes between the copies, which then took up to four times the memory that they are weighed with.
#[derive(Debug, Default)]
pub struct Encoder {
    /// `None` until there is something to encode.
    gzip: Option<Compress>,
    written: Vec<u8>,
}

/// What an encoder holds on to of what it wrote in.
const WRITTEN_MAX: usize = 256 * 1024;

/// Room for more, where it ran out.
const STEP: usize = 32 * 1024;

/// A window of 32 KiB.
const WINDOW_BITS: u8 = 15;

impl Encoder {
    /// Compresses piece by piece, so that nothing is copied together first. `None` if that makes it no smaller.
    pub fn encode(&mut self, content: &impl Content) -> Option<Encoded> {
        let whole = self.write(content);
        let encoded = whole.map(|()| Encoded {
            // A copy without room to spare, which would be held as long as it.
            body: Box::<[u8]>::from(&self.written[..]).into(),
            etag: content.etag().gzipped(),
        });
        self.written.clear();
        self.written.shrink_to(WRITTEN_MAX);
        encoded
    }

    fn write(&mut self, content: &impl Content) -> Option<()> {
        let length = content.length() as usize;
        let Self { gzip, written } = self;
        let gzip =
            gzip.get_or_insert_with(|| Compress::new_gzip(Compression::default(), WINDOW_BITS));
        // Whatever became of the encoding before.
        gzip.reset();
        written.clear();
        for mut piece in content.pieces().iter().map(|piece| &piece[..]) {
            while !piece.is_empty() && written.len() < length {
                written.reserve(STEP);
                let before = gzip.total_in();
                gzip.compress_vec(piece, written, FlushCompress::None)
                    .ok()?;
                piece = &piece[(gzip.total_in() - before) as usize..];
            }
        }
        while written.len() < length {
            written.reserve(STEP);
            let status = gzip.compress_vec(&[], written, FlushCompress::Finish);
            if status.ok()? == Status::StreamEnd {
                return (written.len() < length).then_some(());
            }
        }
        None
    }
}

/// The place of an encoding beside its copy.
#[derive(Debug, Default)]
pub struct Encoding(OnceLock<Box<Making>>);

#[derive(Debug, Default)]
struct Making {
    begun: AtomicBool,
    /// `Some(None)`: it ended without one, and there will be none.
    ended: OnceLock<Option<Encoded>>,
    changed: Notify,
}

impl Encoding {
    /// The encoding, once it is made.
    pub fn made(&self) -> Option<&Encoded> {
        self.0.get()?.ended.get()?.as_ref()
    }

    /// Whether it was begun; it may have ended since.
    pub fn has_begun(&self) -> bool {
        let making = self.0.get();
        making.is_some_and(|making| making.begun.load(Ordering::Relaxed))
    }

    /// Whether it has ended, well or not.
    pub fn has_ended(&self) -> bool {
        let making = self.0.get();
        making.is_some_and(|making| making.ended.get().is_some())
    }

    /// Waits until a begun one has ended, well or not.
    pub async fn ended(&self) {
        let making = self.0.get_or_init(Box::default);
        while making.ended.get().is_none() {
            let changed = making.changed.notified();
            // It may have ended since it was looked at, but not unnoticed from here on.
            if making.ended.get().is_none() {
                changed.await;
            }
        }
    }
}

/// The right to make a copy's encoding: given to one, and ended by whatever end, so that nobody waits in vain.
pub struct Begun<V>(Arc<Entry<V>>);

impl<V> Begun<V> {
    /// The right for this copy, unless somebody has it or had it.
    pub fn of(copy: &Arc<Entry<V>>) -> Option<Self> {
        let making = copy.encoding.0.get_or_init(Box::default);
        let first = !making.begun.swap(true, Ordering::Relaxed);
        first.then(|| Self(copy.clone()))
    }

    pub fn copy(&self) -> &Arc<Entry<V>> {
        &self.0
    }

    /// Tells everybody who waits; without an encoding they answer with the copy as it is.
    pub fn end(self, encoded: Option<Encoded>) {
        self.tell(encoded);
    }

    fn tell(&self, encoded: Option<Encoded>) {
        let making = self.0.encoding.0.get_or_init(Box::default);
        if making.ended.set(encoded).is_ok() {
            making.changed.notify_waiters();
        }
    }
}

impl<V> Drop for Begun<V> {
    fn drop(&mut self) {
        self.tell(None);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use tokio::{task, time::Instant};

    use super::*;
    use crate::contacts::{list::List, testing};

    fn decoded(encoded: &Encoded) -> Vec<u8> {
        let mut content = Vec::new();
        let mut decoder = GzDecoder::new(&encoded.body[..]);
        decoder.read_to_end(&mut content).unwrap();
        content
    }

    fn list(pages: u64, records: u32) -> List {
        let (now, total) = (Instant::now(), pages * u64::from(records));
        let pages =
            (0..pages).map(|page| testing::page(page * u64::from(records), records, total, now));
        testing::splice(pages.collect(), now)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn what_is_encoded_is_the_content_and_smaller(pages in 1_u64..8, records in 1_u32..30) {
            let list = list(pages, records);
            let mut encoder = Encoder::default();
            if let Some(encoded) = encoder.encode(&list) {
                prop_assert_eq!(decoded(&encoded), list.document().concat());
                prop_assert!((encoded.body.len() as u64) < list.document_length());
                prop_assert_ne!(&encoded.etag, &list.etag);
                // Again, and elsewhere.
                for mut encoder in [encoder, Encoder::default()] {
                    let again = encoder.encode(&list).unwrap();
                    prop_assert_eq!((&again.body, &again.etag), (&encoded.body, &encoded.etag));
                }
            } else {
                prop_assert!(list.document_length() < 200);
            }
        }
    }

    /// Bytes as chance would have them: no coding makes them smaller.
    #[derive(Debug)]
    struct Noise(Vec<Bytes>, ETag);

    impl Cached for Noise {
        fn weight(&self) -> usize {
            0
        }

        fn read_at(&self) -> Instant {
            Instant::now()
        }
    }

    impl Content for Noise {
        fn pieces(&self) -> &[Bytes] {
            &self.0
        }

        fn etag(&self) -> &ETag {
            &self.1
        }
    }

    #[test]
    fn what_would_not_be_smaller_is_not_encoded() {
        let mut state = 1_u64;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        let mut piece = || (0..5_000).map(|_| byte()).collect::<Vec<u8>>().into();
        let noise = Noise(vec![piece(), piece()], ETag::of([]));
        let mut encoder = Encoder::default();
        assert!(encoder.encode(&noise).is_none());
        // Nor is anything of it left.
        let list = list(3, 20);
        assert_eq!(
            decoded(&encoder.encode(&list).unwrap()),
            list.document().concat()
        );
    }

    #[tokio::test]
    async fn one_begins_and_all_who_wait_are_told_of_its_end() {
        let copy = testing::kept(list(3, 20), Instant::now());
        assert!(!copy.encoding.has_begun());
        let begun = Begun::of(&copy).unwrap();
        assert!(copy.encoding.has_begun() && Begun::of(&copy).is_none());
        let waiting = task::spawn({
            let copy = copy.clone();
            async move { copy.encoding.ended().await }
        });
        task::yield_now().await;
        assert!(!waiting.is_finished() && copy.encoding.made().is_none());
        begun.end(Encoder::default().encode(&**copy));
        waiting.await.unwrap();
        assert_eq!(copy.encoding.made().unwrap().etag, copy.etag.gzipped());
    }

    #[tokio::test]
    async fn whoever_breaks_off_leaves_nobody_waiting() {
        let copy = testing::kept(list(3, 20), Instant::now());
        drop(Begun::of(&copy));
        copy.encoding.ended().await;
        assert!(copy.encoding.made().is_none() && Begun::of(&copy).is_none());
    }
}
