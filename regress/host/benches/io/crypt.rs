// SPDX-License-Identifier: BSD-2-Clause

//! What an encrypted device gives of what its cipher could: sequential requests of 64 KiB on a disk in memory.

use std::time::Instant;

use dm_core::aes::{BLOCK, Data, RoundKeys, Way};
use dm_host::{DiskSpec, Flags, Io, Node, Request};
use rustdm::netbsd::aes;

use super::{Bed, median};

/// Bytes of a request, and sectors of the disk.
const BYTES: usize = 64 * 1024;
const SECTORS: u64 = 32 * 1024;

/// Requests of a round of one thread: the disk twice.
const REQUESTS: u64 = 2 * SECTORS * 512 / BYTES as u64;

/// Megabytes a second of `threads` threads, each in a part of the device.
fn device(bed: &Bed, dev: dm_host::Dev, threads: u64, write: bool) -> f64 {
    let start = Instant::now();
    let part = SECTORS / threads;
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            bed.machine.spawn(move || {
                let mut io = Io::with_data(vec![7; BYTES]);
                for n in 0..REQUESTS {
                    let at = thread * part + n * (BYTES as u64 / 512) % part;
                    let request = match write {
                        true => Request::write(at as i64),
                        false => Request::read(at as i64),
                    };
                    assert_eq!(io.run(dev, request).error, None);
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join());
    (threads * REQUESTS) as f64 * BYTES as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// Megabytes a second of the cipher by itself, called as the target calls it: for each sector the tweak, and the
/// sector.
fn cipher(way: Way) -> f64 {
    let aes = aes::find().expect("the hosted kernel has AES");
    let keys = RoundKeys::new(aes, way, &[1; 32]).expect("a key");
    let tweaks = RoundKeys::new(aes, Way::Encrypt, &[2; 32]).expect("a key");
    let (mut from, mut to) = (vec![7u8; BYTES], vec![0u8; BYTES]);
    let start = Instant::now();
    for n in 0..REQUESTS {
        for (at, (from, to)) in (0..).zip(from.chunks_mut(512).zip(to.chunks_mut(512))) {
            let mut tweak = [0; BLOCK];
            tweak[..8].copy_from_slice(&(n * 128 + at).to_le_bytes());
            aes.block(&tweaks, &mut tweak);
            let data = match way {
                Way::Encrypt => Data::Apart(from, to),
                Way::Decrypt => Data::Here(from),
            };
            aes.xts(&keys, data, &mut tweak);
        }
    }
    REQUESTS as f64 * BYTES as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// Prints it: medians of interleaved rounds.
pub fn measure() {
    let bed = Bed::on(DiskSpec::memory("wd0", SECTORS));
    let key: String = (0..64).map(|n| format!("{n:02x}")).collect();
    let params = format!("aes-xts-plain64 {key} 0 {} 0", bed.path);
    let dev = bed.device("a", &[(0, SECTORS, "crypt", params.as_str())]);
    let open = bed.machine.open(Node::Block(dev), Flags::READ_WRITE).expect("opens");
    for (what, write, way) in [("reads", false, Way::Decrypt), ("writes", true, Way::Encrypt)] {
        let rounds: Vec<_> = (0..9)
            .map(|_| [cipher(way), device(&bed, dev, 1, write), device(&bed, dev, 2, write)])
            .collect();
        let all = |which: usize| median(rounds.iter().map(|round| round[which]).collect());
        let ratio = |of: usize, to: usize| {
            median(rounds.iter().map(|round| round[of] / round[to]).collect())
        };
        println!(
            "crypt, {what} of 64 KiB: the cipher {:.0} MB/s, one thread {:.0} ({:.2} of it), two {:.0} \
             ({:.2} times one)",
            all(0),
            all(1),
            ratio(1, 0),
            all(2),
            ratio(2, 1)
        );
    }
    drop(open);
}
