// SPDX-License-Identifier: BSD-2-Clause

//! A verity device against the hash function that it computes.

use std::hint::black_box;
use std::time::Instant;

use dm_core::hash::LARGEST;
use dm_core::testing::verity::Format;
use dm_host::{DiskSpec, Flags, Io, Node, Request};

use super::{Bed, median};

/// Prints sequential reads of 64 KiB on a verity device, the tree cached, beside the hash alone on the same buffer: the
/// share that the hash has, the median of rounds that take turns. One reader, and two.
pub fn measure() {
    const READ: usize = 64 * 1024;
    const READS: usize = 256;
    let (data_bytes, hash_bytes, salt) = (4096, 4096, vec![7; 32]);
    let format = Format { kind: 1, data_bytes, hash_bytes, hash: "sha256", salt: salt.clone() };
    let data: Vec<u8> = (0..READ * READS).map(|at| (at * at / 7) as u8).collect();
    let built = format.build(&data);
    let bed = Bed::on(DiskSpec::memory("wd0", (data.len() + built.tree.len()) as u64 / 512));
    let blocks = data.len() / data_bytes;
    let disk = bed.machine.open(Node::Block(bed.component), Flags::READ_WRITE).expect("opens");
    for (at, part) in [&data[..], &built.tree].concat().chunks(READ).enumerate() {
        disk.pwrite(part, (at * READ) as u64).expect("writes");
    }
    drop(disk);
    let words = format.words(blocks, blocks as u64, &built);
    let params = format!("1 {0} {0} {words}", bed.path);
    let dev = bed.device_with("v", &[(0, data.len() as u64 / 512, "verity", &params)], 1);
    let held = bed.machine.open(Node::Block(dev), Flags::READ).expect("opens");
    let hash = rustdm::netbsd::hash::find("sha256").expect("a hash function");
    let alone = |buffer: &[u8]| {
        let mut digest = [0; LARGEST];
        for _ in 0..READS {
            for block in black_box(buffer).chunks(data_bytes) {
                hash.digest(&[&salt, block], &mut digest);
            }
        }
        black_box(digest);
    };
    let pass = |first: usize, step: usize| {
        let mut io = Io::new(READ);
        for at in (first..READS).step_by(step) {
            let result = io.run(dev, Request::read((at * READ / 512) as i64));
            assert!(result.is_complete(READ));
        }
    };
    let timed = |run: &dyn Fn()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    pass(0, 1);
    let both = || {
        let threads: Vec<_> = (0..2)
            .map(|first| {
                let mut io = Io::new(READ);
                bed.machine.spawn(move || {
                    for at in (first..READS).step_by(2) {
                        let result = io.run(dev, Request::read((at * READ / 512) as i64));
                        assert!(result.is_complete(READ));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join());
    };
    let rounds: Vec<_> = (0..15)
        .map(|_| {
            let own = timed(&|| alone(&data[..READ]));
            let one = timed(&|| pass(0, 1));
            (own / one, one / timed(&both), READS as f64 * READ as f64 / own / 1e6)
        })
        .collect();
    let of = |which: fn(&(f64, f64, f64)) -> f64| median(rounds.iter().map(which).collect());
    println!(
        "verity, 64 KiB reads, tree cached: {:.2} of the hash alone ({:.0} MB/s); two readers {:.2} times one",
        of(|round| round.0),
        of(|round| round.2),
        of(|round| round.1)
    );
    drop(held);
}
