use arc_swap::ArcSwap;

use super::*;
use crate::{
    contacts::{
        account::{self, Accounts},
        cache::{Held, store},
        collections::Collections,
        request::RequestId,
        testing,
    },
    edge::{
        caller::Asker,
        route::{self, query::Style},
    },
};

/// Over one open account, with no copies.
pub(crate) fn operate() -> Operate {
    operate_where(route::Config::default())
}

/// What it asks, and the account that there is.
pub(crate) fn resolver() -> (Arc<Resolver>, Arc<Accounts>) {
    let Operate {
        resolver, copies, ..
    } = operate();
    (resolver, copies.accounts())
}

fn operate_where(edge: route::Config) -> Operate {
    let config = account::Config {
        name: "acme".to_owned(),
        account_id: "a1".to_owned(),
        client_id: "cs-acme".to_owned(),
        ..account::Config::default()
    };
    let accounts = Arc::new(Accounts::new(&[config]).unwrap());
    let lists = Arc::new(store::Lists::new(1 << 20, testing::metrics("lists")));
    let pages = Arc::new(store::Pages::new(
        1 << 20,
        testing::LIFETIME,
        testing::metrics("pages"),
    ));
    let collections = Collections::new(100, lists.clone());
    let copies = Copies::new(
        Arc::new(ArcSwap::new(accounts)),
        Arc::new(Held::new(pages)),
        Arc::new(Held::new(lists)),
    );
    let resolver = Resolver::new(edge, std::time::Duration::ZERO, Style::Skip, collections);
    Operate::new(Arc::new(resolver), copies, Roster::default())
}

fn purge(query: &str) -> std::result::Result<String, Kind> {
    let document = operate().purge(Some(query)).map_err(|error| error.kind())?;
    Ok(format!(
        "{} {}",
        document["purge"].as_str().unwrap(),
        document["subject"].as_str().unwrap()
    ))
}

#[test]
fn a_purge_says_what_it_is_about() {
    for (query, expected) in [
        ("all=true", Ok("hard all")),
        ("all=true&soft=true", Ok("soft all")),
        ("account=acme", Ok("hard account")),
        ("account=a1", Ok("hard account")),
        ("account=acme&stream=st-1", Ok("hard collection")),
        ("account=acme&stream=st-1&skip=20", Ok("hard page")),
        (
            "account=acme&stream=st-1&skip=20&limit=5&soft=true&dry_run=true",
            Ok("soft page"),
        ),
        ("", Err(Kind::BadParameter)),
        ("all=false", Err(Kind::BadParameter)),
        ("all=true&account=acme", Err(Kind::BadParameter)),
        ("stream=st-1", Err(Kind::BadParameter)),
        ("account=acme&skip=20", Err(Kind::BadParameter)),
        ("account=acme&stream=st-1&limit=5", Err(Kind::BadParameter)),
        ("account=acme&account=acme", Err(Kind::BadParameter)),
        ("account=acme&stream=", Err(Kind::BadParameter)),
        ("account=acme&stream=st-1&skip=-1", Err(Kind::BadParameter)),
        (
            "account=acme&stream=st-1&skip=0&limit=0",
            Err(Kind::BadParameter),
        ),
        ("all=yes", Err(Kind::BadParameter)),
        ("acount=acme", Err(Kind::BadParameter)),
        ("account=other", Err(Kind::UnknownAccount)),
        ("account=acme&stream=a/b", Err(Kind::StreamNotFound)),
    ] {
        assert_eq!(
            purge(query).as_deref(),
            expected.as_ref().map(|text| *text),
            "{query}"
        );
    }
}

#[test]
fn a_page_without_a_size_is_the_one_that_callers_get_without_saying_one() {
    for (limit_max, expected) in [(1000, 10), (5, 5)] {
        let edge = route::Config {
            limit_max,
            ..route::Config::default()
        };
        let wanted = Wanted::read("account=acme&stream=st-1&skip=0").unwrap();
        let (subject, _) = operate_where(edge).subject(&wanted).unwrap();
        let Subject::Page(key) = subject else {
            panic!("{subject:?}");
        };
        assert_eq!(key.window.limit, expected);
    }
}

#[tokio::test]
async fn an_explanation_names_the_key_and_the_decision() {
    let request = http::Request::get("/agentassist/api/v1/public/st-1/contacts?skip=20");
    let inbound = Inbound {
        head: request.body(()).unwrap().into_parts().0,
        has_body: false,
        header_lines: 0,
        id: RequestId::number(0, 0),
        trace: None,
        asker: Asker::Anyone(Arc::default()),
    };
    let document = operate().explain(inbound).unwrap();
    assert_eq!(document["decision"], "miss");
    assert_eq!(document["key"]["account"], "acme");
    assert_eq!(document["key"]["skip"], 20);
    assert_eq!(document["key"]["limit"], 10);
    assert_eq!(document["copy"], Value::Null);
    assert_eq!(document["in_flight"], false);
}
