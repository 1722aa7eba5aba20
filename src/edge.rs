pub mod route;
pub mod server;
