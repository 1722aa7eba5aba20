//! The simulator's clock, set ahead or behind.

use serde_json::{Value, json};

use super::{ControlError, pairs};
use crate::simulator::{clock::parse_clock_offset, kore::Kore};

/// What it says, and how far that is from the machine's own.
pub(super) fn show(kore: &Kore) -> Value {
    let now = httpdate::fmt_http_date(kore.clock().now());
    json!({"date": now, "offset_seconds": kore.clock().offset()})
}

/// Sets it as the last `offset` says.
pub(super) fn set(kore: &Kore, query: &str, form: &[u8]) -> Result<Value, ControlError> {
    let mut offset = None;
    for (name, value) in pairs(query, form)? {
        if name != "offset" {
            let accepted = "only offset";
            return Err(ControlError::Parameter { name, accepted });
        }
        let seconds = parse_clock_offset(&value).map_err(|accepted| ControlError::Value {
            name: "offset",
            value,
            accepted,
        })?;
        offset = Some(seconds);
    }
    kore.clock().set(offset.ok_or(ControlError::NoOffset)?)?;
    Ok(show(kore))
}
