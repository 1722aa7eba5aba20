//! Four properties that hold for any bytes, for `tests/fuzz/run`, which looks for bytes that break one. What it has kept
//! (`tests/fuzz/corpus`) is run here, as tests. Built for tests and fuzzers alone.

pub use crate::{
    config::fuzz::check as configuration, contacts::page::fuzz::check as page,
    contacts::walk::plan::fuzz::check as walk, edge::route::fuzz::check as request,
};

#[cfg(test)]
mod tests {
    use std::{fs, panic, path::Path};

    use super::*;

    /// Runs what is kept for a target, in the order of the names.
    fn corpus(target: &str, check: fn(&[u8])) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("tests/fuzz/corpus").join(target);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 10, "{} in {folder:?}", files.len());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            let checked = panic::catch_unwind(|| check(&bytes));
            assert!(checked.is_ok(), "{}", file.display());
        }
    }

    #[test]
    fn requests() {
        corpus("request", request);
    }

    #[test]
    fn pages() {
        corpus("page", page);
    }

    #[test]
    fn configurations() {
        corpus("configuration", configuration);
    }

    #[test]
    fn walks() {
        corpus("walk", walk);
    }
}
