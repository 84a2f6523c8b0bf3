// SPDX-License-Identifier: BSD-2-Clause

use alloc::string::String;
use alloc::vec::Vec;

use crate::job::Op;
use crate::table::{Builder, Piece, Table};
use crate::targets::tests::Disks;
use crate::testing::{Disk, range};
use crate::{Errno, Sector, limits};

fn table(length: u64, params: &str) -> Result<Table<Disk>, Errno> {
    let mut builder = Builder::new(&Disks);
    builder.line(0, length, "dust", params).map_err(|e| e.mistake.errno)?;
    builder.build().map_err(|e| e.mistake.errno)
}

fn tell(table: &Table<Disk>, text: &str) -> Result<String, Errno> {
    let mut reply = String::new();
    table.target(Sector::ZERO).unwrap().message(text, &mut reply).map(|()| reply)
}

fn list(table: &Table<Disk>) -> Vec<u64> {
    tell(table, "listbadblocks").unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

/// Sends an I/O, and returns its pieces: `true` if they are sent, `false` if they fail, and their
/// sectors.
fn pieces(table: &Table<Disk>, op: Op, start: u64, length: u64) -> Vec<(bool, u64)> {
    let (mut at, mut pieces) = (start, Vec::new());
    while at < start + length {
        let piece = table.map(range(at, start + length - at), op).unwrap();
        let sent = match piece {
            Piece::Send(..) => true,
            Piece::Fail(_, errno) => {
                assert_eq!(errno, Errno::EIO);
                false
            }
            _ => panic!("neither sent nor failed"),
        };
        pieces.push((sent, piece.length().0));
        at += piece.length().0;
    }
    pieces
}

#[test]
fn bad_blocks_fail_reads_until_they_are_written() {
    let table = table(100, "/dev/a 0 4096").unwrap();
    for block in [0, 3, 4, 12] {
        assert_eq!(tell(&table, &alloc::format!("addbadblock {block}")).as_deref(), Ok(""));
    }
    // The bad blocks are not in effect yet: all I/O goes through, and heals nothing.
    assert_eq!(pieces(&table, Op::Read, 0, 100), [(true, 100)]);
    assert_eq!(pieces(&table, Op::Write, 0, 100), [(true, 100)]);
    assert_eq!(list(&table), [0, 3, 4, 12]);
    assert_eq!(tell(&table, "Enable").as_deref(), Ok(""));
    let wanted = [(false, 8), (true, 16), (false, 8), (false, 8), (true, 56), (false, 4)];
    assert_eq!(pieces(&table, Op::Read, 0, 100), wanted);
    assert_eq!(pieces(&table, Op::Read, 7, 2), [(false, 1), (true, 1)]);
    assert_eq!(pieces(&table, Op::Read, 8, 16), [(true, 16)]);
    // A write of a part heals the block, and no other.
    assert_eq!(pieces(&table, Op::Write, 31, 1), [(true, 1)]);
    assert_eq!(list(&table), [0, 4, 12]);
    assert_eq!(pieces(&table, Op::Discard, 8, 92), [(true, 92)]);
    assert_eq!(list(&table), [0]);
    assert_eq!(tell(&table, "disable").as_deref(), Ok(""));
    assert_eq!(pieces(&table, Op::Read, 0, 100), [(true, 100)]);
}

#[test]
fn a_block_can_fail_writes_before_it_is_healed() {
    let table = table(64, "/dev/a 0 4096").unwrap();
    tell(&table, "enable").unwrap();
    tell(&table, "addbadblock 1").unwrap();
    tell(&table, "addbadblock 2 2").unwrap();
    tell(&table, "addbadblock 3").unwrap();
    assert_eq!(pieces(&table, Op::Write, 0, 64), [(true, 16), (false, 8), (true, 40)]);
    assert_eq!(list(&table), [2]);
    assert_eq!(pieces(&table, Op::Write, 20, 1), [(false, 1)]);
    assert_eq!(pieces(&table, Op::Read, 20, 1), [(false, 1)]);
    assert_eq!(pieces(&table, Op::Write, 20, 1), [(true, 1)]);
    assert!(list(&table).is_empty());
}

#[test]
fn blocks_count_from_the_components_start() {
    let table = table(64, "/dev/a 96 4096").unwrap();
    tell(&table, "enable").unwrap();
    tell(&table, "addbadblock 13").unwrap();
    assert_eq!(pieces(&table, Op::Read, 0, 64), [(true, 8), (false, 8), (true, 48)]);
}

/// The answers are those in the kernel's public page about the target.
#[test]
fn messages_answer_as_on_linux() {
    let table = table(64, "/dev/a 0 512").unwrap();
    let is = |text: &str, wanted: &str| assert_eq!(tell(&table, text).as_deref(), Ok(wanted));
    is("clearbadblocks", "dust_clear_badblocks: no badblocks found");
    is("listbadblocks", "");
    is("queryblock 72", "dust_query_block: block 72 not found in badblocklist");
    is("addbadblock 72", "");
    is("AddBadBlock 2", "");
    is("queryblock 72", "dust_query_block: block 72 found in badblocklist");
    is("countbadblocks", "countbadblocks: 2 badblock(s) found");
    is("listbadblocks", "2\n72\n");
    is("removebadblock 2", "");
    is("clearbadblocks", "dust_clear_badblocks: badblocks cleared");
    is("countbadblocks", "countbadblocks: 0 badblock(s) found");
    let target = table.target(Sector::ZERO).unwrap();
    assert_eq!(table.describe(target, false), "19:3 bypass verbose");
    is("quiet", "");
    is("enable", "");
    assert_eq!(table.describe(target, false), "19:3 fail_read_on_bad_block quiet");
    is("quiet", "");
    assert_eq!(table.describe(target, false), "19:3 fail_read_on_bad_block verbose");
}

#[test]
fn wrong_messages_are_einval_and_change_nothing() {
    let table = table(64, "/dev/a 0 4096").unwrap();
    tell(&table, "addbadblock 5").unwrap();
    for wrong in [
        "addbadblock",
        "addbadblock 5",
        "addbadblock x",
        "addbadblock -1",
        "addbadblock 126",
        "addbadblock 18446744073709551616",
        "addbadblock 1 256",
        "addbadblock 1 x",
        "addbadblock 1 2 3",
        "removebadblock",
        "removebadblock 6",
        "removebadblock 5 1",
        "queryblock",
        "queryblock 126",
        "queryblock 1 2",
        "countbadblocks 1",
        "enable 1",
        "nosuch 1",
        "",
    ] {
        assert_eq!(tell(&table, wrong), Err(Errno::EINVAL), "{wrong}");
    }
    assert_eq!(list(&table), [5]);
    // 1,000 sectors are 125 blocks, counted from 0; Linux takes one more, for a last block in part.
    assert_eq!(tell(&table, "addbadblock 125").as_deref(), Ok(""));
}

#[test]
fn there_is_a_limit_to_bad_blocks() {
    let table = table(900, "/dev/big 0 512").unwrap();
    for block in 0..limits::BAD_BLOCKS as u64 {
        tell(&table, &alloc::format!("addbadblock {}", (block * 7919) % 20_011)).unwrap();
    }
    assert_eq!(tell(&table, "addbadblock 20015"), Err(Errno::ENOSPC));
    let numbers = list(&table);
    assert_eq!(numbers.len(), limits::BAD_BLOCKS);
    assert!(numbers.is_sorted());
}

#[test]
fn a_block_has_a_size_that_it_can_have() {
    for good in [512, 4096, 32768] {
        assert!(table(64, &alloc::format!("/dev/a 0 {good}")).is_ok(), "{good}");
    }
    for wrong in ["0", "256", "511", "513", "1536", "65536", "2147483648", "4294967296"] {
        let params = alloc::format!("/dev/a 0 {wrong}");
        assert_eq!(table(64, &params).err(), Some(Errno::EINVAL), "{wrong}");
    }
}
