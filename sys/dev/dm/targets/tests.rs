// SPDX-License-Identifier: BSD-2-Clause

//! Promises that every target keeps. [`TARGETS`] enrols them: a target without a sample here fails.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{TARGETS, lookup};
use crate::aes::Aes;
use crate::device;
use crate::hash::Hash;
use crate::job::Op;
use crate::mistake::TableError;
use crate::table::{Builder, Opener, Table};
use crate::target::{Extent, IoRange, Mapping, Target};
use crate::testing::{Disk, aes, hash};
use crate::{Errno, Sector};

/// A right line, and what is expected of it.
struct Sample {
    kind: &'static str,
    length: u64,
    params: &'static str,
    /// The parameters as `table` prints them.
    table: &'static str,
    /// The line's state as `status` prints it.
    status: &'static str,
    /// `true` if words that are left over are ignored, as Linux does for this target.
    takes_more: bool,
    /// The fewest words, where some may be left out.
    least: Option<usize>,
}

const fn sample(
    kind: &'static str,
    length: u64,
    params: &'static str,
    table: &'static str,
    status: &'static str,
) -> Sample {
    Sample { kind, length, params, table, status, takes_more: false, least: None }
}

impl Sample {
    /// The sample, of a target where words behind the first `words` may be left out.
    const fn least(mut self, words: usize) -> Sample {
        self.least = Some(words);
        self
    }

    /// The sample, of a target that ignores words behind its own.
    const fn takes_more(mut self) -> Sample {
        self.takes_more = true;
        self
    }
}

const SAMPLES: &[Sample] = &[
    sample("linear", 1, "/dev/a 0", "19:3 0", ""),
    sample("linear", 100, " \t19:19   900 ", "19:19 900", ""),
    sample("linear", 1000, "/dev/a 00", "19:3 0", ""),
    sample("striped", 1, "1 1 /dev/b 999", "1 1 19:19 999", "1 19:19 1 A"),
    sample(
        "striped",
        96,
        "3 8 /dev/a 0 /dev/b 1 /dev/a 32",
        "3 8 19:3 0 19:19 1 19:3 32",
        "3 19:3 19:19 19:3 1 AAA",
    ),
    sample("striped", 1998, "2 333 19:3 1 19:19 1", "2 333 19:3 1 19:19 1", "2 19:3 19:19 1 AA"),
    sample("zero", 1, "", "", ""),
    sample("zero", 1 << 53, " ", "", ""),
    sample("error", 7, "", "", "").takes_more(),
    sample("unstriped", 8, "1 8 0 /dev/a 0", "1 8 0 19:3 0", ""),
    sample("unstriped", 40, "3 8 1 /dev/b 11", "3 8 1 19:19 11", ""),
    sample("unstriped", 333, "2 333 1 19:3 1", "2 333 1 19:3 1", ""),
    sample("switch", 7, "1 8 0 /dev/a 0", "1 8 0 19:3 0", ""),
    sample(
        "switch",
        100,
        "3 8 0 /dev/a 0 /dev/b 1 /dev/a 132",
        "3 8 0 19:3 0 19:19 1 19:3 132",
        "",
    ),
    sample("delay", 1, "/dev/a 999 5", "19:3 999 5", "0 0 0"),
    sample("delay", 7, "/dev/a 0 00500 /dev/b 8 0", "19:3 0 500 19:19 8 0", "0 0 0").least(3),
    sample(
        "delay",
        100,
        "19:3 0 0 /dev/b 8 0 /dev/a 100 0",
        "19:3 0 0 19:19 8 0 19:3 100 0",
        "0 0 0",
    )
    .least(3),
    // As the clock of these tests stands still, an up interval of 0 is a line that is bad.
    sample("flakey", 1, "/dev/a 999 5 5", "19:3 999 5 5 0 ", "").takes_more().least(4),
    sample("flakey", 10, "/dev/a 0 0 1 0", "19:3 0 0 1 0 ", "").takes_more().least(4),
    sample("flakey", 10, "/dev/a 0 0 1 1 drop_writes", "19:3 0 0 1 1 drop_writes ", "")
        .takes_more()
        .least(4),
    sample(
        "flakey",
        10,
        "/dev/b 7 0 1 6 corrupt_bio_byte 32 r 1 0 Error_Writes",
        "19:19 7 0 1 6 error_writes corrupt_bio_byte 32 r 1 0 ",
        "",
    )
    .takes_more()
    .least(4),
    sample("log-writes", 100, "/dev/a /dev/b", "19:3 19:19", "0 0").takes_more(),
    sample(
        "mirror",
        100,
        "core 1 64 2 /dev/a 0 /dev/b 7 0",
        "core 1 64 2 19:3 0 19:19 7",
        "2 19:3 19:19 0/2 1 AA 1 core",
    )
    .least(8),
    sample(
        "mirror",
        100,
        "core 3 16 nosync block_on_error 3 /dev/a 0 /dev/b 0 /dev/a 500 2 handle_errors keep_log",
        "core 2 16 nosync 3 19:3 0 19:19 0 19:3 500 2 handle_errors keep_log",
        "3 19:3 19:19 19:3 7/7 1 AAA 1 core",
    )
    .least(12),
    sample(
        "mirror",
        1000,
        "disk 3 /dev/big 8 sync 2 /dev/a 0 19:19 0 1 handle_errors",
        "disk 3 19:35 8 sync 2 19:3 0 19:19 0 1 handle_errors",
        "2 19:3 19:19 0/125 1 AA 3 disk 19:35 A",
    )
    .least(10),
    sample(
        "verity",
        80,
        "1 /dev/a /dev/big 4096 4096 10 1 sha1 000102030405060708090A0b0c0d0e0f10111213 - 1 Ignore_Corruption",
        "1 19:3 19:35 4096 4096 10 1 sha1 000102030405060708090a0b0c0d0e0f10111213 - 1 ignore_corruption",
        "V",
    )
    .least(10),
    sample(
        "crypt",
        96,
        "aes-xts-plain64 000102030405060708090A0B0C0D0E0F101112131415161718191a1b1c1d1e1f 8 /dev/a 3 0",
        "aes-xts-plain64 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 8 19:3 3",
        "",
    )
    .takes_more()
    .least(5),
    sample(
        "crypt",
        1,
        "aes-cbc-benbi 000102030405060708090a0b0c0d0e0f 1 19:19 0 2 iv_large_sectors Same_CPU_crypt",
        "aes-cbc-benbi 000102030405060708090a0b0c0d0e0f 1 19:19 0 2 same_cpu_crypt iv_large_sectors",
        "",
    )
    .takes_more()
    .least(5),
    sample("crypt", 100, "cipher_null-ecb - 0 /dev/b 7 0", "cipher_null-ecb - 0 19:19 7", "").takes_more()
    .least(5),
    sample("snapshot", 100, "/dev/a /dev/b P 8 0", "19:3 19:19 P 8", "16/1000 16").least(4),
    sample("snapshot", 1000, "19:3 /dev/b p 0 0", "19:3 19:19 P 0", "64/1000 64").least(4),
    sample("snapshot", 7, "/dev/b /dev/a n 1 0", "19:19 19:3 N 1", "0/1000 0").least(4),
    sample(
        "snapshot",
        999,
        "/dev/a 19:35 PO 1024 2 discard_zeroes_cow discard_passdown_origin",
        "19:3 19:35 PO 1024 2 discard_zeroes_cow discard_passdown_origin",
        "2048/100000 2048",
    )
    .least(4),
    sample("snapshot-origin", 100, "/dev/a", "19:3", ""),
    sample("snapshot-merge", 100, "/dev/a /dev/b P 8 0", "19:3 19:19 P 8", "16/1000 16").least(4),
    sample(
        "snapshot-merge",
        1000,
        "19:3 /dev/b PO 0 1 discard_zeroes_cow",
        "19:3 19:19 PO 0 1 discard_zeroes_cow",
        "64/1000 64",
    )
    .least(4),
    sample("dust", 1, "/dev/a 999 512", "19:3 999 512", "19:3 bypass verbose"),
    sample("dust", 100, "/dev/b 4 4096", "19:19 4 4096", "19:19 bypass verbose"),
];

pub(crate) struct Disks;

impl Opener for Disks {
    type Component = Disk;

    fn open(&self, path: &str) -> Result<Disk, Errno> {
        match path {
            "/dev/a" | "19:3" => Ok(Disk::new(19, 3, 1000)),
            "/dev/b" | "19:19" => Ok(Disk::new(19, 19, 1000)),
            "/dev/big" | "19:35" => Ok(Disk::new(19, 35, 100_000)),
            _ => Err(Errno::ENOENT),
        }
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        Some(&aes::RUST)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn read_only(&self) -> bool {
        true
    }
}

fn build(kind: &str, length: u64, params: &str) -> Result<Table<Disk>, TableError> {
    let mut builder = Builder::new(&Disks);
    builder.line(0, length, kind, params)?;
    builder.build()
}

fn with_target(sample: &Sample, look: impl Fn(&Table<Disk>, &dyn Target)) {
    let table = build(sample.kind, sample.length, sample.params).unwrap();
    look(&table, table.target(Sector::ZERO).unwrap());
}

#[test]
fn every_target_has_a_sample() {
    for kind in TARGETS {
        assert!(SAMPLES.iter().any(|sample| sample.kind == kind.name), "{} has none", kind.name);
    }
    assert!(SAMPLES.iter().all(|sample| lookup(sample.kind).is_some()));
}

#[test]
fn names_are_single_words_and_each_finds_its_target() {
    for kind in TARGETS {
        assert!(core::ptr::eq(lookup(kind.name).unwrap(), *kind), "{} twice", kind.name);
        assert!(!kind.name.is_empty() && kind.name.bytes().all(|b| b.is_ascii_graphic()));
        // libdevmapper has room for so many.
        assert!(kind.name.len() < 16);
    }
    for nobody in ["", "Linear", "linear ", "lin", "linear2"] {
        assert!(lookup(nobody).is_none(), "{nobody}");
    }
}

#[test]
fn a_target_knows_its_kind() {
    for sample in SAMPLES {
        with_target(sample, |_, target| assert_eq!(target.kind().name, sample.kind));
    }
}

#[test]
fn table_and_status_have_the_documented_form() {
    for sample in SAMPLES {
        with_target(sample, |table, target| {
            assert_eq!(table.secrets(target), sample.table, "{}", sample.kind);
            assert_eq!(table.describe(target, false), sample.status, "{}", sample.kind);
        });
    }
}

#[test]
fn table_output_makes_the_same_target_again() {
    for sample in SAMPLES {
        with_target(sample, |table, target| {
            let printed = device::lines(table).remove(0);
            let again = build(&printed.kind, printed.length, &printed.params).unwrap();
            let second = again.target(Sector::ZERO).unwrap();
            assert_eq!(again.secrets(second), sample.table);
            for io in ios(sample.length) {
                assert_eq!(target.map(&io), second.map(&io), "{} {io:?}", sample.kind);
            }
        });
    }
}

/// I/Os that cross every place at which a target could cut: long and short, reads and writes.
fn ios(length: u64) -> Vec<IoRange> {
    let starts = (0..length.min(200)).chain([length / 2, length - 1]);
    let lengths =
        |start| [1, 2, 7, 8, length - start].into_iter().filter(move |n| start + n <= length);
    let ranges = starts.flat_map(|start| lengths(start).map(move |n| (start, n)));
    let io = |(start, length), op| IoRange { start: Sector(start), length: Sector(length), op };
    ranges.flat_map(|range| [Op::Read, Op::Write, Op::Discard].map(|op| io(range, op))).collect()
}

#[test]
fn map_makes_progress_and_stays_in_range() {
    for sample in SAMPLES {
        with_target(sample, |table, target| {
            let mut extents: Vec<Extent> = Vec::new();
            target.extents(Sector(sample.length), &mut |extent| extents.push(extent));
            for extent in &extents {
                let component = &table.components()[extent.component.0 as usize];
                assert!(extent.length > Sector::ZERO);
                assert!(extent.start.0 + extent.length.0 <= component.size.0);
            }
            for io in ios(sample.length) {
                let mapping = target.map(&io);
                assert!((1..=io.length.0).contains(&mapping.length().0), "{mapping:?} of {io:?}");
                let Mapping::Send { component, start, length } = mapping else { continue };
                let reached = extents.iter().filter(|extent| extent.component == component);
                let within = |extent: &Extent| {
                    extent.start <= start && start.0 + length.0 <= extent.start.0 + extent.length.0
                };
                assert!(reached.clone().any(within), "{io:?} reaches {mapping:?}");
            }
        });
    }
}

#[test]
fn an_io_is_covered_in_as_many_steps_as_it_has_sectors_at_most() {
    for sample in SAMPLES.iter().filter(|sample| sample.length < 10_000) {
        with_target(sample, |_, target| {
            let (mut at, mut steps) = (0, 0);
            while at < sample.length {
                let (start, length) = (Sector(at), Sector(sample.length - at));
                at += target.map(&IoRange { start, length, op: Op::Read }).length().0;
                steps += 1;
            }
            assert_eq!(at, sample.length);
            assert!(steps <= sample.length);
        });
    }
}

#[test]
fn one_word_too_many_is_einval() {
    for sample in SAMPLES.iter().filter(|sample| !sample.takes_more) {
        for word in ["0", "x", "/dev/a", "19:3", "#"] {
            let params = format!("{} {word}", sample.params);
            let result = build(sample.kind, sample.length, &params);
            let errno = result.err().map(|error| error.mistake.errno);
            assert_eq!(errno, Some(Errno::EINVAL), "{} {params}", sample.kind);
        }
    }
}

#[test]
fn words_that_are_ignored_are_not_kept() {
    for sample in SAMPLES.iter().filter(|sample| sample.takes_more) {
        if sample.least == Some(sample.params.split_whitespace().count()) {
            // The next word would belong to the target.
            continue;
        }
        let params = format!("{} /dev/nosuch x 0", sample.params);
        let table = build(sample.kind, sample.length, &params).unwrap();
        let target = table.target(Sector::ZERO).unwrap();
        assert_eq!(table.secrets(target), sample.table, "{}", sample.kind);
    }
}

#[test]
fn a_word_too_few_is_einval() {
    for sample in SAMPLES {
        let words: Vec<&str> = sample.params.split_whitespace().collect();
        for kept in 0..sample.least.unwrap_or(words.len()) {
            let params = words[..kept].join(" ");
            let result = build(sample.kind, sample.length, &params);
            let errno = result.err().map(|error| error.mistake.errno);
            assert_eq!(errno, Some(Errno::EINVAL), "{} {params}", sample.kind);
        }
    }
}

#[test]
fn a_wrong_word_in_any_place_is_refused() {
    for sample in SAMPLES {
        let words: Vec<&str> = sample.params.split_whitespace().collect();
        for at in 0..words.len() {
            for wrong in
                ["x", "-1", "+1", "1.5", "0x8", "184467440737095516160", "%n", "/dev/nosuch"]
            {
                let mut words = words.clone();
                words[at] = wrong;
                let params = words.join(" ");
                let result = build(sample.kind, sample.length, &params);
                let errno = result.err().map(|error| error.mistake.errno);
                let refused = matches!(errno, Some(Errno::EINVAL | Errno::ENOENT | Errno::E2BIG));
                assert!(refused, "{} {params}: {errno:?}", sample.kind);
            }
        }
    }
}

#[test]
fn a_message_that_nobody_knows_is_einval() {
    for sample in SAMPLES {
        with_target(sample, |_, target| {
            for text in ["", "nosuchmessage", "%s%n"] {
                let mut reply = String::new();
                let result = target.message(text, &mut reply);
                assert_eq!((result, &*reply), (Err(Errno::EINVAL), ""), "{}", sample.kind);
            }
        });
    }
}

#[test]
fn a_path_that_is_too_long_is_enametoolong() {
    let long = "p".repeat(2000);
    for sample in SAMPLES {
        for (at, word) in sample.params.split_whitespace().enumerate() {
            if word.contains(['/', ':']) {
                let mut words: Vec<String> =
                    sample.params.split_whitespace().map(String::from).collect();
                words[at] = long.clone();
                let result = build(sample.kind, sample.length, &words.join(" "));
                assert_eq!(result.err().map(|e| e.mistake.errno), Some(Errno::ENAMETOOLONG));
            }
        }
    }
}
