//! What exactly-once delivery costs: the time from telemetry to event at a steady rate, for both ways of delivery, and
//! the restart of an instance with a million groups in an open window.
//!
//! `cargo bench --bench exactly_once` prints one line per figure; with `-- exactly_once`, `at_least_once` or `restart`
//! only that is measured. Latency is measured `LICTOR_RUNS` (5) times; the rate is `LICTOR_SPANS_PER_S` (20,000). It
//! needs `KAFKA_BOOTSTRAP` (see `tests/kafka.sh`). The instance is a process of its own, so that its processor time and
//! memory are its own: this program, started again.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

#[path = "../allocator.rs"]
mod allocator;
#[path = "../cpu.rs"]
mod cpu;
mod instance;
#[path = "../../tests/support/judged.rs"]
mod judged;
mod latency;
mod load;
mod restart;
mod site;
#[path = "../spread.rs"]
mod spread;

use std::env;
use std::path::Path;

use site::Site;
use spread::runs;

fn main() {
    if let [_, role, config] = env::args().collect::<Vec<_>>().as_slice()
        && role == instance::ROLE
    {
        return instance::run(Path::new(config));
    }
    let Ok(servers) = env::var("KAFKA_BOOTSTRAP") else {
        println!("KAFKA_BOOTSTRAP is not set: nothing is measured");
        return;
    };
    // Cargo itself passes `--bench`.
    let only = env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    for delivery in ["exactly_once", "at_least_once"].into_iter().filter(|delivery| delivery.starts_with(&only)) {
        latency::measure(runs(), &|| Site::new(&servers, delivery, latency::rules()), delivery);
    }
    if "restart".starts_with(&only) {
        restart::measure(&Site::new(&servers, "restart", restart::RULES.to_owned()));
    }
}
