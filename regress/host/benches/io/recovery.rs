// SPDX-License-Identifier: BSD-2-Clause

//! The speed of a mirror's recovery, beside a plain copy with requests as large.

use std::time::{Duration, Instant};

use dm_core::testing::Request as Plist;
use dm_host::{DiskSpec, Flags, Io, Node, Request};

use super::{Bed, median};

/// Bytes of a request, which is what recovery copies at once.
const BYTES: usize = 64 * 1024;

/// Sectors of the mirror: 1 GiB.
const SECTORS: u64 = 2 << 20;

/// Prints the time of the plain copy as a share of recovery's: medians of rounds that take turns.
pub fn measure() {
    let bed = Bed::on(DiskSpec::memory("wd0", SECTORS));
    let other = bed.machine.attach_disk(DiskSpec::memory("wd1", SECTORS)).expect("attaches");
    let nodes = [bed.component, other.dev()];
    let open = |dev| bed.machine.open(Node::Block(dev), Flags::READ_WRITE).expect("opens");
    let plain = || {
        let held = nodes.map(open);
        let mut io = Io::new(BYTES);
        let start = Instant::now();
        for at in (0..SECTORS).step_by(BYTES / 512) {
            assert!(io.run(nodes[0], Request::read(at as i64)).is_complete(BYTES));
            assert!(io.run(nodes[1], Request::write(at as i64)).is_complete(BYTES));
        }
        let time = start.elapsed().as_secs_f64();
        drop(held);
        time
    };
    let recovery = || {
        let params = format!("core 1 1024 2 {} 0 {} 0", bed.path, other.path());
        let start = Instant::now();
        bed.device("m", &[(0, SECTORS, "mirror", params.as_str())]);
        let done = format!(" {0}/{0} ", SECTORS / 1024);
        loop {
            let reply = bed.send(&Plist::on("table", "m"));
            if format!("{reply:?}").contains(&done) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let time = start.elapsed().as_secs_f64();
        bed.send(&Plist::on("remove", "m"));
        time
    };
    // The disks' memory is there from the first round on.
    plain();
    let rounds: Vec<_> = (0..5).map(|_| (plain(), recovery())).collect();
    println!(
        "recovery of a mirror of 1 GiB: {:.2} s, {:.2} of a plain copy's speed with requests of 64 KiB",
        median(rounds.iter().map(|round| round.1).collect()),
        median(rounds.iter().map(|round| round.0 / round.1).collect())
    );
}
