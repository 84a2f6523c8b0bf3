// SPDX-License-Identifier: BSD-2-Clause

//! The disk of a command: a file, a block device, or an export of an NBD server.

use std::fs::File;
use std::io;
use std::path::Path;

use dm_luks::ReadAt;
use dm_nbd::{Client, Limits, Uri};

use crate::image;

/// A source to read a header from. It is not locked: a reader sees its present content.
pub enum Source {
    /// A file, or a block device.
    File(File),
    /// An export of an NBD server.
    Nbd(Client),
}

/// Bytes that are asked of an NBD server at a time.
const PIECE: usize = 1 << 20;

impl Source {
    /// Opens the disk that a command line names.
    ///
    /// # Errors
    /// In words, with its name.
    pub fn open(name: &str) -> Result<Source, String> {
        if Uri::is_one(name) {
            let uri = Uri::parse(name).map_err(|why| format!("{name}: {why}"))?;
            let client = Client::connect(&uri, Limits::default());
            return client.map(Source::Nbd).map_err(|error| format!("{name}: {error}"));
        }
        let wrong = |error: io::Error| format!("{name}: {error}");
        let file = File::open(Path::new(name)).map_err(wrong)?;
        if file.metadata().map_err(wrong)?.is_dir() {
            return Err(format!("{name} is a folder"));
        }
        match image::format_of(&file).map_err(wrong)? {
            Some(format) => Err(format!("{name} is {format}, not a raw image")),
            None => Ok(Source::File(file)),
        }
    }
}

impl ReadAt for Source {
    fn size(&self) -> io::Result<u64> {
        match self {
            Source::File(file) => ReadAt::size(file),
            Source::Nbd(client) => Ok(client.export().size),
        }
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let client = match self {
            Source::File(file) => return ReadAt::read_at(file, at, into),
            Source::Nbd(client) => client,
        };
        let mut at = at;
        for piece in into.chunks_mut(PIECE) {
            let length = piece.len() as u32;
            if at.checked_add(u64::from(length)).is_none_or(|end| end > client.export().size) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Whole sectors, which every server takes.
            let first = at / 4096 * 4096;
            let end = (at + u64::from(length)).next_multiple_of(4096).min(client.export().size);
            let failed = |error| io::Error::other(format!("the NBD server: {error:?}"));
            let data = client.read(first, (end - first) as u32).map_err(failed)?;
            let skip = (at - first) as usize;
            let data = data.get(skip..skip + piece.len());
            piece.copy_from_slice(data.ok_or(io::ErrorKind::UnexpectedEof)?);
            at += u64::from(length);
        }
        Ok(())
    }
}
