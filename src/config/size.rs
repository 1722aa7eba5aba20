//! A size written as `"256MiB"`, and never rounded: `#[serde(serialize_with = "crate::config::size::serialize")]`.

use bytesize::ByteSize;
use serde::Serializer;

/// # Errors
/// As the serializer does.
pub fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let bytes = size.as_u64();
    let whole = |(_, shift): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    let (unit, shift) = units.into_iter().find(whole).unwrap_or(("B", 0));
    serializer.collect_str(&format_args!("{}{unit}", bytes >> shift))
}
