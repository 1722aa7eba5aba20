//! Content negotiation, as far as there is something to negotiate.

use http::{HeaderMap, header::ACCEPT};

/// Whether JSON may be answered (RFC 9110, section 12.5.1): nothing asked for, or a range that covers it.
pub(super) fn accepts_json(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(ACCEPT).iter().peekable();
    if ranges.peek().is_none() {
        return true;
    }
    // The most specific range that covers JSON decides.
    let mut best: Option<(u8, bool)> = None;
    for range in ranges.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match &range[..] {
            b"application/json" => 3,
            b"application/*" => 2,
            b"*/*" => 1,
            _ => continue,
        };
        let refused = parts.any(|part| {
            let weight = part.strip_prefix(b"q=").or(part.strip_prefix(b"Q="));
            weight.is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
        });
        if best.is_none_or(|(place, _)| place < specific) {
            best = Some((specific, !refused));
        }
    }
    best.is_some_and(|(_, accepted)| accepted)
}
