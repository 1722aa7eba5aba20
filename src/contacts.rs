pub mod account;
pub mod cache;
pub mod walk;
