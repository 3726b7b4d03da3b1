//! `lictor explain`: how a rule runs, or who holds time back.

use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use lictor_engine::config::duration::format_ns;
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_queries::{
    CompiledRule, Emission, Explanation, JoinExplanation, JoinKind, SourceExplanation, WindowSpec, WindowedExplanation,
};
use lictor_schemas::genops::closest;
use lictor_schemas::rule::RuleHeader;
use serde_json::Value;

use super::terminal::{Paint, Painter};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rules directory, or one rule file.
    #[arg(required_unless_present = "watermark")]
    rules: Option<PathBuf>,
    /// The rule; all of them if none is named.
    rule: Option<String>,
    /// Ask a running lictor how far time has come, and which partition holds it back.
    #[arg(long, conflicts_with_all = ["rules", "rule"])]
    watermark: bool,
    /// Where the running lictor serves HTTP.
    #[arg(long, default_value = "127.0.0.1:8080", requires = "watermark")]
    http: SocketAddr,
}

/// Explains; the exit code is 1 if there is no such rule.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    let Some(rules) = arguments.rules.as_deref().filter(|_| !arguments.watermark) else {
        write_watermarks(&mut stdout, &ask(arguments.http)?)?;
        stdout.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    let loaded = rules_dir::load(rules, None)?;
    let names: Vec<&str> = loaded.rules.rules.iter().map(|rule| rule.header.name.as_str()).collect();
    let chosen: Vec<&CompiledRule> = match &arguments.rule {
        Some(name) => loaded.rules.rules.iter().filter(|rule| rule.header.name == *name).collect(),
        None => loaded.rules.rules.iter().collect(),
    };
    if let (Some(name), true) = (&arguments.rule, chosen.is_empty()) {
        let near = closest(name, &names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        bail!("no rule without a fault is called `{name}`{near}");
    }
    let painter = Painter::for_stream(&io::stdout());
    for rule in chosen {
        write_rule(&mut stdout, rule, &loaded, painter)?;
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `name: text` in two columns, and further lines below the text.
struct Table<'a, W> {
    to: &'a mut W,
    painter: Painter,
}

impl<W: Write> Table<'_, W> {
    fn line(&mut self, name: &str, text: &str) -> io::Result<()> {
        let name = self.painter.paint(Paint::Dim, &format!("{name:12}"));
        writeln!(self.to, "  {name}  {text}")
    }

    fn lines(&mut self, name: &str, lines: &[String]) -> io::Result<()> {
        for (i, line) in lines.iter().enumerate() {
            self.line(if i == 0 { name } else { "" }, line)?;
        }
        Ok(())
    }
}

pub(super) fn write_rule(
    to: &mut impl Write,
    rule: &CompiledRule,
    loaded: &LoadedRules,
    painter: Painter,
) -> io::Result<()> {
    let header = &rule.header;
    let Some(Explanation { sources, join, windowed }) = loaded.rules.explain(&header.name) else {
        return Ok(());
    };
    writeln!(to, "{}  {} (version {})", painter.paint(Paint::Bold, &header.name), header.file, header.version.0)?;
    let mut out = Table { to, painter };
    for SourceExplanation { table, columns, scan } in &sources {
        out.line("reads", &format!("{}: {}", table.name(), columns.join(", ")))?;
        out.lines("scan", scan)?;
    }
    if let Some(join) = &join {
        write_join(&mut out, join)?;
    }
    match &windowed {
        Some(windowed) => write_windowed(&mut out, windowed)?,
        None => {
            let read = if join.is_some() { "for every joined row, when it comes to be" } else { "for every row" };
            out.line("speaks", &format!("{read} of the result, as it is read"))?;
            let ttl = format_ns(header.ttl_ns);
            out.line("state", &format!("what is firing, one entry per subject, until {ttl} after its last row"))?;
        }
    }
    write_life_cycle(&mut out, header)?;
    let subjects = PipelineSettings::default().subjects_max;
    out.line("bound", &format!("{subjects} subjects per shard (limits.subjects_max)"))?;
    writeln!(out.to)
}

/// When what is found is said, unless it is at once.
fn write_life_cycle<W: Write>(out: &mut Table<'_, W>, header: &RuleHeader) -> io::Result<()> {
    let RuleHeader { for_ns, keep_firing_for_ns, repeat_interval_ns, .. } = *header;
    let mut said = Vec::new();
    if for_ns > 0 {
        said.push(format!("fires once it has gone on for {}", format_ns(for_ns)));
    }
    if keep_firing_for_ns > 0 {
        said.push(format!("an end or a milder result is said {} later, if it lasts", format_ns(keep_firing_for_ns)));
    }
    if let Some(interval_ns) = repeat_interval_ns {
        said.push(format!("is repeated every {} while it goes on", format_ns(interval_ns)));
    }
    out.lines("life", &said)
}

fn write_join<W: Write>(out: &mut Table<'_, W>, join: &JoinExplanation) -> io::Result<()> {
    let JoinExplanation { kind, bounds, conditions, pane_ns, distribution } = join;
    let waits_for_nobody = *kind == JoinKind::Inner;
    let kind = match kind {
        JoinKind::Inner => "every pair",
        JoinKind::Left => "every pair, and left rows without a partner",
        JoinKind::LeftSemi => "left rows with a partner",
        JoinKind::LeftAnti => "left rows without a partner",
    };
    out.line("join", &format!("{kind}, where {conditions}"))?;
    let signed = |ns: i64| match ns {
        0 => "at the left row's time".to_owned(),
        ns if ns < 0 => format!("{} before it", format_ns(-ns)),
        ns => format!("{} after it", format_ns(ns)),
    };
    let (from, to) = (signed(bounds.from_ns), signed(bounds.to_ns));
    out.line("partners", &format!("right rows from {from} to {to}"))?;
    out.line("state", "the rows of both sides for as long as a partner may come; limits.groups_max bounds each side")?;
    if !waits_for_nobody {
        let pane = format_ns(*pane_ns);
        out.line("alone", &format!("known at most {pane} after event time has passed the last partner's time"))?;
    }
    out.line(
        "shards",
        &match distribution {
            0 => "all rows are joined on one shard: no key of the join is part of the subject".to_owned(),
            1 => "by one key of the join".to_owned(),
            keys => format!("by {keys} keys of the join"),
        },
    )
}

fn write_windowed<W: Write>(out: &mut Table<'_, W>, windowed: &WindowedExplanation) -> io::Result<()> {
    let WindowedExplanation { emission, spec, keys, states, distribution, rows_back, finish, shared_with } = windowed;
    let is_session = matches!(spec, WindowSpec::Session { .. });
    let panes = match spec.is_disjoint() || is_session {
        true => String::new(),
        false => format!(", {} panes in the longest", spec.panes_max()),
    };
    out.line("window", &format!("{spec}{panes}"))?;
    out.line(
        "speaks",
        match emission {
            Emission::OnClose => "once per window, when event time passes its end",
            Emission::OnUpdate => "after every record that changes a group",
        },
    )?;
    out.line("group keys", &if keys.is_empty() { "none".to_owned() } else { keys.join(", ") })?;
    let per = match (emission, spec.is_disjoint()) {
        (_, true) => "window",
        (Emission::OnClose, false) => "pane",
        (Emission::OnUpdate, false) if is_session => "pane as long as the gap",
        (Emission::OnUpdate, false) => "window, of which a row may be in several",
    };
    out.line("state", &format!("one row per group and {per}; of each group:"))?;
    out.lines("", states)?;
    if *rows_back > 0 {
        out.line("history", &format!("{rows_back} rows of earlier windows of each partition of OVER"))?;
    }
    out.line(
        "shards",
        &match distribution.as_slice() {
            [] => "the whole rule is judged on one shard: its subject, OVER or second GROUP BY needs all groups"
                .to_owned(),
            keys => format!("by {}", keys.join(", ")),
        },
    )?;
    for (level, steps) in finish.iter().enumerate() {
        out.lines(&if level == 0 { "finish".to_owned() } else { format!("then {level}") }, steps)?;
    }
    if !shared_with.is_empty() {
        out.line("shared", &format!("the sums are kept once for this rule and {}", shared_with.join(", ")))?;
    }
    let groups = PipelineSettings::default().groups_max;
    out.line("bound", &format!("{groups} groups and rows of history per shard (limits.groups_max)"))
}

/// What a running lictor says of its time.
fn ask(http: SocketAddr) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect(http).with_context(|| format!("no lictor serves HTTP at {http}"))?;
    write!(stream, "GET /watermarks HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    let body = body.filter(|_| answer.starts_with("HTTP/1.1 200 "));
    let body = body.ok_or_else(|| anyhow!("{http} does not answer as lictor does"))?;
    Ok(serde_json::from_str(body)?)
}

fn write_watermarks(to: &mut impl Write, signals: &Value) -> io::Result<()> {
    let signals = signals.as_object().filter(|signals| !signals.is_empty());
    let Some(signals) = signals else { return writeln!(to, "no shard is served here, so no time is kept") };
    for (signal, time) in signals {
        let text = |name: &str| time[name].as_str().unwrap_or("not begun").to_owned();
        let held = match &time["held_by"] {
            Value::Null => "all its partitions are idle: time goes on with the clock".to_owned(),
            by => format!(
                "held by {}[{}], whose newest row is of {}",
                by["topic"].as_str().unwrap_or_default(),
                by["partition"],
                by["high"].as_str().unwrap_or("no time yet")
            ),
        };
        writeln!(to, "{signal:8} {}  {held}", text("watermark"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_rule_is_explained_from_its_rows_to_its_bound() {
        let dir = TempDir::new().unwrap();
        let text = "CREATE RULE hourly WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
            SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed
            FROM HOP(spans, event_time, INTERVAL '10 minutes', INTERVAL '1 hour') AS s
            WHERE s.team IS NOT NULL GROUP BY s.team, window_start, window_end HAVING sum(s.cost_total) > 5;";
        fs::write(dir.path().join("a.sql"), text).unwrap();
        let loaded = rules_dir::load(dir.path(), None).unwrap();
        let mut out = Vec::new();
        write_rule(&mut out, &loaded.rules.rules[0], &loaded, Painter { color: false }).unwrap();
        let out = String::from_utf8(out).unwrap();
        for expected in [
            "hourly  a.sql (version ",
            "  reads         spans: ",
            "  window        1h every 10m, 6 panes in the longest\n",
            "  speaks        once per window, when event time passes its end\n",
            "  group keys    team Utf8View\n",
            "  shards        by team Utf8View\n",
            "sum(cost_total@",
            "  bound         1000000 groups and rows of history per shard (limits.groups_max)\n",
        ] {
            assert!(out.contains(expected), "no `{expected}` in\n{out}");
        }
    }

    #[test]
    fn who_holds_time_back_is_named() {
        let mut out = Vec::new();
        let held = json!({"topic": "otlp_spans", "partition": 3, "high": "2026-03-01T10:00:00Z"});
        let times = json!({"traces": {"watermark": "2026-03-01T09:59:50Z", "held_by": held}, "logs": {}});
        write_watermarks(&mut out, &times).unwrap();
        let lines = [
            "logs     not begun  all its partitions are idle: time goes on with the clock\n",
            "traces   2026-03-01T09:59:50Z  held by otlp_spans[3], whose newest row is of 2026-03-01T10:00:00Z\n",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), lines.concat());
    }
}
