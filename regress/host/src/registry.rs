// SPDX-License-Identifier: BSD-2-Clause

//! Addresses of objects that must be destroyed, so that shutdown can name the ones that are left.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;

const SHARDS: usize = 64;

/// A map from addresses to `T`, in shards so that threads seldom meet.
pub(crate) struct Registry<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
}

type Shard<T> = Option<HashMap<usize, T, BuildHasherDefault<AddressHasher>>>;

/// A hasher of addresses, which no adversary chooses.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(*byte as usize);
        }
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = (self.0 ^ value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

impl<T> Registry<T> {
    pub(crate) const fn new() -> Self {
        Registry { shards: [const { Mutex::new(None) }; SHARDS] }
    }

    fn shard<R>(
        &self,
        address: usize,
        f: impl FnOnce(&mut HashMap<usize, T, BuildHasherDefault<AddressHasher>>) -> R,
    ) -> R {
        let shard = &self.shards[(address >> 4).wrapping_mul(0x9e37_79b9) >> 8 & (SHARDS - 1)];
        let mut shard = shard.lock().unwrap_or_else(|e| e.into_inner());
        f(shard.get_or_insert_default())
    }

    /// Adds an entry; the old one, if there was one, comes back.
    pub(crate) fn insert(&self, address: usize, value: T) -> Option<T> {
        self.shard(address, |s| s.insert(address, value))
    }

    pub(crate) fn contains(&self, address: usize) -> bool {
        self.shard(address, |s| s.contains_key(&address))
    }

    pub(crate) fn remove(&self, address: usize) -> Option<T> {
        self.shard(address, |s| s.remove(&address))
    }

    /// Empties the map.
    pub(crate) fn drain(&self) -> Vec<(usize, T)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(|e| e.into_inner());
            all.extend(shard.take().into_iter().flatten());
        }
        all.sort_by_key(|(address, _)| *address);
        all
    }
}
