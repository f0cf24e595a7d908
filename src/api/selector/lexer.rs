//! Tokens of label selectors.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Error,
    End,
    Close,
    Open,
    Comma,
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    Identifier,
    In,
    NotIn,
}

/// Where a token stands: `in` is a word of the language only behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    KeyAndOperator,
    Values,
}

pub(super) struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// The next token, which stays there.
    pub(super) fn peek(&self, context: Context) -> (Token, &'a str) {
        let (token, text, _) = scan(self.rest);
        (in_context(token, context), text)
    }

    /// Takes the next token.
    pub(super) fn next(&mut self, context: Context) -> (Token, &'a str) {
        let (token, text, rest) = scan(self.rest);
        self.rest = rest;
        (in_context(token, context), text)
    }
}

fn in_context(token: Token, context: Context) -> Token {
    match token {
        Token::In | Token::NotIn if context == Context::Values => Token::Identifier,
        token => token,
    }
}

/// Token, its text, and what follows.
fn scan(text: &str) -> (Token, &str, &str) {
    let text = text.trim_start_matches([' ', '\t', '\r', '\n']);
    let symbols = [
        ("==", Token::Equal),
        ("!=", Token::NotEqual),
        ("=", Token::Equal),
        ("!", Token::Not),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
        (">", Token::Greater),
        ("<", Token::Less),
    ];
    for (symbol, token) in symbols {
        if let Some(rest) = text.strip_prefix(symbol) {
            return (token, &text[..symbol.len()], rest);
        }
    }
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<' | ' ' | '\t' | '\r' | '\n');
    let (word, rest) = text.split_at(text.find(special).unwrap_or(text.len()));
    let token = match word {
        "" if rest.is_empty() => Token::End,
        "" => Token::Error,
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, word, rest)
}
