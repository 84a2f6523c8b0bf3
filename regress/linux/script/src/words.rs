// SPDX-License-Identifier: BSD-2-Clause

//! A line's words: separated by blanks, quoted where they hold some, `"…"*N` for N times the text.

/// Splits a line into words. A `#` where a word could begin ends the line.
///
/// # Errors
/// A quote that does not end, or a repetition that is none.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quote(quoted)?,
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                (word.to_owned(), after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// The word behind a quote, and what follows it.
fn quote(text: &str) -> Result<(String, &str), String> {
    let mut word = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next() {
            None => return Err("a quote does not end".into()),
            Some((at, '"')) => {
                let after = text.get(at + 1..).unwrap_or_default();
                let Some(times) = after.strip_prefix('*') else { return Ok((word, after)) };
                let end = times.find(|c: char| !c.is_ascii_digit()).unwrap_or(times.len());
                let (count, after) = times.split_at(end);
                let count: usize = count.parse().map_err(|_| "how many times?".to_owned())?;
                return match count.checked_mul(word.len()) {
                    Some(len) if len <= 1 << 20 => Ok((word.repeat(count), after)),
                    _ => Err("too many times".into()),
                };
            }
            Some((_, '\\')) => match chars.next() {
                Some((_, 'n')) => word.push('\n'),
                Some((_, c)) => word.push(c),
                None => return Err("a quote does not end".into()),
            },
            Some((_, c)) => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_and_quotes() {
        assert_eq!(split(" a  b\tc # d").unwrap(), ["a", "b", "c"]);
        assert_eq!(split(r#""a b" "" "\"\\" x#y"#).unwrap(), ["a b", "", "\"\\", "x#y"]);
        assert_eq!(split(r#"create "ab"*3"#).unwrap(), ["create", "ababab"]);
        assert!(split("\"a").is_err());
        assert!(split("\"a\"*x").is_err());
        assert!(split("\"a\"*99999999999").is_err());
    }
}
