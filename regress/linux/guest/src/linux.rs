// SPDX-License-Identifier: BSD-2-Clause

//! Linux as a side.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dm_script::side::{Disk, Error, Node, Place, Reply, Request, Side};

use crate::dm::Control;
use crate::loops::Loop;
use crate::node::Block;
use crate::{errno, raw};

/// The folder for nodes of devices.
const NODES: &str = "/run/nodes";

/// The Linux that we run on.
pub struct Linux {
    control: Control,
    disks: BTreeMap<String, Loop>,
}

impl Linux {
    /// Opens the control node.
    ///
    /// # Errors
    /// Words.
    pub fn open() -> Result<Linux, String> {
        std::fs::create_dir_all(NODES).map_err(|error| format!("{NODES}: {error}"))?;
        let control = Control::open().map_err(|error| format!("device mapper: {error}"))?;
        Ok(Linux { control, disks: BTreeMap::new() })
    }
}

impl Side for Linux {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn attach(&mut self, disk: &Disk, image: &Path) -> Result<(), String> {
        let index = self.disks.len();
        let attached = Loop::attach(index, image, disk.readonly, disk.block)
            .map_err(|error| format!("loop{index}: {error}"))?;
        self.disks.insert(disk.name.clone(), attached);
        Ok(())
    }

    fn detach(&mut self) -> Result<(), String> {
        for (name, disk) in std::mem::take(&mut self.disks) {
            disk.detach().map_err(|error| format!("disk {name} is in use: {error}"))?;
        }
        Ok(())
    }

    fn targets(&mut self) -> Result<Vec<String>, String> {
        self.control.targets().map_err(|error| error.to_string())
    }

    fn command(&self, request: &Request) -> Result<Reply, Error> {
        self.control.command(request).map_err(|error| errno::name(&error))
    }

    fn disk(&self, name: &str) -> Option<(u32, u32, String)> {
        let disk = self.disks.get(name)?;
        let (major, minor) = disk.number();
        Some((major, minor, disk.path().to_owned()))
    }

    fn major(&self) -> u32 {
        self.control.major()
    }

    fn open(&self, place: &Place, write: bool) -> Result<Box<dyn Node>, Error> {
        let path = match place {
            Place::Disk(name) => match self.disks.get(name) {
                Some(disk) => disk.path().to_owned(),
                None => return Err("ENOENT".into()),
            },
            Place::Device(minor) => {
                let path = format!("{NODES}/{minor}");
                if !Path::new(&path).exists() {
                    raw::mknod(&path, self.major(), *minor).map_err(|e| errno::name(&e))?;
                }
                path
            }
        };
        Block::open(&path, write).map(|node| Box::new(node) as Box<dyn Node>)
    }

    /// Runs a shell command, with each disk's path in the variable of its name.
    fn shell(&self, command: &str) -> Result<String, String> {
        let disks = self.disks.iter().map(|(name, disk)| (name, disk.path()));
        let output = Command::new("/bin/sh").args(["-e", "-c", command]).envs(disks).output();
        let output = output.map_err(|error| format!("sh: {error}"))?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        match output.status.success() {
            true => Ok(said),
            false => Err(format!("{}: {said}", output.status)),
        }
    }
}
