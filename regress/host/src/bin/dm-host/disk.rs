// SPDX-License-Identifier: BSD-2-Clause

//! The argument of `--disk`.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dm_nbd::{Client, Limits, Uri};

use crate::image;

/// A disk on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// The disk's name: it is /dev/NAME.
    pub name: String,
    /// The place of the disk's sectors.
    pub from: From,
    /// `true` if the disk takes no writes.
    pub read_only: bool,
    /// Bytes in its sectors.
    pub sector_size: u32,
    /// `true` if the bytes in a sector were given; otherwise the disk tells them.
    pub sector_given: bool,
    /// `true` if the disk is raw, whatever it looks like.
    pub raw: bool,
    /// `true` if the disk's file is not locked.
    pub unlocked: bool,
    /// The time limits for an NBD server.
    pub limits: Limits,
}

/// The place of a disk's sectors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// A file, or a block device.
    File(PathBuf),
    /// An export of an NBD server.
    Nbd(Uri),
    /// No data: only a number of sectors, of 512 bytes.
    Sectors(u64),
}

const SYNTAX: &str = "it is NAME=FILE or NAME=NBD-URI and then ,ro ,sector=BYTES ,format=raw \
                      ,nolock or ,timeout=SECONDS, as in wd0=disk.img,ro; a comma in FILE is `,,`";

/// Cuts a text at commas; two commas together stand for one.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words
}

impl Disk {
    /// Reads `NAME=FILE[,OPTION…]`, `NAME=NBD-URI[,OPTION…]` or `NAME:SECTORS[,OPTION…]`.
    ///
    /// # Errors
    /// A message with the mistake, and the syntax.
    pub fn parse(text: &str) -> Result<Disk, String> {
        let wrong = |why: &str| format!("--disk {text}: {why}; {SYNTAX}");
        let mut words = words(text).into_iter();
        let first = words.next().unwrap_or_default();
        let (name, from) = match (first.split_once('='), first.split_once(':')) {
            (Some((name, uri)), _) if Uri::is_one(uri) => {
                (name, From::Nbd(Uri::parse(uri).map_err(|why| wrong(&why))?))
            }
            (Some((name, file)), _) if !file.is_empty() => (name, From::File(file.into())),
            (None, Some((name, sectors))) => {
                let sectors = sectors.parse().ok().filter(|n: &u64| *n > 0);
                let sectors = sectors.ok_or_else(|| wrong("SECTORS is no number above 0"))?;
                (name, From::Sectors(sectors))
            }
            _ => return Err(wrong("there is no file")),
        };
        if let (Some(own), From::Sectors(_)) = (name.strip_prefix("mapper/"), &from) {
            return Disk::mapped(name, own, from, words).map_err(|why| wrong(&why));
        }
        let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let unit = name.get(driver.len()..).unwrap_or_default();
        let letters = !driver.is_empty() && driver.bytes().all(|b| b.is_ascii_lowercase());
        if !letters || name.len() > 15 || unit.parse::<u32>().is_ok_and(|n| n > 255) {
            return Err(wrong("NAME is a driver's name and a number up to 255"));
        }
        if unit.is_empty() || (unit.starts_with('0') && unit.len() > 1) {
            return Err(wrong("NAME ends with the disk's number, without zeroes before it"));
        }
        if matches!(driver, "dm" | "mapper") {
            return Err(wrong("that name is the device mapper's"));
        }
        let mut disk = Disk {
            name: name.into(),
            from,
            read_only: false,
            sector_size: 512,
            sector_given: false,
            raw: false,
            unlocked: false,
            limits: Limits::default(),
        };
        for word in words {
            match word.split_once('=') {
                None if word == "ro" => disk.read_only = true,
                None if word == "nolock" => disk.unlocked = true,
                Some(("format", "raw")) => disk.raw = true,
                Some(("format", _)) => return Err(wrong("there is no format but raw")),
                Some(("timeout", seconds)) => {
                    let seconds = seconds.parse().ok().filter(|n| (1..=3600).contains(n));
                    let seconds = seconds.ok_or_else(|| wrong("a timeout is 1 to 3600 seconds"))?;
                    let limit = Duration::from_secs(seconds);
                    disk.limits = Limits { connect: limit, answer: limit };
                }
                Some(("sector", bytes)) => {
                    let bytes = bytes.parse().ok().filter(|n: &u32| n.is_power_of_two());
                    disk.sector_size = bytes
                        .filter(|n| (512..=4096).contains(n))
                        .ok_or_else(|| wrong("a sector has 512, 1024, 2048 or 4096 bytes"))?;
                    disk.sector_given = true;
                }
                _ => return Err(wrong(&format!("`{word}` is no option"))),
            }
        }
        Ok(disk)
    }

    /// Reads a device of the mapper's, for a table that names it.
    fn mapped(
        name: &str,
        own: &str,
        from: From,
        words: impl Iterator<Item = String>,
    ) -> Result<Disk, String> {
        if dm_core::name::Name::new(own).is_err() {
            return Err("a device's name has 1 to 127 bytes and no slash".into());
        }
        let mut read_only = false;
        for word in words {
            match word.as_str() {
                "ro" => read_only = true,
                _ => return Err(format!("`{word}` is no option of a device's")),
            }
        }
        Ok(Disk {
            name: name.into(),
            from,
            read_only,
            sector_size: 512,
            sector_given: true,
            raw: true,
            unlocked: true,
            limits: Limits::default(),
        })
    }

    /// Reads all disks of a command line, and asks block devices for the size of their sectors.
    ///
    /// # Errors
    /// As [`Disk::parse`]; two disks of one name.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Disk>, String> {
        let mut disks =
            texts.iter().map(|text| Disk::parse(text)).collect::<Result<Vec<_>, _>>()?;
        for (at, disk) in disks.iter().enumerate() {
            if disks.iter().take(at).any(|other| other.name == disk.name) {
                return Err(format!("--disk: two disks have the name {}", disk.name));
            }
        }
        disks.iter_mut().for_each(Disk::ask_for_sectors);
        Ok(disks)
    }

    fn ask_for_sectors(&mut self) {
        if let From::File(path) = &self.from
            && !self.sector_given
            && fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
            && let Ok(file) = File::open(path)
        {
            self.sector_size = image::sector_size(&file).unwrap_or(512);
        }
    }

    /// Connects to its NBD server.
    ///
    /// # Errors
    /// In words.
    pub fn connect(&self, uri: &Uri) -> Result<Client, String> {
        let client = Client::connect(uri, self.limits);
        client.map_err(|error| format!("disk {}: {uri}: {error}", self.name))
    }

    /// The disk's size in sectors of 512 bytes. A last part of a sector is not counted.
    ///
    /// # Errors
    /// In words, when its file cannot be looked at or holds no sector.
    pub fn sectors(&self) -> Result<u64, String> {
        let (bytes, what) = match &self.from {
            From::Sectors(sectors) => return Ok(*sectors),
            From::File(path) => (self.file_bytes(path)?, path.display().to_string()),
            From::Nbd(uri) => (self.connect(uri)?.export().size, uri.to_string()),
        };
        let size = u64::from(self.sector_size);
        match bytes / size {
            0 => Err(format!(
                "disk {}: {what} does not hold a sector; `truncate -s 64M` makes it larger",
                self.name
            )),
            sectors => Ok(sectors.saturating_mul(size / 512)),
        }
    }

    fn file_bytes(&self, path: &Path) -> Result<u64, String> {
        let wrong = |error: std::io::Error| {
            let hint = if error.kind() == std::io::ErrorKind::NotFound {
                format!("; `truncate -s 64M {}` makes one", path.display())
            } else {
                String::new()
            };
            format!("disk {}: {}: {error}{hint}", self.name, path.display())
        };
        let found = fs::metadata(path).map_err(wrong)?;
        if found.file_type().is_block_device() {
            return image::size(&File::open(path).map_err(wrong)?).map_err(wrong);
        }
        if !found.is_file() {
            return Err(format!(
                "disk {}: {} is neither a file nor a block device",
                self.name,
                path.display()
            ));
        }
        Ok(found.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read() {
        let disk = Disk::parse("wd0=a=b.img,ro,sector=4096").unwrap();
        assert_eq!(disk.from, From::File("a=b.img".into()));
        assert!(disk.name == "wd0" && disk.read_only && disk.sector_size == 4096);
        assert_eq!(Disk::parse("wd1:2048").unwrap().sectors(), Ok(2048));
        let odd = Disk::parse("wd0=a,,b,,,,c.img,ro").unwrap();
        assert!(odd.from == From::File("a,b,,c.img".into()) && odd.read_only);
        let bare = Disk::parse("wd0=a,format=raw,nolock").unwrap();
        assert!(bare.raw && bare.unlocked && !bare.read_only);
        let far = Disk::parse("wd0=nbd://host:99/a,,b,timeout=3").unwrap();
        assert_eq!(far.from, From::Nbd(Uri::parse("nbd://host:99/a,b").unwrap()));
        assert_eq!(far.limits.answer, Duration::from_secs(3));
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "wd0",
            "wd0=",
            "=a",
            "a/b=c",
            "wd=c",
            "wd00=c",
            "wd999=c",
            "dm0=c",
            "wd0:0",
            "wd0:x",
            "wd0=a,rw",
            "wd0=a,sector=1000",
            "wd0=a,sector=65536",
            "wd0=a,format=qcow2",
            "wd0=a,timeout=0",
            "wd0=nbd://",
            "wd0=nbds://host",
            "wd0=a,b.img",
        ] {
            assert!(Disk::parse(text).is_err(), "{text}");
        }
        assert!(Disk::parse_all(&["wd0=b".into(), "wd0=c".into()]).is_err());
    }
}
