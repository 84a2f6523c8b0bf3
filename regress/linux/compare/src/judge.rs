// SPDX-License-Identifier: BSD-2-Clause

//! Has each script carried out on both sides, stage by stage, and compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use dm_script::compare::{self, Differences};
use dm_script::image::Image;
use dm_script::job::{self, Job, Part};
use dm_script::side::Side;
use dm_script::transcript::Transcript;
use dm_script::{Script, image};

use crate::guest::{Failed, Guest};
use crate::hosted::Hosted;
use crate::replay;

/// The time that a stage may take: far longer than on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The most differences of a script that are shown.
const MOST: usize = 25;

/// The options of a comparison.
#[derive(Args)]
pub struct Options {
    /// The guest's folder: its kernel and initramfs
    #[arg(long)]
    guest: PathBuf,
    /// A folder for jobs and images, which is emptied
    #[arg(long)]
    work: PathBuf,
    /// The list of differences that are meant to be
    #[arg(long)]
    differences: PathBuf,
    /// Only scripts that say `quick`
    #[arg(long)]
    quick: bool,
    /// The scripts are all there are: a difference on the list that none shows is a failure
    #[arg(long)]
    all: bool,
    /// Show what both sides said, also where it is the same
    #[arg(long, short)]
    verbose: bool,
    /// Scripts, or folders of them
    #[arg(required = true)]
    scripts: Vec<PathBuf>,
}

/// Carries out a job on our driver: a process for each, since a machine that fails takes its
/// process with it.
///
/// # Errors
/// Words.
pub fn hosted(job: &Path, work: &Path) -> Result<(), String> {
    let mut side = Hosted::boot()?;
    job::run(&mut side, &Job::at(job), work)
}

/// The scripts' files, those in folders by name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let found = entries.flatten().map(|entry| entry.path());
        let mut found: Vec<_> =
            found.filter(|path| path.extension().is_some_and(|e| e == "dm")).collect();
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// Runs and compares the scripts. `true` if there is no difference.
///
/// # Errors
/// Words, where nothing could be compared.
pub fn main(options: &Options) -> Result<bool, String> {
    let list = fs::read_to_string(&options.differences)
        .map_err(|error| format!("{}: {error}", options.differences.display()))?;
    let differences =
        Differences::parse(&list).map_err(|e| format!("{}: {e}", options.differences.display()))?;
    // All are read before anything is run.
    let mut scripts = Vec::new();
    for file in files(&options.scripts)? {
        let (script, text) = Script::read(&file)?;
        if script.quick || !options.quick {
            scripts.push((script, text));
        }
    }
    if scripts.is_empty() {
        return Err("there are no such scripts".into());
    }
    image::fresh_folder(&options.work)?;
    let ours = {
        let mut side = Hosted::boot()?;
        let targets = side.targets()?;
        side.detach()?;
        targets
    };
    let begun = Instant::now();
    let mut judge = Judge { options, differences, guest: None, boots: 0, used: Vec::new() };
    judge.guest()?;
    println!("Linux is up after {:.0} s", begun.elapsed().as_secs_f64());
    let (mut failed, mut skipped, mut steps) = (0, 0, 0);
    for (script, text) in &scripts {
        let linux = judge.guest()?.targets().to_vec();
        let lacks = |targets: &[String]| -> Vec<String> {
            script.needs.iter().filter(|need| !targets.contains(need)).cloned().collect()
        };
        let (theirs, own) = (lacks(&linux), lacks(&ours));
        if !theirs.is_empty() || !own.is_empty() {
            let (who, what) =
                if own.is_empty() { ("this Linux", theirs) } else { ("the driver", own) };
            println!("skipped  {:20} {who} has no {}", script.name, what.join(", "));
            skipped += 1;
            continue;
        }
        let begun = Instant::now();
        let count: usize = script.stages.iter().map(|stage| stage.steps.len()).sum();
        let found = judge.script(script, text)?;
        let (verdict, time) =
            (if found.is_empty() { "same" } else { "DIFFERS" }, begun.elapsed().as_secs_f64());
        println!("{verdict:8} {:20} {count:4} steps {time:6.1} s", script.name);
        found.iter().take(MOST).for_each(|found| println!("    {found}"));
        if let Some(more @ 1..) = found.len().checked_sub(MOST) {
            println!("    and {more} more");
        }
        failed += usize::from(!found.is_empty());
        steps += count;
    }
    if options.all && !options.quick && skipped == 0 {
        for unused in judge.differences.unused(&judge.used) {
            println!("no script shows this difference any more: {unused}");
            failed += 1;
        }
    }
    let ran = scripts.len() - skipped;
    println!(
        "{ran} scripts with {steps} steps compared in {:.0} s, {failed} differ, {skipped} skipped",
        begun.elapsed().as_secs_f64()
    );
    Ok(failed == 0)
}

struct Judge<'a> {
    options: &'a Options,
    differences: Differences,
    guest: Option<Guest>,
    boots: usize,
    used: Vec<usize>,
}

/// A stage that one side did not come through.
type Broken = String;

impl Judge<'_> {
    /// The guest, which is booted if there is none.
    fn guest(&mut self) -> Result<&mut Guest, String> {
        let guest = match self.guest.take() {
            Some(guest) => guest,
            None => {
                self.boots += 1;
                let work = &self.options.work;
                let console = work.join(format!("console.{}", self.boots));
                Guest::boot(&self.options.guest, work, &console)?
            }
        };
        Ok(self.guest.insert(guest))
    }

    /// Runs a script on both; what differs.
    fn script(&mut self, script: &Script, text: &str) -> Result<Vec<String>, String> {
        let work = self.options.work.join(&script.name);
        image::fresh_folder(&work)?;
        let first = Job::make(&work.join("first"), text, Part::Prepare)?;
        for disk in &script.disks {
            Image::new(disk).save(&first.input(&disk.name))?;
        }
        let mut found = Vec::new();
        // The folders of each side's images: Linux's, ours.
        let mut images = [image_paths(script, &first, false), image_paths(script, &first, false)];
        if !script.prepare.is_empty() {
            if let Err(why) = self.linux(script, "first")? {
                return Ok(vec![format!("prepare: {why}")]);
            }
            if let Some(why) = Transcript::parse(&first.transcript()).broken {
                return Ok(vec![format!("prepare: {why}")]);
            }
            images = [image_paths(script, &first, true), image_paths(script, &first, true)];
        }
        let [begin, _] = images.clone();
        for (number, stage) in script.stages.iter().enumerate() {
            let names = [format!("linux.{number}"), format!("ours.{number}")];
            let part = Part::Stage(number);
            let mut jobs = Vec::new();
            for (name, images) in names.iter().zip(&images) {
                let job = Job::make(&work.join(name), text, part)?;
                for (disk, image) in script.disks.iter().zip(images) {
                    copy(image, &job.input(&disk.name))?;
                }
                jobs.push(job);
            }
            let [linux, ours] = jobs.as_slice() else { return Err("two sides".into()) };
            let ends = [self.linux(script, &names[0])?, self.ours(&work, &names[1])?];
            for (side, end) in ["Linux", "we"].into_iter().zip(ends) {
                if let Err(why) = end {
                    found.push(format!("{side} failed in stage {number}: {why}"));
                }
            }
            let [theirs, own] = [linux, ours].map(|job| Transcript::parse(&job.transcript()));
            if self.options.verbose {
                show(script, &theirs, &own);
            }
            let verdict = compare::transcripts(script, &theirs, &own, &self.differences);
            self.used.extend(verdict.used);
            found.extend(verdict.found);
            if theirs.broken.is_some() {
                // Something may have stayed in that machine.
                self.guest = None;
            }
            if theirs.broken.is_some() || own.broken.is_some() {
                return Ok(found);
            }
            found.extend(compare::images(script, linux, ours)?);
            images = [image_paths(script, linux, true), image_paths(script, ours, true)];
            if stage.end.swap {
                images.reverse();
            }
        }
        if !script.check.is_empty() {
            for (side, images) in ["Linux", "we"].into_iter().zip(&images) {
                let name = format!("check.{side}");
                let job = Job::make(&work.join(&name), text, Part::Check)?;
                for (disk, image) in script.disks.iter().zip(images) {
                    copy(image, &job.input(&disk.name))?;
                }
                let end = self.linux(script, &name)?;
                let said = end.err().or(Transcript::parse(&job.transcript()).broken);
                found.extend(said.map(|why| format!("check of what {side} left: {why}")));
            }
        }
        for (side, images) in ["Linux", "we"].into_iter().zip(&images) {
            found.extend(replay::all(script, &begin, images, side)?);
        }
        if found.is_empty() {
            let _ = fs::remove_dir_all(&work);
        }
        Ok(found)
    }

    /// Has a job carried out by Linux.
    fn linux(&mut self, script: &Script, job: &str) -> Result<Result<(), Broken>, String> {
        let name = format!("{}/{job}", script.name);
        match self.guest()?.job(&name, LIMIT) {
            Ok(()) => Ok(Ok(())),
            Err(Failed::Said(why)) => Ok(Err(why)),
            Err(Failed::Gone(why)) => {
                self.guest = None;
                Ok(Err(why))
            }
        }
    }

    /// Carries out a job on our driver, in a process of its own.
    fn ours(&self, work: &Path, job: &str) -> Result<Result<(), Broken>, String> {
        let images = work.join(format!("{job}.work"));
        image::fresh_folder(&images)?;
        let log = work.join(format!("{job}.log"));
        let file = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg("hosted").arg(work.join(job)).arg(&images);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break Some(status),
                None if begun.elapsed() > LIMIT => break None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let said = || fs::read_to_string(&log).unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(Ok(())),
            Some(status) => Ok(Err(format!("{status}: {}", said()))),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Ok(Err(format!("not done in {} s: {}", LIMIT.as_secs(), said())))
            }
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(drop).map_err(|error| format!("{}: {error}", from.display()))
}

fn image_paths(script: &Script, job: &Job, after: bool) -> Vec<PathBuf> {
    let path = |name: &str| if after { job.output(name) } else { job.input(name) };
    script.disks.iter().map(|disk| path(&disk.name)).collect()
}

/// Prints what both sides said.
fn show(script: &Script, linux: &Transcript, ours: &Transcript) {
    for (theirs, own) in linux.entries.iter().zip(&ours.entries) {
        let text = script.step(theirs.line).map_or("", |step| step.text.as_str());
        println!("  {text}");
        if theirs.outcome == own.outcome {
            theirs.outcome.iter().for_each(|line| println!("      both:  {line}"));
        } else {
            theirs.outcome.iter().for_each(|line| println!("      Linux: {line}"));
            own.outcome.iter().for_each(|line| println!("      ours:  {line}"));
        }
        theirs.notes.iter().chain(&own.notes).for_each(|line| println!("           | {line}"));
    }
}
