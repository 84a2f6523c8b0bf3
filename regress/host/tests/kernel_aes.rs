// SPDX-License-Identifier: BSD-2-Clause

//! The kernel's AES as the driver sees it, through the shim, by published vectors.

use dm_core::aes::{Aes, BLOCK, Data, RoundKeys, Way};
use dm_host::{Config, Machine};

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

fn aes() -> &'static dyn Aes {
    rustdm::netbsd::aes::find().expect("the hosted kernel has AES")
}

#[test]
fn xts_is_as_p1619_has_it_in_place_and_apart() {
    let _machine = Machine::boot(Config::test()).unwrap();
    let vectors = [
        (
            ["11111111111111111111111111111111", "22222222222222222222222222222222"],
            0x33_3333_3333u64,
            vec![0x44; 32],
            "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
        ),
        (
            [
                "2718281828459045235360287471352662497757247093699959574966967627",
                "3141592653589793238462643383279502884197169399375105820974944592",
            ],
            0xff,
            (0..=255).chain(0..=255).collect::<Vec<u8>>(),
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
        ),
    ];
    for (keys, unit, plain, cipher) in vectors {
        let [key, tweak_key] = keys.map(hex);
        let encrypt = RoundKeys::new(aes(), Way::Encrypt, &key).unwrap();
        let decrypt = RoundKeys::new(aes(), Way::Decrypt, &key).unwrap();
        let tweaks = RoundKeys::new(aes(), Way::Encrypt, &tweak_key).unwrap();
        let mut first = [0; BLOCK];
        first[..8].copy_from_slice(&unit.to_le_bytes());
        aes().block(&tweaks, &mut first);
        // Memory behind the data stays as it is.
        let mut result = vec![7; plain.len() + 16];
        aes().xts(&encrypt, Data::Apart(&plain, &mut result), &mut { first });
        assert_eq!(result[..32], hex(cipher));
        assert_eq!(result[plain.len()..], [7; 16]);
        result.truncate(plain.len());
        aes().xts(&decrypt, Data::Here(&mut result), &mut { first });
        assert_eq!(result, plain);
        aes().xts(&encrypt, Data::Here(&mut result), &mut { first });
        assert_eq!(result[..32], hex(cipher));
    }
}

#[test]
fn cbc_and_single_blocks_are_as_nist_sp_800_38a_has_them() {
    let _machine = Machine::boot(Config::test()).unwrap();
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let vectors = [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
            "3ad77bb40d7a3660a89ecaf32466ef97",
        ),
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
            "bd334f1d6e45f25ff712a214571fa5cc",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
            "f3eed1bdb5d2a03c064b5a7e3db181f8",
        ),
    ];
    for (key, chained, single) in vectors {
        let encrypt = RoundKeys::new(aes(), Way::Encrypt, &hex(key)).unwrap();
        let decrypt = RoundKeys::new(aes(), Way::Decrypt, &hex(key)).unwrap();
        let iv = core::array::from_fn(|n| n as u8);
        let (mut result, mut next) = (vec![0; 32], iv);
        aes().cbc(&encrypt, Data::Apart(&plain, &mut result), &mut next);
        assert_eq!(result, hex(chained));
        assert_eq!(next[..], result[16..]);
        aes().cbc(&decrypt, Data::Here(&mut result), &mut { iv });
        assert_eq!(result, plain);
        let mut block: [u8; BLOCK] = plain[..16].try_into().unwrap();
        aes().block(&encrypt, &mut block);
        assert_eq!(block[..], hex(single));
        aes().block(&decrypt, &mut block);
        assert_eq!(block[..], plain[..16]);
    }
}

#[test]
fn a_key_of_another_size_and_a_kernel_without_aes_are_noticed() {
    let machine = Machine::boot(Config::test()).unwrap();
    for bytes in (0..70).filter(|bytes| ![16, 24, 32].contains(bytes)) {
        assert!(RoundKeys::new(aes(), Way::Encrypt, &vec![1; bytes]).is_none());
    }
    drop(machine);
    let machine = Machine::boot(Config { aes: false, ..Config::test() }).unwrap();
    assert!(rustdm::netbsd::aes::find().is_none());
    drop(machine);
}
