// SPDX-License-Identifier: BSD-2-Clause

//! The judge itself: it must see what differs, and nothing else.

use super::*;

const SCRIPT: &str = "\
disk a 100
create d
differs EBUSY EEXIST the protocol says so
status d
read d 0 8
remove d
";

const SAID: &str =
    "@2\n>EBUSY\n@4\n>0 8 striped 2 @a @b 1 AA\n@5\n>4096 bytes, sum 12\n@6\n>ok\n.\n";

fn judge(linux: &str, ours: &str, differences: &str) -> Vec<String> {
    let script = Script::parse("x", SCRIPT).unwrap();
    let differences = Differences::parse(differences).unwrap();
    let [linux, ours] = [linux, ours].map(Transcript::parse);
    transcripts(&script, &linux, &ours, &differences).found
}

fn ours(from: &str, to: &str) -> String {
    let own = SAID.replace("EBUSY", "EEXIST");
    assert!(own.contains(from), "{from}");
    own.replace(from, to)
}

#[test]
fn what_is_the_same_and_what_may_differ_is_not_told() {
    assert_eq!(judge(SAID, &ours("", ""), ""), [""; 0]);
}

#[test]
fn a_wrong_word_in_a_status_is_found() {
    let found = judge(SAID, &ours("1 AA", "1 AD"), "");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("line 4: status d"), "{found:?}");
    assert!(found[0].contains("Linux: 0 8 striped 2 @a @b 1 AA"), "{found:?}");
    assert!(found[0].contains("ours:  0 8 striped 2 @a @b 1 AD"), "{found:?}");
}

#[test]
fn a_wrong_sum_and_a_wrong_errno_are_found() {
    assert_eq!(judge(SAID, &ours("sum 12", "sum 13"), "").len(), 1);
    assert_eq!(judge(SAID, &ours(">ok", ">EINVAL"), "").len(), 1);
}

#[test]
fn lines_too_many_or_too_few_are_found() {
    assert_eq!(judge(SAID, &ours(">ok\n", ">ok\n>more\n"), "").len(), 1);
    assert_eq!(judge(SAID, &ours(">ok\n", ""), "").len(), 1);
}

#[test]
fn a_stage_that_broke_off_is_found() {
    let found = judge(SAID, &ours("@6\n>ok\n.\n", "!the machine is gone\n"), "");
    assert!(found[0].contains("the machine is gone"), "{found:?}");
    let found = judge(&SAID.replace(".\n", ""), &ours("", ""), "");
    assert!(found[0].starts_with("Linux could not go on"), "{found:?}");
    let found = judge(SAID, &ours("@6\n>ok\n", ""), "");
    assert_eq!(found, ["Linux took 4 steps, we 3"]);
}

#[test]
fn a_difference_that_is_none_any_more_is_found() {
    let found = judge(SAID, SAID, "");
    assert!(found[0].contains("no such difference: EBUSY | EEXIST"), "{found:?}");
}

#[test]
fn general_differences_are_by_verb_and_are_counted() {
    let list = "# why\nremove ok E* because\nremove ok ENXIO never\n";
    let list = list.replace("ok E*", "ok EBUSY");
    let script = Script::parse("x", SCRIPT).unwrap();
    let differences = Differences::parse(&list).unwrap();
    let [linux, own] = [SAID, &ours(">ok", ">EBUSY")].map(Transcript::parse);
    let verdict = transcripts(&script, &linux, &own, &differences);
    assert_eq!(verdict, Verdict { found: vec![], used: vec![0] });
    assert_eq!(differences.unused(&verdict.used), ["remove ok ENXIO"]);
    // Of another verb, it does not help.
    assert_eq!(judge(SAID, &ours(">ok", ">EBUSY"), "create ok EBUSY because\n").len(), 1);
    assert!(Differences::parse("create a b\n").is_err());
}

#[test]
fn what_is_left_on_disks_is_compared_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::parse("x", "disk a 64\ndisk b 64 private\n").unwrap();
    let job = |name: &str| {
        let job = Job::make(&dir.path().join(name), "", crate::job::Part::Stage(0)).unwrap();
        for disk in &script.disks {
            Image::new(disk).save(&job.output(&disk.name)).unwrap();
        }
        job
    };
    let (linux, own) = (job("linux"), job("ours"));
    assert_eq!(images(&script, &linux, &own).unwrap(), [""; 0]);
    let mut data = std::fs::read(own.output("a")).unwrap();
    // The image's size and the first chunk's place come first.
    data[16 + 1000] ^= 1;
    std::fs::write(own.output("a"), &data).unwrap();
    std::fs::write(own.output("b"), &data).unwrap();
    let found = images(&script, &linux, &own).unwrap();
    assert_eq!(found, ["disk a: 1 sectors differ, the first in sector 1, byte 488"]);
}
