// SPDX-License-Identifier: BSD-2-Clause

//! Disk images: made, kept in files without their zeros, compared.
//!
//! A file of an image begins with the image's size in bytes; then comes each chunk that is not
//! all zeros, its place in front of it. All numbers are little-endian, of 8 bytes. So a disk of
//! terabytes that holds little passes through a folder that knows no holes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::SeekFrom;

use crate::data::{self, SECTOR};
use crate::side::Disk;

/// Bytes of a chunk; the last one may be shorter.
const CHUNK: u64 = 4096;

/// The content of a disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    size: u64,
    /// The chunks that are not all zeros, by their place.
    chunks: BTreeMap<u64, Vec<u8>>,
}

fn named<T>(path: &Path, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

impl Image {
    /// The content of a disk at first.
    pub fn new(disk: &Disk) -> Image {
        let size = disk.sectors.saturating_mul(SECTOR as u64);
        let mut image = Image { size, chunks: BTreeMap::new() };
        let per_chunk = CHUNK / SECTOR as u64;
        if let Some(seed) = disk.seed {
            for sector in (0..disk.sectors).step_by(per_chunk as usize) {
                let part = data::pattern(seed, sector, per_chunk.min(disk.sectors - sector));
                image.chunks.insert(sector * SECTOR as u64, part);
            }
        }
        image
    }

    /// Reads a disk's own file, its holes and zeros left out.
    ///
    /// # Errors
    /// The file's, with its name.
    pub fn from_disk(path: &Path) -> Result<Image, String> {
        let file = named(path, File::open(path))?;
        let size = named(path, file.metadata())?.len();
        let mut image = Image { size, chunks: BTreeMap::new() };
        let mut at = 0;
        while let Some((start, end)) = named(path, data_from(&file, at, size))? {
            let mut place = start - start % CHUNK;
            while place < end {
                let mut part = vec![0; CHUNK.min(size - place) as usize];
                named(path, file.read_exact_at(&mut part, place))?;
                if part.iter().any(|byte| *byte != 0) {
                    image.chunks.insert(place, part);
                }
                place += CHUNK;
            }
            at = place;
        }
        Ok(image)
    }

    /// Writes a disk's own file, with holes.
    ///
    /// # Errors
    /// The file's, with its name.
    pub fn to_disk(&self, path: &Path) -> Result<(), String> {
        let file = named(path, File::create(path))?;
        named(path, file.set_len(self.size))?;
        self.chunks.iter().try_for_each(|(at, part)| named(path, file.write_all_at(part, *at)))
    }

    /// Writes the file of an image.
    ///
    /// # Errors
    /// The file's, with its name.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let mut file = BufWriter::with_capacity(1 << 18, named(path, File::create(path))?);
        named(path, file.write_all(&self.size.to_le_bytes()))?;
        for (at, part) in &self.chunks {
            named(path, file.write_all(&at.to_le_bytes()))?;
            named(path, file.write_all(part))?;
        }
        named(path, file.flush())
    }

    /// Reads the file of an image.
    ///
    /// # Errors
    /// The file's, with its name.
    pub fn load(path: &Path) -> Result<Image, String> {
        let mut file = BufReader::with_capacity(1 << 18, named(path, File::open(path))?);
        let number = |file: &mut BufReader<File>| -> Result<Option<u64>, String> {
            let mut bytes = Vec::new();
            named(path, file.by_ref().take(8).read_to_end(&mut bytes))?;
            Ok(bytes.try_into().ok().map(u64::from_le_bytes))
        };
        let size = number(&mut file)?.ok_or_else(|| format!("{}: too short", path.display()))?;
        let mut image = Image { size, chunks: BTreeMap::new() };
        while let Some(at) = number(&mut file)? {
            let mut part = vec![0; CHUNK.min(size.saturating_sub(at)) as usize];
            named(path, file.read_exact(&mut part))?;
            image.chunks.insert(at, part);
        }
        Ok(image)
    }

    /// All bytes of the image.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        for (at, part) in &self.chunks {
            if let Some(place) = bytes.get_mut(*at as usize..*at as usize + part.len()) {
                place.copy_from_slice(part);
            }
        }
        bytes
    }

    /// The difference of two images, if there is one: the number of sectors, and the first byte.
    pub fn difference(&self, other: &Image) -> Option<String> {
        if self.size != other.size {
            return Some(format!("one has {} bytes, the other {}", self.size, other.size));
        }
        let zeros = vec![0; CHUNK as usize];
        let mut places: Vec<_> = self.chunks.keys().chain(other.chunks.keys()).collect();
        places.sort_unstable();
        places.dedup();
        let (mut first, mut sectors) = (None, 0u64);
        for at in places {
            let part = |image: &Image| image.chunks.get(at).unwrap_or(&zeros).clone();
            let (a, b) = (part(self), part(other));
            for (n, (a, b)) in (0u64..).zip(a.chunks(SECTOR).zip(b.chunks(SECTOR))) {
                if a != b {
                    let byte = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                    first.get_or_insert((at / SECTOR as u64 + n, byte));
                    sectors += 1;
                }
            }
        }
        first.map(|(sector, byte)| {
            format!("{sectors} sectors differ, the first in sector {sector}, byte {byte}")
        })
    }
}

/// The next range of data at or behind a byte, its end not beyond `size`.
fn data_from(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        // A file system that knows no holes: all is data.
        Err(rustix::io::Errno::INVAL) => return Ok((at < size).then_some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size);
    Ok((start < size).then_some((start, end.min(size))))
}

/// Reads sectors of a disk's own file.
///
/// # Errors
/// The file's, with its name.
pub fn read(path: &Path, sector: u64, sectors: u64) -> Result<Vec<u8>, String> {
    let file = named(path, File::open(path))?;
    let bytes = usize::try_from(sectors).map_err(|e| e.to_string())?.saturating_mul(SECTOR);
    let mut data = vec![0; bytes];
    named(path, file.read_exact_at(&mut data, sector.saturating_mul(SECTOR as u64)))?;
    Ok(data)
}

/// Makes a folder anew, empty.
///
/// # Errors
/// The folder's, with its name.
pub fn fresh_folder(path: &Path) -> Result<(), String> {
    if path.exists() {
        named(path, fs::remove_dir_all(path))?;
    }
    named(path, fs::create_dir_all(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(sectors: u64, seed: Option<u64>) -> Disk {
        let name = "a".into();
        Disk { name, sectors, seed, readonly: false, block: 512, private: false }
    }

    #[test]
    fn images_come_back_the_same_and_a_byte_that_differs_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let [own, file] = ["own", "file"].map(|name| dir.path().join(name));
        let image = Image::new(&disk(5001, Some(7)));
        image.to_disk(&own).unwrap();
        assert_eq!(read(&own, 5000, 1).unwrap(), data::pattern(7, 5000, 1));
        assert_eq!(Image::from_disk(&own).unwrap(), image);
        image.save(&file).unwrap();
        assert_eq!(Image::load(&file).unwrap(), image);
        assert_eq!(image.difference(&image), None);
        let disk_file = fs::OpenOptions::new().write(true).open(&own).unwrap();
        disk_file.write_all_at(&[0; 3], 4321 * 512 + 510).unwrap();
        let told = image.difference(&Image::from_disk(&own).unwrap()).unwrap();
        assert_eq!(told, "2 sectors differ, the first in sector 4321, byte 510");
        // Far out, with nothing but holes before.
        let empty = Image::new(&disk(1 << 33, None));
        empty.to_disk(&own).unwrap();
        let disk_file = fs::OpenOptions::new().write(true).open(&own).unwrap();
        disk_file.write_all_at(b"x", (1 << 41) + 1).unwrap();
        let far = Image::from_disk(&own).unwrap();
        let told = far.difference(&empty).unwrap();
        assert_eq!(told, "1 sectors differ, the first in sector 4294967296, byte 1");
        far.save(&file).unwrap();
        assert!(fs::metadata(&file).unwrap().len() < 5000);
        assert_eq!(Image::load(&file).unwrap(), far);
        assert!(image.difference(&empty).unwrap().contains("bytes"));
    }
}
