// SPDX-License-Identifier: BSD-2-Clause

//! State that lines of different tables share because they use the same component.
//!
//! Snapshots of one origin must meet the origin, thin volumes their pool. Each such line asks for
//! the state that belongs to a component and a type, with [`LineSpec::shared`]; the first line that
//! asks makes it. The registry keeps weak references, so that the state goes with the last line
//! that uses it, and a table that is loaded later begins anew.
//!
//! [`LineSpec::shared`]: crate::target::LineSpec::shared

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::{Any, TypeId};

use crate::units::Dev;

/// A piece of shared state, whatever its type.
pub type AnyShared = Arc<dyn Any + Send + Sync>;

/// A function that takes the state that is known, if there is one, and returns it or another.
pub type Choose<'a> = dyn FnMut(Option<AnyShared>) -> AnyShared + 'a;

/// The shared state that some line uses, by component and type.
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

struct Entry {
    dev: Dev,
    kind: TypeId,
    state: Weak<dyn Any + Send + Sync>,
}

impl Registry {
    /// The state of this type that belongs to a component from now on: `choose` is given the one
    /// that does, if there is one, and returns it, or another in its place.
    pub fn get(&mut self, dev: Dev, kind: TypeId, choose: &mut Choose<'_>) -> AnyShared {
        self.entries.retain(|entry| entry.state.strong_count() > 0);
        let known = self.entries.iter_mut().find(|entry| entry.dev == dev && entry.kind == kind);
        let state = choose(known.as_ref().and_then(|entry| entry.state.upgrade()));
        let weak = Arc::downgrade(&state);
        match known {
            Some(entry) => entry.state = weak,
            None => self.entries.push(Entry { dev, kind, state: weak }),
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<T: Any + Send + Sync + Default>(registry: &mut Registry, minor: u32) -> Arc<T> {
        let dev = Dev::new(1, minor).unwrap();
        let mut choose = |known: Option<AnyShared>| known.unwrap_or_else(|| Arc::new(T::default()));
        let state = registry.get(dev, TypeId::of::<T>(), &mut choose);
        state.downcast().unwrap()
    }

    #[test]
    fn state_is_shared_by_component_and_type() {
        let mut registry = Registry::default();
        let first = get::<u32>(&mut registry, 1);
        assert!(Arc::ptr_eq(&first, &get::<u32>(&mut registry, 1)));
        assert!(!Arc::ptr_eq(&first, &get::<u32>(&mut registry, 2)));
        assert_eq!(*get::<u64>(&mut registry, 1), 0);
    }

    #[test]
    fn state_that_is_replaced_stays_with_its_users() {
        let mut registry = Registry::default();
        let first = get::<u32>(&mut registry, 1);
        let dev = Dev::new(1, 1).unwrap();
        let second: AnyShared = Arc::new(5u32);
        registry.get(dev, TypeId::of::<u32>(), &mut |_| second.clone());
        assert_eq!((*first, *get::<u32>(&mut registry, 1)), (0, 5));
        assert_eq!(registry.entries.len(), 1);
    }

    #[test]
    fn state_goes_with_its_last_user() {
        let mut registry = Registry::default();
        let (first, other) = (get::<u32>(&mut registry, 1), get::<u32>(&mut registry, 2));
        drop(first);
        let again = get::<u32>(&mut registry, 1);
        assert_eq!(Arc::strong_count(&again), 1);
        assert_eq!(registry.entries.len(), 2);
        drop((again, other));
        drop(get::<u32>(&mut registry, 3));
        assert_eq!(registry.entries.len(), 1, "what is gone is forgotten");
    }
}
