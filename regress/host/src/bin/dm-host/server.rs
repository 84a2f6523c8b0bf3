// SPDX-License-Identifier: BSD-2-Clause

//! The served machine: the kernel, and the two servers that lead to it.

mod control;
mod export;
mod extents;
mod kernel;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use std::{io, thread};

use dm_host::{Config, DiskSpec, Errno, Machine};
use dm_nbd::Listener;

use crate::disk::Disk;
use crate::image::Opened;
use control::Control;
use export::Devices;
use kernel::Kernel;

/// The options that a machine is booted with.
#[derive(Clone, Copy, Default)]
pub struct Boot {
    /// `true` if requests come from a user who is not root.
    pub as_user: bool,
    /// `true` if the console is not shown.
    pub quiet: bool,
}

/// A machine that is served.
pub struct Server {
    kernel: Arc<Kernel>,
    control: Control,
    nbd: dm_nbd::Server,
}

impl Server {
    /// Boots the machine, attaches the disks, and serves at these sockets. `end` is told when a
    /// client asks for the end.
    ///
    /// # Errors
    /// In words.
    pub fn start(
        disks: Vec<(Disk, Opened)>,
        listeners: Vec<Listener>,
        control: UnixListener,
        boot: Boot,
        end: Sender<()>,
    ) -> Result<Server, String> {
        let failed = |what: &str, errno: Errno| format!("{what}: {} ({errno:?})", errno.text());
        let config = Config { quiet: boot.quiet, ..Config::default() };
        let machine = Machine::boot(config).map_err(|errno| failed("booting", errno))?;
        let mut lines = Vec::new();
        for (disk, opened) in disks {
            let name = disk.name.clone();
            lines.push(attach(&machine, &disk, opened).map_err(|errno| failed(&name, errno))?);
        }
        let kernel = Arc::new(Kernel::new(machine, lines.join("\n"), boot.as_user));
        kernel.name_devices().map_err(|errno| failed("/dev/mapper", errno))?;
        let no_thread = |error: io::Error| format!("serving: {error}");
        let ends = move || {
            // The main thread may know already.
            let _ = end.send(());
        };
        let control = Control::start(control, kernel.clone(), ends).map_err(no_thread)?;
        let devices = Arc::new(Devices(kernel.clone()));
        let nbd = dm_nbd::Server::start(listeners, devices).map_err(no_thread)?;
        Ok(Server { kernel, control, nbd })
    }

    /// Sends a property list to the driver, as root.
    ///
    /// # Errors
    /// The driver's, with its reason, unless the request asks for reasons itself.
    pub fn ask(&self, xml: &str) -> Result<String, (Errno, String)> {
        let control = self.kernel.control().map_err(|errno| (errno, String::new()))?;
        self.kernel.ioctl(&control, xml)
    }

    /// Accepts no more clients and requests. I/O that a suspended device holds is released, since its client waits
    /// for it.
    pub fn stop_reading(&self) {
        self.nbd.stop_reading();
        self.kernel.release_held();
    }

    /// Waits until all NBD clients have been served, or `impatient`; `false` if some have not.
    pub fn wait(&self, limit: Duration, impatient: impl Fn() -> bool) -> bool {
        const LOOK: Duration = Duration::from_millis(100);
        let begun = Instant::now();
        while !self.nbd.wait(LOOK) {
            // A device may have been suspended since.
            self.kernel.release_held();
            if impatient() || begun.elapsed() >= limit {
                return false;
            }
        }
        true
    }

    /// Ends the connections of clients that have not been served.
    pub fn cut(&self) {
        self.nbd.cut();
    }

    /// Flushes, removes the devices and shuts the machine down. The answer is a list of leaks.
    pub fn shut_down(mut self) -> Vec<String> {
        self.control.stop();
        while !self.nbd.wait(Duration::from_secs(1)) {
            // Only a disk that does not answer can hold a thread now.
            self.kernel.release_held();
        }
        self.nbd.join();
        drop(self.control);
        self.kernel.remove_all();
        let mut kernel = self.kernel;
        loop {
            match Arc::try_unwrap(kernel) {
                Ok(kernel) => return kernel.shutdown(),
                // A thread that has ended may have it for a moment.
                Err(other) => kernel = other,
            }
            thread::yield_now();
        }
    }
}

fn attach(machine: &Machine, disk: &Disk, opened: Opened) -> Result<String, Errno> {
    let spec = DiskSpec::on(&disk.name, opened.backend, opened.read_only);
    let attached = machine.attach_disk(spec.sector_size(opened.sector_size))?;
    let mode = if opened.read_only { "ro" } else { "rw" };
    let sectors = attached.sectors().saturating_mul(u64::from(opened.sector_size / 512));
    Ok(format!(
        "{}\t{}\t{sectors}\t{}\t{mode}\t{}",
        attached.path(),
        attached.major_minor(),
        opened.sector_size,
        opened.place
    ))
}
