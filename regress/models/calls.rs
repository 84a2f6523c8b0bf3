// SPDX-License-Identifier: BSD-2-Clause

//! The driver's end beside opens, closes and ioctls: it does not end under one.

use std::marker::PhantomData;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread;

use crate::calls::Calls;
use crate::model;

/// The look for no calls, which wrong variants implement too.
trait Look: Send + Sync + 'static {
    fn none_during(calls: &Calls, look: impl FnOnce() -> bool) -> bool;
}

/// The driver's own.
struct Right;

impl Look for Right {
    fn none_during(calls: &Calls, look: impl FnOnce() -> bool) -> bool {
        calls.none_during(look)
    }
}

/// The parts of the driver at which its end looks, as `L` does.
struct Driver<L> {
    calls: Calls,
    unloading: AtomicUsize,
    control_open: AtomicUsize,
    device_open: AtomicUsize,
    devices: AtomicUsize,
    gone: AtomicUsize,
    look: PhantomData<L>,
}

fn load(flag: &AtomicUsize) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::SeqCst) != 0
}

fn store(flag: &AtomicUsize, value: bool) {
    flag.store(value.into(), Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

impl<L: Look> Driver<L> {
    /// A driver with a device, open or not, and the control node open or not.
    fn new(control_open: bool, device: bool) -> Arc<Driver<L>> {
        let [control_open, device_open, devices] =
            [control_open, device, device].map(|there| AtomicUsize::new(there.into()));
        let [unloading, gone] = [0, 0].map(AtomicUsize::new);
        let (calls, look) = (Calls::default(), PhantomData);
        Arc::new(Driver { calls, unloading, control_open, device_open, devices, gone, look })
    }

    /// Something that a call does, for which the driver must be there.
    fn works(&self) {
        assert!(!load(&self.gone), "the driver ends under a call");
    }

    /// d_open of the control node. `true` if it succeeds.
    fn open(&self) -> bool {
        let _call = self.calls.begin();
        if load(&self.unloading) {
            return false;
        }
        store(&self.control_open, true);
        self.works();
        true
    }

    /// d_close of the control node.
    fn close(&self) {
        let _call = self.calls.begin();
        store(&self.control_open, false);
        self.works();
    }

    /// The last close of the device, which flushes.
    fn close_device(&self) {
        let _call = self.calls.begin();
        store(&self.device_open, false);
        self.works();
    }

    /// An ioctl that removes the device, if it is not open.
    fn remove(&self) {
        let _call = self.calls.begin();
        if !load(&self.device_open) {
            store(&self.devices, false);
        }
        self.works();
    }

    /// The driver's end: it is refused, or all is over.
    fn end(&self) {
        store(&self.unloading, true);
        let quiet = || !load(&self.control_open) && !load(&self.devices);
        match L::none_during(&self.calls, quiet) {
            true => store(&self.gone, true),
            false => store(&self.unloading, false),
        }
    }
}

/// The control node is opened and closed again while the driver ends.
fn an_open<L: Look>() {
    model(4, || {
        let driver = Driver::<L>::new(false, false);
        let user = {
            let driver = driver.clone();
            thread::spawn(move || {
                if driver.open() {
                    driver.close();
                }
            })
        };
        driver.end();
        user.join().unwrap();
    });
}

/// A device is closed, and by another thread removed, before the driver ends.
fn a_close<L: Look>() {
    model(3, || {
        let driver = Driver::<L>::new(true, true);
        let threads = [
            |driver: &Driver<L>| driver.close_device(),
            |driver: &Driver<L>| {
                driver.remove();
                driver.close();
            },
        ]
        .map(|work| {
            let driver = driver.clone();
            thread::spawn(move || work(&driver))
        });
        driver.end();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The control node is revoked, which closes it, while an ioctl makes a device.
fn a_revoke<L: Look>() {
    model(3, || {
        let driver = Driver::<L>::new(true, false);
        // The ioctl has begun while its node was open.
        let call = driver.calls.begin();
        let threads = [|driver: &Driver<L>| driver.close(), |driver: &Driver<L>| driver.end()];
        let threads = threads.map(|work| {
            let driver = driver.clone();
            thread::spawn(move || work(&driver))
        });
        store(&driver.devices, true);
        driver.works();
        drop(call);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn the_driver_does_not_end_under_an_open() {
    an_open::<Right>();
}

#[test]
fn the_driver_does_not_end_under_a_close() {
    a_close::<Right>();
}

#[test]
fn the_driver_does_not_end_under_an_ioctl() {
    a_revoke::<Right>();
}

/// Looks with bugs, which the models must find.
mod wrong {
    use super::*;

    /// Looks at nothing but nodes and devices.
    struct Blind;

    impl Look for Blind {
        fn none_during(_: &Calls, look: impl FnOnce() -> bool) -> bool {
            look()
        }
    }

    #[test]
    #[should_panic(expected = "ends under a call")]
    fn one_that_looks_at_nodes_only_is_found() {
        a_close::<Blind>();
    }

    /// Reads both counts after its look.
    struct Late;

    impl Look for Late {
        fn none_during(calls: &Calls, look: impl FnOnce() -> bool) -> bool {
            look() && calls.none_during(|| true)
        }
    }

    #[test]
    #[should_panic(expected = "ends under a call")]
    fn one_that_looks_late_is_found() {
        an_open::<Late>();
    }

    /// Reads both counts before its look.
    struct Early;

    impl Look for Early {
        fn none_during(calls: &Calls, look: impl FnOnce() -> bool) -> bool {
            calls.none_during(|| true) && look()
        }
    }

    #[test]
    #[should_panic(expected = "ends under a call")]
    fn one_that_looks_early_is_found() {
        a_close::<Early>();
    }
}
