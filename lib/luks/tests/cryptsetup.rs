// SPDX-License-Identifier: BSD-2-Clause

//! cryptsetup's images, and what it says of them.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use common::{Folder, LIMITS, key, run, text, try_run};
use dm_luks::{Error, Header, Kdf, Priority, Version};
use serde_json::Value;

const PASSPHRASE: &[u8] = b"correct horse\nbattery";

/// A folder with a passphrase's file, and images.
struct Bench {
    folder: Folder,
    key_file: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let folder = Folder::new();
        let key_file = folder.holds("passphrase", PASSPHRASE);
        Bench { folder, key_file }
    }

    /// An image as these words make it; `None` if cryptsetup here cannot.
    fn try_format(&self, name: &str, words: &str) -> Option<PathBuf> {
        let image = self.folder.empty(name, 20);
        let mut args = vec!["-q", "luksFormat"];
        args.extend(words.split_whitespace());
        args.extend([text(&image), text(&self.key_file)]);
        try_run("cryptsetup", &args).ok().map(|_| image)
    }

    #[track_caller]
    fn format(&self, name: &str, words: &str) -> PathBuf {
        self.try_format(name, words).unwrap_or_else(|| panic!("cryptsetup luksFormat {words}"))
    }

    /// The volume key, as cryptsetup finds it.
    fn theirs(&self, image: &Path) -> Vec<u8> {
        let to = self.folder.path("volume-key");
        let args = ["-q", "luksDump", "--dump-volume-key", "--key-file", text(&self.key_file)];
        let more = ["--volume-key-file", text(&to), text(image)];
        run("cryptsetup", &[&args[..], &more].concat());
        let key = fs::read(&to).expect("the key");
        fs::remove_file(to).expect("it was there");
        key
    }

    #[track_caller]
    fn same_key(&self, image: &Path) {
        let (ours, theirs) = (key(image, PASSPHRASE), self.theirs(image));
        assert!(ours == theirs, "{}: another key", image.display());
    }
}

fn header(image: &Path) -> Header {
    Header::read(&File::open(image).expect("the image")).expect("a header")
}

#[test]
fn luks1_in_all_its_modes() {
    let bench = Bench::new();
    let mut made = 0;
    let hashes = ["sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "whirlpool"];
    let more = ["sha3-256", "blake2b-512", "blake2s-256"];
    let modes = [
        "aes-xts-plain64 -s 256",
        "aes-xts-plain64 -s 512",
        "aes-xts-plain -s 512",
        "aes-xts-plain64be -s 512",
        "aes-xts-benbi -s 256",
        "aes-xts-essiv:sha256 -s 512",
        "aes-cbc-essiv:sha256 -s 128",
        "aes-cbc-essiv:sha256 -s 256",
        "aes-cbc-plain -s 192",
        "aes-cbc-plain64 -s 128",
        "aes-cbc-benbi -s 256",
        "aes-cbc-null -s 256",
        "aes-cbc-eboiv -s 256",
        "aes-ecb -s 256",
    ];
    let hashes = hashes.iter().chain(&more).map(|hash| format!("--hash {hash}"));
    let modes = modes.iter().map(|mode| format!("-c {mode}"));
    for (number, words) in hashes.chain(modes).enumerate() {
        let all = format!("--type luks1 --pbkdf-force-iterations 1000 {words}");
        let name = format!("{number}.img");
        let Some(image) = bench.try_format(&name, &all) else {
            eprintln!("not tried, cryptsetup here has not got it: {words}");
            continue;
        };
        eprintln!("{words}");
        bench.same_key(&image);
        same_as_dump1(&image);
        fs::remove_file(image).expect("it was there");
        made += 1;
    }
    assert!(made >= 12, "cryptsetup made {made} images");
}

/// Compares a LUKS1 image with the output of `cryptsetup luksDump`.
#[track_caller]
fn same_as_dump1(image: &Path) {
    let said = run("cryptsetup", &["luksDump", text(image)]);
    let value = |key: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{key} in {said}")).trim().to_string()
    };
    let header = header(image);
    assert_eq!(header.version, Version::One);
    assert_eq!(header.uuid, value("UUID"));
    let (segment, digest) = (&header.segments[0], &header.digests[0]);
    let (name, mode) = (value("Cipher name"), value("Cipher mode"));
    assert_eq!(segment.cipher, format!("{name}-{mode}"));
    assert_eq!((segment.offset / 512).to_string(), value("Payload offset"));
    assert_eq!(digest.hash, value("Hash spec"));
    assert_eq!(digest.iterations.to_string(), value("MK iterations"));
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x} ")).collect::<String>();
    assert_eq!(hex(&digest.digest).trim(), value("MK digest"));
    let slot = header.keyslots[0].slot.as_ref().expect("a key");
    assert_eq!((slot.key_bytes * 8).to_string(), value("MK bits"));
    assert_eq!((slot.area.offset / 512).to_string(), value("Key material offset"));
    assert_eq!(slot.af.stripes.to_string(), value("AF stripes"));
    let Kdf::Pbkdf2 { iterations, .. } = &slot.kdf else { panic!("{slot:?}") };
    assert_eq!(iterations.to_string(), value("Iterations"));
    let on = said.lines().filter(|line| line.ends_with(": ENABLED")).count();
    assert_eq!(header.keyslots.len(), on);
}

#[test]
fn luks2_in_all_its_modes() {
    let bench = Bench::new();
    let argon2 = "--pbkdf-force-iterations 4 --pbkdf-memory 64 --pbkdf-parallel";
    let pbkdf2 = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    for words in [
        format!("--pbkdf argon2i {argon2} 1"),
        format!("--pbkdf argon2id {argon2} 1"),
        format!("--pbkdf argon2id {argon2} 4"),
        format!("{pbkdf2} --sector-size 512"),
        format!("{pbkdf2} --sector-size 1024"),
        format!("{pbkdf2} --sector-size 2048"),
        format!("{pbkdf2} --sector-size 4096 --label home --subsystem disks"),
        format!("{pbkdf2} --hash sha512 -c aes-cbc-essiv:sha256 -s 256"),
        format!("{pbkdf2} --hash ripemd160 -c aes-xts-plain -s 256"),
        format!("{pbkdf2} --keyslot-cipher aes-cbc-plain64 --keyslot-key-size 128"),
        format!("{pbkdf2} --key-slot 31"),
        format!("{pbkdf2} --luks2-metadata-size 64k --luks2-keyslots-size 1M"),
        format!("{pbkdf2} --luks2-metadata-size 4m --luks2-keyslots-size 512k"),
        format!("{pbkdf2} --offset 36864"),
    ] {
        eprintln!("{words}");
        let image = bench.format("2.img", &format!("--type luks2 {words}"));
        bench.same_key(&image);
        same_as_dump2(&image);
        // Nothing but the second copy is left.
        let mut bytes = fs::read(&image).expect("the image");
        bytes[..4096].fill(0);
        let header = Header::read(&bytes).expect("the second copy");
        assert!(header.copies[1].used && !header.copies[0].used);
        let found = header.unlock(&bytes, PASSPHRASE, None, &LIMITS).expect("the key");
        assert!(found.expose() == key(&image, PASSPHRASE));
    }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().expect("digits"),
        value => value.as_u64().expect("a number"),
    }
}

/// Compares a LUKS2 image with the output of `cryptsetup luksDump`.
#[track_caller]
fn same_as_dump2(image: &Path) {
    let said = run("cryptsetup", &["luksDump", "--dump-json-metadata", text(image)]);
    let theirs: Value = serde_json::from_str(&said).expect("JSON");
    let plain = run("cryptsetup", &["luksDump", text(image)]);
    let value = |key: &str| {
        let line = plain.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key} in {plain}")).trim().to_string()
    };
    let ours = header(image);
    assert_eq!(ours.version, Version::Two);
    assert_eq!(ours.uuid, value("UUID:"));
    let or_none = |text: &str, what: &str| match text {
        "" => format!("(no {what})"),
        text => text.to_string(),
    };
    assert_eq!(or_none(&ours.label, "label"), value("Label:"));
    assert_eq!(or_none(&ours.subsystem, "subsystem"), value("Subsystem:"));
    let sequences: Vec<_> = ours.copies.iter().map(|copy| copy.state.clone()).collect();
    let epoch: u64 = value("Epoch:").parse().expect("a number");
    assert!(sequences.iter().all(|state| state.as_ref().is_ok_and(|(_, n)| *n == epoch)));
    let keyslots = theirs["keyslots"].as_object().expect("keyslots");
    assert_eq!(ours.keyslots.len(), keyslots.len());
    for keyslot in &ours.keyslots {
        let (slot, it) = (keyslot.slot.as_ref().unwrap(), &keyslots[&keyslot.number.to_string()]);
        assert_eq!(slot.key_bytes as u64, number(&it["key_size"]));
        assert_eq!(u64::from(slot.af.stripes), number(&it["af"]["stripes"]));
        assert_eq!(slot.af.hash, it["af"]["hash"]);
        assert_eq!(slot.area.offset, number(&it["area"]["offset"]));
        assert_eq!(slot.area.bytes, number(&it["area"]["size"]));
        assert_eq!(slot.area.cipher, it["area"]["encryption"]);
        assert_eq!(slot.area.key_bytes as u64, number(&it["area"]["key_size"]));
        assert_eq!(slot.kdf.name(), it["kdf"]["type"]);
        match &slot.kdf {
            Kdf::Pbkdf2 { hash, iterations, .. } => {
                assert_eq!(hash, it["kdf"]["hash"].as_str().unwrap());
                assert_eq!(u64::from(*iterations), number(&it["kdf"]["iterations"]));
            }
            Kdf::Argon2 { time, kib, lanes, .. } => {
                let said = ["time", "memory", "cpus"].map(|key| number(&it["kdf"][key]));
                assert_eq!([*time, *kib, *lanes].map(u64::from), said);
            }
            other => panic!("{other:?}"),
        }
    }
    let segments = theirs["segments"].as_object().expect("segments");
    assert_eq!(ours.segments.len(), segments.len());
    for segment in &ours.segments {
        let it = &segments[&segment.number.to_string()];
        assert_eq!(segment.offset, number(&it["offset"]));
        assert_eq!(segment.bytes.is_none(), it["size"] == "dynamic");
        assert_eq!(segment.iv_offset, number(&it["iv_tweak"]));
        assert_eq!(segment.cipher, it["encryption"]);
        assert_eq!(u64::from(segment.sector_bytes), number(&it["sector_size"]));
    }
}

#[test]
fn many_keyslots() {
    for version in ["luks1", "luks2"] {
        let bench = Bench::new();
        let few = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
        let image = bench.format("many.img", &format!("--type {version} {few}"));
        let volume_key = key(&image, PASSPHRASE);
        let mut passphrases = BTreeMap::from([(0, PASSPHRASE.to_vec())]);
        for slot in [7_u32, 3, 1] {
            let passphrase = format!("passphrase {slot}").into_bytes();
            let file = bench.folder.holds("new", &passphrase);
            let add = ["-q", "luksAddKey", "--key-file", text(&bench.key_file), "--key-slot"];
            let slot_text = slot.to_string();
            let mut args = add.to_vec();
            args.extend([slot_text.as_str(), text(&image), text(&file)]);
            args.extend(few.split_whitespace());
            run("cryptsetup", &args);
            passphrases.insert(slot, passphrase);
        }
        let kill = ["-q", "luksKillSlot", "--key-file", text(&bench.key_file), text(&image), "3"];
        run("cryptsetup", &kill);
        let gone = passphrases.remove(&3).unwrap();
        let file = File::open(&image).expect("the image");
        let header = Header::read(&file).expect("a header");
        assert_eq!(header.keyslots.iter().map(|slot| slot.number).collect::<Vec<_>>(), [0, 1, 7]);
        for (slot, passphrase) in &passphrases {
            let found = header.unlock(&file, passphrase, None, &LIMITS).expect("the key");
            assert_eq!(found.keyslot, *slot);
            assert!(found.expose() == volume_key);
            let named = header.unlock(&file, passphrase, Some(*slot), &LIMITS).expect("the key");
            assert!(named.expose() == volume_key);
            let other = if *slot == 0 { 7 } else { 0 };
            let wrong = header.unlock(&file, passphrase, Some(other), &LIMITS);
            assert!(matches!(wrong, Err(Error::WrongKey { tried: 1, .. })));
        }
        let wrong = header.unlock(&file, &gone, None, &LIMITS);
        assert!(matches!(wrong, Err(Error::WrongKey { tried: 3, .. })));
        let wrong = header.unlock(&file, &gone, Some(3), &LIMITS);
        assert!(matches!(wrong, Err(Error::NoSlot(3))));
    }
}

/// Keyslots that hold the key of no data, or are preferred, or are left alone; flags that stay.
#[test]
fn what_luks2_has_besides() {
    let bench = Bench::new();
    let few = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    let image = bench.format("2.img", &format!("--type luks2 {few}"));
    let other = bench.folder.holds("other", b"other");
    let add = |words: &str| {
        let mut args = vec!["-q", "luksAddKey", "--key-file", text(&bench.key_file)];
        args.extend(words.split_whitespace());
        args.extend(few.split_whitespace());
        args.extend([text(&image), text(&other)]);
        run("cryptsetup", &args);
    };
    add("--unbound --key-slot 2 -s 256");
    let file = || File::open(&image).expect("the image");
    let tried = header(&image).unlock(&file(), b"other", None, &LIMITS);
    let Err(Error::WrongKey { tried: 1, skipped }) = tried else { panic!("{tried:?}") };
    assert_eq!(skipped, [(2, "not supported: its key opens no segment".to_string())]);
    add("--key-slot 3");
    let config = |words: &str| {
        let mut args = vec!["-q", "config"];
        args.extend(words.split_whitespace());
        run("cryptsetup", &[&args[..], &[text(&image)]].concat());
    };
    config("--priority prefer --key-slot 3");
    config("--priority ignore --key-slot 0");
    let found = header(&image);
    let priorities: Vec<_> = found.keyslots.iter().map(|slot| slot.priority).collect();
    assert_eq!(priorities, [Priority::Ignore, Priority::Normal, Priority::High]);
    assert_eq!(found.unlock(&file(), b"other", None, &LIMITS).expect("the key").keyslot, 3);
    assert!(found.unlock(&file(), PASSPHRASE, None, &LIMITS).is_err());
    assert!(found.unlock(&file(), PASSPHRASE, Some(0), &LIMITS).is_ok());
    let token = bench.folder.holds("token", br#"{"type":"of-mine","keyslots":["3"]}"#);
    run("cryptsetup", &["token", "import", "--json-file", text(&token), text(&image)]);
    let found = header(&image);
    assert_eq!(
        (found.tokens[0].kind.as_str(), &found.tokens[0].keyslots[..]),
        ("of-mine", &[3][..])
    );
}

#[test]
fn a_disk_that_is_being_encrypted_anew_is_refused() {
    let bench = Bench::new();
    let few = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    let image = bench.format("2.img", &format!("--type luks2 {few}"));
    let key_file = text(&bench.key_file);
    let mut args = vec!["-q", "reencrypt", "--init-only", "--key-file", key_file, "--resilience"];
    args.extend(["checksum", "--force-offline-reencrypt"]);
    args.extend(few.split_whitespace());
    args.push(text(&image));
    if let Err(why) = try_run("cryptsetup", &args) {
        args.retain(|word| *word != "--force-offline-reencrypt");
        if try_run("cryptsetup", &args).is_err() {
            eprintln!("not tried: cryptsetup here does not begin it on a file: {why}");
            return;
        }
    }
    let header = header(&image);
    let size = fs::metadata(&image).expect("the image").len();
    let said = header.payload(size).expect_err("refused").to_string();
    assert!(said.contains("online-reencrypt"), "{said}");
}

#[test]
fn a_detached_header() {
    let bench = Bench::new();
    for version in ["luks1", "luks2"] {
        let at = bench.folder.empty("header", 20);
        let few = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
        let words = format!("--type {version} {few} --header {}", text(&at));
        let data = bench.format("data.img", &words);
        bench.same_key(&at);
        let lines = header(&at).payload(fs::metadata(&data).unwrap().len()).expect("lines");
        assert_eq!((lines[0].offset, lines[0].length), (0, 20 << 11));
        let none = Header::read(&File::open(&data).unwrap());
        assert!(matches!(none, Err(Error::NotLuks)), "{none:?}");
    }
}

/// Flips the bits of a real header and of its key material, one after the other: the right key is found, or none.
#[test]
fn no_flipped_bit_gives_another_key() {
    let bench = Bench::new();
    let few = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    for (version, end) in [("luks1", 592), ("luks2", 0x8000)] {
        let image = bench.format("flip.img", &format!("--type {version} {few}"));
        let mut disk = fs::read(&image).expect("the image");
        let right = key(&image, PASSPHRASE);
        let slot = header(&image).keyslots[0].slot.clone().unwrap();
        let area = slot.area.offset as usize;
        let used = slot.key_bytes * slot.af.stripes as usize;
        let (mut same, mut refused) = (0, 0);
        let mut flip = |at: usize| {
            disk[at] ^= 1 << (at % 8);
            let found = Header::read(&disk)
                .and_then(|header| header.unlock(&disk, PASSPHRASE, None, &LIMITS));
            match found {
                Ok(found) => {
                    assert!(found.expose() == right, "byte {at}");
                    same += 1;
                }
                Err(_) => refused += 1,
            }
            disk[at] ^= 1 << (at % 8);
        };
        let step = if end > 1000 { 97 } else { 1 };
        (0..end).step_by(step).for_each(&mut flip);
        (area..area + used).step_by(used / 50).for_each(&mut flip);
        assert!(same > 0 && refused >= 50, "{same} {refused}");
    }
}
