// SPDX-License-Identifier: BSD-2-Clause

//! Devices that lie on one another: there must be no loop, and not too many layers.

use alloc::vec::Vec;

use super::set::{Devices, Entry};
use crate::kernel::{Kernel, Mutex};
use crate::units::{Dev, Minor};
use crate::{Errno, limits};

impl<K: Kernel> Devices<K> {
    /// Calls `each` with the place of every device of ours among these components.
    fn ours(&self, major: u32, devs: &[Dev], mut each: impl FnMut(usize)) {
        for dev in devs.iter().filter(|dev| dev.major() == major) {
            let minor = Minor::new(u64::from(dev.minor()));
            if let Some(Ok(at)) = minor.map(|minor| self.position(minor)) {
                each(at);
            }
        }
    }

    /// Calls `each` with the place of every device of ours among the components of an entry's
    /// tables, active, starting and inactive. No table is dropped here: that would close its
    /// components under the lock.
    fn below(&self, major: u32, entry: &Entry<K>, mut each: impl FnMut(usize)) {
        let Some(device) = entry.device() else { return };
        let state = device.state.lock();
        for loaded in [&state.active, &state.starting, &state.inactive].into_iter().flatten() {
            self.ours(major, loaded.table.devs(), &mut each);
        }
    }

    /// The number of layers of our own devices below a table with these components. Breadth first:
    /// the number of paths through a stack can be exponential in its depth.
    ///
    /// # Errors
    /// ELOOP if `loaded` is one of them, or there are too many layers.
    pub(super) fn depth_below(
        &self,
        major: u32,
        devs: &[Dev],
        loaded: Minor,
    ) -> Result<usize, Errno> {
        let mut layer = Layer::new(self.list.len());
        self.ours(major, devs, |at| layer.add(at));
        let mut depth = 0usize;
        while !layer.is_empty() {
            if self.position(loaded).is_ok_and(|at| layer.has(at)) || depth >= limits::DEPTH {
                return Err(Errno::ELOOP);
            }
            depth = depth.saturating_add(1);
            let mut next = Layer::new(self.list.len());
            for (entry, at) in self.list.iter().zip(0..) {
                if layer.has(at) {
                    self.below(major, entry, |at| next.add(at));
                }
            }
            layer = next;
        }
        Ok(depth)
    }

    /// Checks that no device stacked on `minor` would have more than [`limits::DEPTH`] layers, with
    /// `below` layers under `minor`.
    ///
    /// # Errors
    /// ELOOP.
    pub(super) fn depth_above(&self, major: u32, minor: Minor, below: usize) -> Result<(), Errno> {
        let mut layer = Layer::new(self.list.len());
        let _ = self.position(minor).map(|at| layer.add(at));
        let mut depth = below;
        while !layer.is_empty() {
            if depth > limits::DEPTH {
                return Err(Errno::ELOOP);
            }
            depth = depth.saturating_add(1);
            let mut next = Layer::new(self.list.len());
            for (entry, at) in self.list.iter().zip(0..) {
                self.below(major, entry, |below| {
                    if layer.has(below) {
                        next.add(at);
                    }
                });
            }
            layer = next;
        }
        Ok(())
    }
}

/// A set of devices, by their places in the list.
struct Layer(Vec<bool>);

impl Layer {
    fn new(devices: usize) -> Layer {
        Layer(alloc::vec![false; devices])
    }

    fn add(&mut self, at: usize) {
        if let Some(place) = self.0.get_mut(at) {
            *place = true;
        }
    }

    fn has(&self, at: usize) -> bool {
        self.0.get(at) == Some(&true)
    }

    fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }
}
