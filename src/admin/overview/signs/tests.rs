use super::*;
use crate::metrics::Registry;

const SECOND: Duration = Duration::from_secs(1);

fn told(signs: &Signs, now: Instant) -> Vec<String> {
    signs.reasons(now).map(|(_, words)| words).collect()
}

/// Catches what was before the start, one that is told for ever, and one account's that is told of another.
#[test]
fn what_has_grown_is_told_for_a_while_and_whose_it_is() {
    let registry = Registry::new().unwrap();
    let shed = registry.counter("requests_shed_total", "x", &[]).unwrap();
    let mismatches = registry.counter("upstream_tenant_mismatches_total", "x", &["account"]);
    let mismatches = mismatches.unwrap();
    let asks = registry.counter("token_service_asks_total", "x", &["account", "outcome"]);
    let asks = asks.unwrap();
    let labels = ["account", "stream", "verdict"];
    let lists = registry.counter("collection_lists_total", "x", &labels);
    let lists = lists.unwrap();
    lists.with_label_values(&["zeta", "crm", "verified"]).inc();
    shed.with_label_values::<&str>(&[]).inc();
    let (mut signs, start) = (Signs::default(), Instant::now());
    signs.look(&registry.gather(), start);
    assert_eq!(told(&signs, start), [""; 0]);
    // What is there for the first time has grown from nothing.
    mismatches.with_label_values(&["acme"]).inc();
    asks.with_label_values(&["acme", "ok"]).inc();
    signs.look(&registry.gather(), start + SECOND);
    let [one] = &told(&signs, start + 4 * SECOND)[..] else {
        panic!("{signs:?}")
    };
    assert!(
        one.starts_with("acme: Kore.ai sent contacts that say") && one.ends_with("; last 3s ago.")
    );
    shed.with_label_values::<&str>(&[]).inc();
    asks.with_label_values(&["zeta", "timeout"]).inc();
    let later = start + MINUTE;
    signs.look(&registry.gather(), later);
    let all = told(&signs, later);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(
        all[1].starts_with("Requests are refused as overloaded"),
        "{all:?}"
    );
    assert!(
        all[2].starts_with("zeta: the token service gave no token"),
        "{all:?}"
    );
    for (seconds, left) in [(120, 3), (121, 2), (300, 2), (301, 1), (3540, 1), (3542, 0)] {
        let now = later + seconds * SECOND;
        assert_eq!(told(&signs, now).len(), left, "after {seconds} s");
    }
    lists.with_label_values(&["zeta", "crm", "drifting"]).inc();
    signs.look(&registry.gather(), later);
    let all = told(&signs, later);
    assert!(
        all[1].starts_with("zeta / crm: the list changes"),
        "{all:?}"
    );
    registry.retain("account", |account| account != "acme");
    signs.look(&registry.gather(), later);
    assert!(
        told(&signs, later)
            .iter()
            .all(|words| !words.contains("acme"))
    );
}

/// Catches an end that is told when it is far, and one that is not told.
#[test]
fn what_has_an_end_is_told_when_it_is_near() {
    let registry = Registry::new().unwrap();
    let ends_at = "tls_certificate_expiry_timestamp_seconds";
    let certificates = registry.gauge(ends_at, "x", &["listener"]).unwrap();
    for (left, words) in [
        (15 * 86_400, None),
        (
            7 * 86_400,
            Some("The certificate of the traffic listener expires in 7days."),
        ),
        (
            -1,
            Some("The certificate of the traffic listener has expired."),
        ),
    ] {
        certificates
            .with_label_values(&["traffic"])
            .set(1_000_000 + left);
        let told = ends(&registry.gather(), 1e6);
        assert_eq!(told.first().map(|(_, words)| &**words), words, "{left}");
    }
    let registry = Registry::new().unwrap();
    let runways = registry.float_gauge("stale_runway_seconds", "x", &["account"]);
    let runways = runways.unwrap();
    runways.with_label_values(&["zeta"]).set(f64::INFINITY);
    for (left, level, words) in [
        (
            3000.0,
            Level::Warning,
            "acme: calls fail, and the first stale copies last for 50m; then callers get errors.",
        ),
        (
            600.0,
            Level::Bad,
            "acme: calls fail, and the first stale copies last for 10m; then callers get errors.",
        ),
        (
            0.0,
            Level::Bad,
            "acme: calls fail, and stale copies that callers want have run out.",
        ),
    ] {
        runways.with_label_values(&["acme"]).set(left);
        assert_eq!(ends(&registry.gather(), 0.0), [(level, words.to_owned())]);
    }
}
