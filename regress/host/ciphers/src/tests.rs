// SPDX-License-Identifier: BSD-2-Clause

//! Published vectors of the ciphers.

use sha2::{Digest, Sha256};

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

/// Plaintext, keys, data unit and ciphertext of IEEE P1619's vectors, with the SHA-256 of all of the
/// ciphertext where only its beginning is given.
struct P1619 {
    keys: [&'static str; 2],
    unit: u64,
    plain: Vec<u8>,
    cipher: &'static str,
    whole: Option<&'static str>,
}

fn p1619() -> Vec<P1619> {
    let counting: Vec<u8> = (0..=255).chain(0..=255).collect();
    vec![
        P1619 {
            keys: ["00000000000000000000000000000000"; 2],
            unit: 0,
            plain: vec![0; 32],
            cipher: "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e",
            whole: None,
        },
        P1619 {
            keys: ["11111111111111111111111111111111", "22222222222222222222222222222222"],
            unit: 0x33_3333_3333,
            plain: vec![0x44; 32],
            cipher: "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
            whole: None,
        },
        P1619 {
            keys: ["fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0", "22222222222222222222222222222222"],
            unit: 0x33_3333_3333,
            plain: vec![0x44; 32],
            cipher: "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89",
            whole: None,
        },
        P1619 {
            keys: ["27182818284590452353602874713526", "31415926535897932384626433832795"],
            unit: 0,
            plain: counting.clone(),
            cipher: "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c",
            whole: Some("ebee4d64dd2395bb2d6a2d37a0a48ecb2bf4913cfc99d27c2214f2f4144715ea"),
        },
        P1619 {
            keys: [
                "2718281828459045235360287471352662497757247093699959574966967627",
                "3141592653589793238462643383279502884197169399375105820974944592",
            ],
            unit: 0xff,
            plain: counting,
            cipher: "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
            whole: Some("e97e974fa393af794f7a4684395814cf820de60a01eaec677d87b452e316b364"),
        },
    ]
}

#[test]
fn xts_is_as_p1619_has_it() {
    for vector in p1619() {
        let [key, tweak_key] = vector.keys.map(hex);
        let mut first = [0; BLOCK];
        first[..8].copy_from_slice(&vector.unit.to_le_bytes());
        ecb(Way::Encrypt, &tweak_key, &mut first);
        let (mut data, mut tweak) = (vector.plain.clone(), first);
        xts(Way::Encrypt, &key, &mut data, &mut tweak);
        assert_eq!(data[..32], hex(vector.cipher));
        if let Some(whole) = vector.whole {
            assert_eq!(Sha256::digest(&data)[..], hex(whole));
        }
        let mut tweak = first;
        xts(Way::Decrypt, &key, &mut data, &mut tweak);
        assert_eq!(data, vector.plain);
    }
}

#[test]
fn a_tweak_goes_on_where_the_call_before_ended() {
    let plain: Vec<u8> = (0..200u32 * 16).map(|n| (n * 7) as u8).collect();
    for way in [Way::Encrypt, Way::Decrypt] {
        let (mut whole, mut parts) = (plain.clone(), plain.clone());
        let (mut tweak, mut moved) = ([9; BLOCK], [9; BLOCK]);
        xts(way, &[1; 32], &mut whole, &mut tweak);
        for part in parts.chunks_mut(48) {
            xts(way, &[1; 32], part, &mut moved);
        }
        assert!(whole == parts && tweak == moved);
        let (mut whole, mut parts) = (plain.clone(), plain.clone());
        let (mut iv, mut moved) = ([9; BLOCK], [9; BLOCK]);
        cbc(way, &[1; 24], &mut whole, &mut iv);
        for part in parts.chunks_mut(48) {
            cbc(way, &[1; 24], part, &mut moved);
        }
        assert!(whole == parts && iv == moved);
    }
}

#[test]
fn cbc_and_ecb_are_as_nist_sp_800_38a_has_them() {
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let vectors = [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
            "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf",
        ),
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
            "bd334f1d6e45f25ff712a214571fa5cc974104846d0ad3ad7734ecb3ecee4eef",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
            "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870",
        ),
    ];
    for (key, chained, single) in vectors {
        let (key, iv) = (hex(key), core::array::from_fn(|n| n as u8));
        let (mut data, mut next) = (plain.clone(), iv);
        cbc(Way::Encrypt, &key, &mut data, &mut next);
        assert_eq!(data, hex(chained));
        assert_eq!(next[..], data[16..]);
        cbc(Way::Decrypt, &key, &mut data, &mut { iv });
        assert_eq!(data, plain);
        ecb(Way::Encrypt, &key, &mut data);
        assert_eq!(data, hex(single));
        ecb(Way::Decrypt, &key, &mut data);
        assert_eq!(data, plain);
    }
}
