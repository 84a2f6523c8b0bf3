// SPDX-License-Identifier: BSD-2-Clause

//! Holds what two sides said and left against each other.

use crate::image::Image;
use crate::job::Job;
use crate::script::{Rule, Script};
use crate::transcript::Transcript;
use crate::words;

/// Differences that are meant to be, in any script: `regress/linux/differences`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Differences(Vec<(String, Rule)>);

/// The result of a comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// The differences, in words.
    pub found: Vec<String>,
    /// The rules of [`Differences`] that were used, by their place.
    pub used: Vec<usize>,
}

impl Differences {
    /// Reads the list: `VERB "LINUX" "OURS" REASON` in each line.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Differences, String> {
        let mut rules = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words = words::split(line).map_err(|why| format!("line {number}: {why}"))?;
            match words.as_slice() {
                [] => {}
                [verb, linux, ours, reason @ ..] if !reason.is_empty() => {
                    let (linux, ours) = (linux.clone(), ours.clone());
                    rules.push((verb.clone(), Rule { linux, ours, reason: reason.join(" ") }));
                }
                _ => return Err(format!("line {number}: VERB \"LINUX\" \"OURS\" REASON")),
            }
        }
        Ok(Differences(rules))
    }

    /// The rules that no comparison used, in words.
    pub fn unused(&self, used: &[usize]) -> Vec<String> {
        let unused = self.0.iter().enumerate().filter(|(at, _)| !used.contains(at));
        unused.map(|(_, (verb, rule))| format!("{verb} {} {}", rule.linux, rule.ours)).collect()
    }

    fn allows(&self, verb: &str, linux: &str, ours: &str) -> Option<usize> {
        self.0.iter().position(|(of, rule)| of == verb && rule.allows(linux, ours))
    }
}

/// The text for a line that one side lacks.
const NOTHING: &str = "(nothing)";

/// Compares the transcripts of the two sides.
pub fn transcripts(
    script: &Script,
    linux: &Transcript,
    ours: &Transcript,
    differences: &Differences,
) -> Verdict {
    let mut verdict = Verdict::default();
    for (side, transcript) in [("Linux", linux), ("we", ours)] {
        if let Some(why) = &transcript.broken {
            verdict.found.push(format!("{side} could not go on: {why}"));
        }
    }
    for (theirs, own) in linux.entries.iter().zip(&ours.entries) {
        if theirs.line != own.line {
            verdict.found.push(format!("line {} against line {}", theirs.line, own.line));
            break;
        }
        let step = script.step(theirs.line);
        let text = step.map_or("", |step| step.text.as_str());
        let verb = text.split_whitespace().next().unwrap_or_default();
        let rules = step.map_or(&[][..], |step| &step.differs);
        let mut needed = vec![false; rules.len()];
        for at in 0..theirs.outcome.len().max(own.outcome.len()) {
            let line = |outcome: &[String]| outcome.get(at).cloned().unwrap_or(NOTHING.into());
            let (a, b) = (line(&theirs.outcome), line(&own.outcome));
            if a == b {
                continue;
            }
            if let Some(rule) = rules.iter().position(|rule| rule.allows(&a, &b)) {
                needed[rule] = true;
            } else if let Some(rule) = differences.allows(verb, &a, &b) {
                verdict.used.push(rule);
            } else {
                let place = format!("line {}: {text}", theirs.line);
                verdict.found.push(format!("{place}\n      Linux: {a}\n      ours:  {b}"));
            }
        }
        for (rule, _) in rules.iter().zip(&needed).filter(|(_, needed)| !**needed) {
            verdict.found.push(format!(
                "line {}: {text}\n      no such difference: {} | {}",
                theirs.line, rule.linux, rule.ours
            ));
        }
    }
    if linux.entries.len() != ours.entries.len() && verdict.found.is_empty() {
        let counts = (linux.entries.len(), ours.entries.len());
        verdict.found.push(format!("Linux took {} steps, we {}", counts.0, counts.1));
    }
    verdict
}

/// Compares the disks that the two sides left.
///
/// # Errors
/// Words, if an image cannot be read.
pub fn images(script: &Script, linux: &Job, ours: &Job) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for disk in script.disks.iter().filter(|disk| !disk.private) {
        let theirs = Image::load(&linux.output(&disk.name))?;
        let own = Image::load(&ours.output(&disk.name))?;
        if let Some(how) = theirs.difference(&own) {
            found.push(format!("disk {}: {how}", disk.name));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
