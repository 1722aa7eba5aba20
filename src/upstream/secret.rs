//! A client secret, and the two places that it may come from.
//!
//! One type holds it, so that no log line, error or panic can print it: `Debug` shows nothing, there is no `Display`,
//! and the memory is wiped when the last owner goes. The only way to the text is [`Secret::expose`].

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroizing;

/// The largest secret that is read, in bytes. Kore.ai's have 44, an RSA key in PEM a few thousand.
const BYTES_MAX: usize = 64 * 1024;

/// A secret that does not show itself.
#[derive(Clone)]
pub struct Secret(SecretBox<str>);

impl Secret {
    /// Wraps a copy of `text`. The caller's own copy stays as it is.
    pub fn new(text: &str) -> Self {
        // An exact box: growing or shrinking a buffer would leave an unwiped copy behind.
        Self(SecretBox::new(Box::from(text)))
    }

    /// The secret itself: for signing, and for nothing that is written anywhere.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Reads a file and drops one newline at its end. Blocking.
    ///
    /// # Errors
    /// If it cannot be read, is no regular file, is empty, larger than 64 KiB or not UTF-8.
    pub fn from_file(path: &Path) -> Result<Self, SecretProblem> {
        let problem = |fault| SecretProblem {
            place: Place::File(path.to_owned()),
            fault,
        };
        let unreadable = |error| problem(Fault::Unreadable(Arc::new(error)));
        // Looked at before it is opened, since opening a pipe would wait for its writer.
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(problem(Fault::Directory));
        }
        if !metadata.is_file() {
            return Err(problem(Fault::NotAFile));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 1));
        fs::File::open(path)
            .and_then(|file| file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text
            .strip_suffix(b"\r")
            .filter(|_| text.len() < bytes.len())
            .unwrap_or(text);
        if bytes.len() > BYTES_MAX {
            return Err(problem(Fault::TooLarge));
        }
        Self::from_bytes(text).map_err(problem)
    }

    /// Takes the value of the environment variable `name`, as it is.
    ///
    /// # Errors
    /// If it is not set (`None`), empty, larger than 64 KiB or not UTF-8.
    pub fn from_variable(name: &str, value: Option<&OsStr>) -> Result<Self, SecretProblem> {
        let bytes = value.map(OsStr::as_encoded_bytes);
        bytes
            .ok_or(Fault::NotSet)
            .and_then(Self::from_bytes)
            .map_err(|fault| SecretProblem {
                place: Place::Variable(name.to_owned()),
                fault,
            })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        match std::str::from_utf8(bytes) {
            Ok("") => Err(Fault::Empty),
            Ok(text) if text.len() > BYTES_MAX => Err(Fault::TooLarge),
            Ok(text) => Ok(Self::new(text)),
            Err(_) => Err(Fault::NotUtf8),
        }
    }
}

/// Where an account's secrets are.
#[derive(Debug)]
pub struct Sources {
    pub first: Source,
    /// A second one, for the time of a rotation.
    pub next: Option<Source>,
}

/// Where a secret is, or what was found there.
#[derive(Debug)]
pub enum Source {
    /// Read again whenever it changes.
    File(PathBuf),
    /// From a variable, which cannot change while the process runs.
    Read(Result<Secret, SecretProblem>),
}

impl Source {
    /// The secret as it is now. Blocking.
    ///
    /// # Errors
    /// As [`Secret::from_file`] and [`Secret::from_variable`].
    pub fn read(&self) -> Result<Secret, SecretProblem> {
        match self {
            Self::File(path) => Secret::from_file(path),
            Self::Read(read) => read.clone(),
        }
    }

    /// As an error of something that cannot use what is there.
    pub(crate) fn unusable(&self, why: String) -> SecretProblem {
        let place = match self {
            Self::File(path) => Place::File(path.clone()),
            Self::Read(Err(problem)) => problem.place.clone(),
            Self::Read(Ok(_)) => Place::Nowhere,
        };
        SecretProblem {
            place,
            fault: Fault::Unusable(why),
        }
    }
}

impl From<Option<Secret>> for Sources {
    fn from(secret: Option<Secret>) -> Self {
        let none = || SecretProblem {
            place: Place::Nowhere,
            fault: Fault::NotSet,
        };
        Self {
            first: Source::Read(secret.ok_or_else(none)),
            next: None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a secret could not be had. Names the place, never the content.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place} {fault}")]
pub struct SecretProblem {
    place: Place,
    fault: Fault,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Place {
    #[error("the secret file {}", .0.display())]
    File(PathBuf),
    #[error("the environment variable {0}")]
    Variable(String),
    #[error("the secret")]
    Nowhere,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Fault {
    #[error("cannot be read: {0}")]
    Unreadable(Arc<io::Error>),
    #[error("is a directory")]
    Directory,
    #[error("is not a regular file")]
    NotAFile,
    #[error("is not set")]
    NotSet,
    #[error("is empty")]
    Empty,
    #[error("holds more than 64 KiB")]
    TooLarge,
    #[error("is not UTF-8 text")]
    NotUtf8,
    #[error("{0}")]
    Unusable(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "CANARY-7f3a";

    fn read(content: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme");
        fs::write(&path, content).expect("a file");
        match Secret::from_file(&path) {
            Ok(secret) => Ok(secret.expose().to_owned()),
            Err(problem) => {
                let (text, debug) = (problem.to_string(), format!("{problem:?}"));
                assert!(!text.contains(CANARY) && !debug.contains(CANARY), "{debug}");
                let name = format!("the secret file {} ", path.display());
                Err(text
                    .strip_prefix(&name)
                    .expect("the path is named")
                    .to_owned())
            }
        }
    }

    #[test]
    fn a_file_is_read_but_for_one_newline() {
        for (content, expected) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("s3cret\r", "s3cret\r"),
            ("s3cret\n\n", "s3cret\n"),
            (" s3cret ", " s3cret "),
        ] {
            assert_eq!(
                read(content.as_bytes()).as_deref(),
                Ok(expected),
                "{content:?}"
            );
        }
        let large = "x".repeat(BYTES_MAX);
        assert_eq!(read(large.as_bytes()), Ok(large));
    }

    #[test]
    fn a_bad_file_is_named_and_its_content_is_not() {
        let large = CANARY.repeat(BYTES_MAX / CANARY.len() + 1);
        for (content, expected) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"\r\n", "is empty"),
            (b"CANARY-7f3a\xff", "is not UTF-8 text"),
            (large.as_bytes(), "holds more than 64 KiB"),
        ] {
            assert_eq!(read(content), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = |path: &Path| Secret::from_file(path).expect_err("no secret").to_string();
        assert!(text(folder.path()).ends_with("is a directory"));
        assert!(text(&folder.path().join("none")).contains("none cannot be read: No such file"));
        #[cfg(unix)]
        assert!(text(Path::new("/dev/null")).ends_with("is not a regular file"));
    }

    #[test]
    fn a_variable_is_taken_as_it_is() {
        let take = |value: Option<&OsStr>| {
            Secret::from_variable("ACME_SECRET", value)
                .map(|secret| secret.expose().to_owned())
                .map_err(|problem| problem.to_string())
        };
        assert_eq!(
            take(Some(OsStr::new("s3cret\n"))),
            Ok("s3cret\n".to_owned())
        );
        assert_eq!(
            take(Some(OsStr::new(""))),
            Err("the environment variable ACME_SECRET is empty".to_owned())
        );
        assert_eq!(
            take(None),
            Err("the environment variable ACME_SECRET is not set".to_owned())
        );
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new(CANARY)), "Secret(..)");
    }
}
