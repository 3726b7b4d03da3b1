//! The least of an HTTP client.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// A port of this machine that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Head and body of an answer.
pub(crate) fn get(port: u16, path: &str) -> io::Result<String> {
    ask(port, "GET", path)
}

/// Head and body of the answer to a request without a body.
pub(crate) fn ask(port: u16, method: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let head = "host: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    write!(stream, "{method} {path} HTTP/1.1\r\n{head}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The sum of a metric's series whose labels contain `label`.
pub(crate) fn metric(port: u16, name: &str, label: &str) -> f64 {
    let text = get(port, "/metrics").unwrap_or_default();
    let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
