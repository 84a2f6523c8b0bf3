// SPDX-License-Identifier: BSD-2-Clause

//! Disk images in files: opened, locked, and examined for formats that are not raw.

mod format;
mod lock;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use dm_host::Backend;

use self::lock::InTheWay;
use crate::disk::{Disk, From};

/// A disk that is ready to be attached.
pub struct Opened {
    /// The store of the image's data.
    pub backend: Backend,
    /// `true` if the image takes no writes.
    pub read_only: bool,
    /// Bytes in its sectors.
    pub sector_size: u32,
    /// The image's place, for people.
    pub place: String,
    /// Warnings about the image, a line each.
    pub warnings: Vec<String>,
}

/// Bytes of a file or block device.
///
/// # Errors
/// Those of lseek(2).
pub fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Bytes in a sector of a block device, as far as a disk here can have them.
pub fn sector_size(file: &File) -> Option<u32> {
    lock::logical_sector(file).filter(|n| n.is_power_of_two() && (512..=4096).contains(n))
}

/// Opens a disk.
///
/// # Errors
/// In words: why it cannot be served, and what could be done.
pub fn open(disk: &Disk) -> Result<Opened, String> {
    match &disk.from {
        From::File(path) => open_file(disk, path),
        From::Nbd(uri) => {
            let client = disk.connect(uri)?;
            let export = *client.export();
            let read_only = disk.read_only || !export.is_writable();
            let least = export.blocks.0.clamp(512, 4096);
            let sector_size =
                if disk.sector_given { disk.sector_size } else { disk.sector_size.max(least) };
            let mut warnings = tail(disk, export.size, sector_size)?;
            if read_only && !disk.read_only {
                warnings.push(format!("disk {}: the server lets nobody write to it", disk.name));
            }
            let backend = Backend::Nbd(client);
            Ok(Opened { backend, read_only, sector_size, place: uri.to_string(), warnings })
        }
        From::Sectors(_) => {
            Err(format!("--disk {}: a disk that is served needs a file", disk.name))
        }
    }
}

fn open_file(disk: &Disk, path: &Path) -> Result<Opened, String> {
    let (name, shown) = (&disk.name, path.display());
    disk.sectors()?;
    let wrong = |error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) if !disk.read_only => {
                "; with `,ro` it is only read"
            }
            Some(libc::EBUSY) => {
                "; it is mounted, or part of something that is: with `,ro` it is only read"
            }
            _ => "",
        };
        format!("disk {name}: {shown}: {error}{hint}")
    };
    let block = fs::metadata(path).map_err(wrong)?.file_type().is_block_device();
    let mut options = OpenOptions::new();
    options.read(true).write(!disk.read_only);
    if block && !disk.read_only && !disk.unlocked {
        // Linux refuses a block device that is mounted, and keeps others from mounting it.
        options.custom_flags(libc::O_EXCL);
    }
    let file = options.open(path).map_err(wrong)?;
    if !disk.unlocked {
        lock::lock(&file, disk.read_only).map_err(|who| {
            let read = if who == InTheWay::Reader { "; with `,ro` it is only read" } else { "" };
            format!("disk {name}: {shown}: {who}{read}; `,nolock` serves it all the same")
        })?;
    }
    let bytes = size(&file).map_err(wrong)?;
    if !disk.raw
        && let Some(found) = format::find(&file, bytes).map_err(wrong)?
    {
        return Err(found.refusal(disk, path));
    }
    let warnings = tail(disk, bytes, disk.sector_size)?;
    let place = fs::canonicalize(path).map_err(wrong)?.display().to_string();
    Ok(Opened {
        backend: Backend::File(file),
        read_only: disk.read_only,
        sector_size: disk.sector_size,
        place,
        warnings,
    })
}

/// Opens a raw image or a block device for writing, if nobody else uses it.
///
/// # Errors
/// In words, with its name.
pub fn open_to_write(path: &Path) -> Result<File, String> {
    let failed = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let found = fs::metadata(path).map_err(|error| failed(&error))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if found.file_type().is_block_device() {
        options.custom_flags(libc::O_EXCL);
    }
    let file = options.open(path).map_err(|error| failed(&error))?;
    lock::lock(&file, false).map_err(|who| failed(&who))?;
    match format_of(&file).map_err(|error| failed(&error))? {
        Some(name) => Err(failed(&format!("it is {name}, not a raw image"))),
        None => Ok(file),
    }
}

/// The name of a file's format, if it is a known one that is not raw.
///
/// # Errors
/// Those of reading.
pub fn format_of(file: &File) -> io::Result<Option<&'static str>> {
    Ok(format::find(file, size(file)?)?.map(|format| format.name()))
}

/// Warns of bytes beyond the last whole sector.
fn tail(disk: &Disk, bytes: u64, sector_size: u32) -> Result<Vec<String>, String> {
    let sector = u64::from(sector_size);
    if bytes < sector {
        return Err(format!("disk {}: it does not hold a sector of {sector} bytes", disk.name));
    }
    let rest = bytes % sector;
    let told = (rest > 0).then(|| {
        format!(
            "disk {}: the last {rest} bytes are not a whole sector of {sector} bytes, and are not \
             served",
            disk.name
        )
    });
    Ok(told.into_iter().collect())
}
