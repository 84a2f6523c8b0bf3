// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host luks`: Linux's encrypted disks. `dm-luks` reads them; the user's side of it is here.

mod disk;
mod dump;
pub mod keeper;
mod open;
mod passphrase;

use std::io::{self, Write};

use dm_luks::{Error, Header, Limits, VolumeKey};
use zeroize::Zeroizing;

use self::disk::Source;
use self::passphrase::Passphrase;
use crate::cli::{Luks, LuksCommand, LuksDisk, LuksKey};
use crate::failure::Failure;
use crate::say::say;
use crate::wiping;

/// The number of times that a passphrase is asked for at the terminal.
const TRIES: usize = 3;

/// Executes a command, and returns the text that it prints.
///
/// # Errors
/// [`Failure::Locked`] for a wrong passphrase, else [`Failure::Usage`].
pub fn run(luks: &Luks) -> Result<String, Failure> {
    wiping::begin();
    match &luks.command {
        LuksCommand::Dump { disk, json } => {
            let opened = Opened::new(disk)?;
            Ok(match json {
                true => dump::json(&opened.header),
                false => dump::text(&opened.header),
            })
        }
        LuksCommand::Open { disk, name, key, readonly, allow_discards, foreground, sockets } => {
            let opened = Opened::new(disk)?;
            let how = open::How {
                name,
                readonly: *readonly,
                allow_discards: *allow_discards,
                foreground: *foreground,
                sockets,
            };
            open::open(&opened, key, &how)
        }
        LuksCommand::Close { name, force, sockets } => open::close(name, *force, sockets),
        LuksCommand::Test { disk, key } => {
            let opened = Opened::new(disk)?;
            let found = opened.unlock(key)?;
            Ok(format!("keyslot {}\n", found.keyslot))
        }
        LuksCommand::Table { disk, key, device } => {
            let opened = Opened::new(disk)?;
            let lines = opened.lines()?;
            let key = opened.unlock(key)?;
            let options = opened.options();
            for line in lines {
                let mut text = line.text(&key, device, &options);
                text.push('\n');
                print(&text)?;
            }
            Ok(String::new())
        }
    }
}

/// Prints a secret, without buffers.
fn print(text: &Zeroizing<String>) -> Result<(), Failure> {
    use std::os::fd::AsFd;
    let out = io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let done = out.and_then(|mut out| out.write_all(text.as_bytes()));
    done.map_err(|error| Failure::Usage(format!("standard output: {error}")))
}

/// A disk whose header was read.
struct Opened<'a> {
    names: &'a LuksDisk,
    /// The disk with the header and the keyslots.
    header_disk: Source,
    /// The disk with the data, if it is another one.
    data_disk: Option<Source>,
    header: Header,
}

impl Opened<'_> {
    fn new(names: &LuksDisk) -> Result<Opened<'_>, Failure> {
        let open = |name: &str| Source::open(name).map_err(Failure::Usage);
        let (header_disk, data_disk) = match &names.header {
            Some(header) => (open(header)?, Some(open(&names.disk)?)),
            None => (open(&names.disk)?, None),
        };
        let name = names.header.as_ref().unwrap_or(&names.disk);
        let header = Header::read(&header_disk)
            .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        Ok(Opened { names, header_disk, data_disk, header })
    }

    fn wrong(&self, error: &Error) -> Failure {
        let name = self.names.header.as_ref().unwrap_or(&self.names.disk);
        let text = format!("{name}: {error}");
        match error {
            Error::WrongKey { .. } => Failure::Locked(text),
            _ => Failure::Usage(text),
        }
    }

    /// The lines of the table of its data.
    fn lines(&self) -> Result<Vec<dm_luks::Line>, Failure> {
        let data = self.data_disk.as_ref().unwrap_or(&self.header_disk);
        let size = dm_luks::ReadAt::size(data).map_err(|error| self.wrong(&error.into()))?;
        self.header.payload(size).map_err(|error| self.wrong(&error))
    }

    /// Options of the target that the header asks for.
    fn options(&self) -> Vec<&'static str> {
        let known = [
            ("allow-discards", "allow_discards"),
            ("same-cpu-crypt", "same_cpu_crypt"),
            ("submit-from-crypt-cpus", "submit_from_crypt_cpus"),
            ("no-read-workqueue", "no_read_workqueue"),
            ("no-write-workqueue", "no_write_workqueue"),
        ];
        let asked = |(flag, _): &(&str, &str)| self.header.flags.iter().any(|is| is == flag);
        known.into_iter().filter(asked).map(|(_, option)| option).collect()
    }

    /// Gets a passphrase, and with it the key. At the terminal the user may try several.
    fn unlock(&self, from: &LuksKey) -> Result<VolumeKey, Failure> {
        let limits = Limits { argon2_kib: from.memory.saturating_mul(1024), ..Limits::default() };
        let mut tries = TRIES;
        loop {
            let passphrase = Passphrase::get(from, &self.names.disk)?;
            let found =
                self.header.unlock(&self.header_disk, &passphrase.bytes, from.key_slot, &limits);
            tries -= 1;
            match found {
                Ok(key) => return Ok(key),
                Err(error @ Error::WrongKey { .. }) if passphrase.typed && tries > 0 => {
                    say(&self.wrong(&error).to_string());
                }
                Err(error) => return Err(self.wrong(&error)),
            }
        }
    }
}
