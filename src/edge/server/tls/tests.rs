use std::fs;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::identity::SETTLED;

/// A folder with a certificate and a key, and the settings that name them.
struct Files {
    folder: TempDir,
    config: Config,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            certificate_file: "tls.pem".into(),
            key_file: "tls.key".into(),
            ..Config::default()
        };
        let config = config.within(folder.path());
        Self { folder, config }
    }

    /// Writes a certificate that ends with this year, and its key.
    fn write(&self, year: i32) -> [String; 2] {
        let [certificate, key] = pair(year);
        fs::write(&self.config.certificate_file, &certificate).unwrap();
        fs::write(&self.config.key_file, &key).unwrap();
        [certificate, key]
    }

    fn problem(&self) -> String {
        let problem = self.config.read().unwrap_err().to_string();
        problem.replace(&self.folder.path().display().to_string(), "DIR")
    }
}

fn pair(year: i32) -> [String; 2] {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(year, 12, 31);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let text = |tag: &str, content: &[u8]| pem::encode(&pem::Pem::new(tag, content));
    [
        text("CERTIFICATE", certificate.der()),
        text("PRIVATE KEY", &key.serialize_der()),
    ]
}

#[test]
fn a_pair_is_read_with_the_time_it_expires() {
    let files = Files::new();
    files.write(2030);
    // The last of December 2030, at midnight.
    assert_eq!(files.config.read().unwrap().expires, 1_924_905_600);
}

#[test]
fn whatever_is_wrong_is_told_by_the_file_and_never_by_its_content() {
    let files = Files::new();
    assert!(files.problem().starts_with("DIR/tls.pem cannot be read: "));
    let [certificate, key] = files.write(2030);
    let [_, other] = pair(2030);
    let broken = pem::encode(&pem::Pem::new("CERTIFICATE", b"CANARY".to_vec()));
    for (certificate, key, expected) in [
        ("", &*key, "DIR/tls.pem holds no certificate"),
        (&key, &key, "DIR/tls.pem holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nCANARY",
            &key,
            "DIR/tls.pem is not PEM",
        ),
        (
            &broken,
            &key,
            "DIR/tls.pem holds no certificate that can be read",
        ),
        (
            &certificate,
            "CANARY",
            "DIR/tls.key holds no private key in PEM",
        ),
        (
            &certificate,
            &certificate,
            "DIR/tls.key holds no private key in PEM",
        ),
        (
            &certificate,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "DIR/tls.key holds a key that cannot be used",
        ),
        (
            &certificate,
            &other,
            "DIR/tls.key holds another key than the certificate's",
        ),
    ] {
        fs::write(&files.config.certificate_file, certificate).unwrap();
        fs::write(&files.config.key_file, key).unwrap();
        assert_eq!(files.problem(), expected);
    }
    fs::remove_file(&files.config.key_file).unwrap();
    fs::create_dir(&files.config.key_file).unwrap();
    fs::write(&files.config.certificate_file, &certificate).unwrap();
    assert_eq!(files.problem(), "DIR/tls.key is not a regular file");
}

#[test]
fn another_pair_is_taken_once_and_a_bad_one_never() {
    let files = Files::new();
    files.write(2030);
    let families = Families::new(&Registry::new().unwrap()).unwrap();
    let certificate = Certificate::new(files.config.clone(), "traffic", &families).unwrap();
    let later = || SystemTime::now() + SETTLED;
    let told = || {
        certificate.look(later());
        let metrics = &certificate.metrics;
        (
            metrics.expiry.get(),
            metrics.taken.get(),
            metrics.refused.get(),
        )
    };
    let (in_2030, in_2031) = (1_924_905_600, 1_956_441_600);
    assert_eq!(told(), (in_2030, 0, 0));
    let [certificate_2031, key_2031] = pair(2031);
    fs::write(&files.config.certificate_file, certificate_2031).unwrap();
    assert_eq!(told(), (in_2030, 0, 1));
    assert_eq!(told(), (in_2030, 0, 1), "told once");
    fs::write(&files.config.key_file, key_2031).unwrap();
    assert_eq!(told(), (in_2031, 1, 1));
    assert_eq!(told(), (in_2031, 1, 1));
    fs::remove_file(&files.config.key_file).unwrap();
    assert_eq!(told(), (in_2031, 1, 2));
}

#[test]
fn one_file_needs_the_other() {
    let broken = |certificate_file: &str, key_file: &str| {
        let mut rules = Rules::default();
        let config = Config {
            certificate_file: certificate_file.into(),
            key_file: key_file.into(),
            ..Config::default()
        };
        config.check(&mut rules);
        rules.into_broken().len()
    };
    assert_eq!((broken("", ""), broken("a", "b")), (0, 0));
    assert_eq!((broken("a", ""), broken("", "b")), (1, 1));
}
