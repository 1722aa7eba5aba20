//! What is left of an account that is not configured any more, over sockets and as long as a walk may last.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time,
};

use super::*;
use crate::{
    contacts::{account, testing},
    reload::Trigger,
    upstream::secret::Secret,
};

fn configured(names: &[&str], upstream: &TcpListener) -> Config {
    let mut config = Config::default();
    (config.listen.address, config.admin.address) = (
        "127.0.0.1:0".parse().unwrap(),
        "127.0.0.1:0".parse().unwrap(),
    );
    config.budget.start_share = 1.0;
    config.upstream.base_url = format!("http://{}", upstream.local_addr().unwrap());
    config.upstream.allow_plaintext = true;
    config.upstream.idle_connections_max = 0;
    // By the workers' clock, which is not paused.
    let long = Duration::from_secs(300);
    (
        config.upstream.first_byte_timeout,
        config.upstream.page_timeout,
    ) = (long, long);
    config.edge.request_timeout = long;
    let account = |name: &&str| account::Config {
        name: (*name).to_owned(),
        account_id: (*name).to_owned(),
        client_id: "cs".to_owned(),
        ..account::Config::default()
    };
    config.accounts = names.iter().map(account).collect();
    config
}

fn secrets(config: &Config) -> Secrets {
    let secret = |_| Some(Secret::new("secret"));
    Secrets::from(config.accounts.iter().map(secret).collect::<Vec<_>>())
}

/// What a caller gets who asks for a stream of the account that leaves.
async fn ask(traffic: std::net::SocketAddr, stream: &str) -> String {
    let mut caller = TcpStream::connect(traffic).await.unwrap();
    let head = format!(
        "GET /agentassist/api/v1/public/{stream}/contacts HTTP/1.1\r\nhost: localhost\r\naccountid: leaves\r\nconnection: close\r\n\r\n"
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Lets so much of the gateway's time go by: its sweeps and looks come in their order.
async fn after(time: Duration) {
    time::pause();
    time::sleep(time).await;
    time::resume();
}

/// Catches a request that loses its credential while it is under way, and a secret that lies in memory for hours after that,
/// for copies' or names' sake.
#[tokio::test]
async fn an_account_that_has_left_signs_for_who_is_under_way_and_no_longer() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = configured(&["leaves", "stays"], &upstream);
    let app = App::bind(&config, secrets(&config)).await.unwrap();
    let (traffic, credentials) = (app.traffic, app.credentials().clone());
    let reloader = app.reloader().clone();
    let after_it = configured(&["stays"], &upstream);
    reloader.read_from(move || {
        let config = Config {
            listen: config.listen.clone(),
            accounts: after_it.accounts.clone(),
            ..config.clone()
        };
        let secrets = secrets(&config);
        Ok((config, secrets))
    });
    let running = tokio::spawn(app.run(std::future::pending()));

    let answers = async {
        let (mut call, _) = upstream.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(call.read_u8().await.unwrap());
        }
        let body = testing::body(0, 10, 5);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        call.write_all((head + &body).as_bytes()).await.unwrap();
        call
    };
    let (page, _call) = tokio::join!(ask(traffic, "st-kept"), answers);
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    let asking = tokio::spawn(ask(traffic, "st-under-way"));
    let (call, _) = upstream.accept().await.unwrap();
    assert!(reloader.reload(Trigger::Admin).await.outcome.is_ok());
    after(Duration::from_secs(30 * 60)).await;
    assert_eq!(credentials.count(), 2);

    drop((call, upstream));
    let page = asking.await.unwrap();
    assert!(page.starts_with("HTTP/1.1 502 "), "{page}");
    after(Duration::from_secs(3 * 60)).await;
    assert_eq!(credentials.count(), 1);
    running.abort();
}
