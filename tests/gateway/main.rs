//! The whole program over real sockets, between callers and the simulator: one test for each promise.
//!
//! Causes and order are asserted, never milliseconds: what takes too long fails under one generous watchdog. Every test
//! has a simulator and a gateway of its own, on ports that are free, so all of them run at once.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test has nobody to return an error to"
)]

mod access;
mod callers;
mod canary;
mod changing;
mod commands;
mod copies;
mod credentials;
mod crowd;
mod doctor;
mod export;
mod faults;
mod herd;
mod keys;
mod listener;
mod listener_tls;
mod logs;
mod matrix;
mod ndjson;
mod operators;
mod overview;
mod paging;
mod patience;
mod program;
mod purges;
mod records;
mod restarts;
mod rotation;
mod signatures;
mod sparing;
mod support;
mod tenancy;
mod tls;
mod token_service;
mod walks;
mod wire;
