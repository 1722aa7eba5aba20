//! What becomes of a request, given the copy and what the request says about copies: pure.

use super::entry::{Freshness, Standing};
use crate::{contacts::directives::Directives, served::Forward};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The copy is the answer.
    Serve,
    /// The copy is the answer, and is fetched anew meanwhile.
    Revalidate,
    /// Upstream is asked. With `fallback` the copy is the answer after all if that fails.
    Fetch { forward: Forward, fallback: bool },
    /// There is no copy that will do, and the request wants nothing else.
    Refuse,
}

/// Decides by the standing of the copy, if there is one.
pub fn decide(copy: Option<&Standing>, directives: &Directives) -> Decision {
    let fetch = |forward, fallback| match directives.only_if_cached {
        true => Decision::Refuse,
        false => Decision::Fetch { forward, fallback },
    };
    let Some(copy) = copy else {
        return fetch(Forward::Miss, false);
    };
    match (copy.freshness, directives.accept(copy)) {
        (Freshness::Expired, _) => fetch(Forward::Stale, false),
        (Freshness::Fresh, true) => Decision::Serve,
        (Freshness::Stale, true) if directives.only_if_cached => Decision::Serve,
        (Freshness::Stale, true) => Decision::Revalidate,
        (Freshness::Fresh, false) => fetch(Forward::Request, directives.forgive(copy)),
        (Freshness::Stale, false) => fetch(Forward::Stale, directives.forgive(copy)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NONE: Directives = Directives {
        no_cache: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
        stale_if_error: None,
    };

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    /// A copy of such an age that was fresh for a minute, and may be stale for another.
    fn copy(age: u64) -> Standing {
        let age = Duration::from_secs(age);
        let minute = Duration::from_secs(60);
        Standing {
            freshness: match age {
                age if age < minute => Freshness::Fresh,
                age if age < 2 * minute => Freshness::Stale,
                _ => Freshness::Expired,
            },
            age,
            fresh_left: minute.saturating_sub(age),
            stale_since: age.saturating_sub(minute),
        }
    }

    #[test]
    fn each_directive_does_what_its_rfc_says() {
        use Decision::{Refuse, Revalidate, Serve};
        let fetch = |forward, fallback| Decision::Fetch { forward, fallback };
        let (request, stale) = (Forward::Request, Forward::Stale);
        for (age, directives, expected) in [
            // Nothing is said: the operator's times decide.
            (0, NONE, Serve),
            (59, NONE, Serve),
            (60, NONE, Revalidate),
            (119, NONE, Revalidate),
            (120, NONE, fetch(stale, false)),
            // RFC 9111, section 5.2.1.1.
            (
                30,
                Directives {
                    max_age: seconds(30),
                    ..NONE
                },
                Serve,
            ),
            (
                31,
                Directives {
                    max_age: seconds(30),
                    ..NONE
                },
                fetch(request, false),
            ),
            (
                90,
                Directives {
                    max_age: seconds(90),
                    ..NONE
                },
                Revalidate,
            ),
            (
                91,
                Directives {
                    max_age: seconds(90),
                    ..NONE
                },
                fetch(stale, false),
            ),
            (
                0,
                Directives {
                    max_age: seconds(0),
                    ..NONE
                },
                Serve,
            ),
            // Section 5.2.1.2.
            (
                60,
                Directives {
                    max_stale: seconds(0),
                    ..NONE
                },
                Revalidate,
            ),
            (
                61,
                Directives {
                    max_stale: seconds(0),
                    ..NONE
                },
                fetch(stale, false),
            ),
            (
                90,
                Directives {
                    max_stale: seconds(30),
                    ..NONE
                },
                Revalidate,
            ),
            (
                91,
                Directives {
                    max_stale: seconds(30),
                    ..NONE
                },
                fetch(stale, false),
            ),
            (
                119,
                Directives {
                    max_stale: Some(Duration::MAX),
                    ..NONE
                },
                Revalidate,
            ),
            // Nobody is answered what the operator has given up.
            (
                120,
                Directives {
                    max_stale: Some(Duration::MAX),
                    ..NONE
                },
                fetch(stale, false),
            ),
            // Section 5.2.1.3.
            (
                40,
                Directives {
                    min_fresh: seconds(20),
                    ..NONE
                },
                Serve,
            ),
            (
                41,
                Directives {
                    min_fresh: seconds(20),
                    ..NONE
                },
                fetch(request, false),
            ),
            (
                61,
                Directives {
                    min_fresh: seconds(20),
                    ..NONE
                },
                fetch(stale, false),
            ),
            // Section 5.2.1.4.
            (
                0,
                Directives {
                    no_cache: true,
                    ..NONE
                },
                fetch(request, false),
            ),
            (
                61,
                Directives {
                    no_cache: true,
                    ..NONE
                },
                fetch(stale, false),
            ),
            // Section 5.2.1.7.
            (
                0,
                Directives {
                    only_if_cached: true,
                    ..NONE
                },
                Serve,
            ),
            (
                61,
                Directives {
                    only_if_cached: true,
                    ..NONE
                },
                Serve,
            ),
            (
                120,
                Directives {
                    only_if_cached: true,
                    ..NONE
                },
                Refuse,
            ),
            (
                31,
                Directives {
                    only_if_cached: true,
                    max_age: seconds(30),
                    ..NONE
                },
                Refuse,
            ),
            (
                0,
                Directives {
                    only_if_cached: true,
                    no_cache: true,
                    ..NONE
                },
                Refuse,
            ),
            // RFC 5861, section 4.
            (
                0,
                Directives {
                    no_cache: true,
                    stale_if_error: seconds(0),
                    ..NONE
                },
                fetch(request, true),
            ),
            (
                90,
                Directives {
                    no_cache: true,
                    stale_if_error: seconds(30),
                    ..NONE
                },
                fetch(stale, true),
            ),
            (
                91,
                Directives {
                    no_cache: true,
                    stale_if_error: seconds(30),
                    ..NONE
                },
                fetch(stale, false),
            ),
            (
                90,
                Directives {
                    max_age: seconds(10),
                    max_stale: seconds(30),
                    ..NONE
                },
                fetch(stale, true),
            ),
            (
                120,
                Directives {
                    no_cache: true,
                    stale_if_error: seconds(999),
                    ..NONE
                },
                fetch(stale, false),
            ),
        ] {
            assert_eq!(
                decide(Some(&copy(age)), &directives),
                expected,
                "{age} s, {directives:?}"
            );
        }
        assert_eq!(decide(None, &NONE), fetch(Forward::Miss, false));
        let only = Directives {
            only_if_cached: true,
            ..NONE
        };
        assert_eq!(decide(None, &only), Refuse);
    }

    fn directives() -> impl Strategy<Value = Directives> {
        let delta = || proptest::option::of((0_u64..200).prop_map(Duration::from_secs));
        let all = (
            any::<bool>(),
            any::<bool>(),
            delta(),
            delta(),
            delta(),
            delta(),
        );
        all.prop_map(
            |(no_cache, only_if_cached, max_age, min_fresh, max_stale, stale_if_error)| {
                Directives {
                    no_cache,
                    only_if_cached,
                    max_age,
                    min_fresh,
                    max_stale,
                    stale_if_error,
                }
            },
        )
    }

    proptest! {
        /// Whatever is said, nothing that is given up is answered, and no more is served because less was asked for.
        #[test]
        fn directives_only_ever_narrow(age in 0_u64..200, said in directives()) {
            let decision = decide(Some(&copy(age)), &said);
            let served = matches!(decision, Decision::Serve | Decision::Revalidate);
            let silent = matches!(decide(Some(&copy(age)), &NONE), Decision::Serve | Decision::Revalidate);
            prop_assert!(silent || !served);
            if let Decision::Fetch { fallback: true, .. } = decision {
                prop_assert!(silent);
            }
            prop_assert_eq!(decision == Decision::Refuse, said.only_if_cached && !served);
        }
    }
}
