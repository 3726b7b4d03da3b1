//! Places where a test ends or stops the process, to prove that any of them may be the last one.
//!
//! `LICTOR_FAILPOINT` is a comma-separated list of `name@n` (ends the process at the n-th hit of `name`, counted from 1
//! in this process, as `kill -9` would: nothing is flushed, nothing is dropped) and `name@n:stop` (stops it there until
//! somebody sends SIGCONT, as an overloaded machine would). It is read once.
//!
//! Invariant: a release build has no failpoints; [`hit`] is empty there and the variable is not read.

/// All failpoints. Those of a transaction are hit by [`KafkaTransactions`](crate::KafkaTransactions) right after what
/// they name: `begin` the transaction is open; `produced` every message was handed over; `flushed` every message was
/// acknowledged; `offsets` the offsets are in the transaction; `committed` it is committed. The others are hit by the
/// engine: `assigned` partitions came, `restore` their state is about to be read, `restored` it was read, `revoked`
/// partitions are asked back and still held.
pub const NAMES: &[&str] = &[
    "scan.begin",
    "scan.produced",
    "scan.flushed",
    "scan.offsets",
    "scan.committed",
    "scan.assigned",
    "scan.revoked",
    "judge.begin",
    "judge.produced",
    "judge.flushed",
    "judge.offsets",
    "judge.committed",
    "judge.assigned",
    "judge.restore",
    "judge.restored",
    "judge.revoked",
];

/// Those of a replay of dead letters, which only an operator starts.
#[cfg(debug_assertions)]
const OF_REPLAYS: &[&str] = &["dlq.begin", "dlq.produced", "dlq.flushed", "dlq.offsets", "dlq.committed"];

#[cfg(debug_assertions)]
fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || OF_REPLAYS.contains(&name)
}

/// Says that the process has come to `name`.
///
/// # Panics
/// In a debug build: `name` is not one of [`NAMES`], or `LICTOR_FAILPOINT` is not what the module says.
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "a release build has no failpoints"))]
#[inline]
pub fn hit(name: &str) {
    #[cfg(debug_assertions)]
    armed::hit(name);
}

#[cfg(debug_assertions)]
mod armed {
    use std::env;
    use std::process::{self, Command};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{NAMES, is_known};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Abort,
        Stop,
    }

    /// What happens at the `nth` hit of `name`.
    #[derive(Debug)]
    pub(super) struct Failpoint {
        name: String,
        nth: u64,
        action: Action,
        hits: AtomicU64,
    }

    impl Failpoint {
        /// Counts one hit; what to do now, if this was the one.
        pub(super) fn count(&self, name: &str) -> Option<Action> {
            let is_nth = self.name == name && self.hits.fetch_add(1, Ordering::Relaxed) + 1 == self.nth;
            is_nth.then_some(self.action)
        }
    }

    pub(super) fn hit(name: &str) {
        static PLANNED: OnceLock<Vec<Failpoint>> = OnceLock::new();
        assert!(is_known(name), "failpoint `{name}` is not listed in failpoint::NAMES");
        let planned = PLANNED.get_or_init(|| match env::var("LICTOR_FAILPOINT").map(|said| parse(&said)) {
            Ok(Ok(planned)) => planned,
            Ok(Err(message)) => panic!("LICTOR_FAILPOINT: {message}"),
            Err(_) => Vec::new(),
        });
        for action in planned.iter().filter_map(|failpoint| failpoint.count(name)) {
            tracing::warn!(name, ?action, "failpoint");
            match action {
                Action::Abort => process::abort(),
                Action::Stop => stop(),
            }
        }
    }

    /// Returns when somebody let the process go on.
    fn stop() {
        let stopped = Command::new("kill").args(["-STOP", &process::id().to_string()]).status();
        assert!(stopped.as_ref().is_ok_and(process::ExitStatus::success), "kill -STOP: {stopped:?}");
    }

    pub(super) fn parse(said: &str) -> Result<Vec<Failpoint>, String> {
        said.split(',').map(str::trim).filter(|one| !one.is_empty()).map(parse_one).collect()
    }

    fn parse_one(said: &str) -> Result<Failpoint, String> {
        let (place, action) = match said.strip_suffix(":stop") {
            Some(place) => (place, Action::Stop),
            None => (said, Action::Abort),
        };
        let wanted = || format!("`{said}` is not `name@n` or `name@n:stop` with n from 1");
        let (name, nth) = place.split_once('@').ok_or_else(wanted)?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(wanted)?;
        if !is_known(name) {
            return Err(format!("there is no failpoint `{name}`; there are {}", NAMES.join(", ")));
        }
        Ok(Failpoint { name: name.to_string(), nth, action, hits: AtomicU64::new(0) })
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::{Action, parse};
    use super::*;

    #[test]
    fn only_the_nth_hit_of_its_own_name_counts() {
        let planned = parse("scan.begin@2, judge.restored@1:stop").unwrap();
        let count = |name| planned.iter().filter_map(|failpoint| failpoint.count(name)).collect::<Vec<_>>();
        assert_eq!(count("scan.begin"), []);
        assert_eq!(count("judge.restored"), [Action::Stop]);
        assert_eq!(count("scan.begin"), [Action::Abort]);
        assert_eq!(count("scan.begin"), []);
        assert_eq!(count("judge.restored"), []);
    }

    #[test]
    fn what_is_no_failpoint_is_named() {
        for said in ["scan.begin", "scan.begin@", "scan.begin@0", "scan.begin@x:stop", "scan.begin@1:go"] {
            assert!(parse(said).unwrap_err().contains(&format!("`{said}`")), "{said}");
        }
        assert!(parse("scan.beginn@1").unwrap_err().contains("scan.begin, scan.produced"));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    #[should_panic(expected = "`scan.lunch` is not listed")]
    fn a_name_that_is_not_listed_is_a_bug() {
        hit("scan.lunch");
    }

    #[test]
    fn without_the_variable_nothing_happens() {
        hit("scan.begin");
    }
}
