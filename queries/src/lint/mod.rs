//! What is probably not meant: rules that compile and would surprise their author.
//!
//! A lint never keeps a rule from running. It is silenced where it is meant, by a comment above the rule:
//! `-- lictor: allow(float_equality)`.

mod branches;
mod conditions;
mod facts;
mod floats;
mod said;
mod subjects;

use std::fmt;

use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use lictor_schemas::genops::closest;
use lictor_schemas::rule::RuleHeader;

use crate::diagnostic::{Diagnostic, TextSpan};
use crate::frame::RuleText;
use crate::shape::Windowed;
use crate::verdict_words::Words;

/// Writes `ALL`, `name` and `about` of the lints.
macro_rules! lints {
    ($($variant:ident => $name:literal, $about:literal;)+) => {
        /// A kind of warning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Lint {
            $(#[doc = $about] $variant,)+
        }

        impl Lint {
            /// Every lint.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// What it is called in `allow(…)` and `--deny`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it finds.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about),+ }
            }
        }
    };
}

lints! {
    ActionMismatch => "action_mismatch", "a `result` above the `action`, or an `action` that none asks for";
    ConstantCondition => "constant_condition", "a condition that is always or never true";
    FloatEquality => "float_equality", "`=` between floating-point numbers";
    LongWindow => "long_window", "a window or look-back longer than `limits.history`";
    MissingDescription => "missing_description", "no comment above the rule";
    MissingOwner => "missing_owner", "no `owner`";
    MissingTest => "missing_test", "no `*.test.yaml` names the rule's file";
    ReasonCodeMismatch => "reason_code_mismatch", "a reason code that says more than the `action` does";
    UnboundedSubject => "unbounded_subject", "a group key that has another value in nearly every row";
    UnknownAllow => "unknown_allow", "a `-- lictor:` comment that silences nothing";
    UnreachableBranch => "unreachable_branch", "a branch of `CASE` that no row comes to";
}

impl Lint {
    /// The lint of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|lint| lint.name() == name)
    }

    /// A warning of it, with what it says about which words.
    #[must_use]
    pub fn warn(self, diagnostic: Diagnostic) -> Warning {
        Warning { lint: self, diagnostic }
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is probably not meant, and where it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which lint has found it.
    pub lint: Lint,
    /// Place, message, reasons, and what to write instead.
    pub diagnostic: Diagnostic,
}

impl Warning {
    /// The warning with its source line underlined, as [`Diagnostic::render`].
    #[must_use]
    pub fn render(&self, source: &str, color: bool) -> String {
        self.diagnostic.render_warning(self.lint.name(), source, color)
    }
}

/// A rule that compiles, with what lints look at.
pub(crate) struct Linted<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a RuleText,
    pub(crate) head: &'a RuleHeader,
    pub(crate) plan: &'a LogicalPlan,
    pub(crate) windowed: Option<&'a Windowed>,
    pub(crate) words: &'a Words,
}

/// Everything that the lints of this crate find in a rule, except what its author allows.
pub(crate) fn lint(rule: &Linted<'_>) -> Vec<Warning> {
    let mut warnings = said::lint(rule);
    warnings.extend(conditions::lint(rule));
    warnings.extend(floats::lint(rule));
    warnings.extend(subjects::lint(rule));
    warnings.retain(|warning| !is_allowed(&rule.text.allowed(), warning.lint));
    warnings.extend(unknown_allows(rule));
    warnings.dedup();
    warnings
}

/// Whether a lint is silenced by one of these names.
pub(crate) fn is_allowed(allowed: &[String], lint: Lint) -> bool {
    allowed.iter().any(|name| name == lint.name())
}

fn unknown_allows(rule: &Linted<'_>) -> Vec<Warning> {
    let known: Vec<&str> = Lint::ALL.iter().map(|lint| lint.name()).collect();
    let unknown = rule.text.allows.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    let warn = |(name, span): &(String, datafusion::sql::sqlparser::tokenizer::Span)| {
        let fault = Diagnostic::new(rule.file, *span, format!("there is no lint `{name}`"));
        Lint::UnknownAllow.warn(match closest(name, &known) {
            Some(near) => fault.help(format!("write -- lictor: allow({near})")),
            None => fault.note(format!("lints: {}", known.join(", "))),
        })
    };
    unknown.map(warn).collect()
}

impl Linted<'_> {
    fn at(&self, span: impl Into<TextSpan>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.file, span, message)
    }

    /// Where an option stands, its value; the rule's name if it is not said.
    fn option_span(&self, name: &str) -> TextSpan {
        let option = self.text.options.iter().find(|option| option.name == name);
        option.map_or(self.text.name_span, |option| option.value_span).into()
    }

    /// The first place where the query has the first of these words that it has, else its beginning.
    fn word_span(&self, words: &[&str]) -> TextSpan {
        let is_it = |token: &TokenWithSpan, word: &str| match &token.token {
            Token::Word(said) => said.value.eq_ignore_ascii_case(word),
            Token::SingleQuotedString(text) => text == word,
            _ => false,
        };
        let query = &self.text.query;
        let found = words.iter().find_map(|word| query.iter().find(|token| is_it(token, word))).or(query.first());
        found.map_or(self.text.name_span, |token| token.span).into()
    }

    /// Where the query names a column of an expression; else as [`Linted::word_span`]: a view's stand elsewhere.
    fn expr_span(&self, expr: &Expr, words: &[&str]) -> TextSpan {
        let named = expr.column_refs().into_iter().filter_map(|column| column.spans().first());
        let mut named = named.map(TextSpan::from);
        let is_ours =
            |place: &TextSpan| self.text.query.iter().any(|token| TextSpan::from(token.span).start == place.start);
        named.find(is_ours).unwrap_or_else(|| self.word_span(words))
    }
}
