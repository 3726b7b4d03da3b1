//! Clients that are slow, many, or both.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as Client};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::super::HttpServer;
use super::*;

/// Far more than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(30);
const FEW: usize = 20;

fn serve(limits: Limits) -> (HttpServer, HttpCounts) {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let counts = HttpCounts::default();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    (HttpServer::serve_within((any, "test"), router, (limits, counts.clone()), None).unwrap(), counts)
}

fn quick() -> Limits {
    let short = Duration::from_millis(200);
    Limits { connections_max: FEW, head_max: short, body_max: short }
}

fn connect(server: &HttpServer, said: &str) -> Client {
    let mut client = Client::connect(server.address()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(said.as_bytes()).unwrap();
    client
}

/// What comes until the server ends the connection.
fn answer_to(mut client: Client) -> String {
    let mut answer = Vec::new();
    // A connection that was ended may be reset.
    client.read_to_end(&mut answer).ok();
    String::from_utf8(answer).unwrap()
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[track_caller]
fn assert_answered(server: &HttpServer) {
    let answer = answer_to(connect(server, ASK));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
}

/// Slowloris: heads that never end take all places, and whoever asks is answered at once all the same.
#[test]
fn heads_that_never_end_keep_nobody_out() {
    let (server, counts) = serve(Limits { connections_max: FEW, ..Limits::default() });
    let slow: Vec<Client> = (0..3 * FEW).map(|_| connect(&server, "GET / HTTP/1.1\r\nx-slow: ")).collect();
    (0..FEW).for_each(|_| assert_answered(&server));
    assert!(counts.crowded_out.get() >= u64::try_from(2 * FEW).unwrap(), "{counts:?}");
    assert_eq!(counts.refused.get(), 0);
    let open = usize::try_from(counts.open.get()).unwrap();
    assert!(open <= FEW, "{open}");
    drop(slow);
}

/// The places of those that wait for us are not given away.
#[test]
fn bodies_that_never_end_keep_nobody_out_either() {
    let (server, counts) = serve(Limits { connections_max: FEW, ..Limits::default() });
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    let slow: Vec<Client> = (0..2 * FEW).map(|_| connect(&server, head)).collect();
    (0..FEW).for_each(|_| assert_answered(&server));
    assert!(counts.crowded_out.get() >= u64::try_from(FEW).unwrap(), "{counts:?}");
    drop(slow);
}

#[test]
fn a_head_that_does_not_come_in_time_ends_its_connection() {
    let (server, counts) = serve(quick());
    for beginning in ["", "GET / HTTP/1.1\r\nx-slow: "] {
        assert_eq!(answer_to(connect(&server, beginning)), "", "{beginning}");
    }
    assert_eq!(counts.slow_head.get(), 2);
    assert_answered(&server);
}

#[test]
fn a_body_that_does_not_come_in_time_is_an_error() {
    let (server, counts) = serve(quick());
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = answer_to(connect(&server, head));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(counts.slow_body.get(), 1);
    let whole = answer_to(connect(&server, &format!("{head} whole")));
    assert!(whole.contains("half whole"), "{whole}");
}

#[test]
fn what_is_too_large_is_refused_and_counted() {
    let (server, counts) = serve(Limits::default());
    let bytes = BODY_BYTES_MAX + 1;
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
    let answer = answer_to(connect(&server, &(head + &"x".repeat(bytes))));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(counts.large_body.get(), 1);
    let mut client = connect(&server, "GET / HTTP/1.1\r\nx-long: ");
    // The server may have ended the connection by then.
    client.write_all("x".repeat(2 * HEAD_BYTES_MAX).as_bytes()).ok();
    let answer = answer_to(client);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_answered(&server);
}

#[test]
fn a_connection_goes_on_after_an_answer_and_ends_with_the_server() {
    let (server, counts) = serve(Limits::default());
    let mut client = connect(&server, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut answer = [0; 4096];
    let mut read = 0;
    while !answer[..read].ends_with(b"hello") {
        read += client.read(&mut answer[read..]).unwrap();
    }
    assert_eq!(counts.open.get(), 1);
    client.write_all(ASK.as_bytes()).unwrap();
    assert!(answer_to(client.try_clone().unwrap()).ends_with("hello"));
    let idle = connect(&server, "");
    drop(server);
    assert_eq!(answer_to(idle), "");
}
