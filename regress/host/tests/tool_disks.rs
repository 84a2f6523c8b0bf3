// SPDX-License-Identifier: BSD-2-Clause

//! Disks of a served machine: images as they are found, and other servers' exports.

mod tool;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Stdio};

use dm_nbd::proto::{command, state};
use dm_nbd::{Client, Error, Limits, Operation, Uri};
use tool::{Folder, Server, program, run, serve};

fn connect(server: &Server, device: &str) -> Client {
    let uri = Uri::parse(&server.uri(device)).unwrap();
    Client::connect(&uri, Limits::default()).unwrap()
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// The complaint of a server that refuses a disk.
fn refusal(folder: &Folder, disk: &str) -> String {
    run(&mut serve(folder, &[disk], &[]), "").fails(2)
}

#[test]
fn formats_are_refused_by_name() {
    let folder = Folder::new();
    for (format, told) in [
        ("qcow2", "qcow2"),
        ("qcow", "qcow"),
        ("qed", "QED"),
        ("vmdk", "VMDK"),
        ("vdi", "VDI"),
        ("vhdx", "VHDX"),
        ("vpc", "VHD"),
        ("parallels", "Parallels"),
    ] {
        let path = folder.path(format);
        let mut make = program("qemu-img");
        make.args(["create", "-q", "-f", format]).arg(&path).arg("64M");
        assert_eq!(run(&mut make, "").code, 0, "{format}");
        let said = refusal(&folder, &format!("wd0={}", path.display()));
        assert!(said.contains(told) && said.contains("qemu-nbd"), "{format}: {said}");
        assert!(said.contains(&format!("--format={format}")), "{format}: {said}");
        let raw = format!("wd0={},format=raw", path.display());
        if fs::metadata(&path).unwrap().len() >= 512 {
            let own = Folder::new();
            Server::on(own, &[raw], &[]).end();
        }
    }
    // LUKS is a raw image to those below it.
    let luks = folder.disk("luks", 64);
    File::options()
        .write(true)
        .open(&luks)
        .unwrap()
        .write_all_at(b"LUKS\xba\xbe\0\x01", 0)
        .unwrap();
    Server::on(Folder::new(), &[format!("wd0={}", luks.display())], &[]).end();
}

#[test]
fn odd_sizes_and_odd_names() {
    let folder = Folder::new();
    let path = folder.path("a,b=c d.img");
    File::create(&path).unwrap().set_len(1_048_876).unwrap();
    let disk = format!("wd0={}", path.display()).replace(',', ",,");
    let server = Server::on(folder, &[disk], &[]);
    let disks = server.ctl(&["disks"]).ok();
    assert!(disks.contains("2048") && disks.contains("a,b=c d.img"), "{disks}");
    let said = server.end();
    assert!(said.contains("300 bytes"), "{said}");
    // With larger sectors there is more left.
    let folder = Folder::new();
    let path = folder.disk("wd0", 15);
    let server = Server::on(folder, &[format!("wd0={},sector=4096", path.display())], &[]);
    assert!(server.end().contains("3584 bytes"));
    let folder = Folder::new();
    let path = folder.disk("wd0", 7);
    refusal(&folder, &format!("wd0={},sector=4096", path.display()));
    assert!(refusal(&folder, "wd0=/dev/null").contains("neither a file nor a block device"));
}

#[test]
fn a_connection_has_the_sectors_of_the_present_table() {
    let folder = Folder::new();
    let disks = [
        format!("wd0={}", folder.disk("wd0", 4096).display()),
        format!("ld0={},sector=4096", folder.disk("ld0", 4096).display()),
    ];
    let server = Server::on(folder, &disks, &[]);
    server.ctl(&["create", "vol", "--table", "0 4096 linear /dev/wd0 0"]).ok();
    let old = connect(&server, "vol");
    assert_eq!(old.export().blocks.0, 512);
    server.ctl(&["reload", "vol", "--table", "0 4096 linear /dev/ld0 0"]).ok();
    server.ctl(&["resume", "vol"]).ok();
    let new = connect(&server, "vol");
    assert_eq!(new.export().blocks.0, 4096);
    for (client, byte) in [(&new, 7u8), (&old, 8)] {
        client.call(Operation::write(512, vec![byte; 512], false)).unwrap();
        assert_eq!(client.read(512, 512), Ok(vec![byte; 512]));
        assert_eq!(client.read(0, 512), Ok(vec![0; 512]));
    }
    drop((old, new));
    server.end();
}

#[test]
fn images_are_locked_as_qemu_locks_them() {
    let server = Server::start();
    let image = server.folder.path("wd0");
    let other = Folder::new();
    let again = format!("wd0={}", image.display());
    let said = refusal(&other, &again);
    assert!(said.contains("somebody else writes it"), "{said}");
    refusal(&other, &format!("{again},ro"));
    // qemu sees our lock, whether it would write or rely on what it reads.
    let mut writer = program("qemu-io");
    let writer = run(writer.args(["-f", "raw", "-c", "write 0 512"]).arg(&image), "");
    assert!(writer.err.contains("lock"), "{writer:?}");
    let copy = |from: &Path| {
        let mut copy = program("qemu-img");
        copy.args(["convert", "-f", "raw", "-O", "raw"]).arg(from).arg(other.path("copy"));
        run(&mut copy, "")
    };
    let reader = copy(&image);
    assert!(reader.code != 0 && reader.err.contains("lock"), "{reader:?}");
    // One that is only read can be read by all, and written by nobody.
    let shared = server.folder.path("wd2");
    let read_only = format!("wd0={},ro", shared.display());
    let second = Server::on(Folder::new(), &[read_only], &[]);
    refusal(&other, &format!("wd0={}", shared.display()));
    copy(&shared).ok();
    Server::on(Folder::new(), &[format!("{again},nolock")], &[]).end();
    second.end();
    server.end();
    // And twice in one server.
    let disks = ["wd0", "wd1"].map(|name| format!("{name}={}", other.disk("both", 64).display()));
    run(&mut serve(&other, &disks, &[]), "").fails(2);
}

/// qemu-nbd, which serves an image until the test ends.
struct QemuNbd(Child);

impl QemuNbd {
    fn start(socket: &Path, format: &str, image: &Path) -> QemuNbd {
        let mut command = program("qemu-nbd");
        command.args(["--persistent", "--shared=8", "--discard=unmap", "--format", format]);
        command.arg("--socket").arg(socket).arg(image);
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "qemu-nbd ended");
            std::thread::yield_now();
        }
        QemuNbd(child)
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn qemu_img(args: &[&str]) -> String {
    run(program("qemu-img").args(args), "").ok()
}

#[test]
fn an_image_that_qemu_serves_is_a_disk() {
    let folder = Folder::new();
    let (image, socket) = (folder.path("image"), folder.path("qemu"));
    qemu_img(&["create", "-q", "-f", "qcow2", image.to_str().unwrap(), "16M"]);
    let qemu = QemuNbd::start(&socket, "qcow2", &image);
    // qemu's lock is ours too.
    let said = refusal(&folder, &format!("wd0={},format=raw", image.display()));
    assert!(said.contains("somebody else"), "{said}");
    let disk = format!("wd0=nbd+unix:///?socket={}", socket.display());
    let local = format!("wd1={}", folder.disk("wd1", 8192).display());
    let server = Server::on(folder, &[disk, local], &[]);
    let table = "0 16384 striped 2 128 /dev/wd0 0 /dev/wd1 0\n16384 16384 linear /dev/wd0 16384\n";
    server.ctl_with(&["create", "vol"], table).ok();
    let client = connect(&server, "vol");
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n / 100) as u8 | 1).collect();
    client.call(Operation::write(1_000, data.clone(), true)).unwrap();
    client.call(Operation::write(9 << 20, data.clone(), false)).unwrap();
    client.call(Operation::plain(command::FLUSH, 0, 0, 0)).unwrap();
    assert!(client.read(1_000, 3_000_000) == Ok(data.clone()));
    assert!(client.read(9 << 20, 3_000_000) == Ok(data.clone()));
    // Holes are seen through both.
    let extents = client.extents(13 << 20, 3 << 20).unwrap();
    assert_eq!(extents, [(3 << 20, state::HOLE | state::ZERO)]);
    client.call(Operation::plain(command::WRITE_ZEROES, 0, 9 << 20, 1 << 20)).unwrap();
    assert_eq!(client.extents(9 << 20, 1 << 20).unwrap(), [(1 << 20, state::HOLE | state::ZERO)]);
    assert!(client.read(10 << 20, 1000) == Ok(data[1 << 20..][..1000].to_vec()));
    // qemu goes: I/O ends with an error, and works again when it is back.
    drop(qemu);
    assert_eq!(client.read(9 << 20, 512), Err(Error::Io));
    assert_eq!(client.call(Operation::write(9 << 20, vec![1; 512], false)), Err(Error::Io));
    let _ = fs::remove_file(&socket);
    let _qemu = QemuNbd::start(&socket, "qcow2", &image);
    while client.read(9 << 20, 512) == Err(Error::Io) {
        std::thread::yield_now();
    }
    assert!(client.read(10 << 20, 1000) == Ok(data[1 << 20..][..1000].to_vec()));
    drop(client);
    server.end();
}

#[test]
fn one_server_below_another() {
    let below = Server::with(&["--tcp", "127.0.0.1:0"]);
    below.ctl(&["create", "one", "--table", "0 8192 linear /dev/wd0 0"]).ok();
    below.ctl(&["create", "two", "--readonly", "--table", "0 2048 linear /dev/wd2 0"]).ok();
    let tcp = below.told.iter().find_map(|line| line.split("nbd://").nth(1)).unwrap();
    let tcp = tcp.trim_end_matches("NAME").to_owned();
    let disks = [format!("wd0=nbd://{tcp}one"), format!("wd1={},timeout=60", below.uri("two"))];
    let server = Server::on(Folder::new(), &disks, &[]);
    let shown = server.ctl(&["disks"]).ok();
    assert!(shown.contains("8192") && shown.contains("ro"), "{shown}");
    server.ctl(&["create", "vol", "--table", "0 8192 linear /dev/wd0 0"]).ok();
    let client = connect(&server, "vol");
    let written = vec![5; 1 << 20];
    client.call(Operation::write(0, written.clone(), false)).unwrap();
    // I/O that the other server holds is only late.
    below.ctl(&["suspend", "one"]).ok();
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| client.read(0, 1 << 20));
        below.ctl(&["resume", "one"]).ok();
        assert!(reads.join().unwrap() == Ok(written));
    });
    drop(client);
    let said = server.end();
    assert!(said.contains("lets nobody write"), "{said}");
    below.end();
    // A server that does not answer is not waited for long.
    let folder = Folder::new();
    let said = refusal(&folder, &format!("wd0=nbd://{tcp}one,timeout=5"));
    assert!(said.contains("disk wd0"), "{said}");
}

#[test]
fn holes_stay_holes() {
    let folder = Folder::new();
    // 1 MiB of data in the midst of 64.
    let (source, image) = (folder.path("source"), folder.disk("wd0", 131_072));
    let file = File::create(&source).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&vec![9; 1 << 20], 10 << 20).unwrap();
    let small = folder.disk("wd1", 65_536);
    let disks = ["wd0", "wd1"].map(|name| format!("{name}={}", folder.path(name).display()));
    let server = Server::on(folder, &disks, &[]);
    let table = "0 65536 striped 2 128 /dev/wd0 0 /dev/wd1 0\n65536 65536 linear /dev/wd0 65536\n";
    server.ctl_with(&["create", "vol"], table).ok();
    server.ctl(&["create", "void", "--table", "0 131072 zero"]).ok();
    for copy in [&mut program("nbdcopy"), &mut program("qemu-img")] {
        let qemu = copy.get_program() == "qemu-img";
        if qemu {
            copy.args(["convert", "-n", "-f", "raw", "-O", "raw"]);
        }
        run(copy.arg(&source).arg(server.uri("vol")), "").ok();
        let kept = allocated(&image) + allocated(&small);
        assert!((1 << 20..8 << 20).contains(&kept), "{kept} bytes");
    }
    // Out again, hole for hole.
    let back = server.folder.path("back");
    run(program("nbdcopy").arg(server.uri("vol")).arg(&back), "").ok();
    assert!(fs::read(&back).unwrap() == fs::read(&source).unwrap());
    assert!(allocated(&back) < 8 << 20);
    let client = connect(&server, "vol");
    let mut extents = Vec::new();
    let mut at = 0u64;
    while at < 64 << 20 {
        let some = client.extents(at, (64 << 20) - at as u32).unwrap();
        at += some.iter().map(|(length, _)| u64::from(*length)).sum::<u64>();
        extents.extend(some);
    }
    let data: u64 = extents.iter().filter(|e| e.1 == 0).map(|e| u64::from(e.0)).sum();
    assert!((1 << 20..3 << 20).contains(&data), "{extents:?}");
    let void = connect(&server, "void");
    assert_eq!(void.extents(0, 64 << 20).unwrap(), [(64 << 20, state::HOLE | state::ZERO)]);
    drop((client, void));
    // The table changes under a connection: other holes.
    let client = connect(&server, "vol");
    server.ctl(&["reload", "vol", "--table", "0 131072 linear /dev/wd0 0"]).ok();
    let before = client.extents(10 << 20, 65536).unwrap();
    server.ctl(&["resume", "vol"]).ok();
    let after = client.extents(40 << 20, 65536).unwrap();
    assert_eq!((before[0].1, after[0].1), (0, state::HOLE | state::ZERO));
    drop(client);
    server.end();
}

/// Sectors that are written as zeroes read as zeroes: aligned or not, in holes or not, with neighbours.
#[test]
fn zeroes_are_zeroes() {
    let server = Server::start();
    let table =
        "0 64 linear /dev/wd0 0\n64 64 zero\n128 2048 striped 2 64 /dev/wd0 64 /dev/wd1 0\n";
    server.ctl_with(&["create", "vol"], table).ok();
    let client = connect(&server, "vol");
    let size = 2176 * 512;
    let zeroes = |data: &mut [u8]| data[64 * 512..128 * 512].fill(0);
    let mut expected = vec![0xee; size];
    client.call(Operation::write(0, expected.clone(), false)).unwrap();
    zeroes(&mut expected);
    for (offset, length, flags) in [
        (512, 1024, 0),
        (1, 1, 0),
        (700, 100, command::FUA),
        (3000, 70_000, 0),
        (100_001, 500_001, command::FUA),
        (900_000, 4096, command::NO_HOLE),
        (950_000, 10_000, command::FAST_ZERO),
    ] {
        let zero = Operation::plain(command::WRITE_ZEROES, flags, offset, length);
        client.call(zero).unwrap();
        expected[offset as usize..][..length as usize].fill(0);
        assert!(client.read(0, size as u32).as_deref() == Ok(&expected[..]), "{offset}+{length}");
    }
    // Fast, and not by a hole: there is no such way.
    let both = command::FAST_ZERO | command::NO_HOLE;
    let slow = client.call(Operation::plain(command::WRITE_ZEROES, both, 0, 4096));
    assert_eq!(slow, Err(Error::NotSup));
    drop(client);
    server.end();
}
