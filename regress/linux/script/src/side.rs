// SPDX-License-Identifier: BSD-2-Clause

//! The interface of a side: the commands of device mapper, and I/O on disks and devices.

use std::path::Path;

/// The name of an error, such as `EINVAL`.
pub type Error = String;

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// The disk's name in the script.
    pub name: String,
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// The disk's content at first: the pattern of a seed, or zeros.
    pub seed: Option<u64>,
    /// `true` if the disk takes no writes.
    pub readonly: bool,
    /// Bytes in a sector of its own.
    pub block: u32,
    /// `true` if the disk's content at a stage's end is not compared: its format is not shared.
    pub private: bool,
}

/// The kind of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// A new device.
    Create,
    /// A table for the inactive slot.
    Load,
    /// The inactive table, if there is one, becomes active; I/O goes on.
    Resume,
    /// I/O is held.
    Suspend,
    /// The inactive table goes.
    Clear,
    /// The device goes.
    Remove,
    /// All devices go that are not in use.
    RemoveAll,
    /// Give a device another name, or a first uuid.
    Rename,
    /// Tell the state of a device.
    Info,
    /// The table, or the targets' state.
    Status,
    /// Tell the components of a table.
    Deps,
    /// Tell the names of all devices.
    Names,
    /// The next event.
    Wait,
    /// A message to a target.
    Message,
    /// Set the geometry.
    Geometry,
}

/// A line of a table, its device numbers being this side's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The first sector.
    pub start: u64,
    /// The number of sectors.
    pub length: u64,
    /// The target's name.
    pub kind: String,
    /// The target's parameters.
    pub params: String,
}

/// A command with its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The kind of the command.
    pub call: Call,
    /// The device's name.
    pub name: Option<String>,
    /// The device's uuid; with [`Call::Create`], the new one.
    pub uuid: Option<String>,
    /// With [`Call::Create`], the minor that the device shall have.
    pub minor: Option<u32>,
    /// The table, or the device, takes no writes.
    pub readonly: bool,
    /// Suspend without waiting for what targets hold; status without flushing.
    pub noflush: bool,
    /// Suspend without freezing the file system on the device.
    pub nolockfs: bool,
    /// About the inactive table.
    pub inactive: bool,
    /// The table's text, not the targets' state.
    pub table: bool,
    /// Remove at the last close.
    pub deferred: bool,
    /// [`Call::Rename`] sets the uuid.
    pub set_uuid: bool,
    /// The table's lines.
    pub lines: Vec<Line>,
    /// A new name or uuid, a message, or a geometry.
    pub text: String,
    /// The sector that a message is for.
    pub sector: u64,
    /// The event that [`Call::Wait`] knows already.
    pub event: u32,
}

impl Request {
    /// A command about no device.
    pub fn new(call: Call) -> Request {
        Request {
            call,
            name: None,
            uuid: None,
            minor: None,
            readonly: false,
            noflush: false,
            nolockfs: false,
            inactive: false,
            table: false,
            deferred: false,
            set_uuid: false,
            lines: Vec::new(),
            text: String::new(),
            sector: 0,
            event: 0,
        }
    }
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reply {
    /// The device exists.
    pub exists: bool,
    /// `true` if the device is suspended.
    pub suspended: bool,
    /// `true` if the device takes no writes.
    pub readonly: bool,
    /// `true` if the device has an active table.
    pub live: bool,
    /// `true` if the device has an inactive table.
    pub inactive: bool,
    /// `true` if the device is removed at its last close.
    pub deferred: bool,
    /// The number of opens.
    pub open: u64,
    /// The number of events.
    pub event: u64,
    /// Lines of its table.
    pub targets: u64,
    /// The device's minor.
    pub minor: u32,
    /// The device's name.
    pub name: String,
    /// The device's uuid.
    pub uuid: String,
    /// The lines of a table or of a state.
    pub lines: Vec<Line>,
    /// The table's components: major and minor.
    pub deps: Vec<(u32, u32)>,
    /// All devices: name and minor.
    pub names: Vec<(String, u32)>,
    /// The answer to a message.
    pub text: Option<String>,
}

/// A disk or device that can be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A disk of the script's.
    Disk(String),
    /// The device of this minor.
    Device(u32),
}

/// An open disk or device. Sectors are of 512 bytes.
pub trait Node: Send {
    /// Reads with one request past all caches; bytes read.
    ///
    /// # Errors
    /// The request's.
    fn read(&self, sector: u64, data: &mut [u8]) -> Result<usize, Error>;

    /// Writes with one request past all caches; bytes written.
    ///
    /// # Errors
    /// The request's.
    fn write(&self, sector: u64, data: &[u8]) -> Result<usize, Error>;

    /// Discards sectors.
    ///
    /// # Errors
    /// The request's.
    fn discard(&self, sector: u64, sectors: u64) -> Result<(), Error>;

    /// Flushes caches below.
    ///
    /// # Errors
    /// The request's.
    fn flush(&self) -> Result<(), Error>;

    /// The size in sectors.
    ///
    /// # Errors
    /// If it has no size.
    fn sectors(&self) -> Result<u64, Error>;
}

/// A driver, with a machine around it.
pub trait Side {
    /// The side's name: `linux` or `ours`.
    fn name(&self) -> &'static str;

    /// Gives a disk to the machine, its data in that file.
    ///
    /// # Errors
    /// Words.
    fn attach(&mut self, disk: &Disk, image: &Path) -> Result<(), String>;

    /// Takes all disks away again. No device is left.
    ///
    /// # Errors
    /// Words: what is left over.
    fn detach(&mut self) -> Result<(), String>;

    /// The targets that the driver has.
    ///
    /// # Errors
    /// Words.
    fn targets(&mut self) -> Result<Vec<String>, String>;

    /// Carries out a command.
    ///
    /// # Errors
    /// The command's.
    fn command(&self, request: &Request) -> Result<Reply, Error>;

    /// A disk's major and minor, and its path.
    fn disk(&self, name: &str) -> Option<(u32, u32, String)>;

    /// The major number of device mapper's devices.
    fn major(&self) -> u32;

    /// Opens the block node.
    ///
    /// # Errors
    /// The open's.
    fn open(&self, place: &Place, write: bool) -> Result<Box<dyn Node>, Error>;

    /// Runs a shell command that the script has for this side alone, and returns its output.
    ///
    /// # Errors
    /// Words: how it failed, with what it printed.
    fn shell(&self, command: &str) -> Result<String, String>;

    /// The driver's messages in the system's log since the last call.
    fn said(&self) -> Vec<String> {
        Vec::new()
    }
}
