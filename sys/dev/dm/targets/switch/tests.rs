// SPDX-License-Identifier: BSD-2-Clause

use alloc::string::String;

use crate::job::Op;
use crate::table::{Builder, Piece, Table};
use crate::targets::tests::Disks;
use crate::testing::{Disk, range};
use crate::{Errno, Sector};

fn table(length: u64, params: &str) -> Result<Table<Disk>, Errno> {
    let mut builder = Builder::new(&Disks);
    builder.line(0, length, "switch", params).map_err(|e| e.mistake.errno)?;
    builder.build().map_err(|e| e.mistake.errno)
}

/// A table of sixteen regions of 8 sectors and three paths, which begin at different sectors.
fn three_paths() -> Table<Disk> {
    table(128, "3 8 0 /dev/a 0 /dev/b 0 /dev/a 500").unwrap()
}

/// The path of each region, as a letter.
fn shows(table: &Table<Disk>) -> String {
    let path = |region: u64| match table.map(range(region * 8, 8), Op::Read) {
        Some(Piece::Send(disk, at)) if disk.dev.minor() == 3 && at.length == Sector(8) => {
            if at.start.0 < 500 { 'A' } else { 'C' }
        }
        Some(Piece::Send(_, at)) if at.length == Sector(8) => 'B',
        _ => '?',
    };
    (0..16).map(path).collect()
}

fn tell(table: &Table<Disk>, text: &str) -> Result<(), Errno> {
    let mut reply = String::new();
    let result = table.target(Sector::ZERO).unwrap().message(text, &mut reply);
    assert_eq!(reply, "");
    result
}

/// A sequence of messages that was sent to Linux 6.1 first. It showed these paths of the regions
/// after each.
#[test]
fn messages_change_regions_as_they_do_on_linux() {
    let table = three_paths();
    assert_eq!(shows(&table), "ABCABCABCABCABCA");
    for (words, good, after) in [
        ("0:1", true, "BBCABCABCABCABCA"),
        ("1:1 :2 :0 :1", true, "BBCABCABCABCABCA"),
        ("R4,8", false, "BBCABCABCABCABCA"),
        ("0:0 0:2 R1,3", true, "CCCCBCABCABCABCA"),
        ("0:0 :1 :2 R3,6", true, "ABCABCABCABCABCA"),
        ("0:0 :1 :2 R3,D", true, "ABCABCABCABCABCA"),
        ("R2,3", false, "ABCABCABCABCABCA"),
        ("5:1 R1,2", true, "ABCABBBBCABCABCA"),
        ("3:1 5:2 R2,4", true, "ABCBBCBCBCBCABCA"),
        ("0:3", false, "ABCBBCBCBCBCABCA"),
        ("10:1", false, "ABCBBCBCBCBCABCA"),
        ("f:2", true, "ABCBBCBCBCBCABCC"),
        ("0xf:1", false, "ABCBBCBCBCBCABCC"),
        ("F:0", true, "ABCBBCBCBCBCABCA"),
        (":1", true, "ABCBBCBCBCBCABCA"),
        ("0:0 10:1", false, "ABCBBCBCBCBCABCA"),
        // The changes before a mistake are made.
        ("0:1 1:x", false, "BBCBBCBCBCBCABCA"),
        ("2", false, "BBCBBCBCBCBCABCA"),
        ("", true, "BBCBBCBCBCBCABCA"),
        ("R0,1", false, "BBCBBCBCBCBCABCA"),
        ("R1,0", true, "BBCBBCBCBCBCABCA"),
        ("0:0 R0,1", false, "ABCBBCBCBCBCABCA"),
        ("0:0 R1,f", true, "AAAAAAAAAAAAAAAA"),
        ("0:1 R1,10", false, "BAAAAAAAAAAAAAAA"),
        ("0:1 R2,1", false, "BAAAAAAAAAAAAAAA"),
        ("0:0 :1 R3,1", false, "ABAAAAAAAAAAAAAA"),
        ("0:0 :1 R1,1", true, "ABBAAAAAAAAAAAAA"),
        ("r1,1", true, "AABAAAAAAAAAAAAA"),
        ("1:", false, "AABAAAAAAAAAAAAA"),
        ("00000000000000000001:1", true, "ABBAAAAAAAAAAAAA"),
        ("100000000:1", false, "ABBAAAAAAAAAAAAA"),
        ("0:100000000", false, "ABBAAAAAAAAAAAAA"),
        ("-1:1", false, "ABBAAAAAAAAAAAAA"),
        ("0:1:2", false, "ABBAAAAAAAAAAAAA"),
        ("R1", false, "ABBAAAAAAAAAAAAA"),
        ("R", false, "ABBAAAAAAAAAAAAA"),
        ("R1,", false, "ABBAAAAAAAAAAAAA"),
        ("R10000000000000000,1", false, "ABBAAAAAAAAAAAAA"),
        ("ffffffffffffffff:1", false, "ABBAAAAAAAAAAAAA"),
        ("0:00000000000000001", true, "BBBAAAAAAAAAAAAA"),
    ] {
        let text = alloc::format!("set_region_mappings {words}");
        let wanted = if good { Ok(()) } else { Err(Errno::EINVAL) };
        assert_eq!(tell(&table, &text), wanted, "{words}");
        assert_eq!(shows(&table), after, "{words}");
    }
    assert_eq!(tell(&table, "Set_Region_Mappings 1:0"), Ok(()));
    assert_eq!(shows(&table), "BABAAAAAAAAAAAAA");
}

#[test]
fn numbers_that_nothing_can_have_are_refused() {
    let table = three_paths();
    let before = shows(&table);
    let most = usize::MAX;
    for words in [
        alloc::format!("{most:x}:1"),
        alloc::format!("0:{most:x}"),
        alloc::format!("R{most:x},1"),
        alloc::format!("R1,{most:x}"),
        alloc::format!("f:{:x} R1,{most:x}", 9),
    ] {
        assert_eq!(
            tell(&table, &alloc::format!("set_region_mappings {words}")),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(shows(&table), before);
}

#[test]
fn an_io_ends_at_its_region() {
    let table = table(20, "2 8 0 /dev/a 100 /dev/b 200").unwrap();
    for (at, sent) in [(0, 8), (3, 5), (8, 8), (15, 1), (16, 4), (19, 1)] {
        let piece = table.map(range(at, 20), Op::Write).unwrap();
        let offset = if at / 8 == 1 { 200 } else { 100 };
        assert!(matches!(piece, Piece::Send(_, to) if to == range(offset + at, sent)));
    }
}

#[test]
fn what_it_keeps_has_limits() {
    assert!(table(8, "1 1 0 /dev/a 0").is_ok());
    assert_eq!(table(8, "4294967295 1 0 /dev/a 0").err(), Some(Errno::E2BIG));
    assert_eq!(table(1 << 50, "1 1 0 /dev/a 0").err(), Some(Errno::E2BIG));
    assert_eq!(table(8, "1 8 1 /dev/a 0").err(), Some(Errno::EINVAL));
}
