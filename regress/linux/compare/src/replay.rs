// SPDX-License-Identifier: BSD-2-Clause

//! Logs of writes that a side has left: replayed, they give the disk that was logged.

use std::io::Cursor;
use std::path::PathBuf;

use dm_host::write_log::{Flags, Log, Wrong};
use dm_script::Script;
use dm_script::image::Image;

/// Replays each log that the script names to its disk's content at the beginning, and compares with the content at
/// the end. The answer is the differences.
///
/// # Errors
/// Words: an image that cannot be read.
pub fn all(
    script: &Script,
    begin: &[PathBuf],
    end: &[PathBuf],
    side: &str,
) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for (log, disk) in &script.replays {
        let at = |name: &String| script.disks.iter().position(|disk| disk.name == *name);
        let load = |images: &[PathBuf], name: &String| -> Result<Vec<u8>, String> {
            let path = at(name).and_then(|at| images.get(at)).ok_or("no such disk")?;
            Ok(Image::load(path)?.bytes())
        };
        let mut replayed = load(begin, disk)?;
        let said = match replay(load(end, log)?, &mut replayed) {
            Err(why) => Some(why.to_string()),
            Ok(()) => first_difference(&replayed, &load(end, disk)?),
        };
        found.extend(said.map(|why| format!("{log} that {side} left, replayed to {disk}: {why}")));
    }
    Ok(found)
}

/// The first difference of two disks, in words.
fn first_difference(one: &[u8], other: &[u8]) -> Option<String> {
    let at = one.iter().zip(other).position(|(one, other)| one != other)?;
    Some(format!("it is not what the disk holds, from sector {} on", at / 512))
}

/// Replays a log to a disk.
fn replay(log: Vec<u8>, disk: &mut [u8]) -> Result<(), Wrong> {
    let beyond = || Wrong::Form("an entry lies beyond the disk's end".into());
    let mut log = Log::open(Cursor::new(log))?;
    while let Some(entry) = log.next_entry()? {
        let range = entry.start as usize..entry.end().max(entry.start) as usize;
        let place = disk.get_mut(range).ok_or_else(beyond)?;
        if entry.flags.has(Flags::DISCARD) {
            place.fill(0);
        }
        let start = entry.start;
        log.data(&entry, |at, data| {
            let at = (at - start) as usize;
            if let Some(place) = place.get_mut(at..at + data.len()) {
                place.copy_from_slice(data);
            }
            Ok(())
        })?;
    }
    Ok(())
}
