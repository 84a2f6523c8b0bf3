// SPDX-License-Identifier: BSD-2-Clause

//! The driver's end beside opens, closes and ioctls: it does not end under one.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread;

use crate::calls::{Call, Calls};
use crate::model;

/// The count's interface, which wrong variants implement too.
trait Count: Send + Sync + Default + 'static {
    fn begin(&self) -> Call<'_>;
    fn none_during(&self, look: impl FnOnce() -> bool) -> bool;
}

impl Count for Calls {
    fn begin(&self) -> Call<'_> {
        Calls::begin(self)
    }

    fn none_during(&self, look: impl FnOnce() -> bool) -> bool {
        Calls::none_during(self, look)
    }
}

/// What the driver's end looks at.
struct Driver<C> {
    calls: C,
    unloading: AtomicUsize,
    control_open: AtomicUsize,
    device_open: AtomicUsize,
    devices: AtomicUsize,
    gone: AtomicUsize,
}

fn load(flag: &AtomicUsize) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::SeqCst) != 0
}

fn store(flag: &AtomicUsize, value: bool) {
    flag.store(value.into(), Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

impl<C: Count> Driver<C> {
    /// A driver with a device, open or not, and the control node open or not.
    fn new(control_open: bool, device: bool) -> Arc<Driver<C>> {
        let [control_open, device_open, devices] =
            [control_open, device, device].map(|there| AtomicUsize::new(there.into()));
        let [unloading, gone] = [0, 0].map(AtomicUsize::new);
        Arc::new(Driver {
            calls: C::default(),
            unloading,
            control_open,
            device_open,
            devices,
            gone,
        })
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
        match self.calls.none_during(quiet) {
            true => store(&self.gone, true),
            false => store(&self.unloading, false),
        }
    }
}

/// The control node is opened and closed again while the driver ends.
fn an_open<C: Count>() {
    model(4, || {
        let driver = Driver::<C>::new(false, false);
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
fn a_close<C: Count>() {
    model(3, || {
        let driver = Driver::<C>::new(true, true);
        let threads = [
            |driver: &Driver<C>| driver.close_device(),
            |driver: &Driver<C>| {
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
fn a_revoke<C: Count>() {
    model(3, || {
        let driver = Driver::<C>::new(true, false);
        // The ioctl has begun while its node was open.
        let call = driver.calls.begin();
        let threads = [|driver: &Driver<C>| driver.close(), |driver: &Driver<C>| driver.end()];
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
    an_open::<Calls>();
}

#[test]
fn the_driver_does_not_end_under_a_close() {
    a_close::<Calls>();
}

#[test]
fn the_driver_does_not_end_under_an_ioctl() {
    a_revoke::<Calls>();
}

/// Counts with bugs, which the models must find.
mod wrong {
    use super::*;

    /// Looks at nothing but nodes and devices.
    #[derive(Default)]
    struct Blind(Calls);

    impl Count for Blind {
        fn begin(&self) -> Call<'_> {
            self.0.begin()
        }

        fn none_during(&self, look: impl FnOnce() -> bool) -> bool {
            look()
        }
    }

    #[test]
    #[should_panic(expected = "ends under a call")]
    fn one_that_looks_at_nodes_only_is_found() {
        a_close::<Blind>();
    }

    /// Reads both counts after its look.
    #[derive(Default)]
    struct Late(Calls);

    impl Count for Late {
        fn begin(&self) -> Call<'_> {
            self.0.begin()
        }

        fn none_during(&self, look: impl FnOnce() -> bool) -> bool {
            look() && self.0.none_during(|| true)
        }
    }

    #[test]
    #[should_panic(expected = "ends under a call")]
    fn one_that_looks_late_is_found() {
        an_open::<Late>();
    }

    /// Reads both counts before its look.
    #[derive(Default)]
    struct Early(Calls);

    impl Count for Early {
        fn begin(&self) -> Call<'_> {
            self.0.begin()
        }

        fn none_during(&self, look: impl FnOnce() -> bool) -> bool {
            self.0.none_during(|| true) && look()
        }
    }

    #[test]
    #[should_panic(expected = "ends under a call")]
    fn one_that_looks_early_is_found() {
        a_close::<Early>();
    }
}
