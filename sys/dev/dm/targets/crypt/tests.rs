// SPDX-License-Identifier: BSD-2-Clause

//! Parameters, keys and IVs of crypt lines. Encrypted data is compared with Linux's
//! (regress/linux), and with published vectors in the hosted kernel.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::keys::{Keys, Secret};
use super::words::Cipher;
use super::*;
use crate::aes::BLOCK;
use crate::commands::{self, flags};
use crate::mistake::TableError;
use crate::table::{Builder, Table};
use crate::targets::tests::Disks;
use crate::testing::{Bench, Disk, Request, aes};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn table(length: u64, params: &str) -> Result<Table<Disk>, TableError> {
    let mut builder = Builder::new(&Disks);
    builder.line(0, length, "crypt", params)?;
    builder.build()
}

fn errno(length: u64, params: &str) -> Result<(), Errno> {
    table(length, params).map(drop).map_err(|error| error.mistake.errno)
}

/// The parameters that `table` prints of a line.
fn printed(params: &str) -> String {
    let table = table(96, params).unwrap();
    table.secrets(table.target(Sector::ZERO).unwrap())
}

#[test]
fn ciphers_are_known_by_both_of_their_names() {
    let names = [
        "aes-xts-plain64",
        "aes-xts-plain",
        "aes-xts-plain64be",
        "aes-xts-benbi",
        "aes-xts-null",
        "aes-xts-eboiv",
        "aes-cbc-essiv:sha256",
        "aes-cbc-plain",
        "aes-ecb",
        "aes",
        "aes-plain",
        "aes:1-cbc-plain64",
        "aes:2-cbc-essiv:md5",
        "capi:xts(aes)-plain64",
        "capi:cbc(aes)-essiv:sha256",
    ];
    for name in names {
        let key = if name.contains("md5") { &KEY.repeat(2)[..64] } else { KEY };
        let line = format!("{name} {key} 7 19:3 0");
        assert_eq!(printed(&line), line);
    }
    let lines = ["cipher_null-ecb - 0 19:3 0", "capi:ecb(cipher_null)-null - 0 19:3 0"];
    for line in lines {
        assert_eq!(printed(line), line);
    }
}

#[test]
fn other_ciphers_are_refused() {
    let einval = [
        "aes-xts",
        "aes-cbc",
        "aes-xts-nosuch",
        "aes-xts-plain64-x",
        "aes-cbc-essiv",
        "aes-xts-lmk",
        "aes:3-xts-plain64",
        "aes:0-xts-plain64",
        "aes:-xts-plain64",
        "aes:128-xts-plain64",
        "aes:+1-xts-plain64",
        "xts(aes)-plain64",
        "capi:xts(aes)",
    ];
    for name in einval {
        assert_eq!(errno(96, &format!("{name} {KEY} 0 /dev/a 0")), Err(Errno::EINVAL), "{name}");
    }
    let enoent = [
        "",
        "serpent-xts-plain64",
        "aes-lrw-plain64",
        "AES-xts-plain64",
        "aes-cbc-essiv:nosuch",
        "aes-cbc-essiv:sha512",
        "capi:",
        "capi:xts(aes-plain64",
        "capi:xts(serpent)-plain64",
    ];
    for name in enoent.into_iter().filter(|name| !name.is_empty()) {
        assert_eq!(errno(96, &format!("{name} {KEY} 0 /dev/a 0")), Err(Errno::ENOENT), "{name}");
    }
}

#[test]
fn keys_are_as_long_as_the_cipher_wants() {
    let takes = |name: &str, bytes: usize| {
        let key = match bytes {
            0 => "-".into(),
            _ => "5a".repeat(bytes),
        };
        errno(96, &format!("{name} {key} 0 /dev/a 0")).is_ok()
    };
    let sizes = |name: &str| (0..=300).filter(|bytes| takes(name, *bytes)).collect::<Vec<_>>();
    assert_eq!(sizes("aes-xts-plain64"), [32, 48, 64]);
    assert_eq!(sizes("aes:4-xts-plain64"), [128, 192, 256]);
    assert_eq!(sizes("aes-cbc-plain64"), [16, 24, 32]);
    assert_eq!(sizes("aes:2-cbc-plain64"), [32, 48, 64]);
    assert_eq!(sizes("cipher_null-ecb"), [0]);
    for key in ["0", "0g", "zz", ":32:logon:x", "0x00", "+1", "é0"] {
        let line = format!("aes-cbc-plain64 {key} 0 /dev/a 0");
        assert_eq!(errno(96, &line), Err(Errno::EINVAL), "{key}");
    }
}

#[test]
fn features_come_in_any_order_and_go_in_one() {
    let line = |features: &str| format!("aes-xts-plain64 {KEY} 8 19:3 0{features}");
    let same = |given: &str, wanted: &str| assert_eq!(printed(&line(given)), line(wanted));
    same(" 0", "");
    same(" 0 nosuch", "");
    same(" 1 allow_discards nosuch", " 1 allow_discards");
    same(" 1 ALLOW_discards", " 1 allow_discards");
    same(" 1 sector_size:512", "");
    same(" 2 iv_large_sectors sector_size:4096", " 2 sector_size:4096 iv_large_sectors");
    same(
        " 6 iv_large_sectors no_write_workqueue no_read_workqueue submit_from_crypt_cpus \
         same_cpu_crypt allow_discards",
        " 6 allow_discards same_cpu_crypt submit_from_crypt_cpus no_read_workqueue \
         no_write_workqueue iv_large_sectors",
    );
    let refused = [
        " 1",
        " x",
        " 1 nosuch",
        " 2 allow_discards",
        " 1 sector_size:",
        " 1 sector_size:256",
        " 1 sector_size:1000",
        " 1 sector_size:8192",
        " 1 sector_size:+512",
        " 1 integrity:16:aead",
        " 9 a a a a a a a a a",
    ];
    for features in refused {
        assert_eq!(errno(96, &line(features)), Err(Errno::EINVAL), "{features}");
    }
}

#[test]
fn large_sectors_are_the_devices_and_nothing_is_cut() {
    let line =
        |iv: u64, at: u64| format!("aes-xts-plain64 {KEY} {iv} /dev/a {at} 1 sector_size:4096");
    let made = table(96, &line(8, 0)).unwrap();
    assert_eq!(made.sector_size(), 4096);
    assert_eq!(table(96, &format!("aes-xts-plain64 {KEY} 3 /dev/a 1")).unwrap().sector_size(), 512);
    assert_eq!(errno(97, &line(8, 0)), Err(Errno::EINVAL));
    assert_eq!(errno(96, &line(9, 0)), Err(Errno::EINVAL));
    assert_eq!(errno(96, &line(8, 1)), Err(Errno::EINVAL));
    let crypt = made.target(Sector::ZERO).unwrap();
    for (start, length) in [(1, 8), (8, 1), (0, 4)] {
        let io = IoRange { start: Sector(start), length: Sector(length), op: Op::Write };
        let fails = Mapping::Fail { length: Sector(length), error: Errno::EIO };
        assert_eq!(crypt.map(&io), fails);
    }
}

/// The IV of a sector.
fn iv(name: &str, key: &str, sector: u64, sector_size: u32) -> [u8; BLOCK] {
    let mut found = None;
    // Only a line can be asked for hash functions.
    static TYPES: &[&TargetType] = &[&TargetType { name: "asks", version: [0; 3], new: asks }];
    fn asks(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
        let cipher = Cipher::new(line.params.word("")?, line)?;
        let keys = Keys::new(&aes::RUST, &cipher, Secret::parse(line.params.word("")?).unwrap());
        let keys = keys.unwrap();
        let number = |line: &mut LineSpec<'_>| line.params.number("").unwrap();
        let (sector, size) = (number(line), number(line) as u32);
        let part = keys.part(sector).unwrap();
        let iv = cipher.iv.of(sector, size, (&aes::RUST, cipher.chain, &keys, part));
        Err(Mistake::new(Errno::EIO, "").about(format_args!("{}", u128::from_be_bytes(iv))))
    }
    let mut builder = Builder::with_types(&Disks, TYPES);
    let line = format!("{name} {key} {sector} {sector_size}");
    if let Err(told) = builder.line(0, 96, "asks", &line) {
        found = told.mistake.about.parse::<u128>().ok();
    }
    found.unwrap().to_be_bytes()
}

#[test]
fn ivs_are_as_each_way_has_them() {
    let of = |name: &str, sector, size| iv(&format!("aes-cbc-{name}"), KEY, sector, size);
    let mut low = [0; BLOCK];
    low[..8].copy_from_slice(&0x0102_0304_0506_0708u64.to_le_bytes());
    assert_eq!(of("plain64", 0x0102_0304_0506_0708, 512), low);
    low[4..8].fill(0);
    assert_eq!(of("plain", 0x0102_0304_0506_0708, 512), low);
    let mut high = [0; BLOCK];
    high[8..].copy_from_slice(&0x0102_0304_0506_0708u64.to_be_bytes());
    assert_eq!(of("plain64be", 0x0102_0304_0506_0708, 512), high);
    high[8..].copy_from_slice(&(7u64 * 32 + 1).to_be_bytes());
    assert_eq!(of("benbi", 7, 512), high);
    assert_eq!(of("null", 7, 512), [0; BLOCK]);
    // Made with OpenSSL: AES-256 of the plain64 IV with SHA-256 of the key, and of the offset in
    // bytes with the key.
    let hex = |text: &str| u128::from_str_radix(text, 16).unwrap().to_be_bytes();
    assert_eq!(of("essiv:sha256", 7, 512), hex("4e1a000085e881e0f6ce130bc5941373"));
    assert_eq!(of("eboiv", 7, 4096), hex("6486aa583c3558461627ef58125fbf4e"));
    // Of two keys, Linux takes the first one for all sectors.
    let other: String = KEY.chars().rev().collect();
    let two = iv("aes:2-cbc-eboiv", &format!("{KEY}{other}"), 7, 4096);
    assert_eq!(two, of("eboiv", 7, 4096));
}

/// A bench with a device `d` of one crypt line.
fn bench(line: &str) -> Bench {
    let bench = Bench::new();
    bench.device("d", &[(0, 96, "crypt", line)]);
    bench
}

/// The parameters that `table` prints for a caller whose control node is open for writing, or not.
fn shown(bench: &Bench, writable: bool) -> String {
    let mut dict = Request::on("table", "d").flags(flags::STATUS_TABLE).dict().clone();
    commands::execute(&bench.driver, &mut dict, writable).unwrap();
    let line = dict.array("cmd_data").unwrap()[0].dict().unwrap();
    line.string("params").unwrap().into()
}

fn message(bench: &Bench, text: &str) -> Result<(), Errno> {
    bench.send(&Request::on("message", "d").with("message", text)).map(drop)
}

#[test]
fn keys_are_shown_to_who_may_change_devices_only() {
    let line = format!("aes-xts-plain64 {KEY} 0 19:3 0");
    let bench = bench(&line);
    assert_eq!(shown(&bench, true), line);
    let zeroes = format!("aes-xts-plain64 {} 0 19:3 0", "0".repeat(64));
    assert_eq!(shown(&bench, false), zeroes);
    bench.kernel.privileged(false);
    assert_eq!(shown(&bench, true), zeroes);
}

#[test]
fn no_refusal_and_no_line_on_the_console_shows_a_key() {
    let bench = Bench::new();
    bench.on("create", "d");
    let words = ["aes-xts-plain64", KEY, "0", "/dev/a", "0", "1", "allow_discards"];
    let mut refused = 0;
    for from in 0..words.len() {
        for to in from..words.len() {
            let mut line = words;
            line.swap(from, to);
            for end in 0..=words.len() {
                let lines = [(0, 96, "crypt", &*line[..end].join(" "))];
                let reply = bench.send(&Request::reload("d", &lines).with("reasons", 1u64));
                // A line too many, or a key behind the words, is no better.
                let reply = reply.unwrap();
                refused += usize::from(reply.number("errno") != Some(0));
                let reason = reply.string("reason").unwrap_or_default();
                assert!(!reason.contains("0102"), "{reason}");
                // The console takes few lines a second.
                bench.kernel.pass_second();
            }
        }
    }
    let said = bench.kernel.said();
    assert!(refused > 150 && said.len() > 150, "{refused} refusals, {} lines", said.len());
    assert!(said.iter().all(|line| !line.contains("0102")), "{said:#?}");
}

#[test]
fn keys_change_while_the_device_is_suspended() {
    let other = KEY.replace("0102", "aabb");
    let line = |key: &str| format!("aes-xts-plain64 {key} 0 19:3 0");
    let bench = bench(&line(KEY));
    let set = |key: &str| message(&bench, &format!("key set {key}"));
    assert_eq!((set(KEY), message(&bench, "key wipe")), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
    bench.on("suspend", "d");
    let short = &KEY[..62];
    for wrong in ["", "00", "-", short, &KEY.replace('0', "g")] {
        assert_eq!(set(wrong), Err(Errno::EINVAL), "{wrong}");
    }
    for wrong in ["key", "key nosuch", "wipe", "key wipe x", &format!("key set {KEY} x")] {
        assert_eq!(message(&bench, wrong), Err(Errno::EINVAL), "{wrong}");
    }
    assert_eq!(shown(&bench, true), line(KEY));
    assert_eq!(message(&bench, "key wipe"), Ok(()));
    assert_eq!(shown(&bench, true), line(&"0".repeat(64)));
    // Without a key there is no I/O.
    assert_eq!(bench.send(&Request::on("resume", "d")).err(), Some(Errno::EAGAIN));
    assert!(bench.flags("d") & flags::SUSPEND != 0 && bench.unit("d").held());
    assert_eq!(message(&bench, &format!("KEY Set {}", other.to_uppercase())), Ok(()));
    assert_eq!(shown(&bench, true), line(&other));
    bench.on("resume", "d");
    assert!(!bench.unit("d").held());
    // A table that is loaded with its key needs no message.
    bench.on("suspend", "d");
    assert_eq!(message(&bench, "key wipe"), Ok(()));
    bench.done(&Request::reload("d", &[(0, 96, "crypt", &line(KEY))]));
    bench.on("resume", "d");
    assert_eq!(shown(&bench, true), line(KEY));
}

#[test]
fn a_kernel_without_aes_has_no_such_target() {
    let bench = Bench::new();
    let names = |bench: &Bench| format!("{:?}", bench.done(&Request::new("targets")));
    assert!(names(&bench).contains("\"crypt\""));
    bench.kernel.without_aes();
    assert!(!names(&bench).contains("\"crypt\"") && names(&bench).contains("\"linear\""));
    bench.on("create", "d");
    let line = format!("aes-xts-plain64 {KEY} 0 /dev/a 0");
    bench.refused(&Request::reload("d", &[(0, 96, "crypt", &line)]), Errno::ENOENT);
    let said = bench.kernel.said();
    assert!(said.iter().any(|line| line.contains("the kernel has no AES")), "{said:?}");
}
