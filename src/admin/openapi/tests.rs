use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::{admin::route::Route, edge::respond::status, error::Kind};

fn read(document: &str) -> Value {
    serde_json::from_str(document).unwrap()
}

/// The codes of each status, of all responses that tell them.
fn codes(document: &Value) -> BTreeMap<u16, BTreeSet<String>> {
    let responses = document["components"]["responses"].as_object().unwrap();
    let told = responses.values().filter_map(|response| {
        let schema = &response["content"]["application/problem+json"]["schema"];
        let narrowed = &schema["allOf"].as_array()?[1]["properties"];
        let codes = narrowed["code"]["enum"].as_array().unwrap();
        let codes = codes.iter().map(|code| code.as_str().unwrap().to_owned());
        let status = narrowed["status"]["const"].as_u64().unwrap();
        Some((u16::try_from(status).unwrap(), codes.collect()))
    });
    told.collect()
}

/// Catches a code that is new, gone, or answered with another status than is written.
#[test]
fn every_code_is_told_with_its_status() {
    let mut all: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for kind in Kind::ALL {
        let codes = all.entry(status(*kind).as_u16()).or_default();
        codes.insert(kind.code().to_owned());
    }
    // Callers get nearly all of them, operators some, and a few that callers never get.
    let mut written = codes(&read(CALLERS));
    for (status, told) in codes(&read(OPERATORS)) {
        written.entry(status).or_default().extend(told);
    }
    assert_eq!(written, all);
}

/// Catches a response that is written down and that no operation has.
#[test]
fn every_response_belongs_to_an_operation() {
    for document in [CALLERS, OPERATORS] {
        let parsed = read(document);
        for name in parsed["components"]["responses"]
            .as_object()
            .unwrap()
            .keys()
        {
            let reference = format!("\"$ref\": \"#/components/responses/{name}\"");
            assert!(document.contains(&reference), "{name}");
        }
    }
}

/// Catches a route that nobody wrote down, one that is gone, and one with another method.
#[test]
fn the_admin_listeners_routes_are_those_that_are_written_down() {
    let document = read(OPERATORS);
    let mut written = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        // What a caller's own path begins with is the explanation's.
        let path = match path.strip_suffix("/agentassist/api/v1/public/{streamId}/contacts") {
            Some(explanation) => explanation,
            None => path,
        };
        for method in operations.as_object().unwrap().keys() {
            if ["get", "post"].contains(&method.as_str()) {
                written.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let answered = Route::ALL.iter().flat_map(|route| {
        // Whatever is read with GET is answered to HEAD too.
        let methods = route
            .methods()
            .split(", ")
            .filter(|method| *method != "HEAD");
        methods.map(|method| format!("{method} {}", route.path()))
    });
    assert_eq!(written, answered.collect());
}

/// Catches a document of another version, or of an address that is not the default.
#[test]
fn they_are_of_this_version() {
    let config = crate::config::Config::default();
    for (document, address) in [
        (CALLERS, config.listen.address),
        (OPERATORS, config.admin.address),
    ] {
        let document = read(document);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let server = document["servers"][0]["url"].as_str().unwrap();
        assert_eq!(server, format!("http://{address}"));
    }
    let limit = &read(CALLERS)["components"]["parameters"]["limit"]["schema"]["maximum"];
    assert_eq!(*limit, config.edge.limit_max);
}
