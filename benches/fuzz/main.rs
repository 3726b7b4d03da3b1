//! Hostile input: telemetry, rule files and state records that were changed at random must be used or refused, and
//! nothing may panic, hang or go uncounted.
//!
//! `cargo bench --bench fuzz -- --seconds 600` runs every target for so long, one after the other, and prints an
//! account of each; `--target rules` runs one, `--seed 7` other changes. An input that fails is written to
//! `benches/fuzz/found`, and `--replay FILE` with its `--target` runs it alone. What was found and mended lies in
//! `benches/fuzz/corpus`, by target: every run begins with it, so it cannot come back.
//!
//! There is no coverage feedback: an input is kept to be changed further if its outcome, in words and without its
//! numbers, is one that was not seen before.

#![expect(clippy::print_stdout, reason = "a fuzzer prints what it has done")]
#![expect(clippy::unwrap_used, reason = "a fuzzer that cannot go on panics")]

#[path = "../allocator.rs"]
mod allocator;
mod changes;
mod otlp;
mod rules;
mod state;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use changes::Changes;
use lictor_engine::clock::{Clock, SystemClock};

/// An input that takes longer is a finding: whoever sends many of them stops everything else.
const INPUT_MAX: Duration = Duration::from_secs(10);
/// Inputs kept to be changed further.
const KEPT_MAX: usize = 4_000;
/// Longer ones are cut: what is wrong with a megabyte is wrong with a part of it.
const BYTES_MAX: usize = 65_536;
const REPORT: Duration = Duration::from_secs(60);

/// What becomes of inputs of one kind.
trait Target {
    /// Inputs to begin with.
    fn seeds(&self) -> Vec<Vec<u8>>;

    /// What has become of an input: a word that is counted, and all of it in words. Whatever is not as it must be
    /// panics.
    fn run(&mut self, input: &[u8]) -> (&'static str, String);

    /// What must hold of all inputs together.
    fn settle(&mut self) -> String {
        String::new()
    }
}

const TARGETS: &[&str] = &["otlp_protobuf", "otlp_json", "rules", "state"];

fn target(name: &str) -> Box<dyn Target> {
    match name {
        "otlp_protobuf" => Box::new(otlp::Otlp::new(otlp::Form::Protobuf)),
        "otlp_json" => Box::new(otlp::Otlp::new(otlp::Form::Json)),
        "rules" => Box::new(rules::Rules::new()),
        "state" => Box::new(state::State::new()),
        other => panic!("there is no target `{other}`; there are {TARGETS:?}"),
    }
}

/// What the command line says.
struct Said {
    targets: Vec<String>,
    seconds: u64,
    /// So many inputs of each target, however long they take.
    inputs: Option<u64>,
    seed: u64,
    replay: Option<PathBuf>,
}

fn said() -> Said {
    let mut said = Said { targets: Vec::new(), seconds: 10, inputs: None, seed: 1, replay: None };
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} wants a value"));
        match word.as_str() {
            "--target" => said.targets.push(value()),
            "--seconds" => said.seconds = value().parse().unwrap(),
            "--inputs" => said.inputs = Some(value().parse().unwrap()),
            "--seed" => said.seed = value().parse().unwrap(),
            "--replay" => said.replay = Some(value().into()),
            // What cargo adds.
            "--bench" => {}
            other => panic!("{other}: say --target, --seconds, --inputs, --seed or --replay"),
        }
    }
    if said.targets.is_empty() {
        said.targets = TARGETS.iter().map(|name| (*name).to_owned()).collect();
    }
    said
}

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/fuzz").join(of)
}

fn main() -> ExitCode {
    let said = said();
    if let Some(path) = &said.replay {
        let (word, outcome) = target(&said.targets[0]).run(&fs::read(path).unwrap());
        println!("{word}: {outcome}");
        return ExitCode::SUCCESS;
    }
    // A panic is told with its input, once.
    panic::set_hook(Box::new(|_| {}));
    let findings: usize = said.targets.iter().map(|name| fuzz(name, &said)).sum();
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A target's inputs so far.
struct Session {
    name: String,
    target: Box<dyn Target>,
    kept: Vec<Vec<u8>>,
    seen: BTreeSet<String>,
    fates: BTreeMap<&'static str, u64>,
    inputs: u64,
    findings: BTreeSet<String>,
    slowest: Duration,
    clock: SystemClock,
}

/// Returns how many different findings there are.
fn fuzz(name: &str, said: &Said) -> usize {
    let mut session = Session {
        name: name.to_owned(),
        target: target(name),
        kept: Vec::new(),
        seen: BTreeSet::new(),
        fates: BTreeMap::new(),
        inputs: 0,
        findings: BTreeSet::new(),
        slowest: Duration::ZERO,
        clock: SystemClock::start(),
    };
    let mut seeds = session.target.seeds();
    let corpus = fs::read_dir(folder("corpus").join(name)).into_iter().flatten();
    seeds.extend(corpus.map(|entry| fs::read(entry.unwrap().path()).unwrap()));
    let mut changes = Changes::new(said.seed, &seeds);
    for seed in seeds {
        session.run(seed.clone());
        session.kept.push(seed);
    }
    let (end, mut report) = (Duration::from_secs(said.seconds), REPORT);
    let goes_on = |session: &Session| match said.inputs {
        Some(inputs) => session.inputs < inputs,
        None => session.clock.monotonic() < end,
    };
    while goes_on(&session) {
        let input = changes.of(&session.kept, BYTES_MAX);
        session.run(input);
        if session.clock.monotonic() >= report {
            report += REPORT;
            session.tell("so far");
        }
    }
    session.tell("account");
    session.findings.len()
}

impl Session {
    fn run(&mut self, input: Vec<u8>) {
        self.inputs += 1;
        let before = self.clock.monotonic();
        let ran = panic::catch_unwind(AssertUnwindSafe(|| self.target.run(&input)));
        let took = self.clock.monotonic().saturating_sub(before);
        self.slowest = self.slowest.max(took);
        match ran {
            Ok((fate, outcome)) => {
                *self.fates.entry(fate).or_default() += 1;
                if self.kept.len() < KEPT_MAX && self.seen.insert(shape_of(&outcome)) {
                    self.kept.push(input.clone());
                }
            }
            Err(panicked) => {
                *self.fates.entry("panicked").or_default() += 1;
                self.found(&text_of(panicked.as_ref()), &input);
                // What it was in the middle of is not to be trusted any more.
                self.target = target(&self.name);
            }
        }
        if took > INPUT_MAX {
            self.found("slow", &input);
        }
    }

    /// Tells of a finding, once for each kind.
    fn found(&mut self, what: &str, input: &[u8]) {
        if !self.findings.insert(shape_of(what)) {
            return;
        }
        let path = folder("found").join(format!("{}-{}", self.name, self.findings.len()));
        fs::create_dir_all(folder("found")).unwrap();
        fs::write(&path, input).unwrap();
        println!("{}: FOUND {what}\n  input {} is {}", self.name, self.inputs, path.display());
    }

    fn tell(&mut self, when: &str) {
        let fates: Vec<String> = self.fates.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
        assert_eq!(self.fates.values().sum::<u64>(), self.inputs, "every input has one fate");
        println!(
            "{}: {when} {:.0?}: {} inputs = {}; {} kinds of outcome, {} findings, slowest {:.1?}{}",
            self.name,
            self.clock.monotonic(),
            self.inputs,
            fates.join(" + "),
            self.seen.len(),
            self.findings.len(),
            self.slowest,
            self.target.settle(),
        );
    }
}

/// An outcome without its numbers and what it quotes.
fn shape_of(outcome: &str) -> String {
    let parts = outcome.split(['"', '`', '\'']).step_by(2);
    parts.flat_map(str::chars).filter(|c| !c.is_ascii_digit()).take(300).collect()
}

fn text_of(panicked: &(dyn Any + Send)) -> String {
    let text = panicked.downcast_ref::<String>().cloned();
    text.or_else(|| panicked.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
