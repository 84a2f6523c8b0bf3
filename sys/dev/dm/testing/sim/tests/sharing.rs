// SPDX-License-Identifier: BSD-2-Clause

//! Lines of different devices share an object, as in the driver; a power cut ends the sharing.

use core::fmt;

use dm_sync::Spin;

use super::*;
use crate::mistake::Mistake;
use crate::target::{ComponentIndex, Devs, IoRange, LineSpec, Made, Mapping, Target, TargetType};
use crate::{Errno, Sector};

static TYPE: TargetType = TargetType { name: "sharer", version: [1, 0, 0], new };
static TYPES: &[&TargetType] = &[&TYPE];

/// A line that knows how many lines on its component came before it.
struct Sharer {
    component: ComponentIndex,
    /// The shared count, which goes with its last user.
    _count: alloc::sync::Arc<Spin<u32>>,
    mine: u32,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let path = line.params.path()?;
    let component = line.component(path, Sector::ZERO, line.length)?;
    let count = line.shared(component, |_| true, || Spin::new(0u32));
    let mine = {
        let mut count = count.lock();
        *count += 1;
        *count
    };
    Ok(Made::maps(Sharer { component, _count: count, mine }))
}

impl Target for Sharer {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        Mapping::Send { component: self.component, start: io.start, length: io.length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{}", devs.get(self.component))
    }

    fn status(&self, out: &mut dyn fmt::Write, _devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{}", self.mine)
    }

    fn message(&self, _: &str, _: &mut alloc::string::String) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
}

#[test]
fn devices_share_what_belongs_to_a_disk() {
    let disks = (0..2).map(|_| Disk::new(64)).collect();
    let world = World::new(1, TYPES, disks, 3, false);
    let load = |device, disk| {
        let loaded = world.load(device, &alloc::format!("0 64 sharer d{disk}\n"));
        world.swap(device, loaded).unwrap();
        world.status(device, 0)
    };
    assert_eq!([load(0, 0), load(1, 0), load(2, 1)], ["1", "2", "1"]);
    // The table of a reload shares with the old one, too.
    assert_eq!(load(0, 0), "3");
    // An object that something still holds is no part of the next kernel.
    let old = world.table(0);
    world.cut_after(0);
    world.run(1);
    world.take_down(crate::worker::Quiesce::Remove);
    world.power_up();
    assert_eq!([load(0, 0), load(1, 1)], ["1", "1"]);
    drop(old);
    world.take_down(crate::worker::Quiesce::Remove);
}
