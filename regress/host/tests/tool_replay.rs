// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host replay-log`: logs that QEMU and our own log-writes wrote, replayed to any point; refusals.

mod tool;

use std::fs;
use std::path::Path;

use tool::{Folder, Server, program, run, tool};

const SIZE: usize = 1 << 20;

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn replay(args: &[&str], paths: &[&Path]) -> tool::Done {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let mut all = vec!["replay-log"];
    all.extend(paths.iter().map(String::as_str));
    all.extend(args);
    tool(&all, "")
}

/// Has qemu-io write to `disk` with a log, in these commands.
fn qemu(disk: &Path, log: &Path, sector: u32, commands: &[&str]) {
    let mut qemu = program("qemu-io");
    let image = format!(
        "driver=blklogwrites,file.driver=file,file.filename={},log.driver=file,log.filename={},\
         file.discard=unmap,discard=unmap,log-sector-size={sector}",
        disk.display(),
        log.display()
    );
    qemu.args(["--image-opts", &image]);
    for command in commands {
        qemu.args(["-c", command]);
    }
    let done = run(&mut qemu, "");
    assert_eq!(done.code, 0, "{done:?}");
}

const COMMANDS: &[&str] = &[
    "write -P 0x11 4096 8192",
    "write -P 0x22 65536 4096",
    "flush",
    "write -f -P 0x33 8192 4096",
    "discard 65536 65536",
    "write -z 0 4096",
    "flush",
];

/// The entries that come of them, and what each leaves: a range and a byte. Where flushes are depends
/// on QEMU's version.
const CHANGES: [(&str, usize, usize, u8); 5] = [
    ("            8           23  write", 4096, 8192, 0x11),
    ("          128          135  write", 65536, 4096, 0x22),
    ("           16           23  write", 8192, 4096, 0x33),
    ("          128          255  discard", 65536, 65536, 0),
    ("            0            7  write", 0, 4096, 0),
];

/// The disk before the first entry and after each, by the list of the log.
fn states(before: &[u8], listed: &str) -> Vec<Vec<u8>> {
    let mut states = vec![before.to_vec()];
    let mut changes = CHANGES.iter();
    for (number, line) in (1..).zip(listed.lines().skip(3)) {
        let mut state = states.last().unwrap().clone();
        let (at, what) = line.split_at(8);
        assert_eq!(at.trim().parse(), Ok(number), "{line}");
        if what.trim() != "flush" {
            let (kind, at, length, byte) = changes.next().expect("no more entries");
            assert_eq!(what, *kind);
            state[*at..at + length].fill(*byte);
        }
        states.push(state);
    }
    assert_eq!(changes.next(), None);
    assert!(listed.contains("flush"));
    states
}

/// A log of QEMU's, of any sector size, gives each of the disk's states.
#[test]
fn what_qemu_logged_comes_back() {
    for sector in [512, 4096] {
        let folder = Folder::new();
        let (disk, log, copy) = (folder.path("disk"), folder.path("log"), folder.path("copy"));
        let before: Vec<u8> = (0..SIZE).map(|n| (n / 512) as u8 | 0x80).collect();
        fs::write(&disk, &before).unwrap();
        fs::write(&log, []).unwrap();
        qemu(&disk, &log, sector, COMMANDS);
        let listed = replay(&["--list"], &[&log]).ok();
        let states = states(&before, &listed);
        let count = states.len() - 1;
        let head = format!("{count} entries, sectors of {sector} bytes\n");
        assert!(listed.starts_with(&head), "{listed}");
        assert!(bytes(&disk) == *states.last().unwrap(), "the disk is not as it was written");
        for (number, state) in states.iter().enumerate() {
            fs::write(&copy, &before).unwrap();
            replay(&["--entry", &number.to_string()], &[&log, &copy]).ok();
            assert!(bytes(&copy) == *state, "after entry {number}");
        }
        // On from there, step by step: the log is applied once in all.
        fs::write(&copy, &before).unwrap();
        for (number, state) in states.iter().enumerate().skip(1) {
            let args = ["--after", &(number - 1).to_string(), "--entry", &number.to_string()];
            replay(&args, &[&log, &copy]).ok();
            assert!(bytes(&copy) == *state, "after entry {number}, from the one before");
        }
        fs::write(&copy, &before).unwrap();
        let said = replay(&["--no-discard"], &[&log, &copy]).ok();
        let which = format!("entries 1 to {count} of {count}");
        assert_eq!(said, format!("replayed {which}: 4 writes of 40 sectors\n"));
        assert_eq!(bytes(&copy)[65536..69632], [0x22; 4096]);
    }
}

/// A served machine with a log; marks by message.
#[test]
fn what_our_target_logged_comes_back() {
    let folder = Folder::new();
    let (disk, log) = (folder.disk("disk", 2048), folder.disk("log", 8192));
    let copy = folder.disk("copy", 2048);
    let disks = [format!("wd0={}", disk.display()), format!("wd1={}", log.display())];
    let server = Server::on(folder, &disks, &[]);
    server.ctl_with(&["create", "d"], "0 2048 log-writes /dev/wd0 /dev/wd1").ok();
    let uri = server.uri("d");
    let io = |commands: &[&str]| {
        let mut qemu = program("qemu-io");
        qemu.args(["-f", "raw", &uri]);
        commands.iter().for_each(|command| {
            qemu.args(["-c", command]);
        });
        let done = run(&mut qemu, "");
        assert_eq!(done.code, 0, "{done:?}");
    };
    io(&["write -P 0x11 4096 8192", "flush"]);
    server.ctl(&["message", "d", "0", "mark one"]).ok();
    let mut states = vec![bytes(&disk)];
    io(&["write -P 0x22 8192 512", "write -f -P 0x33 65536 65536", "flush"]);
    server.ctl(&["message", "d", "0", "mark two"]).ok();
    states.push(bytes(&disk));
    io(&["write -P 0x44 0 1M", "flush"]);
    server.ctl(&["remove", "--retry", "d"]).ok();
    states.push(bytes(&disk));
    assert!(states.windows(2).all(|two| two[0] != two[1]));
    for (mark, state) in ["one", "two", "dm-log-writes-end"].iter().zip(&states) {
        fs::write(&copy, vec![0; SIZE]).unwrap();
        replay(&["--to", mark], &[&log, &copy]).ok();
        assert!(bytes(&copy) == *state, "as of {mark}");
    }
    let said = replay(&["--to", "three"], &[&log, &copy]).fails(2);
    let marks = "there are `one`, `two`, `dm-log-writes-end`";
    assert_eq!(said, format!("dm-host: {}: there is no mark `three`; {marks}\n", log.display()));
    let listed = replay(&["--list", "--json"], &[&log]).ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let entries = listed["log"].as_array().unwrap().iter();
    let marks: Vec<_> = entries.filter_map(|entry| entry["mark"].as_str()).collect();
    assert_eq!(marks, ["one", "two", "dm-log-writes-end"]);
    server.end();
}

#[test]
fn what_cannot_be_replayed_is_refused_and_nothing_written() {
    let folder = Folder::new();
    let (disk, log) = (folder.path("disk"), folder.path("log"));
    fs::write(&disk, vec![0; SIZE]).unwrap();
    fs::write(&log, []).unwrap();
    qemu(&disk, &log, 512, COMMANDS);
    let small = folder.disk("small", 255);
    let refused = |args: &[&str], paths: &[&Path], why: &str| {
        let said = replay(args, paths).fails(2);
        let said = said.trim_end().strip_prefix("dm-host: ").unwrap().to_owned();
        let last = paths.iter().rev().find(|path| said.starts_with(&*path.to_string_lossy()));
        let last = last.unwrap_or_else(|| panic!("{said}")).display();
        assert_eq!(said, format!("{last}: {why}"));
    };
    let listed = replay(&["--list"], &[&log]).ok();
    let count = listed.lines().count() - 3;
    let (more, why) =
        ((count + 1).to_string(), format!("there is no entry {}: the log has {count}", count + 1));
    refused(&["--entry", &more], &[&log, &disk], &why);
    refused(&["--after", &more], &[&log, &disk], &why);
    let order = "entry 2 does not come after entry 3";
    refused(&["--entry", "2", "--after", "3"], &[&log, &disk], order);
    refused(&["--to", "a\nb"], &[&log, &disk], "there is no mark `a\\x0ab`, nor any other");
    let room = "it has 255 sectors, and the log writes up to sector 255";
    refused(&[], &[&log, &small], room);
    assert_eq!(bytes(&small), vec![0; 255 * 512]);
    refused(&[], &[&log, &log], "the log cannot be replayed to itself");
    refused(&[], &[&disk, &small], "it is no log of writes: it does not begin as one");
    let missing = folder.path("missing");
    refused(
        &[],
        &[&log, &missing],
        "No such file or directory (os error 2); it has to hold what the disk held before: \
         `truncate -s SIZE` makes one of zeroes",
    );
    // The last write's data are cut off: what comes before them is not written either.
    let last = listed.lines().rfind(|line| line.ends_with("write")).unwrap();
    let last: usize = last.split_whitespace().next().unwrap().parse().unwrap();
    let cut = folder.path("cut");
    let whole = bytes(&log);
    fs::write(&cut, &whole[..whole.len() - 512 * (1 + count - last)]).unwrap();
    let large = folder.disk("large", 2048);
    let why = format!("entry {last} has data beyond the end of the log");
    refused(&[], &[&cut, &large], &why);
    assert_eq!(bytes(&large), vec![0; SIZE]);
    replay(&["--entry", &(last - 1).to_string()], &[&cut, &large]).ok();
    let qcow = folder.path("qcow");
    let make = ["create", "-q", "-f", "qcow2", &qcow.display().to_string(), "1M"];
    assert_eq!(run(program("qemu-img").args(make), "").code, 0);
    refused(&[], &[&log, &qcow], "it is a qcow2 image, not a raw image");
    refused(&[], &[&qcow, &disk], "it is a qcow2 image, and no log of writes; a log is raw");
    assert!(tool(&["replay-log", &log.display().to_string()], "").err.contains("<DISK>"));
}
