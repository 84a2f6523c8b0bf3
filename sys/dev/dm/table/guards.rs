// SPDX-License-Identifier: BSD-2-Clause

//! The sectors of a device that show its components' labels: writes that would reach one, and
//! ranges that begin before what is safe.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Component, Table};
use crate::target::ComponentIndex;
use crate::units::{Dev, Sector, SectorRange};

impl<C> Table<C> {
    /// `true` if a write of this range would reach a component's label.
    #[inline]
    pub fn hits_label(&self, range: SectorRange) -> bool {
        !self.guards.is_empty() && self.shows_label(range)
    }

    /// [`Table::hits_label`] for a table that shows a label. Apart from it, since few do.
    #[cold]
    fn shows_label(&self, range: SectorRange) -> bool {
        // The first that is not before it.
        let at = self.guards.partition_point(|sector| *sector < range.start);
        self.guards.get(at).is_some_and(|sector| *sector < range.end())
    }
}

impl<C: Component> Table<C> {
    /// Calls `each` with every range of the table that reaches into the sectors reserved for its
    /// component's label and boot code: the component, the sector there, the first safe one.
    pub fn reserved(&self, each: &mut dyn FnMut(Dev, Sector, Sector)) {
        for (line, target) in self.lines() {
            target.extents(line.length, &mut |extent| {
                let Some(component) = self.components.get(extent.component.0 as usize) else {
                    return;
                };
                if let Some(guard) = component.guard()
                    && extent.start < guard.first_safe
                {
                    each(component.dev(), extent.start, guard.first_safe);
                }
            });
        }
    }

    /// The device's sectors that show a component's label, in order.
    pub(super) fn guarded(&self) -> Box<[Sector]> {
        let label_of = |component: ComponentIndex| {
            let component = self.components.get(component.0 as usize)?;
            component.guard().map(|guard| guard.label)
        };
        let mut guards: Vec<Sector> = Vec::new();
        for (line, target) in self.lines() {
            // A component may be in a line many times.
            let mut reached = Vec::new();
            target.extents(line.length, &mut |extent| {
                let label = label_of(extent.component);
                if label.is_some_and(|label| label.intersects(extent.range()))
                    && !reached.contains(&extent.component)
                {
                    reached.push(extent.component);
                }
            });
            for component in reached {
                let label = label_of(component).into_iter();
                for sector in label.flat_map(|label| label.sectors()) {
                    target.locate(component, sector, line.length, &mut |at| {
                        let Some(sector) = line.start.checked_add(at) else { return };
                        // Nearly always the end. Sorting would take much stack.
                        let place = guards.partition_point(|guard| *guard < sector);
                        if guards.get(place) != Some(&sector) {
                            guards.insert(place, sector);
                        }
                    });
                }
            }
        }
        guards.into()
    }
}
