//! Speaks HTTP to callers. Everything that is HTTP as they speak it stays in here; below travel small values.

use std::fmt;

use bytes::Bytes;
use http::request::Parts;

use self::caller::Asker;
pub use self::file::File;
use crate::{
    contacts::{follow::Told, list::List, page::Page, request::RequestId},
    served::{Answer, Served},
    traceparent::TraceContext,
};

mod authority;
pub mod body;
pub mod caller;
pub mod complete;
pub mod drain;
mod file;
pub mod head;
pub mod key;
pub mod limit;
mod lines;
pub mod local;
mod prefer;
pub mod rescue;
pub mod respond;
pub mod route;
pub mod server;
pub mod trace;
pub mod workers;

/// A caller's request inside the edge: its head, and what the stages above have found out about it.
#[derive(Debug)]
pub struct Inbound {
    pub head: Parts,
    /// There is a body, which no request here may have.
    pub has_body: bool,
    /// How many header lines it came with, those that show a key included.
    pub header_lines: usize,
    pub id: RequestId,
    /// The caller's own trace, which it is a part of.
    pub trace: Option<TraceContext>,
    /// Who asks: perhaps somebody unknown, until the [`caller`] stage.
    pub asker: Asker,
}

/// What a request is answered with, before it is HTTP again.
#[derive(Debug)]
pub enum Reply {
    Page(Answer<Page>),
    List(Answer<List>),
    /// A list, one contact on each line.
    Lines(Told),
    /// Something of the gateway's own, with its media type.
    Text(&'static str, Bytes),
    /// The same, that is part of the program.
    File(&'static File),
}

/// What a request was about, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Page,
    List,
    /// Whatever was refused before it was known, or is the gateway's own.
    Other,
}

impl Resource {
    pub const ALL: [Self; 3] = [Self::Page, Self::List, Self::Other];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::List => "list",
            Self::Other => "other",
        }
    }
}

impl Reply {
    pub fn resource(&self) -> Resource {
        match self {
            Self::Page(_) => Resource::Page,
            Self::List(_) | Self::Lines(_) => Resource::List,
            Self::Text(..) | Self::File(_) => Resource::Other,
        }
    }

    pub fn served(&self) -> Option<Served> {
        match self {
            Self::Page(answer) => Some(answer.served),
            Self::List(answer) | Self::Lines(Told::Kept(answer)) => Some(answer.served),
            Self::Lines(Told::Running(running)) => Some(running.served()),
            Self::Text(..) | Self::File(_) => None,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
