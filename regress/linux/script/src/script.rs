// SPDX-License-Identifier: BSD-2-Clause

//! A script, read: its disks, its stages, its steps.

use crate::side::{Disk, Request};

/// A script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// The name of the script's file, without the dot and the rest.
    pub name: String,
    /// The targets without which it says nothing.
    pub needs: Vec<String>,
    /// `true` if the script belongs to the quick selection.
    pub quick: bool,
    /// The script's disks.
    pub disks: Vec<Disk>,
    /// Shell commands that Linux runs before the first stage; both sides get the disks that they leave.
    pub prepare: Vec<String>,
    /// Shell commands that Linux runs on what each side leaves, and that must succeed.
    pub check: Vec<String>,
    /// Disks with a log of writes, each with the disk that it gives when it is replayed to what that held
    /// at first.
    pub replays: Vec<(String, String)>,
    /// The script's stages: one at least.
    pub stages: Vec<Stage>,
}

/// Steps that a side carries out in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// The stage's steps.
    pub steps: Vec<Step>,
    /// The end of the stage.
    pub end: End,
}

/// The end of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// `true` if each side goes on with the disks that the other one left.
    pub swap: bool,
    /// The disks are as they were when the machine lost its power: nothing was suspended or removed.
    pub crash: bool,
}

/// A step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The step's line in the file, from 1.
    pub line: usize,
    /// The text of that line.
    pub text: String,
    /// The action.
    pub action: Action,
    /// The differences that are allowed here.
    pub differs: Vec<Rule>,
}

/// A line of an outcome that may differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Linux's, with `*` for any text.
    pub linux: String,
    /// The line of our side; each `*` stands for the same text as in Linux's.
    pub ours: String,
    /// The reason of the difference.
    pub reason: String,
}

/// The action of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A command.
    Command(Request),
    /// Create, load and resume, as `dmsetup create` does; undone when a step of it fails.
    Make(Request),
    /// Do as for [`Action::Make`], and remove the device.
    Try(Request),
    /// Wait until there is no such device any more.
    Gone(String),
    /// I/O.
    Io(Io),
    /// Open a node and keep it open.
    Open {
        /// A disk or device.
        place: String,
        /// `true` to open for writing too.
        write: bool,
    },
    /// Close a device or disk.
    Close(String),
    /// The size of a disk or device.
    Size(String),
    /// Begin an I/O that will wait.
    Start {
        /// The I/O's name.
        tag: String,
        /// The I/O.
        io: Io,
    },
    /// Check that the I/O of this name has not ended.
    Pending(String),
    /// Wait for the end of that I/O.
    Finish(String),
    /// Ask for the state until a line of it is like this.
    Until {
        /// The question.
        request: Request,
        /// The pattern that a line must match.
        glob: String,
    },
    /// Take a checksum of a disk's content, past all devices.
    Image {
        /// The disk.
        disk: String,
        /// The first sector.
        sector: u64,
        /// The number of sectors.
        sectors: u64,
        /// Wait until it is another sum than these sectors had when it was asked last.
        changed: bool,
    },
    /// A shell command for Linux alone.
    Shell(String),
}

/// I/O on a disk or a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Io {
    /// The device or disk.
    pub place: String,
    /// The first sector.
    pub sector: u64,
    /// The number of sectors.
    pub sectors: u64,
    /// Sectors in a request.
    pub by: u64,
    /// The kind of I/O.
    pub kind: IoKind,
}

/// The kind of an I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoKind {
    /// Read and sum up.
    Read,
    /// Write the pattern of a seed, or zeros.
    Write(Option<u64>),
    /// Discard.
    Discard,
    /// Flush.
    Flush,
}

impl Script {
    /// The step that stands on this line.
    pub fn step(&self, line: usize) -> Option<&Step> {
        self.stages.iter().flat_map(|stage| &stage.steps).find(|step| step.line == line)
    }
}

impl Rule {
    /// `true` if the rule allows this pair of lines.
    pub fn allows(&self, linux: &str, ours: &str) -> bool {
        let linux = crate::glob::captures(&self.linux, linux);
        let ours = crate::glob::captures(&self.ours, ours);
        match (linux, ours) {
            (Some(linux), Some(ours)) => linux.iter().zip(&ours).all(|(a, b)| a == b),
            _ => false,
        }
    }
}
