//! Where the list goes: whole, or not at all.
//!
//! Contacts are collected in a file without a name, so that nothing of them is left behind however the command ends. Only
//! a list that is whole is written out: to standard output, or to a file beside the wanted one that then takes its name.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Seek, Write},
    path::{Path, PathBuf},
    thread,
};

use tokio::sync::oneshot;

use super::table::Columns;

/// Where the list goes.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Stdout,
    /// A file that is replaced at once, and the folder that it is in.
    File {
        target: PathBuf,
        folder: PathBuf,
    },
}

/// Contacts that have come, one on each line.
#[derive(Debug)]
pub(super) struct Spool(BufWriter<File>);

impl Place {
    /// `None` is standard output. Blocking.
    ///
    /// # Errors
    /// If there is something of this name that cannot be replaced. A link is followed.
    pub(super) fn new(output: Option<&Path>) -> io::Result<Self> {
        let Some(output) = output else {
            return Ok(Self::Stdout);
        };
        let target = match fs::metadata(output) {
            Ok(found) if found.is_file() => fs::canonicalize(output)?,
            // Renaming would put a file in the place of a device.
            Ok(_) => return Err(io::Error::other("it is there and is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => output.to_owned(),
            Err(error) => return Err(error),
        };
        let nameless = || io::Error::from(io::ErrorKind::InvalidFilename);
        target.file_name().ok_or_else(nameless)?;
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self::File { target, folder })
    }

    /// A file without a name, on the disk of the place: for standard output that of temporary files. Blocking.
    pub(super) fn spool(&self) -> io::Result<Spool> {
        let file = match self {
            Self::Stdout => tempfile::tempfile()?,
            Self::File { folder, .. } => tempfile::tempfile_in(folder)?,
        };
        Ok(Spool(BufWriter::with_capacity(1 << 16, file)))
    }

    /// Writes the list to its place: as a table with these columns, or as it came.
    ///
    /// Its thread is left alone when nobody waits any more, so that a stalled reader of standard output does not keep
    /// the command from ending.
    pub(super) async fn put(&self, spool: Spool, table: Option<Columns>) -> io::Result<()> {
        let Self::File { target, folder } = self else {
            return written(spool, table, io::stdout()).await.map(drop);
        };
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        // Only its owner may read it. It goes when this is dropped, unless it took the name.
        let beside = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            .tempfile_in(folder)?;
        let file = written(spool, table, beside.as_file().try_clone()?).await?;
        file.sync_all()?;
        beside.persist(target)?;
        // The new name outlasts a crash only when the folder is written, too.
        File::open(folder)?.sync_all()
    }
}

impl Spool {
    pub(super) fn push(&mut self, contact: &str) -> io::Result<()> {
        self.0.write_all(contact.as_bytes())?;
        self.0.write_all(b"\n")
    }

    fn read_again(self) -> io::Result<File> {
        let mut file = self.0.into_inner()?;
        file.rewind()?;
        Ok(file)
    }
}

/// Writes on a thread of its own, and gives back what was written to.
async fn written<W>(spool: Spool, table: Option<Columns>, out: W) -> io::Result<W>
where
    W: Write + Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        let _ = done.send(write(spool, table, out));
    })?;
    let lost = || io::Error::other("the thread that wrote it has failed");
    outcome.await.map_err(|_| lost())?
}

fn write<W: Write>(spool: Spool, table: Option<Columns>, out: W) -> io::Result<W> {
    let mut contacts = spool.read_again()?;
    let mut out = BufWriter::with_capacity(1 << 16, out);
    match table {
        Some(columns) => columns.write(BufReader::new(contacts), &mut out)?,
        None => drop(io::copy(&mut contacts, &mut out)?),
    }
    out.into_inner().map_err(Into::into).and_then(|mut out| {
        out.flush()?;
        Ok(out)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_is_replaced_by_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("list.ndjson");
        fs::write(&target, "old").unwrap();
        let link = folder.path().join("link");
        symlink(&target, &link).unwrap();
        let place = Place::new(Some(&link)).unwrap();
        let mut spool = place.spool().unwrap();
        spool.push(r#"{"id":"1"}"#).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(names(folder.path()), ["link", "list.ndjson"]);
        place.put(spool, None).await.unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "{\"id\":\"1\"}\n");
        assert_eq!(
            fs::metadata(&target).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["link", "list.ndjson"]);
    }

    /// Catches what is left of a list that could not be written, or whose writing was given up.
    #[tokio::test]
    async fn nothing_is_left_of_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("list.csv");
        let place = Place::new(Some(&target)).unwrap();
        let mut spool = place.spool().unwrap();
        spool.push(r#"{"id":"1"}"#).unwrap();
        // No column was met.
        let error = place.put(spool, Some(Columns::default())).await;
        error.unwrap_err();
        assert!(names(folder.path()).is_empty());

        let spool = place.spool().unwrap();
        let mut given_up = Box::pin(place.put(spool, None));
        // Polled once, it is at work.
        tokio::select! {
            biased;
            _ = &mut given_up => {}
            () = std::future::ready(()) => {}
        }
        drop(given_up);
        assert!(
            names(folder.path())
                .iter()
                .all(|name| !name.ends_with(".part"))
        );
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for output in [folder.path(), Path::new("/dev/null"), Path::new("..")] {
            Place::new(Some(output)).unwrap_err();
        }
        let missing = folder.path().join("missing/list.csv");
        Place::new(Some(&missing)).unwrap().spool().unwrap_err();
    }
}
