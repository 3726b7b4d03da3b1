//! `attr('key')` and `resource_attr('key')`: attributes that no canonical column has.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};
use lictor_schemas::tables::{ATTR_PREFIX, RESOURCE_ATTR_PREFIX};

use crate::frame::Statement;

/// Puts a column named `attr:key` for every `attr('key')` of a statement; returns the names.
pub(crate) fn name_attributes(statement: &mut Statement) -> Vec<String> {
    let query = match statement {
        Statement::Rule(rule) => &mut rule.query,
        Statement::View { query, .. } => query,
        Statement::Table(_) => return Vec::new(),
    };
    let mut names = Vec::new();
    let mut i = 0;
    while i + 3 < query.len() {
        if let Some(name) = attribute_call(&query[i..i + 4]) {
            let span = Span::new(query[i].span.start, query[i + 3].span.end);
            let word = Word { value: name.clone(), quote_style: Some('"'), keyword: Keyword::NoKeyword };
            query.splice(i..i + 4, [TokenWithSpan { token: Token::Word(word), span }]);
            names.push(name);
        }
        i += 1;
    }
    names
}

fn attribute_call(tokens: &[TokenWithSpan]) -> Option<String> {
    let [function, open, key, close] = tokens else { return None };
    let (Token::Word(function), Token::LParen, Token::SingleQuotedString(key), Token::RParen) =
        (&function.token, &open.token, &key.token, &close.token)
    else {
        return None;
    };
    match function.value.to_lowercase().as_str() {
        "attr" => Some(format!("{ATTR_PREFIX}{key}")),
        "resource_attr" => Some(format!("{RESOURCE_ATTR_PREFIX}{key}")),
        _ => None,
    }
}
