// SPDX-License-Identifier: BSD-2-Clause

//! An encrypted device against its cipher alone: sequential requests of 64 KiB on a disk in memory, from threads that
//! wait for each.

use std::ops::Range;
use std::time::Instant;

use dm_core::aes::{Aes, BLOCK, Data, RoundKeys, Way};
use dm_host::{DiskSpec, Flags, Io, Node, Request};
use rustdm::netbsd::aes;

use super::{Bed, median};

/// Bytes of a request, and sectors of the disk.
const BYTES: usize = 64 * 1024;
const SECTORS: u64 = 32 * 1024;

/// Requests of a short round: some two milliseconds, so that other load on the machine meets the cipher and the
/// device alike.
const SHORT: u64 = 32;
const SHORT_ROUNDS: u64 = 400;

/// Requests of a thread in a long round, which is as good for one thread as for two: the disk's half twice.
const LONG: u64 = SECTORS * 512 / BYTES as u64;
const LONG_ROUNDS: u64 = 25;

/// Megabytes a second.
fn rate(requests: u64, start: Instant) -> f64 {
    requests as f64 * BYTES as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// Sends requests that follow one another to sectors from `from` on, round and round in `sectors` of them.
fn send(
    io: &mut Io,
    dev: dm_host::Dev,
    (from, sectors): (u64, u64),
    numbers: Range<u64>,
    write: bool,
) {
    for n in numbers {
        let at = from + n * (BYTES as u64 / 512) % sectors;
        let request = match write {
            true => Request::write(at as i64),
            false => Request::read(at as i64),
        };
        assert!(io.run(dev, request).is_complete(BYTES));
    }
}

/// Megabytes a second of `threads` threads, each in a part of the device.
fn threads(bed: &Bed, dev: dm_host::Dev, threads: u64, write: bool) -> f64 {
    let start = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            bed.machine.spawn(move || {
                let mut io = Io::with_data(vec![7; BYTES]);
                send(&mut io, dev, (thread * SECTORS / 2, SECTORS / 2), 0..LONG, write);
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join());
    rate(threads * LONG, start)
}

/// The cipher by itself, called as the target calls it: for each sector the tweak, and the sector.
struct Alone {
    aes: &'static dyn Aes,
    keys: RoundKeys,
    tweaks: RoundKeys,
    /// A read's data lie in the first; a write's result goes to the second.
    buffers: [Vec<u8>; 2],
}

impl Alone {
    fn new(way: Way) -> Alone {
        let aes = aes::find().expect("the hosted kernel has AES");
        let keys = RoundKeys::new(aes, way, &[1; 32]).expect("a key");
        let tweaks = RoundKeys::new(aes, Way::Encrypt, &[2; 32]).expect("a key");
        Alone { aes, keys, tweaks, buffers: [vec![7; BYTES], vec![0; BYTES]] }
    }

    /// Works on as many buffers as there are numbers.
    fn run(&mut self, numbers: Range<u64>) {
        let [from, to] = &mut self.buffers;
        for n in numbers {
            for (at, (from, to)) in (0..).zip(from.chunks_mut(512).zip(to.chunks_mut(512))) {
                let mut tweak = [0; BLOCK];
                tweak[..8].copy_from_slice(&(n * 128 + at).to_le_bytes());
                self.aes.block(&self.tweaks, &mut tweak);
                let data = match self.keys.way {
                    Way::Encrypt => Data::Apart(from, to),
                    Way::Decrypt => Data::Here(from),
                };
                self.aes.xts(&self.keys, data, &mut tweak);
            }
        }
    }
}

/// Prints the figures of crypt. For one thread they are the medians of short rounds of the cipher, of the device, and
/// of its disk; for two the best of long rounds beside the best of one's, by turns.
pub fn measure() {
    let bed = Bed::on(DiskSpec::memory("wd0", SECTORS));
    let key: String = (0..64).map(|n| format!("{n:02x}")).collect();
    let params = format!("aes-xts-plain64 {key} 0 {} 0", bed.path);
    let dev = bed.device("a", &[(0, SECTORS, "crypt", params.as_str())]);
    let open = bed.machine.open(Node::Block(dev), Flags::READ_WRITE).expect("opens");
    // So that reads are of memory that is there.
    let mut io = Io::with_data(vec![7; BYTES]);
    send(&mut io, dev, (0, SECTORS), 0..2 * LONG, true);
    for (what, write, way) in [("reads", false, Way::Decrypt), ("writes", true, Way::Encrypt)] {
        let mut alone = Alone::new(way);
        let short: Vec<_> = (0..SHORT_ROUNDS)
            .map(|round| {
                let numbers = round * SHORT..(round + 1) * SHORT;
                let start = Instant::now();
                alone.run(numbers.clone());
                let cipher = rate(SHORT, start);
                let mut device = |dev, numbers| {
                    let start = Instant::now();
                    send(&mut io, dev, (0, SECTORS), numbers, write);
                    rate(SHORT, start)
                };
                // The disk's turn is elsewhere: what the device has just moved is in the CPU's cache.
                let elsewhere = numbers.start + LONG..numbers.end + LONG;
                (cipher, device(dev, numbers), device(bed.component, elsewhere))
            })
            .collect();
        let rounds: Vec<_> = (0..LONG_ROUNDS)
            .map(|_| (threads(&bed, dev, 1, write), threads(&bed, dev, 2, write)))
            .collect();
        let of = |which: fn(&(f64, f64, f64)) -> f64| median(short.iter().map(which).collect());
        let best = |which: fn(&(f64, f64)) -> f64| rounds.iter().map(which).fold(0.0, f64::max);
        println!(
            "crypt, {what} of 64 KiB: the cipher {:.0} MB/s, one thread {:.0} ({:.2} of it; of the cipher and the \
             disk, one after the other, {:.2}); the best of two threads {:.0}, of one {:.0} ({:.2} times that)",
            of(|round| round.0),
            of(|round| round.1),
            of(|round| round.1 / round.0),
            of(|round| round.1 * (1.0 / round.0 + 1.0 / round.2)),
            best(|round| round.1),
            best(|round| round.0),
            best(|round| round.1) / best(|round| round.0)
        );
    }
    drop(open);
}
