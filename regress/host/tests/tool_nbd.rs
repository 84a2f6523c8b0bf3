// SPDX-License-Identifier: BSD-2-Clause

//! The NBD path, with libnbd's tools, and with a small client of our own for requests that they never send.

mod tool;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use tool::{Server, program, run};

fn bytes(length: usize, mut seed: u64) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn nbdinfo(server: &Server, args: &[&str], device: &str) -> tool::Done {
    run(program("nbdinfo").args(args).arg(server.uri(device)), "")
}

#[test]
fn what_is_copied_in_is_on_the_disks_and_comes_back() {
    let server = Server::start();
    let table = "0 1024 linear /dev/wd0 64\n1024 2048 striped 2 16 /dev/wd0 2048 /dev/wd1 0\n";
    server.ctl_with(&["create", "vol"], table).ok();
    let data = bytes(3072 * 512, 1);
    let (to, back) = (server.folder.path("data"), server.folder.path("back"));
    fs::write(&to, &data).unwrap();
    run(program("nbdcopy").arg("--flush").arg(&to).arg(server.uri("vol")), "").ok();
    run(program("nbdcopy").arg(server.uri("vol")).arg(&back), "").ok();
    assert!(fs::read(&back).unwrap() == data, "other bytes came back");
    server_end_and_check_disks(server, &data);
}

fn server_end_and_check_disks(server: Server, data: &[u8]) {
    let wd = ["wd0", "wd1"].map(|name| fs::File::open(server.folder.path(name)).unwrap());
    server.end();
    let [wd0, wd1] = wd.map(|mut file| {
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        all
    });
    let sectors =
        |disk: &[u8], start: usize, n: usize| disk[start * 512..(start + n) * 512].to_vec();
    let part = |start: usize, n: usize| &data[start * 512..(start + n) * 512];
    assert!(sectors(&wd0, 64, 1024) == part(0, 1024), "the linear line");
    for chunk in 0..128 {
        let disk = if chunk % 2 == 0 { &wd0 } else { &wd1 };
        let base = if chunk % 2 == 0 { 2048 } else { 0 };
        let there = sectors(disk, base + chunk / 2 * 16, 16);
        assert!(there == part(1024 + chunk * 16, 16), "chunk {chunk}");
    }
}

#[test]
fn exports_come_and_go_with_devices() {
    let server = Server::start();
    let list = || nbdinfo(&server, &["--list", "--json"], "").out;
    assert!(!list().contains("\"export-name\""), "{}", list());
    server.ctl(&["create", "one", "--table", "0 2048 linear /dev/wd0 0"]).ok();
    // An export without a name is the only device.
    assert_eq!(nbdinfo(&server, &["--size"], "").ok(), "1048576\n");
    server.ctl(&["create", "two", "--readonly", "--table", "0 8 linear /dev/wd2 0"]).ok();
    assert_ne!(nbdinfo(&server, &["--size"], "").code, 0);
    let both = list();
    assert!(both.contains("\"one\"") && both.contains("\"two\""), "{both}");
    assert_eq!(nbdinfo(&server, &["--size"], "two").ok(), "4096\n");
    assert_eq!(nbdinfo(&server, &["--is", "read-only"], "two").code, 0);
    assert_ne!(nbdinfo(&server, &["--is", "read-only"], "one").code, 0);
    for can in ["flush", "fua", "trim", "multi-conn"] {
        assert_eq!(nbdinfo(&server, &["--can", can], "one").code, 0, "{can}");
    }
    server.ctl(&["remove", "one"]).ok();
    assert_ne!(nbdinfo(&server, &["--size"], "one").code, 0);
    assert!(!list().contains("\"one\""));
    server.end();
}

/// A client that negotiates nothing it does not have to, and asks for any range it likes.
struct Client(UnixStream);

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const FUA: u16 = 1;

impl Client {
    fn new(server: &Server, export: &str) -> Client {
        let mut stream = UnixStream::connect(server.folder.path("nbd")).unwrap();
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
        // Fixed newstyle, no zeroes after the handshake; then NBD_OPT_EXPORT_NAME.
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        stream.write_all(b"IHAVEOPT").unwrap();
        stream.write_all(&1u32.to_be_bytes()).unwrap();
        stream.write_all(&(export.len() as u32).to_be_bytes()).unwrap();
        stream.write_all(export.as_bytes()).unwrap();
        // Size and flags.
        stream.read_exact(&mut [0; 10]).unwrap();
        Client(stream)
    }

    fn send(&mut self, flags: u16, kind: u16, offset: u64, length: u32, data: &[u8]) -> u32 {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(7u64.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        self.0.write_all(&request).unwrap();
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply).unwrap();
        assert_eq!(&reply[..4], &0x6744_6698u32.to_be_bytes());
        assert_eq!(&reply[8..], &7u64.to_be_bytes());
        u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]])
    }

    fn write(&mut self, offset: u64, data: &[u8], flags: u16) {
        assert_eq!(self.send(flags, WRITE, offset, data.len() as u32, data), 0);
    }

    fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        assert_eq!(self.send(0, READ, offset, length, &[]), 0);
        let mut data = vec![0; length as usize];
        self.0.read_exact(&mut data).unwrap();
        data
    }
}

#[test]
fn any_range_of_bytes_can_be_read_and_written() {
    let server = Server::start();
    let table = "0 2048 linear /dev/wd0 0\n2048 2048 linear /dev/wd1 8\n";
    server.ctl_with(&["create", "vol"], table).ok();
    let mut client = Client::new(&server, "vol");
    // The content that should be there, kept the slow way.
    let mut expected = vec![0u8; 4096 * 512];
    for (seed, (offset, length)) in [
        (0, 512),
        (1, 1),
        (511, 2),
        (2048 * 512 - 3, 7),
        (1000, 70_000),
        (3 * 65_536 - 512, 200_704),
        (4096 * 512 - 5, 5),
        (100_001, 1_000_003),
    ]
    .into_iter()
    .enumerate()
    {
        let data = bytes(length, seed as u64 + 10);
        client.write(offset as u64, &data, if seed % 2 == 0 { FUA } else { 0 });
        expected[offset..offset + length].copy_from_slice(&data);
        let (from, to) = (offset.saturating_sub(600), (offset + length + 600).min(expected.len()));
        let back = client.read(from as u64, (to - from) as u32);
        assert!(back == expected[from..to], "{offset}+{length}");
    }
    assert_eq!(client.send(0, FLUSH, 0, 0, &[]), 0);
    // Trim leaves what lies around it as it was.
    assert_eq!(client.send(0, TRIM, 700, 10_000, &[]), 0);
    assert!(client.read(0, 700) == expected[..700]);
    assert!(client.read(10_700, 4096) == expected[10_700..14_796]);
    // Beyond the end: an error, and the connection stays.
    assert_ne!(client.send(0, READ, 4096 * 512, 512, &[]), 0);
    assert!(client.read(0, 512) == expected[..512]);
    server.end();
}

#[test]
fn parts_of_a_sector_written_at_once_do_not_undo_each_other() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", "0 8 linear /dev/wd0 0"]).ok();
    std::thread::scope(|scope| {
        for part in 0..4u8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = Client::new(server, "vol");
                for round in 1..=50u8 {
                    client.write(u64::from(part) * 128, &[part * 60 + round; 128], 0);
                }
            });
        }
    });
    let sector = Client::new(&server, "vol").read(0, 512);
    for (part, bytes) in (0u8..).zip(sector.chunks(128)) {
        assert!(bytes.iter().all(|b| *b == part * 60 + 50), "part {part}: {bytes:?}");
    }
    server.end();
}

#[test]
fn a_connection_keeps_its_device() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", "0 64 linear /dev/wd0 0"]).ok();
    let mut client = Client::new(&server, "vol");
    client.write(0, &[1; 512], 0);
    let second = Client::new(&server, "vol");
    assert!(server.ctl(&["info", "vol"]).ok().contains("Open count:        1\n"));
    assert!(server.ctl(&["remove", "vol"]).fails(1).contains("EBUSY"));
    drop(second);
    // A new table, under the connection.
    server.ctl(&["reload", "vol", "--table", "0 64 linear /dev/wd1 0"]).ok();
    server.ctl(&["resume", "vol"]).ok();
    assert!(client.read(0, 512) == [0; 512]);
    client.write(0, &[2; 512], 0);
    server.ctl(&["remove", "--deferred", "vol"]).ok();
    assert!(client.read(0, 512) == [2; 512]);
    // Ctrl-C with a connection that does nothing.
    server.end();
}

/// I/O that a suspended device holds must not keep the server from ending.
#[test]
fn ctrl_c_lets_held_io_go() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", "0 64 linear /dev/wd0 0"]).ok();
    let mut client = Client::new(&server, "vol");
    client.write(0, &[1; 512], 0);
    server.ctl(&["suspend", "vol"]).ok();
    let mut copy = program("nbdcopy");
    copy.arg(server.uri("vol")).arg("null:").stdout(Stdio::null()).stderr(Stdio::null());
    let mut copy = copy.spawn().unwrap();
    let disk = fs::File::open(server.folder.path("wd0")).unwrap();
    server.end();
    // Read, or told that the server has gone: what matters is that it is not held for ever.
    copy.wait().unwrap();
    let mut first = [0; 512];
    (&disk).read_exact(&mut first).unwrap();
    assert_eq!(first, [1; 512]);
}

/// Ctrl-C ends a server that has just started.
#[test]
fn ctrl_c_at_once() {
    for _ in 0..5 {
        Server::start().end();
    }
}

#[test]
fn tcp_only_when_asked() {
    let without = Server::start();
    assert!(!without.told.iter().any(|line| line.contains("nbd://")), "{:?}", without.told);
    without.end();
    let server = Server::with(&["--tcp", "127.0.0.1:0"]);
    server.ctl(&["create", "vol", "--table", "0 64 linear /dev/wd0 0"]).ok();
    // Both sockets lead to it.
    assert_eq!(nbdinfo(&server, &["--size"], "vol").ok(), "32768\n");
    let tcp = server.told.iter().find_map(|line| line.split("nbd://").nth(1)).expect("an address");
    let uri = format!("nbd://{}", tcp.replace("NAME", "vol"));
    assert!(uri.starts_with("nbd://127.0.0.1:"), "{uri}");
    assert_eq!(run(program("nbdinfo").args(["--size", &uri]), "").ok(), "32768\n");
    let address = tcp.strip_suffix("/NAME").expect("an export");
    // A client that stays must not keep the server either.
    let _idle = std::net::TcpStream::connect(address).expect("it listens");
    let mut client = Client::new(&server, "vol");
    client.write(0, &[3; 512], FUA);
    assert_eq!(client.read(0, 512), [3; 512]);
    // A client may say that it goes.
    client.0.write_all(&0x2560_9513u32.to_be_bytes()).unwrap();
    client.0.write_all(&[0, 0]).unwrap();
    client.0.write_all(&DISCONNECT.to_be_bytes()).unwrap();
    client.0.write_all(&[0; 20]).unwrap();
    assert_eq!(client.0.read(&mut [0; 1]).unwrap(), 0);
    server.end();
}
