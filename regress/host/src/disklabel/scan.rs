// SPDX-License-Identifier: BSD-2-Clause

//! The search for labels, as NetBSD does it on ports whose disks may have a master boot record: through one buffer of
//! three sectors, whatever sector size the label that is found names, and along a chain of boot records as far as the
//! disk says that it goes.
//!
//! Stricter than NetBSD where that would run over its buffer or divide by zero: the machine stops.

use std::ffi::{CStr, c_int};

use super::{LABEL_SIZE, MBR_NETBSD, Strategy, bytes, find_label};
use crate::buf::{B_READ, biowait, getiobuf, putiobuf};
use crate::console::{kassert, kpanic};
use crate::dev::Dev;
use crate::netbsd as nb;

/// Sectors in the buffer.
const BLOCKS: u32 = 3;
/// MAXBSIZE: bytes in the largest buffer there is.
const MAXBSIZE: u64 = 65536;
/// The content of the memory behind the buffer, which is checked in the end: nothing may have been read into it.
const CANARY: u8 = 0xc5;
const BEYOND: usize = 128 * 1024;
/// A label's flag that the disk has a table of bad sectors, and the mark in that.
const D_BADSECT: u32 = 4;
const DKBAD_MAGIC: [u8; 4] = [0, 0, 0x21, 0x43];
/// Types of partitions: those that hold more, and a disk manager's.
const EXTENDED: [u8; 3] = [5, 0x0f, 0x85];
const DISK_MANAGER: u8 = 0x54;
/// MBR_LABELSECTOR: sectors from a partition's start to its label.
const MBR_LABELSECTOR: u32 = 1;
/// The byte where ISO 9660's descriptors begin.
const ISO: u32 = 32 * 1024;
const ISO_SECTOR: u32 = 2048;

/// The result of a look at some sectors.
enum Found {
    Nothing,
    Label,
    Error(&'static CStr),
}

/// A search through a disk.
pub(super) struct Scan<'l> {
    strategy: Strategy,
    /// The disk as its driver tells it, and then the label that was found, or that is to be
    /// written.
    label: &'l mut nb::disklabel,
    write: bool,
    bp: *mut nb::buf,
    /// The buffer's memory, and what must stay as it is.
    data: Vec<u8>,
    size: usize,
    error: c_int,
    written: u32,
    found_mbr: bool,
}

impl<'l> Scan<'l> {
    /// # Safety
    /// `strategy` is the routine of the driver that has `dev`.
    pub(super) unsafe fn new(
        dev: Dev,
        strategy: Strategy,
        label: &'l mut nb::disklabel,
        write: bool,
    ) -> Scan<'l> {
        let wanted = u64::from(BLOCKS) * u64::from(label.d_secsize);
        kassert!(
            wanted <= MAXBSIZE,
            "geteblk: a label's three sectors of {} bytes are more than MAXBSIZE",
            label.d_secsize
        );
        let size = wanted as usize;
        let mut data = vec![0; size + BEYOND];
        data[size..].fill(CANARY);
        // SAFETY: a new buffer, with memory that lives as long as it.
        let bp = unsafe {
            let bp = getiobuf(std::ptr::null_mut(), true);
            (*bp).b_dev = dev;
            (*bp).b_bufsize = size as c_int;
            (*bp).b_data = data.as_mut_ptr().cast();
            (*bp).b_cflags = nb::BC_BUSY as u32;
            bp
        };
        let (error, written, found_mbr) = (0, 0, false);
        Scan { strategy, label, write, bp, data, size, error, written, found_mbr }
    }

    /// Has the driver carry out the transfer that the buffer describes.
    fn transfer(&mut self) -> c_int {
        // SAFETY: the driver's routine, with a buffer of ours.
        let error = unsafe {
            (*self.bp).b_error = 0;
            (*self.bp).b_oflags = 0;
            (*self.bp).b_resid = (*self.bp).b_bcount;
            (self.strategy)(self.bp);
            biowait(self.bp)
        };
        if error != 0 {
            self.error = error;
        }
        error
    }

    fn read(&mut self, sector: u32, count: u32) -> c_int {
        let bytes = self.label.d_secsize;
        if bytes / 512 == 0 || self.label.d_secpercyl == 0 {
            return crate::errno::Errno::EINVAL.0;
        }
        // SAFETY: the buffer is ours.
        unsafe {
            (*self.bp).b_blkno = (i64::from(sector) * i64::from(bytes)) / 512;
            (*self.bp).b_bcount = count.wrapping_mul(bytes) as c_int;
            (*self.bp).b_flags = B_READ;
        }
        self.transfer()
    }

    /// The bytes that were read; a device cuts a transfer at its end.
    fn text(&self) -> &[u8] {
        // SAFETY: the buffer is ours.
        let count = unsafe { (*self.bp).b_bcount };
        &self.data[..self.size.min(count.max(0) as usize)]
    }

    /// Looks for a label from a sector on. To write one, `update` has it take the place of one that
    /// is there only.
    fn label_at(&mut self, sector: u32, update: bool) -> Found {
        if self.read(sector, BLOCKS) != 0 {
            return Found::Error(c"disk label read failed");
        }
        let found = find_label(self.text());
        if self.write {
            let place = if sector == 0 { nb::LABELSECTOR as u32 } else { MBR_LABELSECTOR };
            let fixed = (place * self.label.d_secsize) as usize + nb::LABELOFFSET as usize;
            let at = match found {
                Some((at, _)) => at,
                None if update => return Found::Nothing,
                None => fixed,
            };
            self.data[at..at + LABEL_SIZE].copy_from_slice(bytes(self.label));
            // SAFETY: the buffer is ours.
            unsafe { (*self.bp).b_flags = 0 };
            if self.transfer() != 0 {
                return Found::Error(c"disk label write failed");
            }
            self.written += 1;
            // It goes to each partition that has room for one.
            return Found::Nothing;
        }
        let Some((_, label)) = found else { return Found::Nothing };
        let size = self.label.d_secperunit;
        *self.label = label;
        // The geometry is right if the last sector by the label itself can be read.
        let whole = size != 0 && self.read(size - 1, 1) == 0;
        self.raw_partition(whole, size)
    }

    /// A label has a raw partition, or is given one. Simpler than NetBSD: those that would have to
    /// be moved make room.
    fn raw_partition(&mut self, whole: bool, size: u32) -> Found {
        let raw = nb::RAW_PART as usize;
        let has = usize::from(self.label.d_npartitions) > raw
            && self.label.d_partitions[raw].p_offset == 0
            && self.label.d_partitions[raw].p_size != 0;
        if has {
            return Found::Label;
        }
        if !whole {
            return Found::Error(c"no raw partition and disk reports bad geometry");
        }
        self.label.d_npartitions = self.label.d_npartitions.max(raw as u16 + 1);
        self.label.d_partitions[raw] = nb::partition {
            p_size: size,
            // SAFETY: numbers, for which zeros are valid.
            ..unsafe { std::mem::zeroed() }
        };
        Found::Label
    }

    /// Looks at the NetBSD partitions of all boot records.
    fn partitions(&mut self) -> Found {
        let (mut base, mut here) = (0u32, 0u32);
        loop {
            if self.read(here, 1) != 0 {
                return Found::Error(c"dos partition I/O error");
            }
            let Some(record) = self.text().first_chunk::<512>().copied() else {
                return Found::Nothing;
            };
            if record[510..] != [0x55, 0xaa] {
                return Found::Nothing;
            }
            let entry = |n: usize| {
                let entry = &record[446 + 16 * n..462 + 16 * n];
                let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| entry[at + i]));
                (entry[4], number(8), number(12))
            };
            let kinds = [0, 1, 2, 3].map(|n| entry(n).0);
            if base == 0 && kinds == [DISK_MANAGER, 0, 0, 0] {
                let Some(next) = self.label.d_secpercyl.checked_div(self.label.d_ntracks) else {
                    kpanic!("a label without tracks: integer divide fault");
                };
                here = next;
                continue;
            }
            let mut next = 0;
            for (kind, start, length) in (0..4).map(entry).filter(|(kind, ..)| *kind != 0) {
                let end = u64::from(base) + u64::from(start) + u64::from(length);
                if end > u64::from(self.label.d_secperunit) {
                    return Found::Nothing;
                }
                self.found_mbr = true;
                if EXTENDED.contains(&kind) {
                    next = start;
                } else if kind == MBR_NETBSD {
                    match self.label_at(here.wrapping_add(start), false) {
                        Found::Nothing => {}
                        found => return found,
                    }
                }
            }
            if next == 0 {
                return Found::Nothing;
            }
            if base == 0 {
                (base, next) = (next, 0);
            }
            next = next.wrapping_add(base);
            if next <= here {
                return Found::Nothing;
            }
            here = next;
        }
    }

    /// Follows the descriptors of a file system on a compact disc: NetBSD tells a label for those,
    /// which is none for the callers here.
    fn descriptors(&mut self) {
        let (bytes, mut at) = (self.label.d_secsize, ISO.div_ceil(self.label.d_secsize));
        while self.read(at.wrapping_mul(bytes / 512), 1) == 0
            && self.text().get(1..6) == Some(b"CD001")
        {
            at = at.wrapping_add((ISO_SECTOR / bytes).max(1));
        }
    }

    /// Looks for the table of bad sectors that the label says there is, in the last track.
    fn bad_sectors(&mut self) -> Found {
        let (size, track) = (self.label.d_secperunit, self.label.d_nsectors);
        let Some(unit) = 512u32.checked_div(self.label.d_secsize) else {
            kpanic!("a label of sectors of 0 bytes: integer divide fault");
        };
        for at in (0..track.min(10)).step_by(2) {
            let sector = size.wrapping_sub(track).wrapping_add(at) / unit.max(1);
            if self.read(sector, 1) == 0 {
                return match self.text().get(4..8) == Some(&DKBAD_MAGIC) {
                    true => Found::Label,
                    false => Found::Error(c"bad sector table corrupted"),
                };
            }
        }
        Found::Error(c"bad sector table I/O error")
    }

    /// Finds a label, which `self.label` is then.
    pub(super) fn find(mut self) -> Option<&'static CStr> {
        let mut found = self.partitions();
        if matches!(found, Found::Nothing) {
            found = self.label_at(0, false);
        }
        if matches!(found, Found::Label) && self.label.d_flags & D_BADSECT != 0 {
            found = self.bad_sectors();
        }
        match found {
            Found::Label => None,
            Found::Error(why) => Some(why),
            Found::Nothing => {
                self.descriptors();
                Some(c"no disk label")
            }
        }
    }

    /// Writes the label to all places that have one or should; 0, or why not.
    pub(super) fn put(mut self) -> c_int {
        // Errors of reads and writes are in `error`.
        let _ = self.partitions();
        let _ = self.label_at(0, self.found_mbr);
        match self.error {
            0 if self.written == 0 => nb::ESRCH as c_int,
            error => error,
        }
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        // SAFETY: the buffer is ours and not in flight.
        unsafe { putiobuf(self.bp) };
        kassert!(
            self.data[self.size..].iter().all(|byte| *byte == CANARY),
            "a label's I/O went past its buffer of {} bytes",
            self.size
        );
    }
}
