// SPDX-License-Identifier: BSD-2-Clause

use super::*;

fn one(text: &str) -> Script {
    script("x", text).unwrap_or_else(|why| panic!("{why}"))
}

fn why(text: &str) -> String {
    script("x", text).unwrap_err()
}

#[test]
fn a_whole_script() {
    let script = one(
        "# about\nquick\nneeds linear striped\ndisk a 100\ndisk b 8 zero readonly\nreplays b a\n\
                      make d uuid U\n  0 10 linear @a 5\n  10 10 zero\ntable d inactive\n\
                      differs \"0 *\" \"1 *\" it is so\nswap crash\nread d 0 8 by 2\n",
    );
    assert_eq!((script.quick, script.needs.len(), script.disks.len()), (true, 2, 2));
    assert_eq!(script.disks[1].seed, None);
    assert!(script.disks[1].readonly);
    assert_eq!(script.replays, [("b".into(), "a".into())]);
    let [first, second] = script.stages.as_slice() else { panic!("{script:?}") };
    assert_eq!(first.end, End { swap: true, crash: true });
    let Action::Make(make) = &first.steps[0].action else { panic!() };
    assert_eq!(make.lines[0].params, "@a 5");
    assert_eq!(make.lines[1].params, "");
    assert_eq!(make.uuid.as_deref(), Some("U"));
    let table = &first.steps[1];
    assert_eq!((table.line, table.differs.len()), (10, 1));
    assert!(table.differs[0].allows("0 x", "1 x"));
    assert!(!table.differs[0].allows("0 x", "1 y"));
    let Action::Io(io) = &second.steps[0].action else { panic!() };
    assert_eq!((io.sector, io.sectors, io.by, io.kind), (0, 8, 2, IoKind::Read));
}

#[test]
fn lines_many_times() {
    let script = one("load d\n  times 3 : {64*i} 64 linear @a {7+2*i}\n");
    let Action::Command(load) = &script.stages[0].steps[0].action else { panic!() };
    let lines: Vec<_> = load.lines.iter().map(|l| (l.start, l.params.as_str())).collect();
    assert_eq!(lines, [(0, "@a 7"), (64, "@a 9"), (128, "@a 11")]);
}

#[test]
fn each_write_has_data_of_its_own() {
    let script = one("write d 0 1\nwrite d 0 1\nwrite d 0 1 like x\nwrite d 0 1 like x\n");
    let kinds: Vec<_> = script.stages[0].steps.iter().map(|step| step.action.clone()).collect();
    assert_ne!(kinds[0], kinds[1]);
    assert_eq!(kinds[2], kinds[3]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    assert!(why("\nfrobnicate d").starts_with("line 2: no such verb"));
    assert!(why("read d 0").contains("sectors is missing"));
    assert!(why("read d 0 4096").contains("say `by`"));
    assert!(why("read d 0 x").contains("not `x`"));
    assert!(why("resume d twice").contains("what is `twice`"));
    assert!(why("resume d\n 0 1 zero").contains("no `load`, `make` or `try`"));
    assert!(why("disk a 8\nreplays b a").starts_with("line 2: there is no disk b"));
    assert!(why("differs a b c").contains("no step"));
    assert!(why("names\ndiffers a b").contains("a reason is missing"));
    assert!(why("load d\n 0 x zero").contains("`x` is no number"));
}
