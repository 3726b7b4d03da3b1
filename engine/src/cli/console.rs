//! The console of `run` and `demo`: what it is told of rules, and where it is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use axum::Router;
use lictor_engine::clock::Clock;
use lictor_engine::config::{Config, ConsoleListen};
use lictor_engine::console::{self, Console, ConsoleOptions, ReloadNote, RuleCard};
use lictor_engine::http::tls::TlsFiles;
use lictor_engine::http::{Health, HttpError, HttpServer, ReloadRequest};
use lictor_engine::metrics::Metrics;
use lictor_engine::rules_dir::LoadedRules;
use lictor_schemas::time::EventTime;

use super::check::{RuleText, describe, render_faults};
use super::explain;
use super::reload::to_text;
use super::terminal::Painter;

/// A console, and where it is to be served.
pub(super) struct Placed {
    pub(super) console: Arc<Console>,
    listen: ConsoleListen,
    tls: Option<TlsFiles>,
}

impl Placed {
    /// The console that the configuration asks for; none if there is to be none.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let is_certified = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let listen = config.console.place(config.http, is_certified).unwrap_or_else(|why| {
            tracing::warn!("{why}");
            ConsoleListen::Off
        });
        let options = ConsoleOptions {
            application_id: config.application_id.clone(),
            instance_id: config.instance_id.clone(),
            token: config.console.token.clone(),
            needs_certificate: is_certified,
            allow_reload: config.console.allow_reload,
            shards: config.shards,
        };
        (listen != ConsoleListen::Off).then(|| Self {
            console: Arc::new(Console::new(options)),
            listen,
            tls: config.tls.clone(),
        })
    }

    /// Its pages, and a server of its own if it has an address of its own; else its pages belong to `http`.
    pub(super) fn serve<C: Clock + Clone + Send + Sync + 'static>(
        &self,
        health: &Arc<Health>,
        reload: &SyncSender<ReloadRequest>,
        metrics: &Metrics,
        clock: &C,
    ) -> Result<(Router, Option<HttpServer>), HttpError> {
        let (console, health) = (Arc::clone(&self.console), Arc::clone(health));
        let pages = console::router(console, health, Some(reload.clone()), clock.clone());
        match self.listen {
            ConsoleListen::At(address) => {
                let at = (address, "console.listen");
                let server = HttpServer::serve_over(self.tls.as_ref(), at, pages, metrics.http().clone())?;
                tell(server.address(), self.tls.is_some());
                Ok((Router::new(), Some(server)))
            }
            ConsoleListen::Http | ConsoleListen::Off => Ok((pages, None)),
        }
    }

    /// Whether it is where `http` is.
    pub(super) fn is_beside_metrics(&self) -> bool {
        self.listen == ConsoleListen::Http
    }
}

/// Says where the console is.
pub(super) fn tell(address: SocketAddr, is_tls: bool) {
    tracing::info!("console at {}://{address}/", if is_tls { "https" } else { "http" });
}

/// Tells the console of rules that were read at `now`, and are in use.
pub(super) fn set_rules(console: &Console, loaded: &LoadedRules, now: EventTime, said: Option<&str>) {
    let (rules, faults) = (loaded.rules.rules.len(), loaded.diagnostics.len());
    let text = match (said, faults) {
        (Some(said), _) => said.to_owned(),
        (None, 0) => format!("{rules} rules read, no fault\n"),
        (None, _) => {
            format!("{rules} rules read, {faults} faults: faulty ones are left out\n{}", render_faults(loaded))
        }
    };
    console.set_rules(cards(loaded), ReloadNote { at: now, is_applied: true, text });
}

/// Tells the console of rules that were read at `now`, and are not in use.
pub(super) fn set_refused(console: &Console, now: EventTime, why: &str) {
    console.set_refused(ReloadNote { at: now, is_applied: false, text: why.to_owned() });
}

/// What is known of rules from their text.
pub(super) fn cards(loaded: &LoadedRules) -> Vec<RuleCard> {
    let card = |rule: &lictor_queries::CompiledRule| {
        let RuleText { window, emission } = describe(&loaded.rules, rule);
        let file = loaded.files.iter().find(|file| file.file == rule.header.file);
        let plain = Painter { color: false };
        RuleCard {
            header: rule.header.clone(),
            window,
            emission: emission.to_owned(),
            sql: file.map(|file| statement_of(&file.text, &rule.header.name).to_owned()).unwrap_or_default(),
            explain: to_text(|to| explain::write_rule(to, rule, loaded, plain)),
        }
    };
    loaded.rules.rules.iter().map(card).collect()
}

/// The statement that makes a rule, with the comment right above it; the whole text if it cannot be told apart.
fn statement_of<'a>(text: &'a str, rule: &str) -> &'a str {
    let mut begin = 0;
    while begin < text.len() {
        let rest = &text[begin..];
        let end = begin + statement_length(rest);
        if names_rule(&text[begin..end], rule) {
            return text[begin..end].trim();
        }
        begin = end;
    }
    text.trim()
}

/// Whether a statement is `CREATE RULE rule`, behind what comments stand above it.
fn names_rule(statement: &str, rule: &str) -> bool {
    let lines = statement.lines().map(|line| line.split("--").next().unwrap_or_default());
    let words = lines.flat_map(str::split_whitespace).take(3).collect::<Vec<_>>();
    let [create, kind, name] = words[..] else { return false };
    let name = name.split('(').next().unwrap_or_default();
    create.eq_ignore_ascii_case("create") && kind.eq_ignore_ascii_case("rule") && name.eq_ignore_ascii_case(rule)
}

/// Up to behind the `;` that ends the first statement: not one in a text, a quoted name or a comment.
fn statement_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let length = match bytes[at] {
            b';' => return at + 1,
            quote @ (b'\'' | b'"') => bytes[at + 1..].iter().position(|b| *b == quote).map(|end| end + 2),
            b'-' if bytes[at..].starts_with(b"--") => bytes[at..].iter().position(|b| *b == b'\n'),
            b'/' if bytes[at..].starts_with(b"/*") => text[at..].find("*/").map(|end| end + 2),
            _ => Some(1),
        };
        at += length.unwrap_or(bytes.len() - at);
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "CREATE EXTERNAL TABLE t (a VARCHAR) STORED AS CSV LOCATION 'a;b.csv'; -- ; no end

-- Says; what it is about.
CREATE RULE first WITH (action = 'warn') AS SELECT ';' AS \"a;b\" FROM spans /* ; */ WHERE 1 = 1;
create rule second WITH (owner = 'it''s; ours') AS SELECT 1;";

    #[test]
    fn a_rules_statement_is_told_from_others() {
        let first = statement_of(TEXT, "first");
        assert!(first.contains("-- Says; what it is about.\nCREATE RULE first"), "{first}");
        assert!(first.ends_with("WHERE 1 = 1;"), "{first}");
        assert_eq!(statement_of(TEXT, "second"), "create rule second WITH (owner = 'it''s; ours') AS SELECT 1;");
        assert_eq!(statement_of(TEXT, "third"), TEXT);
    }
}
