//! A certificate and its key, as they are in their files.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::Config;

/// The largest file that is read, in bytes. A chain has a few thousand.
const BYTES_MAX: u64 = 1 << 20;

/// One of the two files, by its key in the configuration.
#[derive(Clone, Copy)]
struct Named<'a> {
    key: &'static str,
    path: &'a Path,
}

impl Named<'_> {
    fn problem(self, why: impl Into<String>) -> TlsProblem {
        TlsProblem {
            key: self.key,
            path: self.path.to_owned(),
            why: why.into(),
        }
    }
}

fn content(file: Named<'_>) -> Result<Zeroizing<Vec<u8>>, TlsProblem> {
    let unreadable = |error: io::Error| file.problem(format!("cannot be read: {error}"));
    let path = file.path;
    // Looked at before it is opened, since opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(file.problem("is not a regular file"));
    }
    let mut content = Zeroizing::new(Vec::with_capacity(64 * 1024));
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_end(&mut content))
        .map_err(unreadable)?;
    Ok(content)
}

impl Config {
    /// Reads both files. Blocking.
    ///
    /// # Errors
    /// If they cannot be read or do not fit each other.
    pub fn read(&self) -> Result<Pair, TlsProblem> {
        let of_certificate = Named {
            key: "certificate_file",
            path: &self.certificate_file,
        };
        let of_key = Named {
            key: "key_file",
            path: &self.key_file,
        };
        let pem = content(of_certificate)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| of_certificate.problem("is not PEM"))?;
        let own = chain
            .first()
            .ok_or_else(|| of_certificate.problem("holds no certificate"))?;
        let (_, parsed) = X509Certificate::from_der(own)
            .map_err(|_| of_certificate.problem("holds no certificate that can be read"))?;
        let expires = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(&content(of_key)?)
            .map_err(|_| of_key.problem("holds no private key in PEM"))?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_key.problem("holds another key than the certificate's")
            }
            _ => of_key.problem("holds a key that cannot be used"),
        })?;
        Ok(Pair {
            certified: Arc::new(certified),
            expires,
        })
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// Seconds since 1970.
    pub(super) expires: i64,
}

/// Why there is no certificate. Names the file, never its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", .path.display())]
pub struct TlsProblem {
    key: &'static str,
    path: PathBuf,
    why: String,
}

impl TlsProblem {
    /// The key that names the file: `certificate_file` or `key_file`.
    pub const fn key(&self) -> &'static str {
        self.key
    }
}
