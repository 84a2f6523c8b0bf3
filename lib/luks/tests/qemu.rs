// SPDX-License-Identifier: BSD-2-Clause

//! QEMU's LUKS images: the key, and with it what QEMU wrote.

mod common;

use std::fs;

use common::{Folder, key, run, text};
use dm_luks::{Header, Limits, testing};

const PASSPHRASE: &str = "secret, not so secret";

/// The modes, each with another hash, where that leaves a choice. QEMU measures for seconds how many iterations to
/// take.
const MODES: &[&str] = &[
    "cipher-alg=aes-128,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha1",
    "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha224",
    "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain,hash-alg=sha512",
    "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=ripemd160",
    "cipher-alg=serpent-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha384",
    "cipher-alg=twofish-128,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha256",
];

/// More of them, for who has the time.
const MORE: &[&str] = &[
    "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512",
    "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha256",
    "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha256",
    "cipher-alg=aes-256,cipher-mode=ecb,ivgen-alg=plain,hash-alg=sha256",
    "cipher-alg=serpent-128,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha256",
    "cipher-alg=twofish-128,cipher-mode=xts,ivgen-alg=plain,hash-alg=sha256",
    "cipher-alg=twofish-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha256",
];

#[test]
fn modes() {
    all(MODES);
}

#[test]
#[ignore = "QEMU takes seconds for each"]
fn more_modes() {
    all(MORE);
}

fn all(modes: &[&str]) {
    std::thread::scope(|scope| {
        for mode in modes {
            scope.spawn(|| one(mode));
        }
    });
}

#[track_caller]
fn one(mode: &str) {
    let folder = Folder::new();
    let image = folder.path("q.luks");
    let secret = format!("secret,id=s0,data={}", PASSPHRASE.replace(',', ",,"));
    let options = format!("key-secret=s0,iter-time=10,{mode}");
    let create = ["create", "-q", "-f", "luks", "--object", &secret, "-o", &options];
    run("qemu-img", &[&create[..], &[text(&image), "64k"]].concat());
    let opts = format!("driver=luks,key-secret=s0,file.filename={}", text(&image));
    let write = ["--object", &secret, "--image-opts", &opts, "-c", "write -P 0x5c 0 64k"];
    run("qemu-io", &write);
    let disk = fs::read(&image).expect("the image");
    let header = Header::read(&disk).expect("a header");
    let lines = header.payload(disk.len() as u64).expect("lines");
    // QEMU chooses iterations by the clock.
    let found = header.unlock(&disk, PASSPHRASE.as_bytes(), None, &Limits::default());
    let key = found.unwrap_or_else(|error| panic!("{mode}: {error}"));
    let mut data = disk[lines[0].offset as usize * 512..].to_vec();
    assert!(data.len() >= 65536 && data[..64] != [0x5c; 64]);
    testing::decrypt(&lines[0].cipher, key.expose(), &mut data).expect("a known cipher");
    assert!(data[..65536].iter().all(|byte| *byte == 0x5c), "{mode}: other data");
}

/// An image of cryptsetup's that QEMU opens with the same passphrase has the data where we say.
#[test]
fn cryptsetup_image_written_by_qemu() {
    let folder = Folder::new();
    let image = folder.empty("c.img", 8);
    let file = folder.holds("passphrase", b"both of us");
    let format = ["-q", "luksFormat", "--type", "luks1", "--pbkdf-force-iterations", "1000"];
    run("cryptsetup", &[&format[..], &[text(&image), text(&file)]].concat());
    let opts = format!("driver=luks,key-secret=s0,file.filename={}", text(&image));
    let secret = "secret,id=s0,data=both of us";
    let write = "write -P 0x17 1M 64k";
    run("qemu-io", &["--object", secret, "--image-opts", &opts, "-c", write]);
    let disk = fs::read(&image).expect("the image");
    let lines = Header::read(&disk).expect("a header").payload(disk.len() as u64).expect("lines");
    let mut data = disk[lines[0].offset as usize * 512..].to_vec();
    testing::decrypt(&lines[0].cipher, &key(&image, b"both of us"), &mut data).expect("known");
    assert!(data[1 << 20..][..65536].iter().all(|byte| *byte == 0x17));
}
