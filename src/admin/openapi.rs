//! What both listeners answer, as OpenAPI 3.1: one document for callers, one for operators. They are read by those who
//! generate clients and by a test that asks the program what they say, and nothing else in the program reads them.
//!
//! Two, since nobody needs both: callers have other keys and another address than operators, and a generated client
//! should have no method that its owner may not call. Only the admin listener serves them; the traffic listener's paths are
//! closed.

/// The traffic listener's.
pub const CALLERS: &str = include_str!("openapi/callers.json");

/// The admin listener's.
pub const OPERATORS: &str = include_str!("openapi/operators.json");

#[cfg(test)]
mod tests;
