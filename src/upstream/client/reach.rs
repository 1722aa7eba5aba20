//! How far a connection to upstream gets: its name, TCP and TLS, one after the other. For `doctor`, which must say which of
//! them fails; no request is sent.
//!
//! Each hop goes through the same connector as requests do, and begins anew, so that the first one to fail is to blame.

use std::{net::IpAddr, time::Duration};

use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use rustls::CertificateError;
use tokio::time;
use tower::ServiceExt;

use super::{Client, faults};

/// One step on the way to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    Name,
    Tcp,
    Tls,
}

/// Why a hop was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// The name has no address.
    Unknown,
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// It took longer than a connection may.
    Late,
    /// What answers does not speak TLS.
    NotTls,
    /// The certificate is no longer valid, or not yet: by this machine's clock.
    Expired,
    /// The certificate is another host's.
    WrongName,
    /// The certificate's authority is not one that this machine trusts.
    UnknownIssuer,
    /// Something else about the certificate or the handshake.
    Tls,
}

impl Client {
    /// Makes one hop to the host of `to`, and says in a few words what was found.
    ///
    /// # Errors
    /// Why it could not be made.
    pub async fn reach(&self, hop: Hop, to: &http::Uri) -> Result<String, Unreached> {
        let hopping = async {
            match hop {
                Hop::Name => resolve(to).await,
                Hop::Tcp => self.connect(to).await,
                Hop::Tls => self.shake_hands(to).await,
            }
        };
        let timeout: Duration = self.connector.timeout();
        time::timeout(timeout, hopping)
            .await
            .map_err(|_| Unreached::Late)?
    }

    async fn connect(&self, to: &http::Uri) -> Result<String, Unreached> {
        let connected = self.connector.tcp().oneshot(to.clone()).await;
        let stream = connected.map_err(|error| {
            if faults::is_io(&error, std::io::ErrorKind::ConnectionRefused) {
                Unreached::Refused
            } else {
                Unreached::Unreachable
            }
        })?;
        let address = stream.inner().peer_addr();
        Ok(address.map_or_else(
            |_| "connected".to_owned(),
            |at| format!("connected to {at}"),
        ))
    }

    async fn shake_hands(&self, to: &http::Uri) -> Result<String, Unreached> {
        let connected = self.connector.https().oneshot(to.clone()).await;
        match connected.map_err(|error| untrusted(faults::tls(&*error)))? {
            MaybeHttpsStream::Https(stream) => {
                let (_, session) = stream.inner().get_ref();
                let version = session.protocol_version().and_then(|v| v.as_str());
                let version = version.unwrap_or("TLS").replace("TLSv1_", "TLS 1.");
                Ok(format!("{version}, certificate accepted"))
            }
            MaybeHttpsStream::Http(_) => Err(Unreached::NotTls),
        }
    }
}

async fn resolve(to: &http::Uri) -> Result<String, Unreached> {
    let host = to.host().unwrap_or_default();
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Ok("an address, not a name".to_owned());
    }
    let name: Name = host.parse().map_err(|_| Unreached::Unknown)?;
    let found = GaiResolver::new().oneshot(name).await;
    let found: Vec<_> = found.map_err(|_| Unreached::Unknown)?.collect();
    match &found[..] {
        [] => Err(Unreached::Unknown),
        [only] => Ok(only.ip().to_string()),
        [first, ..] => Ok(format!("{}, one of {}", first.ip(), found.len())),
    }
}

/// What a handshake's error says of the other side. One that only ended, or was answered in another language, had nobody
/// there who speaks TLS.
fn untrusted(error: Option<&rustls::Error>) -> Unreached {
    match error {
        None | Some(rustls::Error::InvalidMessage(_)) => Unreached::NotTls,
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Unreached::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Unreached::WrongName
            }
            CertificateError::UnknownIssuer => Unreached::UnknownIssuer,
            _ => Unreached::Tls,
        },
        Some(_) => Unreached::Tls,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{Error, InvalidMessage};

    use super::*;

    #[test]
    fn a_handshakes_error_says_what_is_wrong_over_there() {
        let certificate = |problem| Some(Error::InvalidCertificate(problem));
        for (error, expected) in [
            (None, Unreached::NotTls),
            (
                Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                Unreached::NotTls,
            ),
            (certificate(CertificateError::Expired), Unreached::Expired),
            (
                certificate(CertificateError::NotValidYet),
                Unreached::Expired,
            ),
            (
                certificate(CertificateError::NotValidForName),
                Unreached::WrongName,
            ),
            (
                certificate(CertificateError::UnknownIssuer),
                Unreached::UnknownIssuer,
            ),
            (certificate(CertificateError::Revoked), Unreached::Tls),
            (Some(Error::HandshakeNotComplete), Unreached::Tls),
        ] {
            assert_eq!(untrusted(error.as_ref()), expected, "{error:?}");
        }
    }
}
