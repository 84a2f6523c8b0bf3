// SPDX-License-Identifier: BSD-2-Clause

//! The transcript of a stage on one side: for each step an outcome of some lines.
//!
//! As text, a step begins with `@LINE`; `>` begins a line of its outcome, `|` one that is not
//! compared, `!` the end of a stage that could not go on.

/// A stage's outcomes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transcript {
    /// A step each, in order.
    pub entries: Vec<Entry>,
    /// Why the stage could not go on.
    pub broken: Option<String>,
}

/// A step's outcome.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// The step's line in the script.
    pub line: usize,
    /// The lines that are compared.
    pub outcome: Vec<String>,
    /// The lines that are not compared.
    pub notes: Vec<String>,
}

impl Entry {
    /// The transcript as text.
    pub fn print(&self) -> String {
        let mut out = format!("@{}\n", self.line);
        let marked = [(">", &self.outcome), ("|", &self.notes)];
        for (mark, lines) in marked {
            lines.iter().for_each(|line| out.push_str(&format!("{mark}{}\n", one_line(line))));
        }
        out
    }
}

/// A text as one line: what would not be seen is escaped.
pub fn one_line(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// The last line of a transcript that is whole.
pub const END: &str = ".\n";

impl Transcript {
    /// Reads the text; one that does not end as it should is broken.
    pub fn parse(text: &str) -> Transcript {
        let mut transcript = Transcript::default();
        let mut whole = false;
        for line in text.lines() {
            let (mark, rest) = match line.char_indices().nth(1) {
                Some((at, _)) => line.split_at(at),
                None => (line, ""),
            };
            let last = transcript.entries.last_mut();
            match (mark, last) {
                ("@", _) => {
                    let line = rest.parse().unwrap_or(0);
                    transcript.entries.push(Entry { line, ..Entry::default() });
                }
                (">", Some(entry)) => entry.outcome.push(rest.to_owned()),
                ("|", Some(entry)) => entry.notes.push(rest.to_owned()),
                ("!", _) => transcript.broken = Some(rest.to_owned()),
                (".", _) => whole = true,
                _ => transcript.broken = Some(format!("not a transcript's line: {line}")),
            }
        }
        if !whole && transcript.broken.is_none() {
            let line = transcript.entries.last().map_or(0, |entry| entry.line);
            transcript.broken = Some(format!("it ended in or after the step of line {line}"));
        }
        transcript
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let entry = |line, outcome: &[&str], notes: &[&str]| Entry {
            line,
            outcome: outcome.iter().map(|l| (*l).to_owned()).collect(),
            notes: notes.iter().map(|l| (*l).to_owned()).collect(),
        };
        let entries = vec![entry(3, &["ok", "0 8 zero "], &[]), entry(5, &["EIO"], &["said"])];
        let text: String = entries.iter().map(Entry::print).collect();
        let whole = Transcript::parse(&format!("{text}{END}"));
        assert_eq!(whole, Transcript { entries, broken: None });
        assert!(Transcript::parse(&text).broken.unwrap().contains("line 5"));
        assert_eq!(Transcript::parse("!no\n").broken.as_deref(), Some("no"));
        let odd = entry(1, &["a\nb"], &[]).print();
        assert_eq!(Transcript::parse(&odd).entries[0].outcome, ["a\\nb"]);
    }
}
