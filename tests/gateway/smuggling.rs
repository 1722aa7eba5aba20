//! Requests within requests: whatever two readers could take for two different things, on HTTP/1.1 and on HTTP/2. Of each
//! there is a refusal, or one reading; and upstream never sees a request that nobody made.

use contacts_gateway::simulator::DEMO_STREAM_ID;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    listener::{frame, get, preface},
    support::{World, path, soon},
};

/// The request that is hidden, and the one that comes behind all of it.
const HIDDEN: &str = "?skip=777";
const NEXT: &str = "?skip=778";

/// A request with these lines after `Host`, and this body.
fn with(method: &str, lines: &str, body: &str) -> String {
    let target = path(DEMO_STREAM_ID, "?skip=1");
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}")
}

/// Everything that comes until the connection ends.
async fn all_of(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset ends it as well.
    let _ = soon("the connection ends", stream.read_to_end(&mut read)).await;
    read
}

/// Sends bytes, and the end of them. What comes back.
async fn sent(world: &World, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.gateway.traffic).await.unwrap();
    let _ = stream.write_all(bytes.as_ref()).await;
    let _ = stream.shutdown().await;
    all_of(stream).await
}

/// C4, C5, C8. Catches a body, or a part of one, that is read as a request: by one who believes the length where another
/// believes the chunks, or who takes for a line, a coding or a size what is none.
#[tokio::test]
async fn no_reading_of_a_body_makes_a_request_of_it() {
    let world = World::new().await;
    let hidden = get(&path(DEMO_STREAM_ID, HIDDEN));
    let length = hidden.len();
    let chunk = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    let ended = format!("0\r\n\r\n{hidden}");
    let mut payloads = Vec::new();
    let mut add = |lines: &str, body: &str| payloads.push((lines.to_owned(), body.to_owned()));
    // Length and chunks, in both orders: one ends where the other goes on.
    for chunked in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: Chunked",
        "transfer-encoding:chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: chunked ",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        " Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding\n: chunked",
        "Transfer-Encoding: chunked\nX: y",
    ] {
        add(chunked, &chunk);
        if chunked.contains('_') {
            // Another header: the length counts alone, and what is behind it is a request like any other.
            continue;
        }
        for said in [4, length, ended.len(), chunk.len()] {
            let lengths = [
                format!("Content-Length: {said}\r\n{chunked}"),
                format!("{chunked}\r\nContent-Length: {said}"),
            ];
            for lines in lengths {
                add(&lines, &chunk);
                add(&lines, &ended);
            }
        }
    }
    // Two lengths, or one that is read in two ways.
    for said in [
        format!("Content-Length: {length}\r\nContent-Length: 0"),
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        format!("Content-Length: {length}, 0"),
        format!("Content-Length: {length}, {length}"),
        format!("Content-Length: {length}\r\nContent-Length: {length}"),
        format!("Content-Length: +{length}"),
        format!("Content-Length: -{length}"),
        format!("Content-Length: 0{length}"),
        format!("Content-Length: {length:#x}"),
        format!("Content-Length: {length}.0"),
        format!("Content-Length: {length};x"),
        format!("Content-Length: {length} x"),
        format!("Content-Length: \u{b}{length}"),
        format!("Content-Length: \"{length}\""),
        format!("Content-Length : {length}"),
        format!("Content-Length:\r\n {length}"),
        format!("Content_Length: {length}\r\nContent-Length: {length}"),
        format!("X: y\nContent-Length: {length}"),
        format!("X: y\rContent-Length: {length}"),
        format!("Content-Length: {}", (1_u128 << 64) + length as u128),
        "Content-Length: 18446744073709551615".to_owned(),
        "Content-Length:".to_owned(),
    ] {
        add(&said, &hidden);
    }
    // Chunks whose size is read in two ways, or that hide something behind it.
    for first in [
        format!("{length:x};x=y\r\n"),
        format!("{length:x};x=\"\r\n\"\r\n"),
        format!("{length:x};\r\n"),
        format!("{length:x};{}\r\n", "x".repeat(100_000)),
        format!("{length:x} \r\n"),
        format!(" {length:x}\r\n"),
        format!("{length:x}\t;\r\n"),
        format!("{length:x}\n"),
        format!("{length:x}\r"),
        format!("{length:x};a\nb\r\n"),
        format!("{length:X}\r\n"),
        format!("0{length:x}\r\n"),
        format!("{length:#x}\r\n"),
        format!("+{length:x}\r\n"),
        format!("-{length:x}\r\n"),
        format!("1{length:016x}\r\n"),
        "ffffffffffffffff\r\n".to_owned(),
        "fffffffffffffffff\r\n".to_owned(),
        "\r\n".to_owned(),
        "x\r\n".to_owned(),
    ] {
        add(
            "Transfer-Encoding: chunked",
            &format!("{first}{hidden}\r\n0\r\n\r\n"),
        );
        add(
            "Transfer-Encoding: chunked",
            &format!("{first}{hidden}0\r\n\r\n"),
        );
    }
    for trailers in [
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Host: x\r\nauth: x",
        "x",
        " x: y",
    ] {
        add(
            "Transfer-Encoding: chunked",
            &format!("0\r\n{trailers}\r\n\r\n{hidden}"),
        );
    }
    let next = get(&path(DEMO_STREAM_ID, NEXT));
    assert!(payloads.len() > 500, "{}", payloads.len());
    for (lines, body) in payloads {
        // One is refused for its body, the other for its method, whose body may be drained.
        for method in ["GET", "POST"] {
            // Behind chunks that have ended, and no other framing, stands a request like any other.
            let is_next =
                body.starts_with("0\r\n") && !lines.to_lowercase().contains("content-length");
            let text = with(method, &lines, &body);
            let answers = sent(&world, format!("{text}{next}")).await;
            let answers = String::from_utf8_lossy(&answers);
            let seen = world.kore.requests();
            let hidden = seen.iter().any(|seen| seen.query.contains("777"))
                || answers.contains("\"skip\":777");
            let what = format!("{method} {lines:?} {body:.200?}\n{answers:.500}");
            assert!(!hidden || is_next, "{what}");
            let first = answers.split(' ').nth(1).unwrap_or("none");
            let refused = ["400", "405", "431", "none"].contains(&first);
            // With an underscore it is another header, and what follows is no request at all.
            assert!(refused || lines == "Transfer_Encoding: chunked", "{what}");
            world.kore.clear_requests();
        }
    }
}

/// A header of HTTP/2, as a literal that is not indexed.
pub(crate) fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        // An integer with a prefix of seven bits.
        match text.len() {
            short @ 0..127 => out.push(short as u8),
            long => {
                out.push(127);
                let mut rest = long - 127;
                while rest >= 128 {
                    out.push(rest as u8 | 128);
                    rest >>= 7;
                }
                out.push(rest as u8);
            }
        }
        out.extend_from_slice(text);
    }
    out
}

/// What came of a request on stream 1, by the frames that came back.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The first byte of its header block, which is its status where that is a usual one.
    Answered(u8),
    Reset,
    Ended,
}

/// What these frames come to for stream 1; `None` if nothing yet.
fn outcome(mut frames: &[u8]) -> Option<Outcome> {
    while let [a, b, c, kind, _, one, two, three, stream, rest @ ..] = frames {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let stream = u32::from_be_bytes([*one, *two, *three, *stream]);
        match (kind, stream) {
            (1, 1) => return rest.first().map(|status| Outcome::Answered(*status)),
            (3, 1) => return Some(Outcome::Reset),
            // The connection as a whole.
            (7, 0) => return Some(Outcome::Ended),
            _ => frames = rest.get(length..).unwrap_or_default(),
        }
    }
    None
}

/// Sends frames, and waits for what comes of the request on stream 1.
async fn came_of(world: &World, frames: impl AsRef<[u8]>) -> Outcome {
    let mut stream = TcpStream::connect(world.gateway.traffic).await.unwrap();
    let _ = stream.write_all(frames.as_ref()).await;
    let mut read = Vec::new();
    loop {
        if let Some(outcome) = outcome(&read) {
            return outcome;
        }
        let more = soon("an outcome", stream.read_buf(&mut read)).await;
        if !matches!(more, Ok(1..)) {
            return Outcome::Ended;
        }
    }
}

/// The status 200, as it stands in a header block.
const OK: u8 = 0x88;

/// C4, C5. Catches what HTTP/2 can carry and HTTP/1.1 cannot, or the other way round, that is taken for a request.
#[tokio::test]
async fn a_strange_request_of_http2_is_refused_and_costs_no_call() {
    let world = World::new().await;
    let target = path(DEMO_STREAM_ID, "?skip=1");
    let own = [
        (&b":method"[..], &b"GET"[..]),
        (b":scheme", b"http"),
        (b":path", target.as_bytes()),
        (b":authority", b"localhost"),
    ];
    let block = |headers: &[(&[u8], &[u8])]| -> Vec<u8> {
        headers
            .iter()
            .flat_map(|(name, value)| literal(name, value))
            .collect()
    };
    let but = |name: &str, value: &[u8]| {
        let mut changed: Vec<_> = own.to_vec();
        let place = changed
            .iter()
            .position(|(own, _)| *own == name.as_bytes())
            .unwrap();
        changed[place].1 = value;
        block(&changed)
    };
    let without = |name: &str| {
        let rest: Vec<_> = own
            .into_iter()
            .filter(|(own, _)| *own != name.as_bytes())
            .collect();
        block(&rest)
    };
    let and = |name: &[u8], value: &[u8]| block(&[&own[..], &[(name, value)]].concat());
    let ask = async |block: Vec<u8>, flags: u8, more: Vec<u8>| {
        came_of(
            &world,
            [preface(65_535), frame(1, flags, 1, &block), more].concat(),
        )
        .await
    };
    assert_eq!(ask(block(&own), 5, vec![]).await, Outcome::Answered(OK));
    world.kore.clear_requests();
    let hidden = format!("x\r\n\r\n{}", get(&path(DEMO_STREAM_ID, HIDDEN)));
    let hidden = hidden.as_bytes();
    let in_target = [target.as_bytes(), b" HTTP/1.1\r\n\r\n", hidden].concat();
    let mut strange = vec![
        ("connection", and(b"connection", b"close")),
        ("connection that names", and(b"connection", b"accountid")),
        ("keep-alive", and(b"keep-alive", b"timeout=5")),
        ("proxy-connection", and(b"proxy-connection", b"keep-alive")),
        ("upgrade", and(b"upgrade", b"websocket")),
        ("transfer-encoding", and(b"transfer-encoding", b"chunked")),
        ("te", and(b"te", b"gzip")),
        ("upper case", and(b"AccountId", b"x")),
        ("name with a colon", and(b"a:b", b"x")),
        ("name with a space", and(b"a b", b"x")),
        ("name with a line end", and(b"a\r\nb", b"x")),
        ("name with a nul", and(b"a\0", b"x")),
        ("no name", and(b"", b"x")),
        ("value with a line end", and(b"x", hidden)),
        ("value with a line feed", and(b"x", b"a\nb: c")),
        ("value with a return", and(b"x", b"a\rb")),
        ("value with a nul", and(b"x", b"a\0b")),
        ("target with a line end", but(":path", &in_target)),
        (
            "target with a space",
            but(":path", &[target.as_bytes(), b" x"].concat()),
        ),
        (
            "target with a nul",
            but(":path", &[target.as_bytes(), b"\0"].concat()),
        ),
        ("target that is none", but(":path", b"")),
        (
            "target without a slash",
            but(":path", &target.as_bytes()[1..]),
        ),
        (
            "target with a host",
            but(":path", &[b"http://localhost", target.as_bytes()].concat()),
        ),
        ("target *", but(":path", b"*")),
        ("target of another", but(":path", b"//localhost/metrics")),
        ("no target", without(":path")),
        ("two targets", and(b":path", target.as_bytes())),
        ("method with a space", but(":method", b"GET /x")),
        (
            "method with a line end",
            but(":method", b"GET / HTTP/1.1\r\nx:"),
        ),
        ("method in lower case", but(":method", b"get")),
        ("tunnel", but(":method", b"CONNECT")),
        ("no method", without(":method")),
        ("two methods", and(b":method", b"GET")),
        ("no scheme", without(":scheme")),
        ("scheme with a line end", but(":scheme", b"http\r\nx: y")),
        ("another host", but(":authority", b"evil.example")),
        (
            "host with a user",
            but(":authority", b"localhost@evil.example"),
        ),
        (
            "host with a line end",
            but(":authority", b"localhost\r\nx: y"),
        ),
        ("two hosts", and(b":authority", b"evil.example")),
        ("host that differs", and(b"host", b"evil.example")),
        ("unknown pseudo-header", and(b":x", b"y")),
        ("status", and(b":status", b"200")),
        ("protocol", and(b":protocol", b"websocket")),
        (
            "account twice",
            block(&[&own[..], &[(b"accountid", b"a"), (b"accountid", b"b")]].concat()),
        ),
        ("length without a body", and(b"content-length", b"5")),
        ("length that is none", and(b"content-length", b"5, 6")),
        ("negative length", and(b"content-length", b"-1")),
    ];
    let mut late = literal(b"x", b"y");
    late.extend(block(&own));
    strange.push(("pseudo-header behind others", late));
    strange.push(("broken compression", vec![0xff; 16]));
    strange.push((
        "size of the table",
        [vec![0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], block(&own)].concat(),
    ));
    for (name, block) in strange {
        let came = ask(block, 5, vec![]).await;
        assert_ne!(came, Outcome::Answered(OK), "{name}");
        // 101 and the like are no usual ones.
        assert!(
            !matches!(came, Outcome::Answered(0x00..=0x7f)) || came == Outcome::Answered(0x48),
            "{name}: {came:?}"
        );
        assert_eq!(world.kore.requests().len(), 0, "{name}");
    }
    // A body, and one that is not as long as is said.
    for (name, block, body) in [
        ("a body", block(&own), vec![frame(0, 1, 1, hidden)]),
        (
            "padded",
            block(&own),
            vec![frame(0, 9, 1, &[&[3][..], hidden, &[0; 3]].concat())],
        ),
        (
            "more padding than there is",
            block(&own),
            vec![frame(0, 9, 1, b"\xffx")],
        ),
        (
            "longer than said",
            and(b"content-length", b"3"),
            vec![frame(0, 1, 1, hidden)],
        ),
        (
            "shorter than said",
            and(b"content-length", b"999"),
            vec![frame(0, 1, 1, hidden)],
        ),
        (
            "trailers",
            block(&own),
            vec![
                frame(0, 0, 1, b"x"),
                frame(1, 5, 1, &literal(b"accountid", b"x")),
            ],
        ),
        (
            "pseudo-headers as trailers",
            block(&own),
            vec![
                frame(0, 0, 1, b"x"),
                frame(1, 5, 1, &literal(b":path", b"/")),
            ],
        ),
        (
            "another stream's continuation",
            block(&own),
            vec![frame(1, 1, 3, b"\x82"), frame(9, 4, 5, b"\x86")],
        ),
    ] {
        let came = ask(block, 4, body.concat()).await;
        assert_ne!(came, Outcome::Answered(OK), "{name}");
        assert_eq!(world.kore.requests().len(), 0, "{name}");
    }
}
