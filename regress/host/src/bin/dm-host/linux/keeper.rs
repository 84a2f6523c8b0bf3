// SPDX-License-Identifier: BSD-2-Clause

//! The process that keeps a session: the machine, its surroundings, and the socket at which the
//! preloaded library asks.
//!
//! It ends when its standard input does: `dm-host linux` holds the other end, and so ends it by
//! ending, however that comes about.

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fs, io, thread};

use dm_host::linux::abi::{self, Command, at, flag};
use dm_host::wire::{Kind, Reply, Request, WireError};
use dm_host::{Config, Machine, linux};
use zeroize::Zeroize;

use super::args;
use super::blocks::Blocks;
use super::folder::{self, State};
use super::host::{Keeper, Prepared};
use super::{space, users};
use crate::disk::Disk;

/// <linux/prctl.h>; the libc crate has not got it.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// The line that the keeper prints when programs may come.
pub const READY: &str = "ready";

/// Runs until the standard input ends.
pub fn run(keeper: &args::Keeper) -> ExitCode {
    match keep(keeper) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("dm-host: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The major number that programs see: Linux's usual one, or the highest that is free here.
fn major() -> u32 {
    let text = fs::read_to_string("/proc/devices").unwrap_or_default();
    let blocks = text.split("Block devices:").nth(1).unwrap_or_default();
    let taken = |major: &u32| {
        let line = |line: &str| {
            let (number, name) = line.trim().split_once(' ')?;
            Some((number.parse::<u32>().ok()?, name.to_owned()))
        };
        blocks.lines().filter_map(line).any(|(number, name)| {
            // The machine's own device mapper is out of sight.
            number == *major && name != "device-mapper"
        })
    };
    (240..=253).rev().find(|major| !taken(major)).unwrap_or(253)
}

fn keep(keeper: &args::Keeper) -> Result<(), String> {
    let folder = keeper.folder.as_path();
    let _alive = folder::keep(folder)?;
    let disks = Disk::parse_all(&keeper.disks)?;
    let prepared = disks.iter().map(Prepared::new).collect::<Result<Vec<_>, _>>()?;
    let mut state = State::read(folder).ok_or("the session's state is not there")?;
    let (closed, closings) = mpsc::channel();
    // I/O of ours may be what the system needs to free memory.
    // SAFETY: prctl(2) with numbers; a system that does not know or allow it goes on without.
    unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    let blocks = match state.loops {
        Some((base, shift)) => {
            space::enter(folder)?;
            Some(Blocks::start(folder.join("blocks"), base, shift, closed)?)
        }
        None => {
            let mapper = folder.join("dev/mapper");
            fs::create_dir_all(&mapper).map_err(|e| format!("{}: {e}", mapper.display()))?;
            None
        }
    };
    let machine = Machine::boot(Config { quiet: false, ..Config::default() });
    let machine = machine.map_err(|errno| format!("booting: {}", errno.text()))?;
    let session = Arc::new(Keeper::new(machine, major(), blocks, folder)?);
    for (disk, prepared) in disks.iter().zip(prepared) {
        session.attach(disk, prepared)?;
    }
    lvm(folder)?;
    let socket = folder.join("socket");
    let listener = UnixListener::bind(&socket).map_err(|e| format!("{}: {e}", socket.display()))?;
    let stopping = Arc::new(AtomicBool::new(false));
    let accepting = {
        let (session, listener, stopping) =
            (session.clone(), listener.try_clone(), stopping.clone());
        let listener = listener.map_err(|error| error.to_string())?;
        thread::spawn(move || accept(&listener, &session, &stopping))
    };
    {
        let session = Arc::downgrade(&session);
        thread::spawn(move || {
            for (minor, id) in closings {
                let Some(session) = session.upgrade() else { return };
                session.closed(minor, id);
            }
        });
    }
    state.keeper = std::process::id();
    state.major = session.major;
    state.write(folder)?;
    println!("{READY}");
    let mut end = Vec::new();
    // Whatever ends it ends us.
    let _ = io::stdin().lock().read_to_end(&mut end);
    stopping.store(true, Ordering::SeqCst);
    // SAFETY: shutdown(2) on a socket that `listener` keeps open.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
    finish(session, accepting, folder)
}

/// Ends everything, what depends on something else before that.
fn finish(
    session: Arc<Keeper>,
    accepting: thread::JoinHandle<()>,
    folder: &Path,
) -> Result<(), String> {
    session.release_held();
    users::kill_marked(folder);
    unmount(&session);
    // A thread that panicked has ended the process: panics abort.
    let _ = accepting.join();
    let left = session.remove_all();
    if let Some(blocks) = &session.blocks {
        blocks.end();
    }
    if !left.is_empty() {
        // Nothing can be taken apart below them; what was written is with the disks' files.
        let names: Vec<_> = left.iter().map(|minor| format!("dm-{minor}")).collect();
        return Err(format!("still in use at the end: {}", names.join(" ")));
    }
    session.detach_disks();
    let mut session = session;
    let keeper = loop {
        match Arc::try_unwrap(session) {
            Ok(keeper) => break keeper,
            Err(other) => session = other,
        }
        // A connection that has ended may still have it for a moment.
        thread::yield_now();
    };
    let left = keeper.machine.shutdown();
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("left over at the end, which is a bug:\n  {}", left.join("\n  "))),
    }
}

/// Unmounts what stands on the devices; the last that was mounted first.
fn unmount(session: &Keeper) {
    use nix::mount::{MntFlags, umount2};
    let Some(blocks) = &session.blocks else { return };
    for (dev, place) in users::mounts().into_iter().rev() {
        if blocks.minor(dev).is_none() {
            continue;
        }
        if umount2(place.as_str(), MntFlags::empty()).is_err()
            && let Err(error) = umount2(place.as_str(), MntFlags::MNT_DETACH)
        {
            eprintln!("dm-host: unmounting {place}: {error}");
        }
    }
}

/// LVM's configuration: no udev, no daemons, nothing outside the session's folder.
fn lvm(folder: &Path) -> Result<(), String> {
    let own = folder.join("lvm");
    let text = format!(
        "devices {{\n\
         \tdir = \"/dev\"\n\tscan = [ \"/dev\" ]\n\tobtain_device_list_from_udev = 0\n\
         \texternal_device_info_source = \"none\"\n\tuse_devicesfile = 0\n\tsysfs_scan = 0\n\
         \tmd_component_detection = 0\n\thints = \"none\"\n}}\n\
         activation {{\n\tudev_sync = 0\n\tudev_rules = 0\n\tverify_udev_operations = 0\n\
         \tmonitoring = 0\n}}\n\
         global {{\n\tuse_lvmpolld = 0\n\tevent_activation = 0\n\tlocking_dir = \"{}/lock\"\n}}\n",
        own.display()
    );
    let written =
        fs::create_dir_all(own.join("lock")).and_then(|()| fs::write(own.join("lvm.conf"), text));
    written.map_err(|error| format!("{}: {error}", own.display()))
}

fn accept(listener: &UnixListener, session: &Arc<Keeper>, stopping: &AtomicBool) {
    let mut threads: Vec<(thread::JoinHandle<()>, Arc<UnixStream>)> = Vec::new();
    for stream in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            break;
        }
        threads.retain(|(thread, _)| !thread.is_finished());
        let Ok(stream) = stream else { continue };
        let (stream, session) = (Arc::new(stream), session.clone());
        let theirs = stream.clone();
        let spawned = thread::Builder::new().name("linux".into()).spawn(move || {
            serve(&theirs, &session);
            // Whoever waits for the connection's end has waited for this.
            let _ = theirs.shutdown(Shutdown::Both);
        });
        // Without a thread the program finds its connection closed.
        threads.extend(spawned.ok().map(|thread| (thread, stream)));
    }
    for (thread, stream) in threads {
        // A program may outlive the session, and keep the control node open.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

/// Serves a connection until the program closes it.
fn serve(mut stream: &UnixStream, session: &Arc<Keeper>) {
    loop {
        let request = match Request::read(&mut stream) {
            Ok(request) => request,
            Err(WireError::Malformed(why)) => {
                let reply = Reply { errno: libc::EINVAL, body: why.as_bytes().to_vec() };
                // The program may be gone; then nobody misses the answer.
                let _ = reply.write(&mut stream);
                return;
            }
            Err(_) => return,
        };
        let sent = match request.kind {
            Kind::LinuxEvents => Ok(()),
            Kind::Linux => answer(stream, request.body, session),
            _ => {
                let reply = Reply { errno: libc::EOPNOTSUPP, body: Vec::new() };
                reply.write(&mut stream)
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn answer(
    mut stream: &UnixStream,
    mut body: Vec<u8>,
    session: &Arc<Keeper>,
) -> Result<(), WireError> {
    let Some(number) = body.first_chunk::<4>().map(|number| u32::from_be_bytes(*number)) else {
        return Reply { errno: libc::EINVAL, body: Vec::new() }.write(&mut stream);
    };
    body.drain(..4);
    let came = body.len();
    body.resize(came.max(abi::SIZE), 0);
    let secret = abi::u32_at(&body, at::FLAGS) & flag::SECURE_DATA != 0;
    let command = Command::parse(number);
    let result = match command {
        Some(Command::DevWait | Command::DevSuspend) => {
            let session = session.as_ref();
            interruptible(stream, session, || linux::ioctl(session, number, &mut body))?
        }
        _ => linux::ioctl(session.as_ref(), number, &mut body),
    };
    session.done();
    // As much as the program has room for.
    let length = match result {
        Ok(()) => (abi::u32_at(&body, at::DATA_SIZE) as usize).min(came),
        Err(_) => 12.min(came),
    };
    let mut rest = body.split_off(length);
    let mut reply = Reply { errno: result.err().map_or(0, |fault| fault.0), body };
    let armed = match result.is_ok() && command == Some(Command::DevArmPoll) {
        true => stream.try_clone().ok(),
        false => None,
    };
    let sent = match armed {
        Some(armed) => {
            watch_events(session);
            session.events.arm(armed, || reply.write(&mut stream))
        }
        None => reply.write(&mut stream),
    };
    if secret {
        reply.body.zeroize();
        rest.zeroize();
    }
    sent
}

/// Carries a request out; if the program goes meanwhile, its sleep in the kernel is interrupted.
fn interruptible<R>(
    stream: &UnixStream,
    session: &Keeper,
    request: impl FnOnce() -> R,
) -> io::Result<R> {
    let lwp = dm_host::current_lwp();
    let (over, watched) = UnixStream::pair()?;
    Ok(thread::scope(|scope| {
        scope.spawn(move || {
            let events = libc::POLLRDHUP;
            let entry =
                |stream: &UnixStream| libc::pollfd { fd: stream.as_raw_fd(), events, revents: 0 };
            let mut both = [entry(stream), entry(&watched)];
            loop {
                // SAFETY: two entries, whose descriptors are open as long as this thread runs.
                let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
                let [program, end] = &both;
                if ready > 0 && end.revents != 0 {
                    return;
                }
                if ready > 0 && program.revents != 0 {
                    // A signal ends only a sleep that has begun.
                    session.machine.interrupt(lwp);
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let result = request();
        drop(over);
        result
    }))
}

/// Has threads wait for the events of all devices, those that come from now on.
fn watch_events(session: &Arc<Keeper>) {
    for minor in session.minors() {
        // Asked before anybody is told that events are waited for: none is missed.
        let Some(first) = session.event_nr("info", minor, 0) else { continue };
        if !session.events.watch(minor) {
            continue;
        }
        let session = session.clone();
        thread::spawn(move || {
            let mut seen = Some(first);
            while let Some(number) = seen {
                seen = session.event_nr("waitevent", minor, number);
                session.events.happened();
            }
            session.events.unwatch(minor);
            // Who armed since then, for a new device of this number, has to do so again.
            session.events.happened();
        });
    }
}
