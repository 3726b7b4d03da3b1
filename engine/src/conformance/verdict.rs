//! What is to be said of each clause.

use std::collections::BTreeMap;
use std::fmt;

use lictor_schemas::tables::{Signal, Table};

use super::census::{Found, Runtime, Tally};
use super::clause::{Clause, Counted, JudgedBy};
use super::level::{self, Level, Standing};
use crate::backtest::Account;
use crate::watermark::Untimely;

/// If of a hundred spans whose parent is in the same process more lack it, spans are sampled or get lost; less is the
/// edge of a recording, where parents end after it.
const ORPHANS_PERCENT_MAX: u64 = 1;

/// What a clause comes out as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many were judged and none was found to break it.
    Passed {
        /// How many.
        judged: u64,
    },
    /// Some break it.
    Failed {
        /// How many.
        found: u64,
        /// Of how many.
        judged: u64,
    },
    /// Telemetry does not say.
    NotAssessable(Unknown),
}

impl Verdict {
    /// `passed`, `failed` or `not assessable`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Passed { .. } => "passed",
            Self::Failed { .. } => "failed",
            Self::NotAssessable(_) => "not assessable",
        }
    }
}

/// Why a clause cannot be assessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// There is nothing that it asks anything of.
    Nothing,
    /// What is missing may have been sampled away; so many lack something.
    Sampled(u64),
    /// Nothing of a signal was read in which it should have been.
    NoSignal(Signal),
    /// What is missing may be among rows that came too late to be judged.
    Late(u64),
    /// The rule has failed.
    RuleFailed(String),
}

impl Unknown {
    /// Whether there was just nothing to judge.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing to which it applies"),
            Self::Sampled(0) => write!(f, "sampled"),
            Self::Sampled(found) => write!(f, "sampled; {found} lack something that may have been dropped"),
            Self::NoSignal(signal) => write!(f, "no {} were read", signal.as_str()),
            Self::Late(rows) => write!(f, "{rows} rows came too late to be judged"),
            Self::RuleFailed(why) => write!(f, "its rule failed: {why}"),
        }
    }
}

/// One clause, of one runtime.
#[derive(Clone, Debug)]
pub struct ClauseReport {
    /// The clause.
    pub clause: Clause,
    /// What it comes out as.
    pub verdict: Verdict,
    /// The first that break it, or seem to.
    pub exemplars: Vec<Found>,
}

/// One runtime.
#[derive(Clone, Debug)]
pub struct RuntimeReport {
    /// Who.
    pub runtime: Runtime,
    /// What it counted and said.
    pub tally: Tally,
    /// What tells that its telemetry was sampled, if anything does.
    pub sampled: Option<String>,
    /// Every clause, in the order of the specification.
    pub clauses: Vec<ClauseReport>,
    /// How it stands to each requirement of §9.1.
    pub standings: BTreeMap<u8, Standing>,
    /// What it may claim.
    pub level: Level,
}

impl RuntimeReport {
    /// Its units of AI work.
    #[must_use]
    pub fn awus(&self) -> u64 {
        of(&self.tally, "genops_count_awus", "awus")
    }

    /// Its spans.
    #[must_use]
    pub fn spans(&self) -> u64 {
        of(&self.tally, "genops_count_spans", "spans")
    }

    /// Its span events and log records with a name of GenOps.
    #[must_use]
    pub fn events(&self) -> [u64; 2] {
        ["genops_count_span_events", "genops_count_log_events"].map(|rule| of(&self.tally, rule, "events"))
    }

    /// Units of work that lasted too long for their events to be missed.
    #[must_use]
    pub fn too_long(&self) -> u64 {
        of(&self.tally, "genops_count_awus", "too_long")
    }

    /// Whether anything of it claims to be governed.
    #[must_use]
    pub fn claims(&self) -> bool {
        self.awus() > 0 || self.events() != [0, 0]
    }

    /// Its events are log records, and `event_carriers.csv` does not say so: they are missed on its spans.
    #[must_use]
    pub fn is_carrier_unsaid(&self) -> bool {
        let [span_events, log_records] = self.events();
        span_events == 0 && log_records > 0 && of(&self.tally, "genops_count_awus", "by_log_events") == 0
    }
}

/// What was read, besides what the rules say.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Rows that rules have seen, and those that came too late, by table.
    rows: BTreeMap<Table, [u64; 2]>,
    /// Rules that have failed, and why.
    failed: BTreeMap<String, String>,
}

impl Evidence {
    /// What a backtest has to say for itself.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        let rows = |table| {
            let used = account.counts.rows_used.get(&table).copied().unwrap_or_default();
            let late = account.counts.rows_untimely.get(&(table, Untimely::Late)).copied().unwrap_or_default();
            (table, [used, late])
        };
        let failed = account.rules.iter().filter_map(|rule| Some((rule.name.clone(), rule.quarantined.clone()?)));
        Self { rows: Table::ALL.into_iter().map(rows).collect(), failed: failed.collect() }
    }

    fn used(&self, table: Table) -> u64 {
        self.rows.get(&table).map_or(0, |rows| rows[0])
    }

    fn late(&self) -> u64 {
        self.rows.values().map(|rows| rows[1]).sum()
    }
}

/// What is to be said of a runtime.
#[must_use]
pub fn report(runtime: &Runtime, tally: &Tally, clauses: &[Clause], evidence: &Evidence) -> RuntimeReport {
    let sampled = sampling(tally);
    let clauses: Vec<_> = clauses.iter().map(|clause| judge(clause, tally, evidence, sampled.is_some())).collect();
    let standings = level::standings(&clauses);
    let level = level::level(&standings);
    RuntimeReport { runtime: runtime.clone(), tally: tally.clone(), sampled, clauses, standings, level }
}

/// What tells that something was sampled away.
fn sampling(tally: &Tally) -> Option<String> {
    let spans = of(tally, "genops_count_spans", "sampled");
    let logs = of(tally, "genops_count_log_events", "sampled");
    let orphans = of(tally, "genops_count_orphans", "orphans");
    let children = of(tally, "genops_count_spans", "children");
    if spans > 0 {
        Some(format!("{spans} spans say so"))
    } else if logs > 0 {
        Some(format!("{logs} log records say so"))
    } else if orphans * 100 > children * ORPHANS_PERCENT_MAX {
        Some(format!("{orphans} of {children} spans lack a parent of the same process"))
    } else {
        None
    }
}

fn judge(clause: &Clause, tally: &Tally, evidence: &Evidence, is_sampled: bool) -> ClauseReport {
    let (mut found, mut exemplars) = (0, Vec::new());
    for (count, first) in clause.rules.iter().filter_map(|by| tally.found.get(&by.rule)) {
        found += count;
        exemplars.extend(first.iter().cloned());
    }
    let judged: u64 = clause.rules.iter().map(|by| tally.count(&by.counted)).sum();
    let verdict = match (unknown(clause, tally, evidence, (is_sampled, found)), found) {
        (Some(why), _) => Verdict::NotAssessable(why),
        (None, 0) if judged == 0 => Verdict::NotAssessable(Unknown::Nothing),
        (None, 0) => Verdict::Passed { judged },
        (None, _) => Verdict::Failed { found, judged: judged.max(found) },
    };
    ClauseReport { clause: clause.clone(), verdict, exemplars }
}

/// Why what was found, or not, would prove nothing.
fn unknown(clause: &Clause, tally: &Tally, evidence: &Evidence, (is_sampled, found): (bool, u64)) -> Option<Unknown> {
    let failed = clause.rules.iter().find_map(|by| evidence.failed.get(&by.rule));
    if let Some(why) = failed {
        return Some(Unknown::RuleFailed(why.clone()));
    }
    let is_met = |by: &JudgedBy| by.needs_spans && tally.count(&by.counted) > 0;
    if found == 0 && evidence.used(Table::Spans) == 0 && clause.rules.iter().any(is_met) {
        return Some(Unknown::NoSignal(Signal::Traces));
    }
    let is_there = found > 0 || clause.rules.iter().any(|by| tally.count(&by.counted) > 0);
    if !clause.is_absence || !is_there {
        return None;
    }
    let reads_logs = clause.rules.iter().any(|by| by.is_of_logs && tally.count(&by.counted) > 0);
    let missing = [(Table::Spans, Signal::Traces), (Table::Logs, Signal::Logs)];
    let missing = missing.iter().find(|(table, _)| reads_logs && evidence.used(*table) == 0);
    match (is_sampled, missing) {
        (true, _) => Some(Unknown::Sampled(found)),
        (false, Some((_, signal))) => Some(Unknown::NoSignal(*signal)),
        (false, None) => Some(Unknown::Late(evidence.late())).filter(|_| found > 0 && evidence.late() > 0),
    }
}

fn of(tally: &Tally, rule: &str, column: &str) -> u64 {
    tally.count(&Counted { rule: rule.to_owned(), column: column.to_owned() })
}
