//! The machine: booted when nbdkit starts to serve, shut down when it has done so.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::{fs, process, thread};

use dm_core::ioctl::flags;
use dm_host::sysctl::Value;
use dm_host::{
    Config as MachineConfig, Dev, DiskSpec, Errno, File, Flags, Io, LwpId, Machine, Node as Path,
    Request, console, makedev, netbsd,
};
use nbdkit::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::config::{Config, Disk};
use crate::control::Control;
use crate::{ending, export};

/// The driver's major number for block devices: sys/conf/majors.
const BLOCK_MAJOR: u32 = 169;

/// Whom requests come from, with `--as-user`.
const SOMEBODY: u32 = 1000;

/// Bytes that an I/O may have.
const MAXPHYS: usize = netbsd::MAXPHYS as usize;

static SERVER: Mutex<Option<Server>> = Mutex::new(None);

struct Server {
    kernel: Arc<Kernel>,
    control: Option<Control>,
    sockets: Vec<PathBuf>,
}

fn server() -> MutexGuard<'static, Option<Server>> {
    SERVER.lock().unwrap_or_else(|e| e.into_inner())
}

/// The kernel, while it runs.
pub fn kernel() -> Option<Arc<Kernel>> {
    server().as_ref().map(|server| server.kernel.clone())
}

/// Boots the machine, attaches the disks, listens for control and for signals.
///
/// # Errors
/// With words for the person at the terminal.
pub fn start(config: &Config) -> Result<()> {
    let failed = |what: &str, errno: Errno| {
        Error::new(libc::EIO, format!("{what}: {} ({errno:?})", errno.text()))
    };
    let boot = MachineConfig { quiet: false, ..MachineConfig::default() };
    let machine = Machine::boot(boot).map_err(|errno| failed("booting", errno))?;
    let mut disks = Vec::new();
    for disk in &config.disks {
        let attached = attach(&machine, disk).map_err(|errno| failed(&disk.name, errno))?;
        disks.push(attached);
    }
    let kernel = Arc::new(Kernel {
        machine: Some(machine),
        disks: disks.join("\n"),
        user: config.user,
        nodes: Mutex::new(Vec::new()),
    });
    let control = match config.control_fd {
        Some(fd) => {
            // SAFETY: `dm-host serve` left this descriptor open for us, and for nobody else.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let control = Control::start(UnixListener::from(socket), kernel.clone(), stop)?;
            Some(control)
        }
        None => None,
    };
    *server() = Some(Server { kernel, control, sockets: config.sockets.clone() });
    // nbdkit's own handlers are called as well: they end its loop.
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        signals.forever().for_each(|_| stop());
    })?;
    let_signals_through();
    Ok(())
}

/// `dm-host serve` has held them back, so that one that came early finds somebody now.
fn let_signals_through() {
    // SAFETY: plain calls on a set of our own; threads that nbdkit starts from now on inherit the
    // mask.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

fn attach(machine: &Machine, disk: &Disk) -> std::result::Result<String, Errno> {
    let spec = DiskSpec::file(&disk.name, &disk.file, disk.read_only)?;
    let attached = machine.attach_disk(spec.sector_size(disk.sector_size))?;
    let mode = if disk.read_only { "ro" } else { "rw" };
    let sectors = attached.sectors() * u64::from(disk.sector_size / 512);
    Ok(format!(
        "{}\t{}\t{sectors}\t{}\t{mode}\t{}",
        attached.path(),
        attached.major_minor(),
        disk.sector_size,
        disk.file.display()
    ))
}

/// Asks nbdkit to end. I/O that a suspended device holds would keep its connection, and nbdkit,
/// for ever: it is let go.
fn stop() {
    let Some((kernel, sockets)) = server().as_ref().map(|s| (s.kernel.clone(), s.sockets.clone()))
    else {
        return;
    };
    nbdkit::shutdown();
    kernel.release_held();
    ending::stop_reading(sockets);
}

/// Flushes and shuts down: when nbdkit serves no more.
pub fn end() {
    let Some(mut server) = server().take() else { return };
    if let Some(control) = &mut server.control {
        control.stop();
    }
    drop(server.control.take());
    export::close_all();
    server.kernel.remove_all();
    for socket in &server.sockets {
        // Somebody may have been quicker; it is gone then, as it should be.
        let _ = fs::remove_file(socket);
    }
    // A connection that nbdkit gave up waiting for may still have the kernel for a moment.
    let mut kernel = server.kernel;
    let machine = loop {
        match Arc::try_unwrap(kernel) {
            Ok(mut kernel) => break kernel.machine.take(),
            Err(other) => kernel = other,
        }
        thread::yield_now();
    };
    let left = machine.map(Machine::shutdown).unwrap_or_default();
    if !left.is_empty() {
        eprintln!("dm-host: left over at shutdown, which is a bug:");
        left.iter().for_each(|line| eprintln!("  {line}"));
        process::exit(1);
    }
    eprintln!("dm-host: flushed and ended");
}

/// A booted machine.
pub struct Kernel {
    /// Empty only at the very end.
    machine: Option<Machine>,
    disks: String,
    user: bool,
    /// The block nodes that connections have open. A block device can be open only once in
    /// NetBSD, so connections share.
    nodes: Mutex<Vec<(Dev, Weak<Shared>)>>,
}

type Said<T> = std::result::Result<T, (Errno, String)>;

impl Kernel {
    fn machine(&self) -> std::result::Result<&Machine, Errno> {
        self.machine.as_ref().ok_or(Errno::ENXIO)
    }

    /// The calling thread, as the kernel knows it.
    pub fn current(&self) -> LwpId {
        dm_host::current_lwp()
    }

    /// Ends a thread's sleep in the kernel.
    pub fn interrupt(&self, lwp: LwpId) {
        if let Ok(machine) = self.machine() {
            machine.interrupt(lwp);
        }
    }

    fn as_caller<R>(&self, machine: &Machine, f: impl FnOnce() -> R) -> R {
        if self.user { machine.as_user(SOMEBODY, f) } else { f() }
    }

    /// Sends a property list to the control node.
    ///
    /// # Errors
    /// The driver's, with what the console said about it.
    pub fn ioctl(&self, xml: &str) -> Said<String> {
        let plain = |errno| (errno, String::new());
        let machine = self.machine().map_err(plain)?;
        let before = console::lines().len();
        let result = self.as_caller(machine, || {
            machine.open("/dev/mapper/control", Flags::READ_WRITE)?.plist_ioctl(xml)
        });
        result.map_err(|errno| {
            // Others may have said something meanwhile: only what names a device is passed on.
            let lines = console::lines().into_iter().skip(before);
            let about = lines.filter(|line| line.starts_with("dm"));
            (errno, about.collect::<Vec<_>>().join("\n"))
        })
    }

    /// Reads `name`, or sets `name=value`, and returns the value.
    ///
    /// # Errors
    /// ENOENT and what else sysctl(3) says.
    pub fn sysctl(&self, text: &str) -> Said<String> {
        let machine = self.machine().map_err(|errno| (errno, String::new()))?;
        let (name, new) = match text.split_once('=') {
            Some((name, new)) => (name.trim(), Some(new.trim())),
            None => (text.trim(), None),
        };
        let failed = |errno| (errno, String::new());
        let value = machine
            .sysctl_get(name)
            .map_err(|errno| (errno, format!("there are {}", machine.sysctl_names().join(", "))))?;
        if let Some(new) = new {
            let number = |what: &str| (Errno::EINVAL, format!("`{new}` is no {what}"));
            let new = match value {
                Value::Int(_) => Value::Int(new.parse().map_err(|_| number("number"))?),
                Value::Quad(_) => Value::Quad(new.parse().map_err(|_| number("number"))?),
                Value::String(_) => Value::String(new.into()),
            };
            self.as_caller(machine, || machine.sysctl_set(name, &new)).map_err(failed)?;
        }
        Ok(match machine.sysctl_get(name).map_err(failed)? {
            Value::Int(number) => number.to_string(),
            Value::Quad(number) => number.to_string(),
            Value::String(text) => text,
        })
    }

    /// The disks, as the wire has them.
    pub fn disks(&self) -> String {
        self.disks.clone()
    }

    /// Whether a client may end the server: whoever reaches the socket, unless all are nobody.
    ///
    /// # Errors
    /// EPERM.
    pub fn may_end(&self) -> Said<String> {
        if self.user { Err((Errno::EPERM, String::new())) } else { Ok(String::new()) }
    }

    /// A request of the server's own, as root.
    fn own(&self, command: &str, name: &str) -> std::result::Result<plist::Dictionary, Errno> {
        let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let xml = format!(
            "<plist version=\"1.0\"><dict><key>command</key><string>{command}</string>\
             <key>name</key><string>{name}</string></dict></plist>"
        );
        let control = self.machine()?.open("/dev/mapper/control", Flags::READ_WRITE)?;
        let reply = control.plist_ioctl(&xml)?;
        match plist::Value::from_reader_xml(reply.as_bytes()) {
            Ok(plist::Value::Dictionary(dict)) => Ok(dict),
            _ => Err(Errno::EIO),
        }
    }

    /// The devices' names and minors.
    fn devices(&self) -> std::result::Result<Vec<(String, u32)>, Errno> {
        let reply = self.own("names", "")?;
        let entry = |entry: &plist::Value| {
            let entry = entry.as_dictionary()?;
            let name = entry.get("name")?.as_string()?.to_string();
            Some((name, u32::try_from(entry.get("dev")?.as_unsigned_integer()?).ok()?))
        };
        let list = reply.get("cmd_data").and_then(plist::Value::as_array);
        Ok(list.map_or(&[][..], Vec::as_slice).iter().filter_map(entry).collect())
    }

    /// The devices' names.
    ///
    /// # Errors
    /// The driver's.
    pub fn names(&self) -> std::result::Result<Vec<String>, Errno> {
        Ok(self.devices()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Opens a device's block node, or shares it.
    ///
    /// # Errors
    /// ENXIO for a device that does not exist, and those of its driver.
    pub fn open(&self, name: &str, read_only: bool) -> std::result::Result<Node, Errno> {
        let devices = self.devices()?;
        let (_, minor) = devices.iter().find(|(other, _)| other == name).ok_or(Errno::ENOENT)?;
        let dev = makedev(BLOCK_MAJOR, *minor);
        let mut nodes = self.nodes.lock().unwrap_or_else(|e| e.into_inner());
        nodes.retain(|(_, node)| node.strong_count() > 0);
        let open = nodes.iter().find(|(other, _)| *other == dev).and_then(|(_, n)| n.upgrade());
        let shared = match open {
            Some(shared) => shared,
            None => {
                let machine = self.machine()?;
                let (file, writable) = match machine.open(Path::Block(dev), Flags::READ_WRITE) {
                    Err(Errno::EROFS) => (machine.open(Path::Block(dev), Flags::READ)?, false),
                    result => (result?, true),
                };
                let mut sector_size = 0u32;
                file.ioctl(netbsd::DIOCGSECTORSIZE as u32 as u64, &mut sector_size)?;
                let shared = Arc::new(Shared { file, writable, sector_size });
                nodes.push((dev, Arc::downgrade(&shared)));
                shared
            }
        };
        Ok(Node { shared, read_only })
    }

    /// Resumes suspended devices without changing their tables, so that held I/O can end.
    fn release_held(&self) {
        for name in self.names().unwrap_or_default() {
            let Ok(info) = self.own("info", &name) else { continue };
            let flags = info.get("flags").and_then(plist::Value::as_unsigned_integer);
            if flags.is_some_and(|flags| flags & u64::from(flags::SUSPEND) != 0) {
                // The device may go meanwhile; there is nothing to release then.
                let _ = self.own("clear", &name).and_then(|_| self.own("resume", &name));
            }
        }
    }

    /// Removes all devices, and those below others after them.
    fn remove_all(&self) {
        self.release_held();
        self.flush_disks();
        let mut before = usize::MAX;
        while let Ok(devices) = self.devices()
            && !devices.is_empty()
            && devices.len() < before
        {
            before = devices.len();
            if let Err(errno) = self.own("remove_all", "") {
                eprintln!("dm-host: removing the devices: {}", errno.text());
            }
        }
    }

    /// Brings what the disks have cached to their files.
    fn flush_disks(&self) {
        for path in self.disks.lines().filter_map(|line| line.split('\t').next()) {
            let raw = path.replacen("/dev/", "/dev/r", 1);
            let flushed = self.machine().and_then(|machine| {
                let mut force = 1i32;
                let node = match machine.open(raw.as_str(), Flags::READ_WRITE) {
                    // What takes no writes has nothing to flush.
                    Err(Errno::EROFS) => return Ok(()),
                    node => node?,
                };
                node.ioctl(netbsd::DIOCCACHESYNC as u32 as u64, &mut force)
            });
            if let Err(errno) = flushed {
                eprintln!("dm-host: flushing {path}: {}", errno.text());
            }
        }
    }
}

/// A block node, open as long as somebody has it.
struct Shared {
    file: File,
    writable: bool,
    sector_size: u32,
}

/// A connection's use of a block node.
pub struct Node {
    shared: Arc<Shared>,
    read_only: bool,
}

impl Node {
    /// Bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn size(&self) -> std::result::Result<u64, Errno> {
        let mut bytes = 0i64;
        self.shared.file.ioctl(netbsd::DIOCGMEDIASIZE as u32 as u64, &mut bytes)?;
        u64::try_from(bytes).map_err(|_| Errno::EIO)
    }

    /// Bytes in a sector.
    pub fn sector_size(&self) -> u32 {
        self.shared.sector_size.clamp(512, 65536)
    }

    /// Whether writes are taken.
    pub fn is_writable(&self) -> bool {
        self.shared.writable && !self.read_only
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// The driver's; EIO for what lies beyond the device's end.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), Errno> {
        let mut started = Vec::new();
        for (at, chunk) in chunks(buf.len()) {
            let mut io = Io::new(chunk);
            self.shared.file.start(&mut io, Request::read(block(offset, at)?));
            started.push((at, chunk, io));
        }
        let mut result = Ok(());
        for (at, chunk, io) in &mut started {
            let done = io.wait();
            match (done.error, done.is_complete(*chunk)) {
                (None, true) => {
                    if let Some(to) = buf.get_mut(*at..).and_then(|rest| rest.get_mut(..*chunk)) {
                        to.copy_from_slice(io.data());
                    }
                }
                (error, _) => result = result.and(Err(error.unwrap_or(Errno::EIO))),
            }
        }
        result
    }

    /// Writes whole sectors; with `fua`, to the medium itself.
    ///
    /// # Errors
    /// As [`Node::read`].
    pub fn write(&self, buf: &[u8], offset: u64, fua: bool) -> std::result::Result<(), Errno> {
        let flags = if fua { netbsd::B_MEDIA_FUA as u32 } else { 0 };
        let mut started = Vec::new();
        for (chunk, at) in buf.chunks(MAXPHYS).zip((0..).step_by(MAXPHYS)) {
            let mut io = Io::with_data(chunk.to_vec());
            self.shared.file.start(&mut io, Request::write(block(offset, at)?).flags(flags));
            started.push((chunk.len(), io));
        }
        let mut result = Ok(());
        for (length, io) in &mut started {
            let done = io.wait();
            if !done.is_complete(*length) {
                result = result.and(Err(done.error.unwrap_or(Errno::EIO)));
            }
        }
        result
    }

    /// Brings to the medium what has been written.
    ///
    /// # Errors
    /// The driver's.
    pub fn flush(&self) -> std::result::Result<(), Errno> {
        let mut force = 1i32;
        self.shared.file.ioctl(netbsd::DIOCCACHESYNC as u32 as u64, &mut force)
    }

    /// Says that sectors need not be kept. A component that cannot discard keeps them.
    ///
    /// # Errors
    /// The driver's.
    pub fn discard(&self, offset: u64, length: u64) -> std::result::Result<(), Errno> {
        match self.shared.file.fdiscard(offset, length) {
            Err(Errno::ENODEV | Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(()),
            result => result,
        }
    }
}

/// The I/Os that a transfer is cut into: where each begins, and its length.
fn chunks(length: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..length).step_by(MAXPHYS).map(move |at| (at, MAXPHYS.min(length - at)))
}

fn block(offset: u64, at: usize) -> std::result::Result<i64, Errno> {
    let bytes = offset.checked_add(at as u64).ok_or(Errno::EINVAL)?;
    i64::try_from(bytes / 512).map_err(|_| Errno::EINVAL)
}
