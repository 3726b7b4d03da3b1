//! The frame of a rule file: which statements it holds, cut on sqlparser's own tokens.
//!
//! `CREATE RULE … WITH (…) AS … EMIT …` is no SQL that sqlparser knows, but its tokens carry line and column. So the
//! frame is read here and the tokens of the query in it are handed on unchanged: whatever the planner finds wrong
//! points into the file as the author sees it.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::diagnostic::{Diagnostic, TextSpan};

/// When a windowed rule speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Once per window, when the watermark passes its end.
    OnClose,
    /// As soon as a row of the result appears, changes or disappears.
    OnUpdate,
}

/// How a reference table is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceFormat {
    /// A file of comma-separated values with a header line.
    Csv,
    /// A file of one JSON object per line.
    Json,
    /// A Parquet file.
    Parquet,
    /// A Kafka topic of JSON objects: the latest value of each key is a row.
    Kafka,
}

/// An option of `WITH (…)`: its name, its text and where both stand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OptionText {
    pub name: String,
    pub value: String,
    pub name_span: Span,
    pub value_span: Span,
}

/// A statement, said but not yet understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    Rule(Box<RuleText>),
    View { name: String, name_span: Span, query: Vec<TokenWithSpan>, within: Option<WithinText> },
    Table(TableText),
}

/// `CREATE RULE`, said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleText {
    pub name: String,
    pub name_span: Span,
    pub description: String,
    pub options: Vec<OptionText>,
    pub query: Vec<TokenWithSpan>,
    pub emission: Option<(Emission, Span)>,
    pub gap_fill: Option<GapFillText>,
    pub within: Option<WithinText>,
    /// What `-- lictor: allow(…)` above it says, and where each name stands.
    pub allows: Vec<(String, Span)>,
    /// Every token that can change the meaning, for the version hash.
    pub canonical: String,
}

impl RuleText {
    /// The names of the lints that its author allows.
    pub(crate) fn allowed(&self) -> Vec<String> {
        self.allows.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// `GAP FILL [FROM table] [FOR INTERVAL 'length']`, said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GapFillText {
    pub span: Span,
    /// The reference table whose rows are the keys.
    pub table: Option<(String, Span)>,
    /// How long keys are kept that had rows.
    pub keep: Option<(String, Span)>,
}

/// `WITHIN INTERVAL 'length'`, said: the length and where it stands.
pub(crate) type WithinText = (String, Span);

/// `CREATE EXTERNAL TABLE`, said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableText {
    pub name: String,
    pub name_span: Span,
    /// The tokens between the parentheses, these included; empty if no columns are declared.
    pub columns: Vec<TokenWithSpan>,
    pub format: ReferenceFormat,
    pub location: String,
    pub location_span: Span,
}

/// Cuts a file into statements. What cannot be cut is a diagnostic; the statements around it still come out.
pub(crate) fn parse(file: &str, text: &str) -> (Vec<Statement>, Vec<Diagnostic>) {
    let tokens = match Tokenizer::new(&GenericDialect {}, text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(e) => {
            let at = TextSpan::from(Span::new(e.location, e.location));
            return (Vec::new(), vec![Diagnostic::new(file, at, e.message)]);
        }
    };
    let mut statements = Vec::new();
    let mut diagnostics = Vec::new();
    for piece in tokens.split(|t| t.token == Token::SemiColon) {
        if piece.iter().all(is_blank) {
            continue;
        }
        match Cursor::new(file, piece).statement() {
            Ok(statement) => statements.push(statement),
            Err(diagnostic) => diagnostics.push(*diagnostic),
        }
    }
    (statements, diagnostics)
}

fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_) | Token::EOF)
}

/// What was read, or the one thing that is wrong with it.
pub(crate) type Parsed<T> = Result<T, Box<Diagnostic>>;

/// Reads the tokens of one statement from left to right, without the blanks.
struct Cursor<'a> {
    file: &'a str,
    tokens: Vec<&'a TokenWithSpan>,
    at: usize,
    comment: String,
    allows: Vec<(String, Span)>,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a str, piece: &'a [TokenWithSpan]) -> Self {
        let tokens = piece.iter().filter(|t| !is_blank(t)).collect();
        Self { file, tokens, at: 0, comment: leading_comment(piece), allows: allows(piece) }
    }

    fn statement(mut self) -> Parsed<Statement> {
        self.keyword("CREATE", "a rule file holds CREATE RULE, CREATE VIEW and CREATE EXTERNAL TABLE")?;
        match self.peek_word().as_deref() {
            Some("RULE") => self.rule().map(|rule| Statement::Rule(Box::new(rule))),
            Some("VIEW") => self.view(),
            Some("EXTERNAL") => self.table().map(Statement::Table),
            _ => Err(self.unexpected("RULE, VIEW or EXTERNAL TABLE", "only these can be created in a rule file")),
        }
    }

    fn rule(&mut self) -> Parsed<RuleText> {
        self.at += 1;
        let canonical = self.tokens.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ");
        let (name, name_span) = self.identifier("the rule's name")?;
        let options = if self.peek_word().as_deref() == Some("WITH") {
            self.at += 1;
            self.options()?
        } else {
            Vec::new()
        };
        self.keyword("AS", "a rule reads CREATE RULE name WITH (…) AS SELECT …")?;
        let emission = self.take_emission()?;
        let gap_fill = self.take_gap_fill()?;
        let within = self.take_within()?;
        let query = self.rest("the rule's query")?;
        let description = std::mem::take(&mut self.comment);
        let allows = std::mem::take(&mut self.allows);
        Ok(RuleText { name, name_span, description, options, query, emission, gap_fill, within, allows, canonical })
    }

    fn view(&mut self) -> Parsed<Statement> {
        self.at += 1;
        let (name, name_span) = self.identifier("the view's name")?;
        self.keyword("AS", "a view reads CREATE VIEW name AS SELECT …")?;
        let within = self.take_within()?;
        let query = self.rest("the view's query")?;
        Ok(Statement::View { name, name_span, query, within })
    }

    fn table(&mut self) -> Parsed<TableText> {
        const SHAPE: &str = "write CREATE EXTERNAL TABLE name [(column TYPE, …)] STORED AS CSV LOCATION 'file.csv'";
        const FORMATS: &str = "reference tables are CSV, JSON-lines or Parquet files, or compacted Kafka topics";
        self.at += 1;
        self.keyword("TABLE", SHAPE)?;
        let (name, name_span) = self.identifier("the table's name")?;
        let columns = self.parenthesised();
        self.keyword("STORED", SHAPE)?;
        self.keyword("AS", SHAPE)?;
        let format = match self.peek_word().as_deref() {
            Some("CSV") => ReferenceFormat::Csv,
            Some("JSON") => ReferenceFormat::Json,
            Some("PARQUET") => ReferenceFormat::Parquet,
            Some("KAFKA") => ReferenceFormat::Kafka,
            _ => return Err(self.unexpected("CSV, JSON, PARQUET or KAFKA", FORMATS)),
        };
        self.at += 1;
        self.keyword("LOCATION", SHAPE)?;
        let what = match format {
            ReferenceFormat::Kafka => "the topic's name",
            ReferenceFormat::Csv | ReferenceFormat::Json | ReferenceFormat::Parquet => {
                "the file's path, relative to this file"
            }
        };
        let (location, location_span) = self.string(what)?;
        if self.at < self.tokens.len() {
            return Err(self.unexpected("`;`", SHAPE));
        }
        Ok(TableText { name, name_span, columns, format, location, location_span })
    }

    fn options(&mut self) -> Parsed<Vec<OptionText>> {
        self.token(&Token::LParen)?;
        let mut options = Vec::new();
        while !self.take(&Token::RParen) {
            let (name, name_span) = self.identifier("an option's name")?;
            self.token(&Token::Eq)?;
            let (value, value_span) = self.string("the option's value in single quotes")?;
            options.push(OptionText { name, value, name_span, value_span });
            if !self.take(&Token::Comma) {
                self.token(&Token::RParen)?;
                break;
            }
        }
        Ok(options)
    }

    /// A reader of the same statement from another token on.
    fn tail(&self, at: usize) -> Self {
        let (comment, allows) = (String::new(), Vec::new());
        Self { file: self.file, tokens: self.tokens.clone(), at, comment, allows }
    }

    /// Cuts `EMIT ON CLOSE` or `EMIT ON UPDATE` off the end.
    fn take_emission(&mut self) -> Parsed<Option<(Emission, Span)>> {
        let Some(emit) = self.tokens.iter().rposition(|t| word(t).as_deref() == Some("EMIT")) else {
            return Ok(None);
        };
        let span = self.tokens[emit].span;
        let words: Vec<_> = self.tokens[emit + 1..].iter().filter_map(|t| word(t)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let emission = match (words.as_slice(), self.tokens.len() - emit) {
            (["ON", "CLOSE"], 3) | (["ON", "WINDOW", "CLOSE"], 4) => Emission::OnClose,
            (["ON", "UPDATE"], 3) => Emission::OnUpdate,
            _ => {
                let message = "expected EMIT ON CLOSE or EMIT ON UPDATE at the end of the rule";
                return Err(Box::new(Diagnostic::new(self.file, span, message)));
            }
        };
        self.tokens.truncate(emit);
        Ok(Some((emission, span)))
    }

    /// Cuts `GAP FILL …` off the end.
    fn take_gap_fill(&mut self) -> Parsed<Option<GapFillText>> {
        let is =
            |token: Option<&&TokenWithSpan>, expected: &str| token.and_then(|t| word(t)).as_deref() == Some(expected);
        let starts_at = |at: &usize| is(self.tokens.get(*at), "GAP") && is(self.tokens.get(at + 1), "FILL");
        let Some(start) = (self.at..self.tokens.len()).rev().find(starts_at) else { return Ok(None) };
        let mut said = GapFillText { span: self.tokens[start].span, table: None, keep: None };
        let mut tail = self.tail(start + 2);
        while tail.at < tail.tokens.len() {
            match tail.peek_word().as_deref() {
                Some("FROM") if said.table.is_none() => {
                    tail.at += 1;
                    said.table = Some(tail.identifier("a reference table")?);
                }
                Some("FOR") if said.keep.is_none() => {
                    tail.at += 1;
                    tail.keyword("INTERVAL", GAP_FILL)?;
                    said.keep = Some(tail.string("a length of time in single quotes")?);
                }
                _ => return Err(tail.unexpected("FROM or FOR", GAP_FILL)),
            }
        }
        if said.table.is_none() && said.keep.is_none() {
            return Err(tail.unexpected("FROM or FOR", GAP_FILL));
        }
        self.tokens.truncate(start);
        Ok(Some(said))
    }

    /// Cuts `WITHIN INTERVAL …` off the end.
    fn take_within(&mut self) -> Parsed<Option<WithinText>> {
        let is_within = |t: &&TokenWithSpan| word(t).as_deref() == Some("WITHIN");
        let Some(at) = self.tokens.iter().rposition(is_within) else { return Ok(None) };
        // WITHIN GROUP orders the rows of an aggregate.
        if self.tokens.get(at + 1).and_then(|t| word(t)).as_deref() == Some("GROUP") {
            return Ok(None);
        }
        let mut tail = self.tail(at + 1);
        tail.keyword("INTERVAL", WITHIN)?;
        let within = tail.string("a length of time in single quotes")?;
        if tail.at < tail.tokens.len() {
            return Err(tail.unexpected("the end of the query", WITHIN));
        }
        self.tokens.truncate(at);
        Ok(Some(within))
    }

    fn rest(&mut self, what: &str) -> Parsed<Vec<TokenWithSpan>> {
        if self.at >= self.tokens.len() {
            return Err(self.unexpected(what, "nothing follows AS"));
        }
        Ok(self.tokens[self.at..].iter().map(|t| (*t).clone()).collect())
    }

    fn parenthesised(&mut self) -> Vec<TokenWithSpan> {
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(token) = self.tokens.get(self.at) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        self.tokens[start..self.at].iter().map(|t| (*t).clone()).collect()
    }

    fn peek_word(&self) -> Option<String> {
        self.tokens.get(self.at).and_then(|t| word(t))
    }

    fn keyword(&mut self, expected: &str, note: &str) -> Parsed<()> {
        if self.peek_word().as_deref() == Some(expected) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(expected, note))
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|t| t.token == *token);
        self.at += usize::from(found);
        found
    }

    fn token(&mut self, token: &Token) -> Parsed<()> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{token}`"), "options are written WITH (name = 'value', …)"))
    }

    fn identifier(&mut self, what: &str) -> Parsed<(String, Span)> {
        match self.tokens.get(self.at) {
            Some(TokenWithSpan { token: Token::Word(w), span }) => {
                self.at += 1;
                let name = if w.quote_style.is_some() { w.value.clone() } else { w.value.to_lowercase() };
                Ok((name, *span))
            }
            _ => Err(self.unexpected(what, "a name is letters, digits and underscores")),
        }
    }

    fn string(&mut self, what: &str) -> Parsed<(String, Span)> {
        match self.tokens.get(self.at) {
            Some(TokenWithSpan { token: Token::SingleQuotedString(s), span }) => {
                self.at += 1;
                Ok((s.clone(), *span))
            }
            _ => Err(self.unexpected(what, "values are texts in single quotes")),
        }
    }

    fn unexpected(&self, expected: &str, note: &str) -> Box<Diagnostic> {
        let (found, span) = match self.tokens.get(self.at) {
            Some(token) => (format!("`{}`", token.token), token.span),
            None => ("the end of the statement".to_owned(), self.tokens.last().map_or(Span::empty(), |t| t.span)),
        };
        Box::new(Diagnostic::new(self.file, span, format!("expected {expected}, found {found}")).note(note))
    }
}

const WITHIN: &str = "write SELECT DISTINCT ON (key) … FROM … WITHIN INTERVAL '10 minutes' at the end of the query";
const GAP_FILL: &str = "write GAP FILL FROM reference_table, GAP FILL FOR INTERVAL '1 day', or both";

fn word(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_uppercase()),
        _ => None,
    }
}

/// The comment lines right above the statement: a blank line cuts them off from what stands before.
fn leading_comment(piece: &[TokenWithSpan]) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut newlines = 0;
    for token in piece {
        match &token.token {
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) if to_lictor(comment).is_some() => {
                newlines = 1;
            }
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => {
                // The comment's text ends with its own line break, so one more is a blank line.
                lines.push(comment.trim());
                newlines = 1;
            }
            Token::Whitespace(Whitespace::Newline) => {
                newlines += 1;
                if newlines > 1 {
                    lines.clear();
                }
            }
            Token::Whitespace(_) => {}
            _ => break,
        }
    }
    lines.join("\n").trim().to_owned()
}

/// What a comment tells lictor and no reader: `lictor: …`.
fn to_lictor(comment: &str) -> Option<&str> {
    comment.trim().strip_prefix("lictor:").map(str::trim)
}

/// The names in the `-- lictor: allow(a, b)` lines above a statement. A line that says something else is a name, too:
/// one that nobody knows.
fn allows(piece: &[TokenWithSpan]) -> Vec<(String, Span)> {
    let mut names = Vec::new();
    for token in piece.iter().take_while(|token| matches!(token.token, Token::Whitespace(_))) {
        let Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) = &token.token else { continue };
        let Some(said) = to_lictor(comment) else { continue };
        let width = u64::try_from(comment.trim_end().chars().count()).unwrap_or_default() + 2;
        let Location { line, column } = token.span.start;
        let span = Span::new(token.span.start, Location { line, column: column + width });
        match said.strip_prefix("allow(").and_then(|list| list.strip_suffix(')')) {
            Some(list) => names.extend(list.split(',').map(|name| (name.trim().to_owned(), span))),
            None => names.push((said.to_owned(), span)),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Statement {
        let (statements, diagnostics) = parse("t.sql", text);
        assert_eq!(diagnostics, Vec::new());
        assert_eq!(statements.len(), 1, "{statements:?}");
        statements.into_iter().next().unwrap()
    }

    #[track_caller]
    fn refused(text: &str, summary: &str) {
        let (_, diagnostics) = parse("t.sql", text);
        let summaries: Vec<_> = diagnostics.iter().map(Diagnostic::summary).collect();
        assert_eq!(summaries, [summary]);
    }

    #[test]
    fn a_rule_is_cut_into_head_query_and_emission() {
        let text = "-- old\n\n-- Blocks.\n-- Twice.\nCREATE RULE r WITH (action = 'block', ttl='5 m') AS\n\
                    SELECT 1 EMIT ON UPDATE;";
        let Statement::Rule(rule) = one(text) else { panic!("no rule") };
        assert_eq!(rule.description, "Blocks.\nTwice.");
        assert_eq!(rule.name, "r");
        let options: Vec<_> = rule.options.iter().map(|o| (o.name.as_str(), o.value.as_str())).collect();
        assert_eq!(options, [("action", "block"), ("ttl", "5 m")]);
        assert_eq!(rule.query.len(), 2);
        assert_eq!(rule.emission.map(|e| e.0), Some(Emission::OnUpdate));
    }

    #[test]
    fn what_is_said_to_lictor_is_no_description() {
        let text =
            "-- Blocks.\n-- lictor: allow(one, two)\n-- Twice.\n-- lictor: alow(three)\nCREATE RULE r AS SELECT 1";
        let Statement::Rule(rule) = one(text) else { panic!("no rule") };
        assert_eq!(
            (rule.description.as_str(), rule.allowed().as_slice()),
            ("Blocks.\nTwice.", ["one", "two", "alow(three)"].map(str::to_owned).as_slice(),)
        );
        let (start, end) = (rule.allows[2].1.start, rule.allows[2].1.end);
        assert_eq!(((start.line, start.column), (end.line, end.column)), ((4, 1), (4, 23)));
    }

    #[test]
    fn query_tokens_keep_their_place_in_the_file() {
        let Statement::Rule(rule) = one("CREATE RULE r AS\n  SELECT 1") else { panic!("no rule") };
        assert_eq!((rule.query[0].span.start.line, rule.query[0].span.start.column), (2, 3));
    }

    #[test]
    fn comments_do_not_change_the_canonical_text() {
        let (Statement::Rule(a), Statement::Rule(b)) =
            (one("CREATE RULE r AS SELECT 1"), one("-- c\nCREATE  RULE r AS -- d\n SELECT 1"))
        else {
            panic!("no rules")
        };
        assert_eq!(a.canonical, b.canonical);
    }

    #[test]
    fn an_external_table_keeps_its_columns_for_the_parser() {
        let Statement::Table(table) =
            one("CREATE EXTERNAL TABLE b (team VARCHAR, usd DOUBLE) STORED AS csv LOCATION 'b.csv'")
        else {
            panic!("no table")
        };
        assert_eq!((table.columns.len(), table.location.as_str()), (7, "b.csv"));
    }

    #[test]
    fn every_broken_statement_is_reported_and_the_others_survive() {
        let (statements, diagnostics) =
            parse("t.sql", "SELECT 1;\nCREATE VIEW v AS SELECT 1;\nCREATE RULE r WITH (a=1) AS SELECT 2;");
        assert_eq!((statements.len(), diagnostics.len()), (1, 2));
    }

    #[test]
    fn a_gap_fill_is_cut_off_between_query_and_emission() {
        let text = "CREATE RULE r AS SELECT 1 GAP FILL FROM Teams FOR INTERVAL '2 days' EMIT ON CLOSE";
        let Statement::Rule(rule) = one(text) else { panic!("no rule") };
        let said = rule.gap_fill.unwrap();
        assert_eq!(
            (rule.query.len(), said.table.unwrap().0, said.keep.unwrap().0),
            (2, "teams".into(), "2 days".into())
        );
        refused(
            "CREATE RULE r AS SELECT 1 GAP FILL EMIT ON CLOSE",
            "t.sql:1:31: expected FROM or FOR, found the end of the statement",
        );
        refused("CREATE RULE r AS SELECT 1 GAP FILL WITH x", "t.sql:1:36: expected FROM or FOR, found `WITH`");
    }

    #[test]
    fn faults_name_their_place() {
        refused("CREATE RULE r SELECT 1", "t.sql:1:15: expected AS, found `SELECT`");
        refused(
            "CREATE RULE r AS SELECT 1 EMIT SOON",
            "t.sql:1:27: expected EMIT ON CLOSE or EMIT ON UPDATE at the end of the rule",
        );
        refused("CREATE TABLE t", "t.sql:1:8: expected RULE, VIEW or EXTERNAL TABLE, found `TABLE`");
        refused("CREATE RULE r AS", "t.sql:1:15: expected the rule's query, found the end of the statement");
    }

    #[test]
    fn an_unterminated_text_is_one_diagnostic() {
        let (_, diagnostics) = parse("t.sql", "CREATE RULE r WITH (a = 'x) AS SELECT 1");
        assert_eq!(diagnostics.len(), 1);
        assert_eq!(diagnostics[0].span.start.line, 1);
    }
}
