//! Sets of indexes as Jobs write them: `0-2,4,7-9`.

use std::collections::BTreeSet;

/// A set of indexes.
pub(super) type Indexes = BTreeSet<i32>;

/// Reads a set; indexes from `end` on do not count, since a Job may have become smaller.
pub(super) fn parse(text: Option<&str>, end: i32) -> Indexes {
    let mut found = Indexes::new();
    for part in text.unwrap_or_default().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            found.extend(first.max(0)..last.saturating_add(1).min(end));
        }
    }
    found
}

/// Writes a set: two in a row as two, more as a range; none for an empty one.
pub(super) fn print(indexes: &Indexes) -> Option<String> {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let word = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    let text = runs.into_iter().map(word).collect::<Vec<_>>().join(",");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_it_was_read() {
        for text in ["0", "0,1", "0-2,4", "3,5-9"] {
            assert_eq!(print(&parse(Some(text), 10)).as_deref(), Some(text));
        }
        assert_eq!(print(&parse(Some("0-20"), 3)).as_deref(), Some("0-2"));
        assert_eq!(print(&parse(None, 3)), None);
    }
}
