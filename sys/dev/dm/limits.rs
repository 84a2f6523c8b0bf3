// SPDX-License-Identifier: BSD-2-Clause

//! Limits on what one driver takes, so that no request can exhaust the kernel. dm.4 states them.

/// Devices at one time.
pub const DEVICES: usize = 4096;

/// Lines in a table.
pub const LINES: usize = 65_536;

/// Stripes in a striped line, paths in a switch line.
pub const STRIPES: usize = 1024;

/// Regions in a switch line, two bytes each.
pub const REGIONS: usize = 1 << 22;

/// Bad blocks in a dust line, sixteen bytes each.
pub const BAD_BLOCKS: usize = 16 * 1024;

/// Writes of a log-writes line that no flush has made safe, and that are not in its log yet, 32
/// bytes each.
pub const UNFLUSHED_WRITES: usize = 2048;

/// Marks that wait for a log-writes line's log.
pub const MARKS: usize = 16;

/// Legs of a mirror line, as lvm has them.
pub const MIRROR_LEGS: usize = 9;

/// Regions of a mirror line, two and a half bytes each.
pub const MIRROR_REGIONS: u64 = 1 << 26;

/// Bytes in a data block or a hash block of a verity line, as veritysetup has them.
pub const VERITY_BLOCK: u32 = 512 * 1024;

/// Bytes of verified hash blocks that a verity line keeps, or eight blocks.
pub const VERITY_CACHE: usize = 4 << 20;

/// Blocks of exceptions in memory that a snapshot may have, some 32 KiB each.
pub const SNAPSHOT_BLOCKS: usize = if usize::BITS == 32 { 1024 } else { 4096 };

/// Chunks of a snapshot's store.
pub const SNAPSHOT_CHUNKS: u64 = 1 << 27;

/// Bytes of a component's path, as PATH_MAX less its NUL.
pub const PATH: usize = 1023;

/// Bytes in a component's sectors. readdisklabel(9) wants three of a device's in one buffer, and
/// NetBSD's largest buffers have 64 KiB. [`Kernel::ask`](crate::kernel::Kernel::ask) refuses more,
/// before it reads a sector into memory.
pub const SECTOR: u32 = 16 * 1024;

/// Bytes of a line's parameters.
pub const PARAMS: usize = 64 * 1024;

/// Bytes of a message to a target.
pub const MESSAGE: usize = 4096;

/// Processes waiting for events, over all devices.
pub const WAITERS: usize = 256;

/// Unprivileged processes among [`WAITERS`]: the rest of the places is for privileged ones.
pub const UNPRIVILEGED_WAITERS: usize = WAITERS / 4;

/// Lines on the console in a second about tables that userland sends.
pub const MESSAGES: u32 = 10;

/// Device-mapper devices stacked one on another. Each costs kernel stack twice, on the way down
/// and on the way back, and an i386 kernel has two pages of it.
pub const DEPTH: usize = 4;

/// Bytes of parameters and target names in a table that comes in several requests.
pub const TABLE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that the tables of all devices, and the lines that wait for more, may take together, as
/// [`LineRequest::cost`](crate::device::LineRequest) has them. Kernels of 32 bits have little to
/// give.
pub const ALL_TABLES: usize = if usize::BITS == 32 { 64 << 20 } else { 512 << 20 };

/// Bytes of a privileged request, externalized, where the kernel lets a driver choose;
/// before NetBSD 11 it is 64 KiB for all. While it is read it takes many times its size.
pub const REQUEST: usize = if usize::BITS == 32 { 4 << 20 } else { 32 << 20 };

/// Bytes of an unprivileged request, externalized.
pub const UNPRIVILEGED_REQUEST: usize = 64 * 1024;

/// Arrays and dictionaries in one another in a request; a request that makes sense has 4. proplib
/// writes a reply by recursion, on a kernel's stack.
pub const NESTING: usize = 16;
