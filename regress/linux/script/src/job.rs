// SPDX-License-Identifier: BSD-2-Clause

//! A job: one stage of a script for one side, in a folder.
//!
//! | file | what |
//! |---|---|
//! | `script` | the script's text |
//! | `part` | `prepare`, `check` or the number of a stage, from 0 |
//! | `in/NAME` | the disks' images at the beginning ([`Image`]) |
//! | `out/NAME` | the images at the end |
//! | `out/transcript` | what was said |

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::image::{self, Image};
use crate::run::Runner;
use crate::script::{Action, End, Script, Step};
use crate::side::Side;
use crate::transcript::{END, Entry, one_line};

/// A part of a script that a side carries out in one go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The commands before the first stage.
    Prepare,
    /// A stage, from 0.
    Stage(usize),
    /// The commands behind the last stage.
    Check,
}

impl Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Prepare => f.write_str("prepare"),
            Part::Stage(number) => write!(f, "{number}"),
            Part::Check => f.write_str("check"),
        }
    }
}

/// A job's folder.
pub struct Job(PathBuf);

impl Job {
    /// The job in that folder.
    pub fn at(folder: &Path) -> Job {
        Job(folder.to_path_buf())
    }

    /// Makes a folder for a job.
    ///
    /// # Errors
    /// Words.
    pub fn make(folder: &Path, script: &str, part: Part) -> Result<Job, String> {
        image::fresh_folder(folder)?;
        image::fresh_folder(&folder.join("in"))?;
        image::fresh_folder(&folder.join("out"))?;
        let put = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).map_err(|e| format!("{name}: {e}"))
        };
        put("script", script)?;
        put("part", &part.to_string())?;
        Ok(Job(folder.to_path_buf()))
    }

    /// A disk's image at the beginning.
    pub fn input(&self, disk: &str) -> PathBuf {
        self.0.join("in").join(disk)
    }

    /// A disk's image at the end.
    pub fn output(&self, disk: &str) -> PathBuf {
        self.0.join("out").join(disk)
    }

    /// The transcript's text, as far as it was written.
    pub fn transcript(&self) -> String {
        let bytes = std::fs::read(self.0.join("out/transcript")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn text(&self, name: &str) -> Result<String, String> {
        std::fs::read_to_string(self.0.join(name)).map_err(|e| format!("{name}: {e}"))
    }

    fn part(&self) -> Result<Part, String> {
        Ok(match self.text("part")?.trim() {
            "prepare" => Part::Prepare,
            "check" => Part::Check,
            number => Part::Stage(number.parse().map_err(|_| format!("no part {number}"))?),
        })
    }
}

/// Carries out a job. `work` is an empty folder for the images in use. Failures are in the transcript.
///
/// # Errors
/// Words, if there is no transcript.
pub fn run<S: Side>(side: &mut S, job: &Job, work: &Path) -> Result<(), String> {
    let path = job.0.join("out/transcript");
    let mut out = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let said = match perform(side, job, work, &mut out) {
        Ok(()) => END.to_owned(),
        Err(why) => format!("!{}\n", one_line(&why)),
    };
    out.write_all(said.as_bytes()).map_err(|e| e.to_string())
}

fn perform<S: Side>(side: &mut S, job: &Job, work: &Path, out: &mut File) -> Result<(), String> {
    let script = Script::parse("script", &job.text("script")?)?;
    for disk in &script.disks {
        let file = work.join(&disk.name);
        Image::load(&job.input(&disk.name))?.to_disk(&file)?;
        side.attach(disk, &file)?;
    }
    let shell = |commands: &[String]| -> Vec<Step> {
        let step = |(line, command): (usize, &String)| Step {
            line,
            text: command.clone(),
            action: Action::Shell(command.clone()),
            differs: Vec::new(),
        };
        (1..).zip(commands).map(step).collect()
    };
    let nothing = End { swap: false, crash: false };
    let (steps, end) = match job.part()? {
        Part::Prepare => (shell(&script.prepare), nothing),
        Part::Check => (shell(&script.check), nothing),
        Part::Stage(number) => {
            let stage = script.stages.get(number).ok_or("no such stage")?;
            (stage.steps.clone(), stage.end)
        }
    };
    let mut tell = |text: &str| out.write_all(text.as_bytes()).map_err(|e| e.to_string());
    let mut runner = Runner::new(side, work.to_path_buf());
    let mut result = Ok(());
    for step in &steps {
        // Its line first, so that it is known in which step a machine dies.
        let mut entry = Entry { line: step.line, ..Entry::default() };
        tell(&entry.print())?;
        match runner.step(step) {
            Ok((outcome, notes)) => {
                (entry.outcome, entry.notes) = (outcome, notes);
                entry.notes.extend(runner.said());
                tell(entry.print().split_once('\n').map_or("", |(_, said)| said))?;
            }
            Err(why) => {
                result = Err(format!("line {}: {}: {why}", step.line, step.text));
                break;
            }
        }
    }
    let save = || {
        let save = |name: &str| Image::from_disk(&work.join(name))?.save(&job.output(name));
        script.disks.iter().try_for_each(|disk| save(&disk.name))
    };
    if end.crash {
        save()?;
    }
    let ended = runner.end();
    let left = side.detach();
    if !end.crash {
        save()?;
    }
    result.and(ended).and(left)
}
