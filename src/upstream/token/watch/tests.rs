use std::{fs, path::PathBuf};

use super::{
    super::testing::{Bench, wall},
    *,
};
use crate::{contacts::ids::StreamId, identity::SETTLED};

/// A folder with a secret in it, and the credential that watches it.
struct Watch {
    _folder: tempfile::TempDir,
    path: PathBuf,
    bench: Bench,
}

impl Watch {
    fn new(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acme");
        fs::write(&path, content).unwrap();
        let sources = Sources {
            first: Source::File(path.clone()),
            next: None,
        };
        Self {
            bench: Bench::with(sources, |_| ()),
            path,
            _folder: folder,
        }
    }

    /// Looks at what changed, and says whether that was another secret.
    fn look(&self, wall: SystemTime) -> bool {
        let mut files = self.bench.credentials.files.lock().unwrap();
        let watched = &mut files.watched;
        let before = watched[0].credential.keys();
        watched[0].look(false, wall);
        watched[0].credential.keys() != before
    }

    fn seen(&self) -> bool {
        self.bench.credentials.files.lock().unwrap().watched[0].places[0]
            .seen
            .is_some()
    }
}

#[test]
fn a_changed_file_is_read_and_another_is_not() {
    let watch = Watch::new("old");
    let later = SystemTime::now() + SETTLED;
    assert!(!watch.look(later));
    assert!(watch.seen());
    // In place, of the same length, and (as far as its times tell) long ago.
    fs::write(&watch.path, "new").unwrap();
    assert!(watch.look(later));
    // By a rename, as editors do.
    let other = watch.path.with_extension("new");
    fs::write(&other, "two").unwrap();
    fs::rename(&other, &watch.path).unwrap();
    assert!(watch.look(later));
    assert!(!watch.look(later));
}

#[test]
fn a_file_that_has_just_been_written_is_read_until_its_times_can_tell() {
    let watch = Watch::new("old");
    assert!(!watch.look(SystemTime::now()));
    assert!(
        !watch.seen(),
        "it may be written again within one tick of the clock"
    );
    assert!(!watch.look(SystemTime::now() + SETTLED));
    assert!(watch.seen());
}

#[test]
fn a_file_that_could_not_be_read_is_read_again_although_it_has_not_changed() {
    let watch = Watch::new("old");
    fs::write(&watch.path, b"\xff").unwrap();
    let later = SystemTime::now() + SETTLED;
    assert!(!watch.look(later));
    assert!(!watch.seen());
}

#[cfg(unix)]
#[test]
fn a_link_that_is_turned_elsewhere_is_seen() {
    use std::os::unix::fs::symlink;
    // As Kubernetes mounts a secret: the name leads through a link to a folder, and the folder's link is turned.
    let folder = tempfile::tempdir().unwrap();
    let within = |name: &str| folder.path().join(name);
    for (name, content) in [("one", "old"), ("two", "new")] {
        fs::create_dir(within(name)).unwrap();
        fs::write(within(name).join("acme"), content).unwrap();
    }
    symlink("one", within("..data")).unwrap();
    symlink("..data/acme", within("acme")).unwrap();
    let watch = Watch {
        path: within("acme"),
        bench: Bench::with(
            Sources {
                first: Source::File(within("acme")),
                next: None,
            },
            |_| (),
        ),
        _folder: folder,
    };
    let later = SystemTime::now() + SETTLED;
    assert!(!watch.look(later));
    let turned = watch.path.with_file_name("..turned");
    symlink("two", &turned).unwrap();
    fs::rename(&turned, watch.path.with_file_name("..data")).unwrap();
    assert!(watch.look(later));
}

#[tokio::test]
async fn an_account_is_disabled_until_its_secret_is_there_and_never_again() {
    let watch = Watch::new("");
    let stream = StreamId::parse("st-1").unwrap();
    let credential = watch.bench.credentials.of(&watch.bench.account).unwrap();
    assert!(credential.token(&stream, wall).await.is_err());
    fs::write(&watch.path, "secret").unwrap();
    assert!(watch.look(SystemTime::now()));
    let token = credential.token(&stream, wall).await.unwrap();
    for content in [&b""[..], b"\xff", b"\n"] {
        fs::write(&watch.path, content).unwrap();
        assert!(!watch.look(SystemTime::now()));
    }
    fs::remove_file(&watch.path).unwrap();
    assert!(!watch.look(SystemTime::now()));
    assert_eq!(
        credential.token(&stream, wall).await.unwrap().header,
        token.header
    );
}
