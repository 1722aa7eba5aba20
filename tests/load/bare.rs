//! The least that a server on hyper can do: one fixed answer, whatever is asked. The load bench measures against it.
//!
//! Prints `listening on http://ADDRESS` and serves until it is ended.

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, thread};

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::{
    Response,
    header::{HeaderMap, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket};

/// A bare hyper server with a fixed answer.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Threads, each with a current-thread runtime and a listener of its own.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The file whose bytes are the body of every answer.
    #[arg(long)]
    body: PathBuf,
    /// A header of every answer, as `name: value`; may be repeated.
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(": ").ok_or("not `name: value`")?;
    let name = name.parse().map_err(|_| "not a header name")?;
    let value = value.parse().map_err(|_| "not a header value")?;
    Ok((name, value))
}

#[expect(clippy::print_stdout, reason = "the bench reads the address from here")]
fn main() -> io::Result<()> {
    let args = Args::parse();
    let body = Bytes::from(std::fs::read(&args.body)?);
    let headers: HeaderMap = args.headers.into_iter().collect();

    // Every listener is bound before the address is announced: the kernel then spreads the connections over them.
    let mut address = args.listen;
    let mut workers = Vec::new();
    for _ in 0..args.workers {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(async { bind(address) })?;
        address = listener.local_addr()?;
        let (body, headers) = (body.clone(), headers.clone());
        workers.push(thread::spawn(move || {
            runtime.block_on(serve(listener, body, headers))
        }));
    }
    println!("listening on http://{address}");

    for worker in workers {
        worker.join().expect("a worker does not panic")?;
    }
    Ok(())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn serve(listener: TcpListener, body: Bytes, headers: HeaderMap) -> io::Result<()> {
    // A header-read timeout needs a timer, and a server without one is not what anybody would run.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (body, headers) = (body.clone(), headers.clone());
        let answer = service_fn(move |_request| {
            let mut response = Response::new(Full::new(body.clone()));
            *response.headers_mut() = headers.clone();
            async { Ok::<_, Infallible>(response) }
        });
        // A connection's error is its caller's leaving.
        tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
    }
}
