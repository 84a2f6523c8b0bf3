// SPDX-License-Identifier: BSD-2-Clause

//! verity in the hosted kernel, on trees that veritysetup(8) has made: right data are read, each wrong byte is found,
//! and each hash block is read once.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::data::{Random, SECTOR, read, same, strategy_read, strategy_write};
use common::{Bench, Mapped, dies, flags, lines};
use dm_core::testing::Request as Question;
use dm_core::testing::verity::{Format, hex};
use dm_host::{Completion, Disk, DiskSpec, Errno, Flags, Io, Node, Request};

#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// An image with a tree of veritysetup's, the hash device with the superblock in its first block.
struct Image {
    format: Format,
    blocks: usize,
    data: Vec<u8>,
    tree: Vec<u8>,
    root: String,
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed);
    std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(bytes).collect()
}

impl Image {
    /// An image of so many data blocks, as veritysetup makes it.
    fn new(format: Format, blocks: usize) -> Image {
        Image::of(format, noise(blocks as u64, 0), blocks)
    }

    fn of(format: Format, mut data: Vec<u8>, blocks: usize) -> Image {
        let bytes = blocks * format.data_bytes;
        let rest = noise(blocks as u64, bytes - data.len());
        data.extend(rest);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("data"), &data).unwrap();
        std::fs::write(path("tree"), []).unwrap();
        let salt = if format.salt.is_empty() { "-".into() } else { hex(&format.salt) };
        let output = Command::new("veritysetup")
            .args(["format", &path("data"), &path("tree"), "--hash", format.hash, "--salt", &salt])
            .arg(format!("--format={}", format.kind))
            .arg(format!("--data-block-size={}", format.data_bytes))
            .arg(format!("--hash-block-size={}", format.hash_bytes))
            .output()
            .expect("veritysetup, of Debian's package cryptsetup-bin");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let root = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
        let root = root.expect("a root").trim().to_owned();
        let mut tree = std::fs::read(path("tree")).unwrap();
        // A disk has whole sectors.
        tree.resize(tree.len().next_multiple_of(SECTOR).max(format.hash_bytes), 0);
        Image { format, blocks, data, tree, root }
    }

    fn sectors(&self) -> u64 {
        (self.data.len() / SECTOR) as u64
    }

    fn disks(&self, bench: &Bench) -> (Disk, Disk) {
        self.disks_with(bench, Completion::Inline)
    }

    fn disks_with(&self, bench: &Bench, completion: Completion) -> (Disk, Disk) {
        let disk = |name, content: &[u8]| {
            let spec = DiskSpec::memory(name, (content.len() / SECTOR) as u64);
            let disk = bench.attach(spec.completion(completion));
            disk.write_at(0, content);
            disk
        };
        (disk("wd0", &self.data), disk("wd1", &self.tree))
    }

    fn table(&self, options: &str) -> String {
        let Format { kind, data_bytes, hash_bytes, hash, salt, .. } = &self.format;
        let salt = if salt.is_empty() { "-".into() } else { hex(salt) };
        format!(
            "0 {} verity {kind} /dev/wd0 /dev/wd1 {data_bytes} {hash_bytes} {} 1 {hash} {} {salt}{options}",
            self.sectors(),
            self.blocks,
            self.root
        )
    }

    /// Hash blocks of the tree.
    fn hash_blocks(&self) -> usize {
        self.tree.len() / self.format.hash_bytes - 1
    }
}

fn sha256(data_bytes: usize, hash_bytes: usize) -> Format {
    Format { kind: 1, data_bytes, hash_bytes, hash: "sha256", salt: noise(5, 32) }
}

/// Loads a table read-only.
fn load(bench: &Bench, name: &str, table: &str) -> Result<(), Errno> {
    bench.send(&common::reload(name, table).flags(flags::READONLY))?;
    bench.on("resume", name).map(|_| ())
}

fn device(bench: &Bench, table: &str) -> Mapped {
    let minor = bench.create("v");
    load(bench, "v", table).unwrap();
    Mapped { minor }
}

fn status(bench: &Bench) -> String {
    let status = lines(&bench.send(&Question::on("table", "v")).unwrap()).concat();
    status.rsplit(' ').next().unwrap().to_owned()
}

fn open(bench: &Bench, device: Mapped) -> dm_host::File {
    bench.machine.open(Node::Block(device.dev()), Flags::READ).unwrap()
}

/// All shapes that matter: types, functions, block sizes, with and without salt; one block, one level, and more.
fn images() -> Vec<Image> {
    let mut all = Vec::new();
    for (kind, hash, data_bytes, hash_bytes, salt, blocks) in [
        (1, "sha256", 4096, 4096, 32, 300),
        (1, "sha256", 4096, 4096, 0, 1),
        (1, "sha256", 4096, 4096, 32, 2),
        (1, "sha256", 512, 512, 32, 1000),
        (1, "sha1", 4096, 4096, 20, 129),
        (0, "sha1", 512, 4096, 32, 700),
        (0, "sha1", 4096, 512, 1, 65),
        (1, "sha512", 1024, 1024, 256, 600),
        (0, "sha512", 1024, 512, 32, 65),
        (1, "sha384", 512, 1024, 7, 333),
        (1, "rmd160", 4096, 4096, 32, 130),
        (1, "sha224", 2048, 2048, 3, 70),
        (0, "md5", 4096, 1024, 16, 66),
        (1, "sha256", 65536, 8192, 32, 33),
    ] {
        let format = Format { kind, data_bytes, hash_bytes, hash, salt: noise(7, salt) };
        all.push(Image::new(format, blocks));
    }
    all
}

#[test]
fn images_of_veritysetup_are_read() {
    for image in images() {
        let what = format!("{:?}, {} blocks", image.format, image.blocks);
        // Trees that the driver's own tests build are the same.
        let built = image.format.build(&image.data);
        assert_eq!(built.root, image.root, "{what}");
        same(&built.tree, &image.tree[image.format.hash_bytes..], &what);
        let bench = Bench::new();
        let (data, tree) = image.disks(&bench);
        let device = device(&bench, &image.table(""));
        let table = image.table("").replace("/dev/wd0", &data.major_minor());
        let table = table.replace("/dev/wd1", &tree.major_minor());
        assert_eq!(bench.table("v").concat(), table, "{what}");
        let node = open(&bench, device);
        tree.reset_counters();
        for (at, expected) in image.data.chunks(65536).enumerate() {
            let sectors = (expected.len() / SECTOR) as u64;
            same(&read(&node, at as u64 * 128, sectors), expected, &what);
        }
        // In a sequential pass each hash block is read, once.
        let counters = tree.counters();
        assert_eq!(
            counters.bytes_read as usize,
            image.tree.len() - image.format.hash_bytes,
            "{what}"
        );
        assert_eq!(counters.reads as usize, image.hash_blocks(), "{what}");
        assert_eq!(status(&bench), "V");
        drop(node);
        bench.end();
    }
}

/// The data blocks that can be read, each by itself. Data that are read must be right.
fn readable(image: &Image, device: Mapped) -> BTreeSet<usize> {
    let unit = (image.format.data_bytes / SECTOR) as u64;
    let mut found = BTreeSet::new();
    for (block, expected) in image.data.chunks(image.format.data_bytes).enumerate() {
        let (result, data) = strategy_read(device.dev(), block as u64 * unit, unit);
        match result.error {
            None => {
                same(&data, expected, "a block that can be read");
                found.insert(block);
            }
            Some(errno) => {
                assert_eq!(errno, Errno::EIO);
                assert!(data.iter().all(|byte| *byte == 0), "a read that fails gives nothing");
            }
        }
    }
    found
}

/// One bit flipped in every block of data and tree, at its start, in its midst, at its end: the blocks below it
/// cannot be read, and all others can; both where the sender's thread verifies and where a lane does.
#[test]
fn a_bit_that_flips_is_found_wherever_it_is() {
    flips(Completion::Inline);
    flips(Completion::Interrupt);
}

fn flips(completion: Completion) {
    let image = Image::new(sha256(1024, 512), 70);
    let bench = Bench::new();
    let (data, tree) = image.disks_with(&bench, completion);
    let device = device(&bench, &image.table(""));
    let all: BTreeSet<usize> = (0..image.blocks).collect();
    assert_eq!(readable(&image, device), all);
    let mut flips = 0u64;
    let mut flip = |disk: &Disk, at: usize, expected: &BTreeSet<usize>| {
        let mut byte = [0];
        disk.read_at(at as u64, &mut byte);
        disk.write_at(at as u64, &[byte[0] ^ 1 << (flips % 8)]);
        flips += 1;
        // A new table has no block in its cache.
        load(&bench, "v", &image.table("")).unwrap();
        assert_eq!(&readable(&image, device), expected, "byte {at} of {}", disk.name());
        let corrupted = if *expected == all { "V" } else { "C" };
        assert_eq!(status(&bench), corrupted, "byte {at} of {}", disk.name());
        disk.write_at(at as u64, &byte);
    };
    for block in [0, 1, 33, 69] {
        let lost = &all - &BTreeSet::from([block]);
        for at in [0, 511, 512, 1023] {
            flip(&data, block * 1024 + at, &lost);
        }
    }
    // The superblock is nobody's.
    flip(&tree, 0, &all);
    flip(&tree, 511, &all);
    // 16 digests in a hash block: 1 block at the top, 5 below it.
    assert_eq!(image.hash_blocks(), 6);
    for at in [0, 159, 160, 511] {
        flip(&tree, 512 + at, &BTreeSet::new());
    }
    for (number, first) in (0..5).zip((0..).step_by(16)) {
        let lost = &all - &(first..first + 16).collect();
        for at in [0, 200, 511] {
            flip(&tree, (2 + number) * 512 + at, &lost);
        }
    }
    bench.end();
}

#[test]
fn a_corrupted_device_says_so_once() {
    let image = Image::new(sha256(4096, 4096), 200);
    let bench = Bench::new();
    let (data, _) = image.disks(&bench);
    let device = device(&bench, &image.table(""));
    data.write_at(17 * 4096 + 5, b"!!");
    let before = bench.info("v", "event_nr");
    let console = || dm_host::console::lines();
    for _ in 0..120 {
        assert_eq!(strategy_read(device.dev(), 17 * 8, 8).0.error, Some(Errno::EIO));
    }
    assert_eq!(bench.info("v", "event_nr"), before + 1);
    let said = format!("dm{}: verity: data block 17 is corrupted", device.minor);
    assert_eq!(console().iter().filter(|line| **line == said).count(), 100);
    // Writes are nobody's to make, and flushes have nothing to do.
    assert_eq!(strategy_write(device.dev(), 0, &[0; 4096]).error, Some(Errno::EROFS));
    // Disks that fail are no corruption.
    load(&bench, "v", &image.table("")).unwrap();
    data.fail(Errno::EIO);
    assert_eq!(strategy_read(device.dev(), 0, 8).0.error, Some(Errno::EIO));
    data.heal();
    assert_eq!(status(&bench), "V");
    bench.end();
}

#[test]
fn a_hash_device_that_fails_is_asked_again() {
    let image = Image::new(sha256(4096, 4096), 200);
    let bench = Bench::new();
    let (_, tree) = image.disks(&bench);
    let device = device(&bench, &image.table(""));
    tree.fail(Errno::EIO);
    assert_eq!(strategy_read(device.dev(), 0, 8).0.error, Some(Errno::EIO));
    tree.heal();
    assert_eq!(readable(&image, device).len(), image.blocks);
    assert_eq!(status(&bench), "V");
    bench.end();
}

#[test]
fn parts_of_blocks_are_read_by_way_of_whole_ones() {
    let image = Image::new(sha256(4096, 4096), 300);
    let bench = Bench::new();
    let (data, _) = image.disks(&bench);
    let device = device(&bench, &image.table(""));
    let mut random = Random(3);
    for _ in 0..500 {
        let sector = random.below(image.sectors());
        let sectors = 1 + random.below((image.sectors() - sector).min(128));
        let (result, found) = strategy_read(device.dev(), sector, sectors);
        assert_eq!(result.error, None);
        let expected = &image.data[sector as usize * SECTOR..][..sectors as usize * SECTOR];
        same(&found, expected, "some sectors");
    }
    // A wrong byte elsewhere in the block counts.
    data.write_at(4095, &[data_byte(&data, 4095) ^ 1]);
    assert_eq!(strategy_read(device.dev(), 0, 1).0.error, Some(Errno::EIO));
    bench.end();
}

fn data_byte(disk: &Disk, at: u64) -> u8 {
    let mut byte = [0];
    disk.read_at(at, &mut byte);
    byte[0]
}

#[test]
fn corruption_can_be_ignored() {
    let image = Image::new(sha256(4096, 4096), 200);
    let bench = Bench::new();
    let (data, tree) = image.disks(&bench);
    let device = device(&bench, &image.table(" 1 ignore_corruption"));
    data.write_at(0, b"wrong");
    let (result, found) = strategy_read(device.dev(), 0, 8);
    assert!(result.error.is_none() && found.starts_with(b"wrong"));
    assert_eq!(status(&bench), "C");
    // A hash block that is wrong does not keep what it leads to from being given.
    tree.write_at(4096 + 8, b"wrong");
    load(&bench, "v", &image.table(" 1 ignore_corruption")).unwrap();
    same(&strategy_read(device.dev(), 8, 8).1, &image.data[4096..8192], "a block");
    assert_eq!(status(&bench), "C");
    bench.end();
}

#[test]
fn zero_blocks_are_given_unseen_and_right_ones_are_looked_at_once() {
    let format = sha256(4096, 4096);
    let image = Image::of(format, vec![0; 4096 * 4], 200);
    let bench = Bench::new();
    let (data, _) = image.disks(&bench);
    let device = device(&bench, &image.table(" 2 ignore_zero_blocks check_at_most_once"));
    data.write_at(4096, b"not zero");
    data.write_at(5 * 4096, b"wrong");
    same(&strategy_read(device.dev(), 0, 32).1, &[0; 4096 * 4], "zeroes");
    assert_eq!(strategy_read(device.dev(), 40, 8).0.error, Some(Errno::EIO));
    assert_eq!(strategy_read(device.dev(), 48, 8).0.error, None);
    // From now on it is not compared; what lies beside it is.
    data.write_at(6 * 4096, b"wrong");
    let (result, found) = strategy_read(device.dev(), 48, 8);
    assert!(result.error.is_none() && found.starts_with(b"wrong"));
    assert_eq!(strategy_read(device.dev(), 40, 16).0.error, Some(Errno::EIO));
    same(&strategy_read(device.dev(), 0, 32).1, &[0; 4096 * 4], "zeroes are no exception");
    bench.end();
}

/// Many threads, a tree that does not fit the cache's first sets, tables that change under it.
#[test]
fn many_readers_at_once_see_the_same() {
    let image = Image::new(sha256(512, 512), 8000);
    let bench = Bench::new();
    let (_, tree) = image.disks(&bench);
    let device = device(&bench, &image.table(""));
    tree.reset_counters();
    let sectors = image.sectors();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let data = &image.data;
            scope.spawn(move || {
                let mut random = Random(thread);
                let mut ios: Vec<(u64, Io)> = Vec::new();
                for _ in 0..100 {
                    for _ in 0..8 {
                        let sector = random.below(sectors - 64);
                        let mut io = Io::new(64 * SECTOR);
                        io.start(device.dev(), Request::read(sector as i64));
                        ios.push((sector, io));
                    }
                    for (sector, mut io) in ios.drain(..) {
                        assert_eq!(io.wait().error, None);
                        same(io.data(), &data[sector as usize * SECTOR..][..64 * SECTOR], "a read");
                    }
                }
            });
        }
    });
    // The tree fits: no hash block was read twice, whoever wanted it first.
    assert_eq!(tree.counters().reads as usize, image.hash_blocks());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for round in 0..400u64 {
                let sector = round * 64 % (sectors - 64);
                let (result, found) = strategy_read(device.dev(), sector, 64);
                assert_eq!(result.error, None);
                same(&found, &image.data[sector as usize * SECTOR..][..64 * SECTOR], "a read");
            }
        });
        while !reader.is_finished() {
            bench.on("suspend", "v").unwrap();
            load(&bench, "v", &image.table("")).unwrap();
        }
    });
    bench.end();
}

/// The body of the process that ends; no test by itself.
#[test]
fn case() {
    let Ok(case) = std::env::var("VERITY_CASE") else { return };
    let image = Image::new(sha256(4096, 4096), 200);
    let bench = Bench::new();
    let (data, _) = image.disks(&bench);
    let device = device(&bench, &image.table(&format!(" 1 {case}")));
    assert_eq!(strategy_read(device.dev(), 0, 8).0.error, None);
    data.write_at(0, b"wrong");
    strategy_read(device.dev(), 0, 8);
}

#[test]
fn a_table_can_end_the_system() {
    let panicked = dies("VERITY_CASE", "panic_on_corruption");
    assert!(panicked.contains("panic: dm: verity: a device is corrupted"), "{panicked}");
    let restarted = dies("VERITY_CASE", "restart_on_corruption");
    assert!(restarted.contains("the machine restarts"), "{restarted}");
}

#[test]
fn a_table_must_be_read_only() {
    let image = Image::new(sha256(4096, 4096), 3);
    let bench = Bench::new();
    let _disks = image.disks(&bench);
    bench.create("v");
    assert_eq!(bench.load("v", &image.table("")).err(), Some(Errno::EINVAL));
    load(&bench, "v", &image.table("")).unwrap();
    bench.end();
}
