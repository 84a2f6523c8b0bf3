//! What follows `--disk`.

use std::fs;
use std::path::{Path, PathBuf};

/// A disk on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// It is /dev/NAME.
    pub name: String,
    /// Where its sectors are.
    pub from: From,
    /// It takes no writes.
    pub read_only: bool,
    /// Bytes in its sectors.
    pub sector_size: u32,
}

/// Where a disk's sectors are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// In a file.
    File(PathBuf),
    /// Nowhere: only how many there would be, of 512 bytes.
    Sectors(u64),
}

impl Disk {
    /// Reads `NAME=FILE[,ro][,sector=BYTES]` or `NAME:SECTORS[,…]`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Disk, String> {
        let wrong = |why: &str| {
            format!("--disk {text}: {why}; it is NAME=FILE[,ro][,sector=BYTES], as in wd0=disk.img")
        };
        let mut words = text.split(',');
        let first = words.next().unwrap_or_default();
        let (name, from) = match (first.split_once('='), first.split_once(':')) {
            (Some((name, file)), _) if !file.is_empty() => (name, From::File(file.into())),
            (None, Some((name, sectors))) => {
                let sectors = sectors.parse().ok().filter(|n: &u64| *n > 0);
                let sectors = sectors.ok_or_else(|| wrong("SECTORS is no number above 0"))?;
                (name, From::Sectors(sectors))
            }
            _ => return Err(wrong("there is no file")),
        };
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
        let mut disk = Disk { name: name.into(), from, read_only: false, sector_size: 512 };
        for word in words {
            match word.split_once('=') {
                None if word == "ro" => disk.read_only = true,
                Some(("sector", bytes)) => {
                    let bytes = bytes.parse().ok().filter(|n: &u32| n.is_power_of_two());
                    disk.sector_size = bytes
                        .filter(|n| (512..=4096).contains(n))
                        .ok_or_else(|| wrong("a sector has 512, 1024, 2048 or 4096 bytes"))?;
                }
                _ => return Err(wrong(&format!("`{word}` is no option"))),
            }
        }
        Ok(disk)
    }

    /// Reads all disks of a command line.
    ///
    /// # Errors
    /// As [`Disk::parse`]; two disks of one name.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Disk>, String> {
        let disks = texts.iter().map(|text| Disk::parse(text)).collect::<Result<Vec<_>, _>>()?;
        for (at, disk) in disks.iter().enumerate() {
            if disks.iter().take(at).any(|other| other.name == disk.name) {
                return Err(format!("--disk: two disks have the name {}", disk.name));
            }
        }
        Ok(disks)
    }

    /// Its size in sectors of 512 bytes; what is left of a file beyond whole sectors is not
    /// counted.
    ///
    /// # Errors
    /// In words, when its file cannot be looked at or holds no sector.
    pub fn sectors(&self) -> Result<u64, String> {
        let path: &Path = match &self.from {
            From::Sectors(sectors) => return Ok(*sectors),
            From::File(path) => path,
        };
        let found = fs::metadata(path).map_err(|error| {
            let hint = if error.kind() == std::io::ErrorKind::NotFound {
                format!("; `truncate -s 64M {}` makes one", path.display())
            } else {
                String::new()
            };
            format!("disk {}: {}: {error}{hint}", self.name, path.display())
        })?;
        if !found.is_file() {
            return Err(format!("disk {}: {} is not a file", self.name, path.display()));
        }
        let size = u64::from(self.sector_size);
        match found.len() / size {
            0 => Err(format!(
                "disk {}: {} does not hold a sector; `truncate -s 64M` makes it larger",
                self.name,
                path.display()
            )),
            sectors => Ok(sectors.saturating_mul(size / 512)),
        }
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
        ] {
            assert!(Disk::parse(text).is_err(), "{text}");
        }
        assert!(Disk::parse_all(&["wd0=b".into(), "wd0=c".into()]).is_err());
    }
}
