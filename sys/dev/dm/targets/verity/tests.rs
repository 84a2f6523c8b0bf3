// SPDX-License-Identifier: BSD-2-Clause

//! Verity lines that are refused, and the memory of those that are not.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::hash::Hash;
use crate::job::Op;
use crate::mistake::TableError;
use crate::table::{Builder, Opener, Table};
use crate::target::{IoRange, Mapping};
use crate::testing::{Disk, hash};
use crate::{Errno, Sector, device};

/// The digest of a root, for sha256.
const ROOT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Disks of 1,000 and 100,000 sectors, and one of sectors of 4 KiB.
struct Disks {
    read_only: bool,
    /// Bytes that the tables' targets may keep.
    room: usize,
}

impl Opener for Disks {
    type Component = Disk;

    fn open(&self, path: &str) -> Result<Disk, Errno> {
        match path {
            "a" => Ok(Disk::new(19, 3, 1000)),
            "big" => Ok(Disk::new(19, 35, 100_000)),
            "4k" => Ok(Disk { sector_size: 4096, ..Disk::new(19, 51, 1000) }),
            _ => Err(Errno::ENOENT),
        }
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn reserve(&self, bytes: usize) -> Result<(), Errno> {
        if bytes > self.room { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

fn build_on(opener: Disks, length: u64, params: &str) -> Result<Table<Disk>, TableError> {
    let mut builder = Builder::new(&opener);
    builder.line(0, length, "verity", params)?;
    builder.build()
}

fn build(length: u64, params: &str) -> Result<Table<Disk>, TableError> {
    build_on(Disks { read_only: true, room: 64 << 20 }, length, params)
}

/// The errno of a line, and its reason.
fn refusal(length: u64, params: &str) -> (Errno, String) {
    let error = build(length, params).err().unwrap_or_else(|| panic!("taken: {params}"));
    (error.mistake.errno, error.mistake.to_string())
}

#[test]
fn each_mistake_has_its_errno_and_its_reason() {
    let line = |words: &str| words.replace("ROOT", ROOT);
    for (length, params, errno, why) in [
        (80, "2 a big 4096 4096 10 1 sha256 ROOT -", Errno::EINVAL, "type"),
        (80, "1 no big 4096 4096 10 1 sha256 ROOT -", Errno::ENOENT, "does not exist"),
        (80, "1 a no 4096 4096 10 1 sha256 ROOT -", Errno::ENOENT, "does not exist"),
        (80, "1 a big 4095 4096 10 1 sha256 ROOT -", Errno::EINVAL, "size of a block"),
        (80, "1 a big 0 4096 10 1 sha256 ROOT -", Errno::EINVAL, "size of a block"),
        (80, "1 a big 256 4096 10 1 sha256 ROOT -", Errno::EINVAL, "size of a block"),
        (80, "1 a big 4096 1048576 10 1 sha256 ROOT -", Errno::EINVAL, "size of a block"),
        (80, "1 4k big 2048 4096 20 1 sha256 ROOT -", Errno::EINVAL, "smaller than"),
        (80, "1 a 4k 4096 2048 10 1 sha256 ROOT -", Errno::EINVAL, "smaller than"),
        (88, "1 a big 4096 4096 10 1 sha256 ROOT -", Errno::EINVAL, "longer than"),
        (79, "1 a big 4096 4096 10 1 sha256 ROOT -", Errno::EINVAL, "within a data block"),
        (8, "1 a big 4096 4096 0 1 sha256 ROOT -", Errno::EINVAL, "longer than"),
        (1008, "1 a big 4096 4096 500 1 sha256 ROOT -", Errno::EINVAL, "beyond its component"),
        (80, "1 a a 4096 4096 10 125 sha256 ROOT -", Errno::E2BIG, "tree ends beyond its"),
        (80, "1 a a 4096 4096 18446744073709551615 1 sha256 ROOT -", Errno::EINVAL, "than any"),
        (80, "1 a a 4096 4096 2305843009213693952 1 sha256 ROOT -", Errno::EINVAL, "than any"),
        (80, "1 a a 4096 4096 1125899906842624 1 sha256 ROOT -", Errno::E2BIG, "beyond its comp"),
        (80, "1 a a 4096 4096 10 18446744073709551615 sha256 ROOT -", Errno::EINVAL, "begins bey"),
        (80, "1 a a 4096 4096 10 2251799813685247 sha256 ROOT -", Errno::E2BIG, "tree ends beyond"),
        (80, "1 a big 4096 4096 10 1 sha257 ROOT -", Errno::ENOENT, "no such hash"),
        (80, "1 a big 4096 4096 10 1 SHA256 ROOT -", Errno::ENOENT, "no such hash"),
        (80, "1 a big 4096 4096 10 1 sha1 ROOT -", Errno::EINVAL, "root's digest"),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT00 -", Errno::EINVAL, "root's digest"),
        (80, "1 a big 4096 4096 10 1 sha256 gROOT -", Errno::EINVAL, "root's digest"),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT 0", Errno::EINVAL, "salt"),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT 0g", Errno::EINVAL, "salt"),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT --", Errno::EINVAL, "salt"),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT - x", Errno::EINVAL, "number of options"),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT - 1", Errno::EINVAL, "option is missing"),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT - 1 what", Errno::EINVAL, "no such option"),
        (
            80,
            "1 a big 4096 4096 10 1 sha256 ROOT - 2 ignore_corruption panic_on_corruption",
            Errno::EINVAL,
            "more than one",
        ),
        (
            80,
            "1 a big 4096 4096 10 1 sha256 ROOT - 8 use_fec_from_device big fec_start 0 fec_blocks 9 \
             fec_roots 2",
            Errno::EINVAL,
            "error correction",
        ),
        (
            80,
            "1 a big 4096 4096 10 1 sha256 ROOT - 2 root_hash_sig_key_desc key",
            Errno::EINVAL,
            "signatures",
        ),
        (80, "1 a big 4096 4096 10 1 sha256 ROOT - 0 ignore_corruption", Errno::EINVAL, "too many"),
    ] {
        let (found, reason) = refusal(length, &line(params));
        assert!(found == errno && reason.contains(why), "{params}: {found:?}, {reason}");
    }
    let most = refusal(8, &format!("1 a big 512 512 1 0 sha512 {ROOT}{ROOT} - 9"));
    assert_eq!(most.0, Errno::EINVAL);
}

#[test]
fn a_table_that_takes_writes_is_refused() {
    let opener = Disks { read_only: false, room: 64 << 20 };
    let error = build_on(opener, 80, &format!("1 a big 4096 4096 10 1 sha256 {ROOT} -"));
    let error = error.err().unwrap().mistake;
    assert!(error.errno == Errno::EINVAL && error.why.contains("read-only"));
}

/// A line's memory is charged before it is allocated.
#[test]
fn memory_is_paid_for() {
    let once = format!("1 a big 512 512 1000 1 sha256 {ROOT} - 1 check_at_most_once");
    for (room, taken) in [(0, false), (30_000, false), (128 << 10, true)] {
        let built = build_on(Disks { read_only: true, room }, 1000, &once);
        let errno = built.err().map(|error| error.mistake.errno);
        assert_eq!(errno, (!taken).then_some(Errno::ENOMEM), "{room}");
    }
}

#[test]
fn every_option_is_printed_as_linux_does() {
    for (given, printed) in [
        ("0", ""),
        ("1 IGNORE_CORRUPTION", " 1 ignore_corruption"),
        (
            "2 check_at_most_once restart_on_corruption",
            " 2 restart_on_corruption check_at_most_once",
        ),
        (
            "3 check_at_most_once ignore_zero_blocks panic_on_corruption",
            " 3 panic_on_corruption ignore_zero_blocks check_at_most_once",
        ),
    ] {
        let upper = ROOT.to_uppercase();
        let params = format!("0 a big 512 1024 80 3 sha256 {upper} 00Ff {given}");
        let table = build(80, &params).unwrap();
        let line = device::lines(&table).remove(0).params.clone();
        assert_eq!(line, format!("0 19:3 19:35 512 1024 80 3 sha256 {ROOT} 00ff{printed}"));
        let target = table.target(Sector::ZERO).unwrap();
        assert_eq!(table.describe(target, false), "V");
    }
}

#[test]
fn reads_are_taken_whole_and_writes_fail() {
    let table = build(80, &format!("1 a big 4096 4096 10 1 sha256 {ROOT} -")).unwrap();
    let target = table.target(Sector::ZERO).unwrap();
    let io = |op| IoRange { start: Sector(3), length: Sector(30), op };
    assert_eq!(target.map(&io(Op::Read)), Mapping::Take { length: Sector(30), queue: 0 });
    let fails = Mapping::Fail { length: Sector(30), error: Errno::EIO };
    assert_eq!([Op::Write, Op::Discard].map(|op| target.map(&io(op))), [fails; 2]);
    let mut extents = Vec::new();
    target.extents(Sector(80), &mut |extent| extents.push((extent.start.0, extent.length.0)));
    assert_eq!(extents, [(0, 80), (8, 8)]);
}
