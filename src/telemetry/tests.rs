use tracing::Level as Importance;

use super::*;

/// Catches a level that opens what libraries say of headers and bodies.
#[test]
fn no_level_lets_libraries_say_more_than_they_may() {
    for level in Level::ALL {
        let filter = filter(level, true);
        for library in [
            "hyper::proto::h1::conn",
            "h2::codec::framed_write",
            "hyper_util::client::legacy::pool",
            "rustls::client::hs",
            "log",
            "contacts",
        ] {
            for importance in [Importance::DEBUG, Importance::TRACE] {
                assert!(
                    !filter.would_enable(library, &importance),
                    "{level:?} {library}"
                );
            }
            assert!(filter.would_enable(library, &Importance::ERROR));
        }
        let own =
            |importance| filter.would_enable("contacts_gateway::upstream::retry", &importance);
        assert_eq!(own(Importance::INFO), level >= Level::Info);
        assert_eq!(own(Importance::DEBUG), level >= Level::Debug);
        assert_eq!(own(Importance::TRACE), level >= Level::Trace);
    }
}

#[test]
fn access_lines_are_written_at_every_level_or_at_none() {
    for level in Level::ALL {
        assert!(filter(level, true).would_enable(ACCESS, &Importance::INFO));
        assert!(!filter(level, false).would_enable(ACCESS, &Importance::ERROR));
    }
}

#[test]
fn a_level_has_the_word_that_the_configuration_has() {
    for level in Level::ALL {
        assert_eq!(Level::named(level.word()), Some(level));
        assert_eq!(serde_json::to_value(level).unwrap(), level.word());
    }
    assert!(Level::ALL.is_sorted());
    assert_eq!(Level::named("off"), None);
}
