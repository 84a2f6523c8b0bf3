// SPDX-License-Identifier: BSD-2-Clause

//! A served machine with an encrypted device keeps the key where the device needs it, and nowhere else: its
//! memory is looked through.

mod tool;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use tool::{Server, program, run};

/// 32 bytes that no program has in its text, and their digits.
fn key() -> (Vec<u8>, String) {
    let mut state = u64::from(std::process::id());
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u8
    };
    let key: Vec<u8> = (0..32).map(|_| next()).collect();
    let digits = key.iter().map(|byte| format!("{byte:02x}")).collect();
    (key, digits)
}

/// The places in a process's memory where half of some bytes lies.
fn found(process: u32, wanted: &[u8]) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("the server runs");
    let memory = File::open(format!("/proc/{process}/mem")).expect("a child's memory");
    let halves: Vec<&[u8]> = wanted.chunks(wanted.len() / 2).collect();
    let mut places = Vec::new();
    let mut searched = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-')).expect("maps");
        let number = |text| u64::from_str_radix(text, 16).expect("maps");
        let (from, to) = (number(range.0), number(range.1));
        let mut bytes = vec![0; (to - from) as usize];
        // A part may go meanwhile.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        searched += bytes.len();
        for half in &halves {
            let first = half[0];
            let is = |at: &usize| bytes[*at] == first && bytes[*at..].starts_with(half);
            let at = (0..bytes.len()).filter(is);
            places.extend(at.map(|at| format!("{:#x} in {line}", from + at as u64)));
        }
    }
    assert!(searched > 1 << 20, "{searched} bytes were searched");
    places
}

#[test]
fn a_served_machine_does_not_keep_keys_in_what_it_has_freed() {
    let server = Server::start();
    // The search finds what is there.
    let path = server.folder.path("wd0").display().to_string();
    assert_ne!(found(server.id(), path.as_bytes()), [""; 0], "the search finds a disk's path");

    let (key, digits) = key();
    let table = format!("0 1024 crypt aes-xts-plain64 {digits} 0 /dev/wd0 0\n");
    server.ctl_with(&["create", "c"], &table).ok();
    // nbdinfo has the server look up the components, by the table.
    run(program("nbdinfo").args(["--map"]).arg(server.uri("c")), "").ok();
    run(program("nbdinfo").args(["--list"]).arg(server.uri("")), "").ok();
    assert_eq!(found(server.id(), digits.as_bytes()), [""; 0], "the key's digits are there");
    // Shown to who may see it.
    assert!(server.ctl(&["table", "--showkeys", "c"]).ok().contains(&digits));
    assert_eq!(found(server.id(), digits.as_bytes()), [""; 0], "the key's digits are there");
    assert_ne!(found(server.id(), &key), [""; 0], "the device has its key");
    server.ctl(&["remove", "c"]).ok();
    assert_eq!(found(server.id(), &key), [""; 0], "the key is there");
    server.end();
}
