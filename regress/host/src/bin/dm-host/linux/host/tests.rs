// SPDX-License-Identifier: BSD-2-Clause

//! Requests that meet: the host's knowledge of devices stays right. The sessions have no block devices, so that every
//! user can run the tests.

use dm_host::Config;
use tempfile::TempDir;

use super::*;

/// A session, and a folder of its own.
struct Session {
    folder: TempDir,
    keeper: Option<Keeper>,
}

impl Session {
    fn new() -> Session {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine::boot(Config::test()).expect("it boots");
        let keeper = Keeper::new(machine, 252, None, folder.path()).expect("a session");
        Session { folder, keeper: Some(keeper) }
    }

    fn keeper(&self) -> &Keeper {
        self.keeper.as_ref().expect("it is there until the drop")
    }

    /// Has the driver make the device 1, or remove it; the session is not told.
    fn ask(&self, command: &str) {
        self.ask_with(command, Dict::new());
    }

    fn ask_with(&self, command: &str, mut request: Dict) {
        request.extend([("command", command.into()), ("name", "one".into())]);
        self.keeper().ask(&xml::write(&request)).expect(command);
    }

    fn has_entry(&self, minor: u32) -> bool {
        self.folder.path().join(format!("sys/block/dm-{minor}")).exists()
    }

    /// The minor of the only device.
    fn minor(&self) -> u32 {
        let reply = self.keeper().question("names", 0).expect("an answer");
        let names: Vec<Answer> = reply.dictionaries("cmd_data").collect();
        let [entry] = names.as_slice() else { panic!("{names:?}") };
        entry.number("dev").and_then(|dev| u32::try_from(dev).ok()).expect("a number")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.remove_all();
            keeper.detach_disks();
            let left = keeper.machine.shutdown();
            assert!(left.is_empty() || thread::panicking(), "{left:?}");
        }
    }
}

/// A thread tells late that it has removed a device: another one has that device's number by then.
#[test]
fn a_device_is_not_forgotten_for_one_that_had_its_number() {
    let session = Session::new();
    let keeper = session.keeper();
    session.ask("create");
    let minor = session.minor();
    keeper.changed(Change::Created(minor));
    session.ask("remove");
    let flags = dm_core::commands::flags::PERSISTENT_DEV;
    let again = [("minor", u64::from(minor).into()), ("flags", u64::from(flags).into())];
    session.ask_with("create", Dict::from(again));
    keeper.changed(Change::Created(minor));
    keeper.changed(Change::Removed(minor));
    assert_eq!(keeper.minors(), [minor]);
    assert!(session.has_entry(minor));
    session.ask("remove");
    keeper.changed(Change::Removed(minor));
    assert_eq!(keeper.minors(), [0; 0]);
    assert!(!session.has_entry(minor));
}

/// A disk that a table is about to name is not taken for one that no table names any more.
#[test]
fn a_disk_stays_for_the_table_that_is_about_to_come() {
    let session = Session::new();
    let keeper = session.keeper();
    let file = session.folder.path().join("disk");
    fs::File::create(&file).and_then(|file| file.set_len(1 << 20)).expect("a file");
    keeper.by_number(libc::makedev(7, 200), Some(&file)).expect("a disk");
    thread::scope(|scope| {
        scope.spawn(|| keeper.drop_passing());
    });
    assert_eq!(keeper.disks().len(), 1);
    // The request is over, and no table names it.
    keeper.done();
    assert_eq!(keeper.disks().len(), 0);
}
