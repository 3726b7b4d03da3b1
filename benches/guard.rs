//! How many decisions a second the guard takes, and how long one takes, with a hundred thousand directives held.
//!
//! `cargo bench --bench guard` prints one line per figure. The guard answers on its one HTTP thread; questions come
//! over loopback, each of the asking threads having some connections of its own on which one is always under way.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

#[path = "allocator.rs"]
mod allocator;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::guard::{self, Change, Guard, GuardOptions, Held};
use lictor_schemas::event::Instruction;
use lictor_schemas::genops::{PolicyResult, ReasonCode};
use lictor_schemas::rule::Mode;
use serde_json::json;

const DIRECTIVES: usize = 100_000;
const THREADS: usize = 2;
/// As a gateway with some workers has them.
const CONNECTIONS_PER_THREAD: usize = 8;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
/// The thread of the HTTP server, as the kernel calls it.
const GUARD_THREAD: &str = "guard.http";

fn main() {
    let (before, guard, clock) = (resident_bytes(), Arc::new(guard()), SystemClock::start());
    let bytes = resident_bytes().saturating_sub(before) / DIRECTIVES as u64;
    println!("{:14} {bytes} bytes per directive", "memory");
    look_up(&guard, clock);
    let server = guard::serve(Arc::clone(&guard), None, clock).unwrap();
    guard.staleness().current(clock.monotonic() + WARM_UP + MEASURED);
    for (name, question) in [("/v1/authorize", json_question as Question), ("/v1/ext_authz", proxy_question)] {
        measure(name, question, server.address(), clock);
        guard.staleness().current(clock.monotonic() + WARM_UP + MEASURED);
    }
}

/// Directives by session, by team and model, by customer and region, and by team, as rules make them.
fn guard() -> Guard {
    let options = GuardOptions { http: SocketAddr::from(([127, 0, 0, 1], 0)), ..GuardOptions::default() };
    let guard = Guard::new(options, &[]);
    let until = SystemClock::start().now().plus(86_400_000_000_000);
    let put = |n: usize| {
        let (action, result) = match n % 3 {
            0 => (Instruction::Block, PolicyResult::Blocked),
            1 => (Instruction::Throttle, PolicyResult::RateLimited),
            _ => (Instruction::Warn, PolicyResult::Warning),
        };
        let held = Held {
            directive_id: format!("{n:032x}"),
            revision: 1,
            mode: Mode::Enforce,
            action,
            result,
            reason_code: Some(ReasonCode::parse("BUDGET_EXCEEDED").unwrap()),
            rule: format!("rule_{}", n % 20),
            message: Some(format!("number {n} has spent 65.00 of its 60.0 USD for the day")),
            params: None,
            valid_until: until,
        };
        let say = |column: &str, text: String| (column.to_owned(), Some(text));
        let selector = match n % 4 {
            0 => vec![say("session_id", format!("session-{n}"))],
            1 => vec![say("request_model", format!("model-{}", n % 12)), say("team", format!("team-{n}"))],
            2 => vec![say("customer_id", format!("customer-{n}")), say("region", "eu-west-1".to_owned())],
            _ => vec![say("team", format!("team-{n}"))],
        };
        Change::Put(Box::new(held), selector)
    };
    guard.apply((0..DIRECTIVES).map(put).collect());
    guard
}

/// What of a decision is the index.
fn look_up(guard: &Guard, clock: SystemClock) {
    const LOOK_UPS: usize = 200_000;
    let values = ["session-4", "team-7", "gpt-4o", "customer-9", "eu-west-1"].map(|text| json!(text));
    let names = ["session_id", "team", "request_model", "customer_id", "region"];
    let (began, mut found) = (clock.monotonic(), 0);
    let now = clock.now();
    for _ in 0..LOOK_UPS {
        let request = guard.reader().read(names.into_iter().zip(&values));
        found += usize::from(guard.read().find(&request, now).strongest.is_some());
    }
    let ns = (clock.monotonic().saturating_sub(began)).as_nanos() / LOOK_UPS as u128;
    assert_eq!(found, LOOK_UPS);
    println!("{:14} {ns} ns per request read and looked up, {DIRECTIVES} directives", "index");
}

/// The bytes of the `n`th question.
type Question = fn(usize) -> Vec<u8>;

fn json_question(n: usize) -> Vec<u8> {
    let attributes = json!({"session_id": format!("session-{n}"), "team": format!("team-{n}"),
        "request_model": "gpt-4o", "customer_id": format!("customer-{n}"), "region": "eu-west-1"});
    let body = json!({ "attributes": attributes }).to_string();
    let head = format!("POST /v1/authorize HTTP/1.1\r\nhost: guard\r\ncontent-length: {}\r\n\r\n", body.len());
    format!("{head}{body}").into_bytes()
}

fn proxy_question(n: usize) -> Vec<u8> {
    let head = "POST /v1/ext_authz/v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\ncontent-length: 0\r\n";
    let said = format!("x-genops-session-id: session-{n}\r\nx-genops-team: team-{n}\r\nx-genops-model: gpt-4o\r\n");
    format!("{head}{said}x-genops-customer-id: customer-{n}\r\nx-genops-region: eu-west-1\r\n\r\n").into_bytes()
}

fn measure(name: &str, question: Question, address: SocketAddr, clock: SystemClock) {
    let (begin, end) = (clock.monotonic() + WARM_UP, clock.monotonic() + WARM_UP + MEASURED);
    let mut us = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
    let mut cores = 0.0;
    thread::scope(|scope| {
        let asking: Vec<_> =
            (0..THREADS).map(|n| scope.spawn(move || ask(n, question, address, clock, (begin, end)))).collect();
        thread::park_timeout(begin.saturating_sub(clock.monotonic()));
        let before = (guard_cpu_s(), clock.monotonic());
        thread::park_timeout(end.saturating_sub(clock.monotonic()));
        cores = (guard_cpu_s() - before.0) / clock.monotonic().saturating_sub(before.1).as_secs_f64();
        asking.into_iter().for_each(|asked| us.add(asked.join().unwrap()).unwrap());
    });
    let rate = us.len() as f64 / MEASURED.as_secs_f64();
    let ms = |quantile| Duration::from_micros(us.value_at_quantile(quantile)).as_secs_f64() * 1e3;
    let (p50, p99, max) = (ms(0.5), ms(0.99), ms(1.0));
    println!("{name:14} {rate:.0} decisions/s, p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
    let per_core = if cores > 0.0 { rate / cores } else { 0.0 };
    println!("{:14} guard thread {cores:.2} cores busy: {per_core:.0} decisions/s per core", "");
}

/// Asks on some connections, on each the next question once the last was answered; how long answers took, in µs.
fn ask(
    thread: usize,
    question: Question,
    address: SocketAddr,
    clock: SystemClock,
    (begin, end): (Duration, Duration),
) -> Histogram<u64> {
    const QUESTIONS: usize = 4_096;
    let questions: Vec<Vec<u8>> = (0..QUESTIONS).map(|n| question((n * 37 + thread) % DIRECTIVES)).collect();
    let connect = |_| {
        let connection = TcpStream::connect(address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection
    };
    let mut connections: Vec<TcpStream> = (0..CONNECTIONS_PER_THREAD).map(connect).collect();
    let mut us = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
    let (mut next, mut buffer) = (0, vec![0; 16 * 1024]);
    let mut sent = vec![Duration::ZERO; connections.len()];
    let mut send = |connection: &mut TcpStream| {
        next = (next + 1) % QUESTIONS;
        connection.write_all(&questions[next]).unwrap();
        clock.monotonic()
    };
    for (connection, sent) in connections.iter_mut().zip(&mut sent) {
        *sent = send(connection);
    }
    while clock.monotonic() < end {
        for (connection, sent) in connections.iter_mut().zip(&mut sent) {
            read_answer(connection, &mut buffer);
            let now = clock.monotonic();
            if (begin..end).contains(&now) {
                us.saturating_record(u64::try_from(now.saturating_sub(*sent).as_micros()).unwrap());
            }
            *sent = send(connection);
        }
    }
    us
}

/// Reads one answer, head and body.
fn read_answer(connection: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = connection.read(&mut buffer[filled..]).unwrap();
        assert!(read > 0, "the guard has hung up");
        filled += read;
        let text = std::str::from_utf8(&buffer[..filled]).unwrap();
        let Some(head) = text.find("\r\n\r\n") else { continue };
        let length = text[..head].split("content-length: ").nth(1).unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        if filled >= head + 4 + length {
            return;
        }
    }
}

/// What this process has in memory.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * PAGE_BYTES
}

/// What the guard's thread has used so far, in seconds: user and system.
fn guard_cpu_s() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let Some(stat) = stats.into_iter().find(|stat| stat.contains(&format!("({GUARD_THREAD})"))) else { return 0.0 };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_S
}
