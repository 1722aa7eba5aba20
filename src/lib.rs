//! A caching reverse proxy in front of Kore.ai's contacts API, as a tower service stack.
//!
//! ```text
//! caller ──HTTP──> edge      server ─> trace ─> respond ─> drain ─> rescue ─┐
//!                            ┌──────────────────────────────────────────────┘
//!                            └> head ─> local ─> caller ─> complete ─> limit ─> route
//!                                                                                │  Request<PageKey> | Request<ListKey>
//!                  contacts  tally ─┬> slice ─> compress ─> cache of pages ──────┤
//!                                   ├> compress ─┬> cache of lists ─> walk ──────┤
//!                                   └> follow ───┘ (what is too large: a stream) │
//!                                                                                │  Fetch<PageKey>
//!                  upstream  retry ─> gate ─> breaker ─> budget ─> fetch ─> token ─> client ──> Kore.ai
//! ```
//!
//! Three folders, two typed seams. Above the first seam everything is HTTP as callers speak it; between the seams travel
//! only small values; below the second it is HTTP as Kore.ai speaks it. [`app`] is the one file that knows the order.
//!
//! | Where | What |
//! | --- | --- |
//! | [`edge`] | speaks HTTP to callers: [`server`](edge::server) and its [`workers`](edge::workers), [`trace`](edge::trace), [`respond`](edge::respond), [`drain`](edge::drain), [`rescue`](edge::rescue), [`head`](edge::head), [`local`](edge::local), [`caller`](edge::caller) and their [`key`](edge::key)s, [`complete`](edge::complete), [`limit`](edge::limit), [`route`](edge::route) |
//! | [`contacts`] | the domain: [`collection`](contacts::collection), [`page`](contacts::page), [`list`](contacts::list), the [`cache`](contacts::cache) of both, the [`walk`](contacts::walk) that merges and the [`patience`](contacts::patience) of who waits for it, those who [`follow`](contacts::follow) it as [`lines`](contacts::lines), the [`slice`](contacts::slice) that cuts, the copies that [`compress`](contacts::compress) makes smaller, the [`tally`](contacts::tally) of what callers get, the [`journal`](contacts::journal) of what went wrong, the [`places`](contacts::places) that no caller takes from the others, and the [`runway`](contacts::runway) that is left to callers while upstream fails |
//! | [`upstream`] | speaks HTTP to Kore.ai: [`retry`](upstream::retry), [`gate`](upstream::token::gate), [`breaker`](upstream::breaker), [`budget`](upstream::budget), [`fetch`](upstream::fetch), [`token`](upstream::token), [`client`](upstream::client) |
//! | [`admin`] | the second listener: health, metrics, operators' questions, the [`overview`](admin::overview) that `status` and the ops page draw, and the [`guard`](admin::guard) before them |
//! | [`simulator`] | plays Kore.ai: for `demo`, for tests, for benchmarks |
//! | [`cli`], [`config`], [`telemetry`], [`memory`], [`descriptors`], [`systemd`] | from arguments, files, environment and inherited sockets to a running process |
//! | [`reload`] | the configuration, read again while it runs: what may [change](reload::changes), and all or nothing |
//! | [`error`], [`served`], [`service`], [`metrics`], [`identity`], [`minute`], [`panics`], [`traceparent`], [`words`] | vocabulary: imported by all, imports no stage |
//!
//! A stage is one file: why, types, service, tests. It knows the vocabulary and its own children; `edge` and `upstream`
//! never import each other, `contacts` imports neither. Decisions are pure functions that take `now`
//! ([`cache::entry`](contacts::cache::entry), [`walk::plan`](contacts::walk::plan), the budget's window and forecast), and the I/O is around them.
//! What waits or holds has a bound: in the `Config` of its module, or as a constant beside it.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod contacts;
pub mod descriptors;
pub mod edge;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod identity;
pub mod memory;
pub mod metrics;
pub mod minute;
pub mod panics;
pub mod reload;
pub mod served;
pub mod service;
pub mod simulator;
pub mod systemd;
pub mod telemetry;
pub mod traceparent;
pub mod upstream;
pub mod words;
