//! Flink's spelling of window functions, read as ours.
//!
//! `TABLE(TUMBLE(TABLE t, DESCRIPTOR(event_time), INTERVAL '5' MINUTES))` is `TUMBLE(t, event_time, …)` in more words;
//! the arguments have the same order. The words are taken out of the tokens before they are parsed, so that what is
//! left still points at its place in the file.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

const FUNCTIONS: [&str; 5] = ["TUMBLE", "HOP", "CUMULATE", "CALENDAR", "SESSION"];

/// A query's tokens without the words that only Flink wants.
pub(crate) fn without_flinks_words(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut left_out = vec![false; tokens.len()];
    for at in 0..tokens.len() {
        if is_word(tokens, at, "TABLE") && is(tokens, at + 1, &Token::LParen) && is_function(tokens, at + 2) {
            leave_out_call(tokens, at, &mut left_out);
        }
        if !is_function(tokens, at) {
            continue;
        }
        if is_word(tokens, at + 2, "TABLE") && !is(tokens, at + 3, &Token::LParen) {
            left_out[at + 2] = true;
        }
        if let Some(comma) = next_comma(tokens, at + 2).filter(|comma| is_word(tokens, comma + 1, "DESCRIPTOR")) {
            leave_out_call(tokens, comma + 1, &mut left_out);
        }
    }
    tokens.iter().zip(left_out).filter(|(_, left_out)| !left_out).map(|(token, _)| token.clone()).collect()
}

/// Leaves out the name at `name` and the parentheses around its arguments.
fn leave_out_call(tokens: &[TokenWithSpan], name: usize, left_out: &mut [bool]) {
    if let Some(close) = closing(tokens, name + 1) {
        left_out[name] = true;
        left_out[name + 1] = true;
        left_out[close] = true;
    }
}

/// The parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The first comma from `from` on that is not inside of further parentheses.
fn next_comma(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            Token::Comma if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn is(tokens: &[TokenWithSpan], at: usize, token: &Token) -> bool {
    tokens.get(at).is_some_and(|found| found.token == *token)
}

fn is_word(tokens: &[TokenWithSpan], at: usize, word: &str) -> bool {
    let found = tokens.get(at).map(|found| &found.token);
    matches!(found, Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

fn is_function(tokens: &[TokenWithSpan], at: usize) -> bool {
    FUNCTIONS.iter().any(|function| is_word(tokens, at, function)) && is(tokens, at + 1, &Token::LParen)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap();
        let tokens: Vec<_> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
        let words: Vec<_> = without_flinks_words(&tokens).iter().map(|t| t.token.to_string()).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn flinks_words_are_taken_out_and_nothing_else() {
        check(
            "FROM TABLE(TUMBLE(TABLE spans, DESCRIPTOR(event_time), INTERVAL '5' MINUTES)) AS s",
            "FROM TUMBLE ( spans , event_time , INTERVAL '5' MINUTES ) AS s",
        );
        check(
            "FROM HOP(TABLE v, DESCRIPTOR(event_time), INTERVAL '1' MINUTE, INTERVAL '2' MINUTES)",
            "FROM HOP ( v , event_time , INTERVAL '1' MINUTE , INTERVAL '2' MINUTES )",
        );
        check(
            "FROM cumulate((SELECT * FROM spans, logs), descriptor(event_time), INTERVAL '1 h', INTERVAL '1 d')",
            "FROM cumulate ( ( SELECT * FROM spans , logs ) , event_time , INTERVAL '1 h' , INTERVAL '1 d' )",
        );
        let ours = "FROM TUMBLE ( spans , event_time , INTERVAL '5 minutes' ) WHERE descriptor ( x ) = 1";
        check(ours, ours);
        check("FROM TABLE ( other ( 1 ) )", "FROM TABLE ( other ( 1 ) )");
        check("FROM TABLE(TUMBLE(TABLE spans", "FROM TABLE ( TUMBLE ( spans");
    }
}
