// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask lvm2-tests`: LVM2's own test scripts, on this driver.
//!
//! They are GPL, and not here: the user names a copy, LVM2's source tree at the version of the
//! tools that are installed. What is expected of each script that was looked into stands in
//! `regress/linux/tools/lvm2.list`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::setup::{self, Need};
use crate::sh::{self, Result};

/// The time that a script may take.
const LIMIT: Duration = Duration::from_secs(2400);

/// The outcome of a script, or the one that is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Pass,
    Fail,
    Skip,
}

impl Outcome {
    fn parse(word: &str) -> Option<Outcome> {
        match word {
            "pass" => Some(Outcome::Pass),
            "fail" => Some(Outcome::Fail),
            "skip" => Some(Outcome::Skip),
            _ => None,
        }
    }
}

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    outcome: Outcome,
    reason: String,
}

/// `cargo xtask lvm2-tests --lvm2-tests DIR [NAME]...`
pub fn main(args: &[String]) -> Result<()> {
    let (mut folder, mut names) = (None, Vec::new());
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--lvm2-tests" => {
                folder = Some(PathBuf::from(words.next().ok_or("--lvm2-tests wants a folder")?));
            }
            name if name.starts_with('-') => return Err(format!("no option called `{name}`")),
            name => names.push(name.trim_end_matches(".sh").to_owned()),
        }
    }
    let folder = folder.ok_or(
        "name a copy of LVM2's sources, of the version that `lvm version` tells: \
         --lvm2-tests DIR",
    )?;
    let list = sh::read(&sh::root().join("regress/linux/tools/lvm2.list"))?;
    let expected = parse(&list)?;
    if names.is_empty() {
        names = expected.keys().cloned().collect();
    }
    setup::ensure(&[Need::Hosted, Need::LinuxTools])?;
    sh::run(sh::cargo().args(["build", "--package", "dm-host", "--package", "dm-shim"]))?;
    let suite = prepare(&folder)?;
    let mut wrong = Vec::new();
    let mut counts = [0; 3];
    for name in &names {
        let script = suite.join("shell").join(format!("{name}.sh"));
        if !script.is_file() {
            return Err(format!("{} is not there", script.display()));
        }
        let began = Instant::now();
        let (outcome, how) = run(&suite, name)?;
        let seconds = began.elapsed().as_secs();
        counts[outcome as usize] += 1;
        let known = expected.get(name);
        let remark = match known {
            Some(known) if known.outcome == outcome => known.reason.clone(),
            Some(known) => {
                wrong.push(name.clone());
                format!("expected: {:?}, {}", known.outcome, known.reason)
            }
            None => "not in the list".into(),
        };
        println!("{name:32} {outcome:?} in {seconds} s{how}  {remark}");
    }
    let [passed, failed, skipped] = counts;
    println!("\n{passed} passed, {failed} failed, {skipped} skipped; logs: {}", logs().display());
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("not as expected: {}", wrong.join(" "))),
    }
}

/// Reads the list of expected outcomes: a name, the outcome, and the reason.
fn parse(text: &str) -> Result<BTreeMap<String, Expected>> {
    let mut all = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let cut = |text: &'_ str| -> (String, String) {
            let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            (word.to_owned(), rest.trim().to_owned())
        };
        let (name, rest) = cut(line);
        let (outcome, reason) = cut(&rest);
        let outcome = Outcome::parse(&outcome);
        let outcome = outcome.ok_or(format!("lvm2.list:{number}: pass, fail or skip?"))?;
        if outcome != Outcome::Pass && reason.is_empty() {
            return Err(format!("lvm2.list:{number}: why?"));
        }
        if all.insert(name, Expected { outcome, reason }).is_some() {
            return Err(format!("lvm2.list:{number}: a second time"));
        }
    }
    Ok(all)
}

fn logs() -> PathBuf {
    sh::target_dir().join("lvm2-testsuite/log")
}

/// Lays the suite out as its installation would, in target/. What its wrapper of lvm(8) calls is the
/// one that is in no folder with `lvm2-testsuite` in its name.
fn prepare(from: &Path) -> Result<PathBuf> {
    let from = [from.join("test"), from.to_path_buf()]
        .into_iter()
        .find(|folder| folder.join("shell").is_dir() && folder.join("lib/inittest.sh").is_file())
        .ok_or_else(|| format!("{} has no test/shell and test/lib of LVM2's", from.display()))?;
    let suite = sh::target_dir().join("lvm2-testsuite/suite");
    if suite.exists() {
        fs::remove_dir_all(&suite).map_err(|e| format!("{}: {e}", suite.display()))?;
    }
    let (lib, shell) = (suite.join("lib"), suite.join("shell"));
    for folder in [&lib, &shell, &logs(), &suite.join("run")] {
        sh::mkdir(folder)?;
    }
    for (folder, to) in [("lib", &lib), ("shell", &shell)] {
        let entries = fs::read_dir(from.join(folder)).map_err(|e| e.to_string())?;
        for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let new = if folder == "lib" { name.trim_end_matches(".sh") } else { &name };
            let new = to.join(new);
            sh::copy(&entry.path(), &new)?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&new, mode).map_err(|e| format!("{}: {e}", new.display()))?;
        }
    }
    let mut cc = sh::command("clang");
    sh::run(cc.args(["-w", "-O1", "-o"]).arg(lib.join("not")).arg(lib.join("not.c")))?;
    let link = |to: &str, name: &str| {
        symlink(to, lib.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    for name in ["invalid", "fail", "should"] {
        link("not", name)?;
    }
    for name in commands()? {
        link("lvm-wrapper", &name)?;
    }
    let tools = ["check", "dump", "repair", "restore"];
    let mut paths = String::from(
        "installed_testsuite=1\nDM_UDEV_SYNCHRONISATION=\nDMEVENTD_PIDFILE=/run/dmeventd.pid\n",
    );
    for kind in ["thin", "cache"] {
        for tool in tools {
            paths += &format!(
                "LVM_TEST_{0}_{1}_CMD=${{LVM_TEST_{0}_{1}_CMD-/usr/sbin/{kind}_{tool}}}\n\
                 export LVM_TEST_{0}_{1}_CMD\n",
                kind.to_uppercase(),
                tool.to_uppercase()
            );
        }
    }
    paths += "export DM_UDEV_SYNCHRONISATION\n";
    sh::write(&lib.join("paths"), paths)?;
    // The versions that its first script looks for: those of the tools that are there.
    let version = sh::output(sh::command("lvm").args(["pvmove", "--version"]))?;
    sh::write(&lib.join("version-expected"), first_number(&version)?)?;
    let version = sh::output(sh::command("dmsetup").arg("--version"))?;
    sh::write(&lib.join("dm-version-expected"), first_number(&version)?)?;
    Ok(suite)
}

/// The version in a tool's first line, behind a colon.
fn first_number(text: &str) -> Result<String> {
    let line = text.lines().next().unwrap_or_default();
    let version = line.split(':').nth(1).and_then(|rest| rest.split_whitespace().next());
    version.map(|version| format!("{version}\n")).ok_or_else(|| format!("no version in `{line}`"))
}

/// The commands of lvm(8), by name.
fn commands() -> Result<Vec<String>> {
    let help = sh::command("lvm").arg("help").env("LC_ALL", "C").output();
    let help = help.map_err(|error| format!("lvm: {error}"))?;
    let text =
        String::from_utf8_lossy(&help.stdout).into_owned() + &String::from_utf8_lossy(&help.stderr);
    let line = |line: &str| {
        let name = line.strip_prefix("  ")?.split_whitespace().next()?;
        let command = ["pv", "vg", "lv"].iter().any(|kind| name.starts_with(kind));
        command.then(|| name.to_owned())
    };
    let mut names: Vec<String> = text.lines().filter_map(line).collect();
    names.push("lvm".into());
    names.sort();
    names.dedup();
    match names.len() > 20 {
        true => Ok(names),
        false => Err("`lvm help` tells no commands".into()),
    }
}

/// Runs a script in a session of its own.
fn run(suite: &Path, name: &str) -> Result<(Outcome, String)> {
    let log = logs().join(name);
    let file = fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let other = file.try_clone().map_err(|e| e.to_string())?;
    let lib = suite.join("lib");
    let path =
        format!("{}:{}:/usr/sbin:/sbin", lib.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(sh::target_dir().join("debug/dm-host"));
    command.args(["linux", "--", "bash"]).arg(format!("shell/{name}.sh")).current_dir(suite);
    command.env("PATH", path).env("LVM_TEST_FLAVOUR", "ndev-vanilla");
    command.env("LVM_TEST_PREFER_BRD", "0").env("LVM_TEST_DIR", suite.join("run"));
    command.stdin(Stdio::null()).stdout(file).stderr(other);
    let mut child = command.spawn().map_err(|error| format!("dm-host: {error}"))?;
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(match status.code() {
                Some(0) => (Outcome::Pass, String::new()),
                Some(200) => (Outcome::Skip, String::new()),
                _ => (Outcome::Fail, String::new()),
            });
        }
        if Instant::now() > until {
            // The next session clears up what this one leaves.
            child.kill().map_err(|error| error.to_string())?;
            child.wait().map_err(|error| error.to_string())?;
            return Ok((Outcome::Fail, ", given up".into()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_well_formed() {
        let list = sh::read(&sh::root().join("regress/linux/tools/lvm2.list")).unwrap();
        assert!(!parse(&list).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list() {
        let two = parse("a   pass\n# b\n\nc\tskip  no disk\n").unwrap();
        assert_eq!((two.len(), two["c"].reason.as_str()), (2, "no disk"));
        for text in ["a", "a maybe", "a fail", "a skip  ", "a pass\na pass"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
