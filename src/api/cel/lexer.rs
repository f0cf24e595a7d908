//! Words of expressions.

/// One word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Ident(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Sign(&'static str),
}

const SIGNS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=", "@",
];

/// Splits a text; the error is a sentence.
pub(super) fn split(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let (token, left) = if let Some((token, left)) = quoted(rest)? {
            (token, left)
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            number(rest)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Ident(rest[..end].to_owned()), &rest[end..])
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| format!("Syntax error: token recognition error at: '{first}'"))?;
            (Token::Sign(sign), &rest[sign.len()..])
        };
        tokens.push(token);
        rest = left;
    }
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let wrong = |word: &str| format!("Syntax error: invalid number {word:?}");
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let (digits, rest) = hex.split_at(end);
        if let Some(rest) = rest.strip_prefix(['u', 'U']) {
            return u64::from_str_radix(digits, 16).map(|n| (Token::Uint(n), rest)).map_err(|_| wrong(digits));
        }
        return i64::from_str_radix(digits, 16).map(|n| (Token::Int(n), rest)).map_err(|_| wrong(digits));
    }
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut end = digits(text);
    let mut is_double = false;
    if text[end..].starts_with('.') && text[end + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        is_double = true;
        end += 1 + digits(&text[end + 1..]);
    }
    if let Some(exponent) = text[end..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let count = digits(&exponent[sign..]);
        if count > 0 {
            is_double = true;
            end += 1 + sign + count;
        }
    }
    let (word, rest) = text.split_at(end);
    if is_double {
        return word.parse().map(|n| (Token::Double(n), rest)).map_err(|_| wrong(word));
    }
    if let Some(rest) = rest.strip_prefix(['u', 'U']) {
        return word.parse().map(|n| (Token::Uint(n), rest)).map_err(|_| wrong(word));
    }
    // The lowest number is written as the negation of one that would not fit.
    match word.parse::<u64>() {
        Ok(n) => i64::try_from(n)
            .or_else(|_| if n == 1 << 63 { Ok(i64::MIN) } else { Err(wrong(word)) })
            .map(|n| (Token::Int(n), rest)),
        Err(_) => Err(wrong(word)),
    }
}

/// A text or bytes, if the rest starts with some.
fn quoted(text: &str) -> Result<Option<(Token, &str)>, String> {
    let mut rest = text;
    let (mut raw, mut bytes) = (false, false);
    for _ in 0..2 {
        match rest.chars().next() {
            Some('r' | 'R') if !raw => raw = true,
            Some('b' | 'B') if !bytes => bytes = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote)) else {
        return Ok(None);
    };
    let mut content = Vec::new();
    let mut chars = rest[quote.len()..].char_indices();
    let base = quote.len();
    while let Some((at, char)) = chars.next() {
        if rest[base + at..].starts_with(quote) {
            let left = &rest[base + at + quote.len()..];
            if bytes {
                return Ok(Some((Token::Bytes(content), left)));
            }
            let text = String::from_utf8(content).map_err(|_| "Syntax error: invalid text".to_owned())?;
            return Ok(Some((Token::Text(text), left)));
        }
        if char == '\n' && quote.len() == 1 {
            break;
        }
        if char == '\\' && !raw {
            escape(&mut chars, bytes, &mut content)?;
        } else {
            content.extend(char.encode_utf8(&mut [0; 4]).bytes());
        }
    }
    Err("Syntax error: a quote is not closed".to_owned())
}

fn escape(chars: &mut std::str::CharIndices<'_>, bytes: bool, content: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || "Syntax error: invalid escape in text".to_owned();
    let (_, char) = chars.next().ok_or_else(wrong)?;
    let mut code = |first: Option<char>, digits: usize, radix: u32| -> Result<u32, String> {
        let mut value = match first {
            Some(first) => first.to_digit(radix).ok_or_else(wrong)?,
            None => 0,
        };
        for _ in 0..digits {
            let digit = chars.next().and_then(|(_, char)| char.to_digit(radix)).ok_or_else(wrong)?;
            value = value * radix + digit;
        }
        Ok(value)
    };
    let value = match char {
        'n' => 0x0a,
        't' => 0x09,
        'r' => 0x0d,
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'v' => 0x0b,
        '\\' | '\'' | '"' | '`' | '?' => u32::from(char),
        'x' | 'X' => code(None, 2, 16)?,
        'u' if !bytes => code(None, 4, 16)?,
        'U' if !bytes => code(None, 8, 16)?,
        '0'..='3' => code(Some(char), 2, 8)?,
        _ => return Err(wrong()),
    };
    if bytes {
        content.push(u8::try_from(value).map_err(|_| wrong())?);
    } else {
        let char = char::from_u32(value).ok_or_else(wrong)?;
        content.extend(char.encode_utf8(&mut [0; 4]).bytes());
    }
    Ok(())
}
