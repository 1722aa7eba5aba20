//! The client's errors in our own words: what they mean, and whether another try may help.

use std::{error::Error as StdError, io};

use hyper_util::client::legacy;

use crate::error::{Again, Error, Kind};

/// What may help when no head came.
pub(super) fn curable(error: Error) -> Error {
    match error.kind() {
        Kind::UpstreamUnreachable | Kind::UpstreamTimeout => error.again_by(Again::Later),
        // Most likely a kept connection that upstream gave up at this moment.
        Kind::UpstreamTruncated => error.again_by(Again::Afresh),
        _ => error,
    }
}

/// What an error of the client or of a response's body means.
pub(crate) fn classify(error: &(dyn StdError + 'static)) -> Error {
    let causes: Vec<_> = causes(error).collect();
    let io = |wanted: &[io::ErrorKind]| {
        let mut kinds = causes
            .iter()
            .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
        kinds.any(|kind| wanted.contains(&kind))
    };
    let connecting = {
        let mut clients = causes.iter().filter_map(|cause| cause.downcast_ref());
        clients.any(legacy::Error::is_connect)
    };
    let unparsable = {
        let mut parsers = causes.iter().filter_map(|cause| cause.downcast_ref());
        parsers.any(hyper::Error::is_parse)
    };
    let tls = causes.iter().any(|cause| cause.is::<rustls::Error>());
    // EMFILE and ENFILE: no descriptor is left here, which is not upstream's doing.
    let exhausted = causes
        .iter()
        .filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
        .any(|code| code == 24 || code == 23);
    let (kind, detail) = if exhausted {
        (
            Kind::Overloaded,
            "the gateway has no connection left for this",
        )
    } else if tls {
        (
            Kind::UpstreamTls,
            "no trusted connection to upstream could be made",
        )
    } else if io(&[io::ErrorKind::TimedOut]) {
        (Kind::UpstreamTimeout, "upstream did not answer in time")
    } else if connecting {
        (Kind::UpstreamUnreachable, "upstream cannot be reached")
    } else if unparsable || io(&[io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput]) {
        (
            Kind::UpstreamProtocol,
            "upstream's answer is not valid HTTP",
        )
    } else {
        // Closed or reset before the head, or inside the body.
        (Kind::UpstreamTruncated, "upstream's answer ended early")
    };
    let mut told: Vec<_> = causes.iter().map(ToString::to_string).collect();
    // A wrapper that adds no words of its own.
    told.dedup();
    Error::new(kind, detail).because(told.join(": "))
}

/// Whether an error is or stands on one of this kind.
pub(super) fn is_io(error: &(dyn StdError + 'static), kind: io::ErrorKind) -> bool {
    let mut kinds =
        causes(error).filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    kinds.any(|found| found == kind)
}

/// What TLS complains about, if it does.
pub(super) fn tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// An error, and then each one that it stands on.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| within(cause))
}

/// The error that an error stands on. An `io::Error` that wraps another passes over it, and names only what is behind it.
fn within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let io = error.downcast_ref::<io::Error>();
    match io.and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
