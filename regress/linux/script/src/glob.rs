// SPDX-License-Identifier: BSD-2-Clause

//! Texts with `*` for any text, and `**` for any text that does not matter.

/// Matches `text` with `pattern`. The answer, if it matches, is the text that stood for each `*`, but not for `**`.
pub fn captures<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let Some((head, tail)) = pattern.split_once('*') else {
        return (pattern == text).then(Vec::new);
    };
    let rest = text.strip_prefix(head)?;
    let (matters, tail) = match tail.strip_prefix('*') {
        Some(tail) => (false, tail),
        None => (true, tail),
    };
    // The shortest text that lets the rest be as the pattern says.
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).find_map(|at| {
        let (taken, after) = rest.split_at(at);
        let mut all = if matters { vec![taken] } else { Vec::new() };
        all.extend(captures(tail, after)?);
        Some(all)
    })
}

#[cfg(test)]
mod tests {
    use super::captures;

    #[test]
    fn stars() {
        assert_eq!(captures("a b", "a b"), Some(vec![]));
        assert_eq!(captures("a b", "a c"), None);
        assert_eq!(captures("a * c *", "a b c d e"), Some(vec!["b", "d e"]));
        assert_eq!(captures("*", ""), Some(vec![""]));
        assert_eq!(captures("*9/10*", "0 8/10 9/10 x"), Some(vec!["0 8/10 ", " x"]));
        assert_eq!(captures("*a", "b"), None);
        assert_eq!(captures("event=** *", "event=12 x"), Some(vec!["x"]));
    }
}
