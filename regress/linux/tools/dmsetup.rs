// SPDX-License-Identifier: BSD-2-Clause

//! dmsetup(8): all commands and output formats, without block devices, so that every user can run the test.

use crate::session::{Disks, has};

/// A script in a session without block devices.
fn script(text: &str) -> String {
    let disks = Disks::new(4);
    let done = disks.script_with(&["--no-blocks"], text);
    assert_eq!(done.code, 0, "{done:?}");
    // The driver's console lines, which Linux would put into its log, are on standard error.
    let strange = done.err.lines().find(|line| !line.starts_with("dm"));
    assert_eq!(strange, None, "{done:?}");
    done.out
}

/// Runs commands that fail as [`script`] does. The answer is their exit codes and complaints.
fn refusals(commands: &[&str]) -> String {
    let text: String =
        commands.iter().map(|command| format!("{command} 2>&1 && echo taken || true\n")).collect();
    script(&text)
}

#[test]
fn versions_and_targets() {
    if !has(&["dmsetup"]) {
        return;
    }
    let out = script("dmsetup version; dmsetup targets; dmsetup target-version linear");
    assert!(out.contains("Driver version:    4.45.0\n"), "{out}");
    for target in ["linear ", "striped ", "zero ", "error "] {
        let line = out.lines().find(|line| line.starts_with(target)).expect(target);
        let version = line.rsplit('v').next().expect("a version");
        assert_eq!(version.split('.').count(), 3, "{line}");
    }
}

#[test]
fn a_device_and_the_forms_of_its_description() {
    if !has(&["dmsetup"]) {
        return;
    }
    let out = script(
        "echo == none; dmsetup ls; dmsetup info
         printf '0 1024 linear /dev/wd0 8\\n1024 512 striped 2 64 /dev/wd0 2048 /dev/wd1 0\\n1536 8 error\\n1544 8 zero\\n' |
             dmsetup create one --uuid U-1
         echo == table; dmsetup table one; dmsetup table --target zero
         echo == status; dmsetup status; dmsetup status one --target striped
         echo == info; dmsetup info one
         echo == columns; dmsetup info -c --noheadings -o name,uuid,open,segments,events,attr one
         echo == ls; dmsetup ls; dmsetup ls -o blkdevname; dmsetup ls --target error
         echo == uuid; dmsetup info -c --noheadings -o name -u U-1
         echo == concise; dmsetup table --concise one",
    );
    let part = |name: &str| {
        let start = out.split_once(&format!("== {name}\n")).expect(name).1;
        start.split("== ").next().expect("there is always one").to_owned()
    };
    assert_eq!(part("none"), "No devices found\nNo devices found\n");
    let number = |line: &str| line.split_whitespace().nth(3).expect("a device").to_owned();
    let table = part("table");
    let first = table.lines().next().expect("a line");
    let wd0 = number(first);
    assert_eq!(first, format!("0 1024 linear {wd0} 8"));
    let stripes = table.lines().nth(1).expect("two lines");
    assert!(stripes.starts_with(&format!("1024 512 striped 2 64 {wd0} 2048 ")), "{stripes}");
    assert!(table.ends_with("1536 8 error \n1544 8 zero \none: 1544 8 zero \n"), "{table}");
    let status = part("status");
    assert!(status.starts_with("one: 0 1024 linear \none: 1024 512 striped 2 "), "{status}");
    assert!(status.lines().last().expect("a line").ends_with(" 1 AA"), "{status}");
    let info = part("info");
    for line in [
        "Name:              one",
        "State:             ACTIVE",
        "Tables present:    LIVE",
        "Open count:        0",
        "Number of targets: 4",
        "UUID: U-1",
    ] {
        assert!(info.lines().any(|found| found == line), "{line} in {info}");
    }
    assert_eq!(part("columns"), "one:U-1:0:4:0:L--w\n");
    assert!(part("ls").starts_with("one\t("), "{}", part("ls"));
    assert_eq!(part("ls").matches("one").count(), 3);
    assert_eq!(part("uuid"), "one\n");
    let concise = part("concise");
    assert!(
        concise.starts_with("one,U-1,1,rw,") && concise.contains(",0 1024 linear "),
        "{concise}"
    );
}

#[test]
fn trees_and_dependencies() {
    if !has(&["dmsetup"]) {
        return;
    }
    let out = script(
        "dmsetup create below --table '0 64 linear /dev/wd0 0'
         dmsetup create above --table \"0 32 linear $DM_DEV_DIR/mapper/below 0\"
         dmsetup ls --tree -o ascii,nodevice
         dmsetup deps above; dmsetup deps -o devname above
         dmsetup info -c --noheadings -o name,open,device_count,names_using_dev below
         dmsetup remove below 2>&1 || true
         dmsetup remove_all; dmsetup ls",
    );
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("above"));
    assert_eq!(lines.next().map(str::trim), Some("`-below"));
    let rest: Vec<_> = lines.collect();
    assert!(rest.contains(&"1 dependencies\t: (below)"), "{out}");
    assert!(rest.contains(&"below:1:1:above"), "{out}");
    assert!(out.contains("remove ioctl on below  failed: Device or resource busy"), "{out}");
    assert!(out.ends_with("No devices found\n"), "{out}");
}

#[test]
fn changes() {
    if !has(&["dmsetup"]) {
        return;
    }
    let out = script(
        "state() { dmsetup info -c --noheadings -o name,uuid,attr,events; }
         dmsetup create one --notable; state
         dmsetup load one --table '0 8 zero'; state
         dmsetup resume one; state
         dmsetup suspend one; state
         dmsetup reload one --table '0 16 zero' --readonly; state
         dmsetup clear one; state
         dmsetup resume one; state
         dmsetup load -r one --table '0 16 linear /dev/wd0 0'; dmsetup resume one; state
         dmsetup rename one two; dmsetup rename two --setuuid U; state
         dmsetup wait two 1; dmsetup mknodes; dmsetup mangle two >/dev/null
         dmsetup setgeometry two 1 2 3 0
         major=$(awk '/device-mapper/ { print $1 }' /proc/devices)
         dmsetup create --major $major --minor 77 three --table '0 8 error'
         dmsetup info -c --noheadings -o minor three
         dmsetup remove --force three; dmsetup remove two; dmsetup ls",
    );
    let expected = "\
one::---w:0
one::-I-w:0
one::L--w:0
one::L-sw:0
one::LIsw:0
one::L-sw:0
one::L--w:0
one::L--r:0
two:U:L--r:2
77
No devices found
";
    // dmsetup wait tells nothing; the rest may be told apart only by their order.
    assert_eq!(out, expected);
}

#[test]
fn refused() {
    if !has(&["dmsetup"]) {
        return;
    }
    let out = refusals(&[
        "dmsetup create one --table '0 8 nothing'",
        "dmsetup create one --table '8 8 zero'",
        "dmsetup create one --table '0 8 linear /dev/wd9 0'",
        "dmsetup create one --table '0 99999999 linear /dev/wd0 0'",
        "dmsetup info none -c",
        "dmsetup remove none",
        "dmsetup create one --notable",
        "dmsetup create one --notable",
        "dmsetup create two --notable",
        "dmsetup rename one two",
        "dmsetup message one 0 hello",
        "dmsetup create --major 252 --minor 70000 three --notable",
    ]);
    let mut said = out.lines();
    let mut expect = |words: &[&str]| {
        let found = said.by_ref().find(|line| *line != "Command failed.").unwrap_or("nothing");
        assert!(words.iter().all(|word| found.contains(word)), "{words:?} in {found}: {out}");
    };
    expect(&["reload ioctl on one", "Invalid argument"]);
    expect(&["reload ioctl on one", "Invalid argument"]);
    expect(&["reload ioctl on one", "No such file or directory"]);
    expect(&["reload ioctl on one", "Invalid argument"]);
    expect(&["Device does not exist."]);
    expect(&["remove ioctl on none", "No such device or address"]);
    expect(&["taken"]);
    expect(&["create ioctl on one", "Device or resource busy"]);
    expect(&["taken"]);
    expect(&["rename ioctl on one", "Device or resource busy"]);
    expect(&["message", "ioctl on one", "failed"]);
    expect(&["create ioctl on three", "Invalid argument"]);
}

#[test]
fn a_node_cannot_be_opened_and_says_why() {
    if !has(&["dmsetup"]) {
        return;
    }
    let disks = Disks::new(4);
    let done = disks.script_with(
        &["--no-blocks"],
        "dmsetup create one --table '0 8 zero'; cat $DM_DEV_DIR/mapper/one || echo refused",
    );
    assert_eq!(done.out, "refused\n", "{done:?}");
    assert!(done.err.contains("this session has no block devices"), "{done:?}");
}
