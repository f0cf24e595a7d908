//! Regular expressions as Go's `regexp` reads them, for the crate `regex`, which is of the same family (RE2: no
//! backtracking, linear time).
//!
//! What the two read differently is rewritten: the classes `\d`, `\w`, `\s` and the boundary `\b` know ASCII only, a
//! bracket within a class is itself, and so is a brace that repeats nothing.

use regex::{Regex, RegexBuilder};

/// Bytes that one compiled expression may take: a few of them could otherwise hold what a node has.
const SIZE: usize = 1 << 20;

/// Compiles an expression; the error is a sentence.
pub(crate) fn compile(text: &str) -> Result<Regex, String> {
    let rewritten = rewrite(text);
    let built = RegexBuilder::new(&rewritten).size_limit(SIZE).dfa_size_limit(SIZE).nest_limit(100).build();
    built.map_err(|error| {
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default().trim();
        format!("error parsing regexp: {}: `{text}`", last.trim_start_matches("error: "))
    })
}

fn rewrite(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.char_indices().peekable();
    let mut in_class = false;
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => {
                let Some((_, escaped)) = chars.next() else {
                    out.push('\\');
                    break;
                };
                escape(escaped, in_class, &mut out);
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                // A bracket that comes first, or behind the negation, is one of the class.
                if chars.next_if(|(_, next)| *next == '^').is_some() {
                    out.push('^');
                }
                if chars.next_if(|(_, next)| *next == ']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' => match text.get(at..).and_then(posix_class) {
                Some(class) => {
                    out.push_str(class);
                    for _ in 1..class.len() {
                        chars.next();
                    }
                }
                None => out.push_str("\\["),
            },
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => out.extend(['\\', char]),
            '{' if !in_class && !repeats(&text[at..]) => out.push_str("\\{"),
            _ => out.push(char),
        }
    }
    out
}

fn escape(char: char, in_class: bool, out: &mut String) {
    let (inner, negated) = match char {
        'd' => ("0-9", false),
        'D' => ("0-9", true),
        'w' => ("0-9A-Za-z_", false),
        'W' => ("0-9A-Za-z_", true),
        's' => ("\\t\\n\\f\\r ", false),
        'S' => ("\\t\\n\\f\\r ", true),
        'b' if !in_class => return out.push_str("(?-u:\\b)"),
        // What is no text may not be matched with Unicode off, so the complement is spelt out.
        'B' if !in_class => return out.push_str("\\B"),
        other => return out.extend(['\\', other]),
    };
    match (in_class, negated) {
        (true, false) => out.push_str(inner),
        (_, true) => out.extend(["[^", inner, "]"]),
        (false, false) => out.extend(["[", inner, "]"]),
    }
}

/// `[:alpha:]` at the start of a text.
fn posix_class(text: &str) -> Option<&str> {
    let end = text.strip_prefix("[:")?.find(":]")? + 4;
    let name = &text[2..end - 2];
    name.trim_start_matches('^').bytes().all(|byte| byte.is_ascii_lowercase()).then(|| &text[..end])
}

/// Whether a text starts with `{n}`, `{n,}` or `{n,m}`.
fn repeats(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inner, _)| inner) else {
        return false;
    };
    let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn expressions_mean_what_they_mean_to_go() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "٣", false),
            (r"^[\w.-]+$", "a-b.c_1", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[[]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]+$", "b", true),
            (r"^[a&&b]+$", "&", true),
            (r"^[[:alpha:]_]+$", "aB_", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^a{$", "a{", true),
            (r"^{}$", "{}", true),
            (r"^(\d|\S)\bx?$", "5", true),
            (r"^https?:\/\/", "http://x", true),
            (r"^[\D]$", "x", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(compile(pattern).unwrap().is_match(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused_in_a_sentence() {
        for pattern in ["(", "a**b(", "\\", "(?=a)", "((a{1000}){1000}){1000}", "[b-a]"] {
            let error = compile(pattern).unwrap_err();
            assert!(error.starts_with("error parsing regexp: ") && !error.contains('\n'), "{error}");
        }
    }
}
