//! contacts-gateway: a caching reverse proxy in front of Kore.ai's contacts API.

pub mod admin;
pub mod cli;
pub mod config;
pub mod contacts;
pub mod edge;
pub mod error;
pub mod metrics;
pub mod served;
pub mod service;
pub mod telemetry;
pub mod upstream;
