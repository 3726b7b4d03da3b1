//! From the options of `WITH (…)`, as said, to a rule's head, checked.

use lictor_schemas::genops::{Action, ReasonCode, Severity, closest};
use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};
use sha2::{Digest, Sha256};

use crate::diagnostic::Diagnostic;
use crate::frame::{Emission, OptionText, RuleText};
use crate::window_spec::WindowSpec;

/// A directive that goes on is repeated at most so often: a rule may have 100,000 of them per shard
/// (`limits.subjects_max`), which at one a minute are 1,700 messages a second that say nothing new.
const REPEAT_INTERVAL_NS_MIN: i64 = 60 * 1_000_000_000;

const KNOWN: [&str; 9] =
    ["action", "reason_code", "severity", "owner", "mode", "ttl", "for", "keep_firing_for", "repeat_interval"];

/// Checks the head of a rule; every fault is reported, not only the first.
pub(crate) fn header(file: &str, rule: &RuleText) -> Result<RuleHeader, Vec<Diagnostic>> {
    let mut faults = unknown_and_repeated(file, rule);
    if !rule.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        let message = format!("rule name `{}` is not made of a-z, 0-9 and _", rule.name);
        faults.push(
            Diagnostic::new(file, rule.name_span, message)
                .note("the name becomes a metric label and part of every event's source"),
        );
    }
    let mut read = Reader { file, rule, faults };
    let action = read.action();
    let reason_code = read.reason_code();
    let severity = read.word("severity", "info, warning, error or critical", Severity::parse);
    let mode = read.word("mode", "enforce or shadow", Mode::parse);
    let ttl_ns = read.duration("ttl");
    let for_ns = read.duration("for");
    let keep_firing_for_ns = read.duration("keep_firing_for");
    let repeat_interval_ns = read.repeat_interval();
    let owner = read.text("owner").map_or_else(String::new, |o| o.value.clone());
    let (Some(action), Some(reason_code), true) = (action, reason_code, read.faults.is_empty()) else {
        return Err(read.faults);
    };
    let unsaid = RuleHeader::new(&rule.name, action, reason_code);
    Ok(RuleHeader {
        description: rule.description.clone(),
        severity: severity.unwrap_or(unsaid.severity),
        owner,
        mode: mode.unwrap_or(unsaid.mode),
        ttl_ns: ttl_ns.unwrap_or(unsaid.ttl_ns),
        for_ns: for_ns.unwrap_or(unsaid.for_ns),
        keep_firing_for_ns: keep_firing_for_ns.unwrap_or(unsaid.keep_firing_for_ns),
        repeat_interval_ns,
        file: file.to_owned(),
        version: RuleVersion(short_hash(&rule.canonical)),
        ..unsaid
    })
}

/// Refuses to wait for longer than anything lasts: what a running window has found ends with it, unless another one
/// begins before. `spec` is that of a rule's windows.
pub(crate) fn refuse_unreachable_for(
    file: &str,
    rule: &RuleText,
    (emission, spec): (Emission, &WindowSpec),
    head: &RuleHeader,
) -> Option<Diagnostic> {
    let longest_ns = spec.longest_alone_ns().filter(|_| emission == Emission::OnUpdate)?;
    let option = rule.options.iter().find(|o| o.name == "for").filter(|_| head.for_ns >= longest_ns)?;
    let message = format!("for = '{}' is never reached: what is found in a window ends with it", option.value);
    let fault = Diagnostic::new(file, option.value_span, message).note(format!("the windows are {spec}"));
    Some(fault.help("let windows overlap: HOP(t, event_time, slide, size); or speak once per window: EMIT ON CLOSE"))
}

/// The first 16 hex digits of a text's SHA-256.
pub(crate) fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn unknown_and_repeated(file: &str, rule: &RuleText) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for (i, option) in rule.options.iter().enumerate() {
        if !KNOWN.contains(&option.name.as_str()) {
            let fault = Diagnostic::new(file, option.name_span, format!("unknown rule option `{}`", option.name));
            faults.push(match closest(&option.name, &KNOWN) {
                Some(near) => fault.help(format!("did you mean `{near}`?")),
                None => fault.note(format!("known options: {}", KNOWN.join(", "))),
            });
        }
        if rule.options[..i].iter().any(|o| o.name == option.name) {
            faults.push(Diagnostic::new(file, option.name_span, format!("option `{}` is given twice", option.name)));
        }
    }
    faults
}

struct Reader<'a> {
    file: &'a str,
    rule: &'a RuleText,
    faults: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> Option<&'a OptionText> {
        self.rule.options.iter().find(|o| o.name == name)
    }

    fn optional<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let option = self.text(name)?;
        let value = parse(&option.value);
        if value.is_none() {
            let message = format!("{name} = '{}': expected {expected}", option.value);
            self.faults.push(Diagnostic::new(self.file, option.value_span, message));
        }
        value
    }

    /// A word of a closed set, which `expected` lists.
    fn word<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.optional(name, expected, parse);
        let words: Vec<&str> = expected.split(", ").flat_map(|words| words.split(" or ")).collect();
        let said = self.text(name).filter(|_| value.is_none()).map(|option| option.value.to_lowercase());
        if let (Some(near), Some(fault)) = (said.and_then(|said| closest(&said, &words)), self.faults.last_mut()) {
            fault.help = Some(format!("did you mean '{near}'?"));
        }
        value
    }

    fn action(&mut self) -> Option<Action> {
        const ACTIONS: &str = "block, throttle, warn or notify";
        if self.text("action").is_none() {
            self.missing("action", ACTIONS);
        }
        self.word("action", ACTIONS, Action::parse)
    }

    fn duration(&mut self, name: &str) -> Option<i64> {
        self.optional(name, "a duration such as '10 minutes'", duration_ns)
    }

    fn repeat_interval(&mut self) -> Option<i64> {
        let interval_ns = self.duration("repeat_interval")?;
        let option = self.text("repeat_interval").filter(|_| interval_ns < REPEAT_INTERVAL_NS_MIN);
        if let Some(option) = option {
            let message = format!("repeat_interval = '{}': at least '1 minute'", option.value);
            let fault = Diagnostic::new(self.file, option.value_span, message)
                .note("an escalation or an end is published at once in any case; this only says again what holds");
            self.faults.push(fault);
        }
        Some(interval_ns)
    }

    fn reason_code(&mut self) -> Option<ReasonCode> {
        let Some(option) = self.text("reason_code") else {
            self.missing("reason_code", "a GenOps reason code, or x_ and lower-case letters");
            return None;
        };
        match ReasonCode::parse(&option.value) {
            Ok(code) => Some(code),
            Err(why) => {
                let fault = Diagnostic::new(self.file, option.value_span, why)
                    .note("GenOps section 5 closes the set: no free text");
                self.faults.push(fault);
                None
            }
        }
    }

    fn missing(&mut self, name: &str, expected: &str) {
        let message = format!("rule `{}` has no {name}", self.rule.name);
        let fault = Diagnostic::new(self.file, self.rule.name_span, message)
            .help(format!("add it: CREATE RULE {} WITH ({name} = '…'): {expected}", self.rule.name));
        self.faults.push(fault);
    }
}

/// Reads `90 s`, `10 minutes`, `1h`; nanoseconds, more than zero.
pub(crate) fn duration_ns(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: i64 = text[..digits].parse().ok()?;
    let unit_ms = match text[digits..].trim().trim_end_matches('s') {
        "m" if text.ends_with("ms") => 1,
        "" | "sec" | "second" => 1_000,
        "m" | "min" | "minute" => 60_000,
        "h" | "hour" => 3_600_000,
        "d" | "day" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms)?.checked_mul(1_000_000).filter(|ns| *ns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Statement};

    fn head(with: &str) -> Result<RuleHeader, Vec<String>> {
        let text = format!("CREATE RULE r WITH ({with}) AS SELECT 1");
        let (statements, faults) = frame::parse("t.sql", &text);
        assert_eq!(faults, Vec::new());
        let Some(Statement::Rule(rule)) = statements.into_iter().next() else { panic!("no rule") };
        header("t.sql", &rule).map_err(|f| f.iter().map(Diagnostic::summary).collect())
    }

    #[test]
    fn defaults_are_enforce_warning_and_five_minutes() {
        let head = head("action = 'block', reason_code = 'BUDGET_EXCEEDED'").unwrap();
        assert_eq!((head.mode, head.severity, head.ttl_ns), (Mode::Enforce, Severity::Warning, 5 * 60 * 1_000_000_000));
        assert_eq!(head.version.0.len(), 16);
    }

    #[test]
    fn the_life_cycle_is_said_in_durations_and_none_of_it_by_default() {
        let said = "action = 'block', reason_code = 'x_a'";
        let of = |head: RuleHeader| (head.for_ns, head.keep_firing_for_ns, head.repeat_interval_ns);
        assert_eq!(of(head(said).unwrap()), (0, 0, None));
        let all =
            head(&format!("{said}, for = '90 s', keep_firing_for = '2 minutes', repeat_interval = '1h'")).unwrap();
        assert_eq!(of(all), (90_000_000_000, 120_000_000_000, Some(3_600_000_000_000)));
        let faults =
            head(&format!("{said}, for = 'long', keep_firing_for = '', repeat_interval = '59 s'")).unwrap_err();
        let column = |fault: &String| fault.split(": ").skip(1).collect::<Vec<_>>().join(": ");
        assert_eq!(
            faults.iter().map(column).collect::<Vec<_>>(),
            [
                "for = 'long': expected a duration such as '10 minutes'",
                "keep_firing_for = '': expected a duration such as '10 minutes'",
                "repeat_interval = '59 s': at least '1 minute'"
            ]
        );
    }

    #[test]
    fn all_faults_of_a_head_come_at_once() {
        let faults = head("akcion = 'block', severity = 'loud', reason_code = 'because'").unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].contains("unknown rule option `akcion`"), "{faults:?}");
        assert!(faults.iter().any(|f| f.contains("no action")), "{faults:?}");
    }

    #[test]
    fn durations_have_the_usual_units() {
        let cases =
            [("90s", 90_000), ("10 minutes", 600_000), ("1h", 3_600_000), ("250 ms", 250), ("2 days", 172_800_000)];
        for (text, ms) in cases {
            assert_eq!(duration_ns(text), Some(ms * 1_000_000), "{text}");
        }
        for text in ["", "10", "ten minutes", "0 s", "-1 s", "5 weeks"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
    }

    #[test]
    fn a_near_miss_is_suggested_and_a_far_one_is_not() {
        assert_eq!(closest("severty", &KNOWN), Some("severity"));
        assert_eq!(closest("colour", &KNOWN), None);
    }
}
