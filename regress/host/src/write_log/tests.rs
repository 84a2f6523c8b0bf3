// SPDX-License-Identifier: BSD-2-Clause

//! Logs that lie, and one that does not.

use std::io::Cursor;

use super::*;

/// A log of these sectors: four numbers, a text, and data.
fn log(sector: usize, entries: &[([u64; 4], &[u8], &[u8])]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut pad = |parts: &[&[u8]], data: &[u8]| {
        let head = parts.concat();
        log.extend_from_slice(&head);
        log.resize(log.len() + sector - head.len(), 0);
        log.extend_from_slice(data);
    };
    let count = entries.len() as u64;
    let head = [MAGIC, VERSION, count].map(u64::to_le_bytes).concat();
    pad(&[&head, &(sector as u32).to_le_bytes()], &[]);
    for (numbers, text, data) in entries {
        pad(&[&numbers.map(u64::to_le_bytes).concat(), text], data);
    }
    log
}

fn all(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut log = Log::open(Cursor::new(bytes)).map_err(|wrong| wrong.to_string())?;
    let mut entries = Vec::new();
    while let Some(entry) = log.next_entry().map_err(|wrong| wrong.to_string())? {
        entries.push(entry);
    }
    Ok(entries)
}

fn refused(bytes: &[u8]) -> String {
    all(bytes).expect_err("a log that lies")
}

fn good(sector: usize) -> Vec<u8> {
    log(
        sector,
        &[
            ([3, 1, 0, 0], b"", &vec![7; sector]),
            ([9, 5, 4, 0], b"", b""),
            ([0, 0, 8, 5], b"here!", b""),
            ([1, 2, 16 | 2, 0], b"", &vec![8; 2 * sector]),
            ([0, 0, 1, 0], b"", b""),
        ],
    )
}

#[test]
fn entries_in_bytes_whatever_the_sectors_are() {
    let bytes = good(4096);
    let entries = all(&bytes).unwrap();
    let said: Vec<_> =
        entries.iter().map(|e| (e.number, e.start, e.length, e.flags.0, &e.text[..])).collect();
    assert_eq!(
        said,
        [
            (1, 3 * 4096, 4096, 0, &b""[..]),
            (2, 9 * 4096, 5 * 4096, 4, b""),
            (3, 0, 0, 8, b"here!"),
            (4, 4096, 8192, 18, b""),
            (5, 0, 0, 1, b""),
        ]
    );
    let mut log = Log::open(Cursor::new(&bytes)).unwrap();
    assert_eq!((log.sector_size(), log.entries()), (4096, 5));
    let mut taken = Vec::new();
    let mut take = |at: u64, data: &[u8]| {
        taken.push((at, data.to_vec()));
        Ok(())
    };
    entries.iter().for_each(|entry| log.data(entry, &mut take).unwrap());
    assert_eq!(taken, [(3 * 4096, vec![7; 4096]), (4096, vec![8; 8192])]);
    // The first is found again.
    while log.next_entry().unwrap().is_some() {}
    log.rewind();
    assert_eq!(log.next_entry().unwrap(), entries.first().cloned());
}

#[test]
fn data_come_in_chunks() {
    let data: Vec<u8> = (0..CHUNK + 512).map(|n| (n / 512) as u8).collect();
    let bytes = log(512, &[([1, data.len() as u64 / 512, 0, 0], b"", &data)]);
    let mut log = Log::open(Cursor::new(bytes)).unwrap();
    let entry = log.next_entry().unwrap().unwrap();
    let mut taken = Vec::new();
    log.data(&entry, |at, data| {
        assert_eq!(at, 512 + taken.len() as u64);
        assert!(data.len() as u64 <= CHUNK);
        taken.extend_from_slice(data);
        Ok(())
    })
    .unwrap();
    assert_eq!(taken, data);
}

/// A superblock with one number changed.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut log = log(512, &[([0, 0, 1, 0], b"", b"")]);
    log[at..at + bytes.len()].copy_from_slice(bytes);
    log
}

#[test]
fn superblocks_that_lie() {
    for short in [&b""[..], &[0; 512], &changed(0, &[0])[..], &changed(0, &[])[..27]] {
        assert_eq!(refused(short), "it is no log of writes: it does not begin as one");
    }
    assert_eq!(refused(&changed(8, &[2])), "the log has version 2, not 1");
    for size in [0u32, 1, 256, 513, 3 << 9, 16 << 20, u32::MAX] {
        let why = refused(&changed(24, &size.to_le_bytes()));
        assert_eq!(why, format!("the log's sectors have {size} bytes"));
    }
    for (count, said) in [([2, 0, 0, 0, 0, 0, 0, 0], "2"), ([255; 8], "18446744073709551615")] {
        let why = format!("the log counts {said} entries, and has room for 1");
        assert_eq!(refused(&changed(16, &count)), why);
    }
    // Sectors so large that there is no room for the entry.
    assert_eq!(
        refused(&changed(24, &4096u32.to_le_bytes())),
        "the log counts 1 entries, and has room for 0"
    );
}

#[test]
fn entries_that_lie() {
    let one = |numbers: [u64; 4]| log(512, &[(numbers, b"text", &[1; 1024])]);
    let disk = "entry 1 reaches beyond what a disk can have";
    for (numbers, why) in [
        ([0, 0, 0, 0], "entry 1 is empty: nothing was written there"),
        ([0, 3, 0, 0], "entry 1 has data beyond the end of the log"),
        ([0, 1 << 40, 2, 0], "entry 1 has data beyond the end of the log"),
        ([0, 1 << 55, 0, 0], disk),
        ([u64::MAX, 1, 0, 0], disk),
        ([1 << 54, 1, 4, 0], disk),
        ([1 << 53, 1 << 53, 4, 0], disk),
        ([(1 << 54) - 1, 1, 4, 0], disk),
        ([0, u64::MAX, 4, 0], disk),
        ([0, 1, 32, 0], "entry 1 has flags that are not known: 0x20"),
        ([0, 1, u64::MAX, 0], "entry 1 has flags that are not known: 0xffffffffffffffe0"),
        ([0, 0, 8, 481], "entry 1 is a mark whose text is longer than there is room"),
        ([0, 0, 8, u64::MAX], "entry 1 is a mark whose text is longer than there is room"),
    ] {
        assert_eq!(refused(&one(numbers)), why, "{numbers:?}");
    }
    for numbers in [[0, 2, 0, u64::MAX], [(1 << 54) - 2, 1, 4, 0], [0, 0, 8, 480]] {
        assert_eq!(all(&one(numbers)).map(|entries| entries.len()), Ok(1), "{numbers:?}");
    }
    // The second lies behind the first's data, where there is nothing.
    let mut two = log(512, &[([0, 2, 0, 0], b"", &[1; 1024])]);
    two[16] = 2;
    assert_eq!(refused(&two), "entry 2 lies beyond the end of the log");
    // A sector of 8 MiB does not mean a text of 8 MiB.
    let long = 65_537 - HEADER as u64;
    let large = log(8 << 20, &[([0, 0, 8, long], b"", b"")]);
    assert_eq!(refused(&large), "entry 1 is a mark whose text is longer than there is room");
}

/// Any byte changed, and any length: an answer or a refusal.
#[test]
fn damaged_logs_are_read_to_an_end() {
    let good = good(512);
    let (mut read, mut refused) = (0, 0);
    for at in (0..SUPER).chain((1..9).flat_map(|n| n * 512..n * 512 + HEADER)) {
        for value in [0, 1, 3, 64, 127, 255] {
            let mut bytes = good.clone();
            bytes[at] = value;
            *if all(&bytes).is_ok() { &mut read } else { &mut refused } += 1;
        }
    }
    for length in (0..good.len()).step_by(100) {
        *if all(&good[..length]).is_ok() { &mut read } else { &mut refused } += 1;
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
}
