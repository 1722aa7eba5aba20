//! The ops page: its files, compiled into the binary. It loads nothing from anywhere else, and holds no data: that comes
//! from `/api/status`.
//!
//! So the files are served without the operators' token: it is the page that asks for one, and shows it with each question.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use crate::edge::File;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, media type, content.
const FILES: [(&str, &str, &[u8]); 8] = [
    ("/", HTML, include_bytes!("page/ops.html")),
    ("/page/ops.css", CSS, include_bytes!("page/ops.css")),
    ("/page/ops.js", SCRIPT, include_bytes!("page/ops.js")),
    ("/page/show.js", SCRIPT, include_bytes!("page/show.js")),
    ("/page/charts.js", SCRIPT, include_bytes!("page/charts.js")),
    (
        "/page/operate.js",
        SCRIPT,
        include_bytes!("page/operate.js"),
    ),
    (
        "/page/uplot.js",
        SCRIPT,
        include_bytes!("page/uplot/uPlot.iife.min.js"),
    ),
    (
        "/page/uplot.css",
        CSS,
        include_bytes!("page/uplot/uPlot.min.css"),
    ),
];

/// What a browser is allowed to do with the page: to load its own files, to ask its own listener, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];

static PAGE: LazyLock<Vec<(&str, File)>> = LazyLock::new(|| {
    let file = |(path, media_type, content)| {
        (
            path,
            File::new(media_type, Bytes::from_static(content), &HEADERS),
        )
    };
    FILES.map(file).into()
});

/// Whether a path is one of the page's.
pub(super) fn has(path: &str) -> bool {
    FILES.iter().any(|(own, ..)| *own == path)
}

/// The file at a path.
pub(super) fn file(path: &str) -> Option<&'static File> {
    let mut files = PAGE.iter();
    files.find(|(own, _)| *own == path).map(|(_, file)| file)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    const VENDORED: &str = include_str!("page/uplot/README.md");

    /// Catches a vendored file that was changed, and one that was updated without saying so.
    #[test]
    fn what_is_vendored_is_what_it_says() {
        for (name, content) in [
            (
                "uPlot.iife.min.js",
                file("/page/uplot.js").unwrap().content(),
            ),
            ("uPlot.min.css", file("/page/uplot.css").unwrap().content()),
            (
                "LICENSE",
                &Bytes::from_static(include_bytes!("page/uplot/LICENSE")),
            ),
        ] {
            let hash = digest(&SHA256, content);
            let hash: String = hash
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert!(
                VENDORED.contains(&format!("| `{name}` | `{hash}` |")),
                "{name}: {hash}"
            );
        }
    }

    /// Catches a file that a browser would not load, or would load from elsewhere.
    #[test]
    fn the_page_refers_to_its_own_files_alone() {
        let html = std::str::from_utf8(FILES[0].2).unwrap();
        let referred = html
            .split(['"', '\''])
            .filter(|text| text.starts_with("/page/"));
        assert!(referred.clone().count() >= 4);
        for path in referred {
            assert!(has(path), "{path}");
        }
        for (path, _, content) in &FILES[..6] {
            let text = std::str::from_utf8(content).unwrap();
            for foreign in ["http:", "https:", "src=\"//", "innerHTML", "style="] {
                assert!(!text.contains(foreign), "{path} has {foreign}");
            }
        }
    }
}
