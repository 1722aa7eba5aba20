//! What the admin listener can be asked: each path once, with its methods.

use crate::error::{Error, Kind, Result};
use http::Method;

/// Writes the enum and its table from one list, so that neither can miss a row.
macro_rules! routes {
    ($($(#[$doc:meta])* $route:ident $path:literal $methods:literal;)+) => {
        /// Something to be asked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Route {
            $($(#[$doc])* $route,)+
        }

        impl Route {
            pub(super) const ALL: &[Self] = &[$(Self::$route,)+];

            /// Its path; of an explanation, what is before the request's own.
            pub(super) const fn path(self) -> &'static str {
                match self { $(Self::$route => $path,)+ }
            }

            /// As `Allow` tells them.
            pub(super) const fn methods(self) -> &'static str {
                match self { $(Self::$route => $methods,)+ }
            }
        }
    };
}

const READ: &str = "GET, HEAD";
const BOTH: &str = "GET, HEAD, POST";

routes! {
    /// Whether the process answers at all.
    Livez "/livez" "GET, HEAD";
    /// Whether callers should be sent here.
    Readyz "/readyz" "GET, HEAD";
    Metrics "/metrics" "GET, HEAD";
    /// What this listener answers.
    Document "/openapi.json" "GET, HEAD";
    /// What the other one answers.
    CallersDocument "/openapi/callers.json" "GET, HEAD";
    Explain "/api/explain" "GET, HEAD";
    /// How everything is.
    Status "/api/status" "GET, HEAD";
    /// How much is written to the log; and that it be more or less for a while.
    Log "/api/log" "GET, HEAD, POST";
    Purge "/api/purge" "POST";
    Reload "/api/reload" "POST";
    /// The end, as at a signal.
    Drain "/api/drain" "POST";
}

impl Route {
    /// What is asked by a method and a path.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::MethodNotAllowed`].
    pub(super) fn of(method: &Method, path: &str) -> Result<Self> {
        let route = Self::ALL.iter().find(|route| route.is_at(path));
        let route = route.ok_or_else(|| {
            let paths: Vec<_> = Self::ALL.iter().map(|route| route.path()).collect();
            Error::new(Kind::NotFound, format!("there are {}", paths.join(", ")))
        })?;
        let methods = route.methods();
        if methods
            .split(", ")
            .all(|allowed| allowed != method.as_str())
        {
            let detail = match methods {
                READ => "this is read with GET or HEAD",
                BOTH => "this is read with GET or HEAD, and changed with POST",
                _ => "this changes something: it is asked for with POST",
            };
            return Err(Error::new(Kind::MethodNotAllowed, detail).allowing(methods));
        }
        Ok(*route)
    }

    fn is_at(self, path: &str) -> bool {
        match self {
            Self::Explain => {
                let below = path.strip_prefix(self.path());
                below.is_some_and(|below| below.starts_with('/'))
            }
            _ => path == self.path(),
        }
    }
}
