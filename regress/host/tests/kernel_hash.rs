// SPDX-License-Identifier: BSD-2-Clause

//! The hash functions of the hosted kernel, as the driver calls them, against those of the system's tools.

use std::io::Write as _;
use std::process::{Command, Stdio};

use dm_core::hash::LARGEST;
use rustdm::netbsd::hash;

use dm_host as _;

const NAMES: [&str; 7] = ["md5", "rmd160", "sha1", "sha224", "sha256", "sha384", "sha512"];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of some bytes in parts of `step` bytes.
fn digest(name: &str, data: &[u8], step: usize) -> String {
    let hash = hash::find(name).expect("there is one");
    assert_eq!(hash.name(), name);
    let mut digest = [0xa5; LARGEST];
    let parts: Vec<&[u8]> = data.chunks(step).collect();
    hash.digest(&parts, &mut digest);
    assert!(digest[hash.size()..].iter().all(|byte| *byte == 0xa5), "{name} wrote too much");
    hex(&digest[..hash.size()])
}

/// Digests of `abc`, as RFC 1321, RFC 3174, FIPS 180-4's examples and RIPEMD-160's page have them.
#[test]
fn digests_are_the_published_ones() {
    for (name, expected) in [
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        ("rmd160", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "sha384",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            "sha512",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ] {
        assert_eq!(digest(name, b"abc", 3), expected, "{name}");
    }
    assert!(hash::find("sha0").is_none() && hash::find("").is_none());
}

/// All lengths around one and two blocks, and large ones, in parts that do not fit blocks: against
/// RustCrypto's own functions, of which the hosted kernel uses the innermost only.
#[test]
fn every_length_in_parts_of_any_size() {
    let data: Vec<u8> = (0..100_000u64).map(|n| (n * n / 7) as u8).collect();
    for name in NAMES {
        let other = dm_core::testing::hash::find(name).expect("there is one");
        for length in (0..=260).chain([4096, 4128, 65536, 100_000]) {
            let data = &data[..length];
            let mut expected = [0; LARGEST];
            other.digest(&[data], &mut expected);
            let expected = hex(&expected[..other.size()]);
            for step in [1, 3, 63, 64, 65, 127, 128, 129, 100_000] {
                assert_eq!(digest(name, data, step), expected, "{name}, {length} bytes by {step}");
            }
        }
    }
}

#[test]
fn sha256sum_and_its_like_say_the_same() {
    let data: Vec<u8> = (0..50_000u64).map(|n| (n * n / 5) as u8).collect();
    for name in NAMES.into_iter().filter(|name| *name != "rmd160") {
        for length in [0, 1, 55, 56, 111, 112, 4128, 50_000] {
            let mut sum = Command::new(format!("{name}sum"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("coreutils");
            sum.stdin.take().expect("a pipe").write_all(&data[..length]).expect("it reads");
            let output = sum.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let ours = digest(name, &data[..length], 1000);
            assert_eq!(said.split(' ').next(), Some(ours.as_str()), "{name}, {length} bytes");
        }
    }
}
