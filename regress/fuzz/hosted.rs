//! The driver itself, on the hosted kernel: bytes as userland could send them.

use dm_core::testing::{Dict, Object};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dm_host::proplib::xml;
use dm_host::{Config, DiskSpec, Flags, Machine};

/// One at a time in a process: a machine that shuts down takes any object for a leak.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for it.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whatever bytes come in: proplib refuses them, or makes a dictionary whose text it reads again
/// to the same text.
pub fn proplib(data: &[u8]) {
    let _turn = turn();
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Some(once) = xml::round_trip(text) else { return };
    let twice = xml::round_trip(&once).expect("proplib reads what it writes");
    assert_eq!(once, twice);
}

/// Sends the bytes to `/dev/mapper/control` as they are, then as a dictionary after requests that
/// leave a device for it to meet. Whatever happened, everything can be taken away again, and the
/// machine shuts down without a leak.
pub fn ioctl(data: &[u8]) {
    let _turn = turn();
    let machine = Machine::boot(Config::test()).expect("boots");
    let disk = machine.attach_disk(DiskSpec::memory("wd0", 1 << 16)).expect("attaches");
    let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).expect("opens");
    let send = |dict: &Dict| control.plist_ioctl(&dict.print());
    let request = |command: &str, name: &str| {
        let mut dict = Dict::default();
        dict.put("command", command);
        dict.put("name", name);
        dict
    };
    send(&request("create", "a")).expect("creates");
    let mut line = Dict::default();
    line.put("start", 0u64);
    line.put("length", 64u64);
    line.put("type", "linear");
    line.put("params", Object::String(format!("{} 100", disk.path())));
    let mut reload = request("reload", "a");
    reload.put("cmd_data", vec![Object::Dict(line)]);
    send(&reload).expect("reloads");
    send(&request("resume", "a")).expect("resumes");
    // A request that waits for an event would wait for ever: there is nobody to raise one.
    if !data.windows(9).any(|w| w == b"waitevent") {
        let _ = control.plist_ioctl_bytes(data);
    }
    send(&request("remove_all", "")).expect("takes all away");
    drop(control);
    assert_eq!(machine.shutdown(), Vec::<String>::new());
}
