// SPDX-License-Identifier: BSD-2-Clause

//! The flush that log-writes makes on its own.

use super::disk::Command;
use super::*;
use crate::job::Op;
use crate::targets::TARGETS;
use crate::worker::Quiesce;

#[test]
fn its_own_flush_takes_no_write_along_that_came_later() {
    // A log of 20 sectors has room for one write of 8 sectors and its copy.
    let disks = alloc::vec![Disk::new(64), Disk::new(20)];
    let world = World::new(0, TARGETS, disks, 1, false);
    {
        let mut state = world.shared.lock();
        state.temper.at_once = 0;
        state.max_io = 1 << 16;
    }
    world.swap(0, world.load(0, "0 64 log-writes d0 d1\n")).unwrap();
    let run_but = |held: &[Command]| {
        world.shared.run_all_but(|disk, transfer| disk == 0 && held.contains(&transfer.command));
    };
    let write = Command::Write { fua: false };
    world.submit(0, Op::Write, 0, 8, false);
    run_but(&[write]);
    // The second write waits for room: the component is flushed before the first is over.
    world.submit(0, Op::Write, 32, 8, false);
    run_but(&[write, Command::Flush]);
    assert_eq!(world.disk(0, |disk| disk.counts.flushes), 1);
    run_but(&[Command::Flush]);
    run_but(&[]);
    world.settle(0);
    // The flags of the entries in the log's sectors 1 and 2: a flush, then the write.
    let flags = |sector| world.disk(1, |log| log.content(sector, 1)[16]);
    assert_eq!([flags(1), flags(2)], [1, 0], "the flush says that the write is safe");
    world.take_down(Quiesce::Remove);
}
