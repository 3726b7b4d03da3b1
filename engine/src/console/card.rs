//! What is known of rules from their text: it changes when they are read again.

use std::collections::VecDeque;
use std::sync::Arc;

use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use crate::config::duration::format_ns;

/// Notes of reloads that are kept: what was refused this morning matters until it is mended.
const NOTES_MAX: usize = 20;

/// A rule as its text says it.
#[derive(Clone, Debug)]
pub struct RuleCard {
    /// Its head.
    pub header: RuleHeader,
    /// The window, in words; empty if it has none.
    pub window: String,
    /// When it speaks, in words.
    pub emission: String,
    /// Its statement, with the comment above it.
    pub sql: String,
    /// How it runs, line by line, as `lictor explain` says it.
    pub explain: String,
}

impl RuleCard {
    pub(super) fn to_json(&self) -> Value {
        let RuleHeader { name, description, file, owner, version, .. } = &self.header;
        let length = |ns: i64| (ns > 0).then(|| format_ns(ns));
        json!({
            "name": name,
            "description": description,
            "file": file,
            "owner": owner,
            "version": version.0,
            "window": self.window,
            "emission": self.emission,
            "options": {
                "action": self.header.action.as_str(),
                "reason_code": self.header.reason_code.as_str(),
                "severity": self.header.severity,
                "mode": self.header.mode.as_str(),
                "ttl": length(self.header.ttl_ns),
                "for": length(self.header.for_ns),
                "keep_firing_for": length(self.header.keep_firing_for_ns),
                "repeat_interval": self.header.repeat_interval_ns.and_then(length),
            },
            "sql": self.sql,
            "explain": self.explain,
        })
    }
}

/// What has come of reading rules.
#[derive(Clone, Debug)]
pub struct ReloadNote {
    /// When.
    pub at: EventTime,
    /// Whether they are in use; if not the ones before are.
    pub is_applied: bool,
    /// What has changed, or what is wrong.
    pub text: String,
}

impl ReloadNote {
    fn to_json(&self) -> Value {
        json!({"at": self.at.to_ms(), "applied": self.is_applied, "text": self.text})
    }
}

/// The rules that run, and the last notes, the newest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Cards {
    rules: Arc<Vec<RuleCard>>,
    notes: VecDeque<ReloadNote>,
}

impl Cards {
    pub(super) fn with(&self, rules: Option<Vec<RuleCard>>, note: ReloadNote) -> Self {
        let rules = rules.map_or_else(|| Arc::clone(&self.rules), Arc::new);
        let notes = [note].into_iter().chain(self.notes.iter().cloned()).take(NOTES_MAX).collect();
        Self { rules, notes }
    }

    pub(super) fn of(&self, rule: &str) -> Option<&RuleCard> {
        self.rules.iter().find(|card| card.header.name == rule)
    }

    pub(super) fn notes(&self) -> Vec<Value> {
        self.notes.iter().map(ReloadNote::to_json).collect()
    }

    /// Whether what was read last is not in use.
    pub(super) fn is_refused(&self) -> bool {
        self.notes.front().is_some_and(|note| !note.is_applied)
    }
}
