//! Lists of indexes of pods, as `1,3-5,7` (`validateIndexesFormat`).

/// The intervals of a list, both ends included; what is wrong with it otherwise, in upstream's words.
pub(super) fn parse(list: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut found: Vec<(i64, i64)> = Vec::new();
    if list.is_empty() {
        return Ok(found);
    }
    for text in list.split(',') {
        let (first, last) = interval(text, completions)?;
        if let Some((_, previous)) = found.last().filter(|(_, previous)| *previous >= first) {
            return Err(disordered(*previous, first));
        }
        found.push((first, last));
    }
    Ok(found)
}

/// The first index that is in both of two lists.
pub(super) fn overlap(a: &[(i64, i64)], b: &[(i64, i64)]) -> Option<i64> {
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (left.peek(), right.peek()) {
        if x.0 <= y.1 && y.0 <= x.1 {
            return Some(x.0.max(y.0));
        }
        if x.0 <= y.0 {
            left.next();
        } else {
            right.next();
        }
    }
    None
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str| {
        let index: i64 = part.parse().map_err(|_| format!("cannot convert string to integer for index: {part:?}"))?;
        if index >= completions { Err(format!("too large index: {part:?}")) } else { Ok(index) }
    };
    match parts.as_slice() {
        [only] => number(only).map(|index| (index, index)),
        [first, last] => {
            let (first, last) = (number(first)?, number(last)?);
            if first >= last { Err(disordered(first, last)) } else { Ok((first, last)) }
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated \
             by '-'"
        )),
    }
}

fn disordered(previous: i64, current: i64) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_what_is_wrong_is_said() {
        assert_eq!(parse("", 3), Ok(vec![]));
        assert_eq!(parse("0,2-4,9", 10), Ok(vec![(0, 0), (2, 4), (9, 9)]));
        let error = |list: &str| parse(list, 10).unwrap_err();
        assert_eq!(error("1,1"), "non-increasing order, previous: 1, current: 1");
        assert_eq!(error("3-2"), "non-increasing order, previous: 3, current: 2");
        assert_eq!(error("10"), "too large index: \"10\"");
        assert_eq!(error("x"), "cannot convert string to integer for index: \"x\"");
        assert!(error("1-2-3").starts_with("the fragment \"1-2-3\""));
    }

    #[test]
    fn the_first_common_index_is_found() {
        assert_eq!(overlap(&[(0, 1), (5, 7)], &[(2, 4), (6, 6)]), Some(6));
        assert_eq!(overlap(&[(0, 1)], &[(2, 4)]), None);
    }
}
