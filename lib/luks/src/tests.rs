// SPDX-License-Identifier: BSD-2-Clause

use serde_json::{Value, json};

use crate::testing::{self, AREA, DATA, HEADER, KEY, PASSPHRASE, sample1, sample2};
use crate::{Error, Header, Limits, Version};

/// Little enough to try many thousands of disks.
const SMALL: Limits =
    Limits { pbkdf2_rounds: 1000, argon2_kib: 256, argon2_work_kib: 1024, argon2_lanes: 4 };

fn open(disk: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, Error> {
    let key = Header::read(disk)?.unlock(disk, passphrase, None, &SMALL)?;
    Ok(key.expose().to_vec())
}

/// A LUKS2 disk with this JSON.
fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let old = sample2();
    let text = &old[4096..HEADER];
    let end = text.iter().position(|byte| *byte == 0).unwrap();
    let mut json: Value = serde_json::from_slice(&text[..end]).unwrap();
    change(&mut json);
    let mut disk = testing::luks2(json.to_string().as_bytes(), [5, 5]);
    disk[AREA..].copy_from_slice(&old[AREA..]);
    disk
}

#[track_caller]
fn refused(disk: &[u8], why: &str) {
    let header = Header::read(disk);
    let result = header.and_then(|header| {
        header.payload(disk.len() as u64)?;
        header.unlock(disk, PASSPHRASE, Some(1), &SMALL)
    });
    let said = result.expect_err("refused").to_string();
    assert!(said.contains(why), "{said}");
}

#[test]
fn both_versions_open() {
    for (disk, version) in [(sample1(), Version::One), (sample2(), Version::Two)] {
        let header = Header::read(&disk).unwrap();
        assert_eq!(header.version, version);
        assert_eq!(header.uuid, "7f0a6a5c-0001-4000-8000-00805f9b34fb");
        assert_eq!(open(&disk, PASSPHRASE).unwrap(), KEY);
        assert!(matches!(open(&disk, b"open barley"), Err(Error::WrongKey { tried: 1, .. })));
        assert!(matches!(header.unlock(&disk, PASSPHRASE, Some(7), &SMALL), Err(Error::NoSlot(7))));
    }
}

#[test]
fn a_table_has_the_key_and_the_place() {
    let disk = sample2();
    let header = Header::read(&disk).unwrap();
    let key = header.unlock(&disk, PASSPHRASE, None, &SMALL).unwrap();
    let lines = header.payload(DATA as u64 + 1500).unwrap();
    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = DATA / 512;
    let text = lines[0].text(&key, "/dev/wd0", &["allow_discards"]);
    let wanted = format!("0 2 crypt aes-xts-plain64 {hex} 0 /dev/wd0 {place} 1 allow_discards");
    assert_eq!(*text, wanted);
    assert!(!format!("{key:?}").contains("0123"));
}

#[test]
fn large_sectors_and_two_segments_make_lines() {
    let disk = with(|json| {
        json["segments"]["0"]["size"] = "8192".into();
        json["segments"]["0"]["sector_size"] = 4096.into();
        json["segments"]["0"]["iv_tweak"] = "16".into();
        json["segments"]["1"] = json["segments"]["0"].clone();
        json["segments"]["1"]["offset"] = (DATA + 8192).to_string().into();
        json["segments"]["1"]["size"] = "dynamic".into();
    });
    let header = Header::read(&disk).unwrap();
    let lines = header.payload(DATA as u64 + 8192 + 5000).unwrap();
    let key = testing::made_up_key(2);
    let texts: Vec<_> = lines.iter().map(|line| line.text(&key, "d", &[]).to_string()).collect();
    let place = DATA / 512;
    assert_eq!(
        texts,
        [
            format!("0 16 crypt aes-xts-plain64 5a5a 16 d {place} 1 sector_size:4096"),
            format!("16 8 crypt aes-xts-plain64 5a5a 16 d {} 1 sector_size:4096", place + 16),
        ]
    );
}

#[test]
fn the_newer_copy_is_used() {
    let json = {
        let disk = sample2();
        let text = &disk[4096..HEADER];
        text[..text.iter().position(|byte| *byte == 0).unwrap()].to_vec()
    };
    let used = |disk: &[u8]| {
        let header = Header::read(disk).unwrap();
        let copies: Vec<bool> = header.copies.iter().map(|copy| copy.used).collect();
        (copies, header.copies.iter().map(|copy| copy.state.is_ok()).collect::<Vec<_>>())
    };
    assert_eq!(used(&testing::luks2(&json, [5, 5])), (vec![true, false], vec![true, true]));
    assert_eq!(used(&testing::luks2(&json, [5, 6])), (vec![false, true], vec![true, true]));
    assert_eq!(used(&testing::luks2(&json, [7, 6])), (vec![true, false], vec![true, true]));
    let mut disk = testing::luks2(&json, [7, 6]);
    disk[5000] ^= 1;
    assert_eq!(used(&disk), (vec![false, true], vec![false, true]));
    // Nothing is left of the first.
    disk[..HEADER].fill(0);
    assert_eq!(used(&disk), (vec![false, true], vec![false, true]));
    disk[HEADER + 5000] ^= 1;
    assert!(matches!(Header::read(&disk), Err(Error::Damaged(_))));
    disk[..AREA].fill(0);
    assert!(matches!(Header::read(&disk), Err(Error::NotLuks)));
    assert!(matches!(Header::read(&disk[..3]), Err(Error::NotLuks)));
}

/// Every single bit of what the key depends on: it is found right, or not at all.
#[test]
fn no_flipped_bit_gives_another_key() {
    for (mut disk, end) in [(sample1(), 592), (sample2(), AREA)] {
        // Bytes that are neither header nor area are not read.
        let area = AREA..AREA + KEY.len() * testing::STRIPES;
        let mut opened = 0;
        for at in (0..end).chain(area) {
            // Of the zeros that fill up the headers, a few do.
            if disk[at] == 0
                && disk[at.saturating_sub(8)..at].iter().all(|b| *b == 0)
                && at % 16 > 0
            {
                continue;
            }
            let bit = 1 << (at * 5 % 8);
            disk[at] ^= bit;
            if let Ok(header) = Header::read(&disk) {
                let _ = header.payload(disk.len() as u64);
                if let Ok(key) = header.unlock(&disk, PASSPHRASE, None, &SMALL) {
                    assert_eq!(key.expose(), KEY, "byte {at}");
                    opened += 1;
                }
            }
            disk[at] ^= bit;
        }
        assert!(opened > 0);
    }
}

/// A flipped bit in both copies, with right checksums.
#[test]
fn no_flipped_bit_of_a_sound_header_gives_another_key() {
    let mut disk = sample2();
    let json = 4096 + disk[4096..HEADER].iter().position(|byte| *byte == 0).unwrap();
    for at in (0..512).chain(4096..json) {
        for bit in [0x01, 0x04, 0x80] {
            disk[at] ^= bit;
            disk[HEADER + at] ^= bit;
            testing::checksum(&mut disk);
            if let Ok(header) = Header::read(&disk) {
                let _ = header.payload(disk.len() as u64);
                if let Ok(key) = header.unlock(&disk, PASSPHRASE, None, &SMALL) {
                    assert_eq!(key.expose(), KEY, "byte {at}");
                }
            }
            disk[at] ^= bit;
            disk[HEADER + at] ^= bit;
        }
    }
}

#[test]
fn what_costs_too_much_is_not_begun() {
    let kdf = |kdf: Value| with(|json| json["keyslots"]["1"]["kdf"] = kdf);
    let argon2 = |time: u32, kib: u32, lanes: u32| {
        let salt = "c2FsdCBvZiBrZXlzbG90";
        kdf(json!({
            "type": "argon2id", "time": time, "memory": kib, "cpus": lanes, "salt": salt
        }))
    };
    refused(&argon2(1, i32::MAX as u32, 1), "2147483647 KiB for argon2");
    refused(&argon2(i32::MAX as u32, 256, 1), "passes of argon2");
    refused(&argon2(1, 256, 1 << 24), "lanes of argon2");
    refused(&argon2(0, 256, 1), "argon2: ");
    refused(&argon2(1, 8, 4), "argon2: ");
    refused(&argon2(1, 256, 4), "opens no keyslot");
    refused(
        &with(|json| json["keyslots"]["1"]["kdf"]["iterations"] = i32::MAX.into()),
        "rounds of PBKDF2",
    );
    refused(&with(|json| json["digests"]["0"]["iterations"] = i32::MAX.into()), "rounds of PBKDF2");
    refused(&with(|json| json["keyslots"]["1"]["kdf"]["iterations"] = 0.into()), "iterations");
    let text = with(|json| json["keyslots"]["1"]["kdf"]["iterations"] = i32::MAX.into());
    let said = open(&text, PASSPHRASE).unwrap_err().to_string();
    assert!(said.contains("no keyslot could be tried; keyslot 1: refused"), "{said}");
}

#[test]
fn what_cannot_be_is_refused() {
    let slot = |key: &str, value: Value| {
        let key = key.to_string();
        with(move |json| json["keyslots"]["1"][&key] = value)
    };
    let area = |key: &str, value: Value| {
        let key = key.to_string();
        with(move |json| json["keyslots"]["1"]["area"][&key] = value)
    };
    let segment = |key: &str, value: Value| {
        let key = key.to_string();
        with(move |json| json["segments"]["0"][&key] = value)
    };
    refused(&slot("key_size", 513.into()), "key_size of keyslot 1");
    refused(&slot("key_size", (-1).into()), "key_size of keyslot 1");
    refused(&slot("type", "reencrypt".into()), "a keyslot of type \"reencrypt\"");
    refused(&slot("priority", 3.into()), "priority");
    refused(&with(|json| json["keyslots"]["1"]["af"]["stripes"] = 0.into()), "stripes");
    refused(&with(|json| json["keyslots"]["1"]["af"]["stripes"] = 129.into()), "stripes");
    refused(&with(|json| json["keyslots"]["1"]["af"]["hash"] = "md5".into()), "the hash \"md5\"");
    refused(&area("offset", "0".into()), "outside of where keyslots are");
    refused(&area("offset", u64::MAX.to_string().into()), "outside of where keyslots are");
    refused(&area("size", u64::MAX.to_string().into()), "outside of where keyslots are");
    refused(&area("offset", (AREA + 512).to_string().into()), "outside of where keyslots are");
    refused(&area("size", "4608".into()), "outside of where keyslots are");
    refused(&area("size", "1e3".into()), "size of area");
    refused(&area("encryption", "cipher_null-ecb".into()), "not encrypted");
    refused(&area("encryption", "aes-lrw-benbi".into()), "the cipher \"aes-lrw-benbi\"");
    refused(&area("key_size", 31.into()), "with a key of 248 bits");
    refused(&segment("offset", (1_u64 << 40).to_string().into()), "beyond the end");
    refused(&segment("offset", (DATA + 1).to_string().into()), "does not begin with a sector");
    refused(&segment("size", "0".into()), "no sector");
    refused(&segment("size", "512000".into()), "beyond the end");
    refused(&segment("sector_size", 8192.into()), "sectors of 8192 bytes");
    refused(&segment("encryption", "cipher_null-ecb".into()), "it is not encrypted");
    refused(&segment("encryption", "aes x".into()), "the cipher \"aes x\"");
    refused(&segment("type", "linear".into()), "its type is \"linear\"");
    refused(&segment("integrity", json!({ "type": "hmac(sha256)" })), "authenticated");
    refused(&segment("flags", json!(["in-reencryption"])), "encrypted anew");
    let none = with(|json| {
        json["segments"] = json!({});
        json["digests"]["0"]["segments"] = json!([]);
    });
    refused(&none, "it has no segment");
    refused(&with(|json| json["segments"]["00"] = json!({})), "\"00\" is no number");
    refused(&with(|json| json["digests"]["0"]["segments"] = json!([])), "opens no segment");
    refused(&with(|json| json["digests"]["0"]["digest"] = "AAAA".into()), "too short");
    refused(
        &with(|json| json["config"]["requirements"] = json!({ "mandatory": ["online-reencrypt"] })),
        "requires \"online-reencrypt\"",
    );
    refused(
        &with(|json| {
            for number in 2..40 {
                json["tokens"][number.to_string()] = json!({ "type": "x", "keyslots": [] });
            }
        }),
        "39 tokens",
    );
    refused(&with(|json| json["config"]["json_size"] = "12287".into()), "json_size");
    refused(&with(|json| json["config"]["keyslots_size"] = "4097".into()), "keyslots_size");
    refused(&with(|json| json["config"]["keyslots_size"] = "8192".into()), "where keyslots are");
    refused(&with(|json| json["digests"]["0"]["keyslots"] = json!([])), "keyslot 1 has 0 digests");
    refused(&with(|json| json["digests"]["1"] = json["digests"]["0"].clone()), "has 2 digests");
    refused(&with(|json| json["digests"]["0"]["keyslots"] = json!(["1", "2"])), "not there");
    refused(&with(|json| json["digests"]["0"]["segments"] = json!(["0", "1"])), "not there");
    refused(&with(|json| json["tokens"]["0"]["keyslots"] = json!(["2"])), "token 0");
    refused(
        &with(|json| {
            json["keyslots"]["2"] = json["keyslots"]["1"].clone();
            json["digests"]["0"]["keyslots"] = json!(["1", "2"]);
        }),
        "overlap",
    );
    refused(&with(|json| json["segments"]["2"] = json["segments"]["0"].clone()), "no segment 1");
    let mut disk = sample2();
    for copy in [0, HEADER] {
        disk[copy + HEADER - 1] = b' ';
    }
    testing::checksum(&mut disk);
    refused(&disk, "beside its JSON");
    refused(&testing::luks2(b" {}", [1, 1]), "beside its JSON");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(6000), "]".repeat(6000));
    refused(&testing::luks2(deep.as_bytes(), [1, 1]), "JSON");
    refused(&testing::luks2(b"", [1, 1]), "JSON");
}

/// An ignored keyslot is tried only if it is named, and a preferred one first.
#[test]
fn priorities() {
    let disk = with(|json| json["keyslots"]["1"]["priority"] = 0.into());
    assert!(matches!(open(&disk, PASSPHRASE), Err(Error::WrongKey { tried: 0, .. })));
    let header = Header::read(&disk).unwrap();
    assert_eq!(header.unlock(&disk, PASSPHRASE, Some(1), &SMALL).unwrap().expose(), KEY);
    // The same key in another slot, of number 0.
    let disk = with(|json| {
        json["keyslots"]["0"] = json["keyslots"]["1"].clone();
        json["keyslots"]["0"]["priority"] = 1.into();
        json["keyslots"]["0"]["area"]["size"] = "512".into();
        json["keyslots"]["1"]["area"]["size"] = "512".into();
        json["keyslots"]["0"]["area"]["offset"] = (AREA + 512).to_string().into();
        json["digests"]["0"]["keyslots"] = json!(["0", "1"]);
    });
    let header = Header::read(&disk).unwrap();
    assert_eq!(header.unlock(&disk, PASSPHRASE, None, &SMALL).unwrap().keyslot, 1);
}
