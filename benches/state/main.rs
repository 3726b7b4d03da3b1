//! State at scale: what groups cost in time and memory while they are filled, looked at, closed, and read back.
//!
//! `cargo bench --bench state` prints one line per figure. Each case runs in a process of its own, this program started
//! again, so that its memory is its own. With `-- tumble`, `aggregate`, `hop`, `session` or `restore` only that is
//! measured. `LICTOR_RUNS` (5) is how often what takes seconds is repeated: times are medians (least–greatest), memory
//! is that of the first run. `LICTOR_KEYS_MAX` (1,000,000) leaves larger cases out; 10,000,000 adds one that takes 9 GB
//! and two minutes. `LICTOR_EPOCH_ROWS` (65,536, as `epoch.rows_max`) is how many rows are judged at once.
//!
//! Everything goes the way of `run`: OTLP protobuf, decoded, scanned, judged, committed. Decoding is measured apart.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

mod aggregate;
#[path = "../allocator.rs"]
mod allocator;
mod engine;
mod hop;
mod report;
mod restore;
mod session;
mod spans;
#[path = "../spread.rs"]
mod spread;
mod tumble;

use std::env;
use std::process::Command;

/// The name of a case, what it does with so many keys, and the numbers of keys it is measured with.
type Case = (&'static str, fn(usize), &'static [usize]);

const CASES: [Case; 5] = [
    ("tumble", tumble::measure, &[100_000, 1_000_000, 10_000_000]),
    ("aggregate", aggregate::measure, &[10_000]),
    ("hop", hop::measure, &[10_000, 100_000]),
    ("session", session::measure, &[100_000, 1_000_000]),
    ("restore", restore::measure, &[1_000_000]),
];

/// Says that a case is to be measured by this process.
const ROLE: &str = "case";

fn main() {
    // Cargo itself passes `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [role, name, keys] = arguments.as_slice()
        && role == ROLE
    {
        let case = CASES.iter().find(|(known, ..)| known == name).unwrap();
        return (case.1)(keys.parse().unwrap());
    }
    let only = arguments.first().map_or("", String::as_str);
    let keys_max = report::setting("LICTOR_KEYS_MAX", 1_000_000);
    println!("state at scale: epochs of {} rows, one thread, {} runs", engine::epoch_rows(), spread::runs());
    for (name, _, sizes) in CASES.iter().filter(|(name, ..)| name.contains(only)) {
        for keys in sizes.iter().filter(|keys| **keys <= keys_max) {
            let mut case = Command::new(env::current_exe().unwrap());
            let status = case.args([ROLE, name, &keys.to_string()]).status().unwrap();
            assert!(status.success(), "{name} with {keys} keys: {status}");
        }
    }
}
