// SPDX-License-Identifier: BSD-2-Clause

//! A server and its end, with clients, terminals and signals of all kinds.

mod tool;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dm_nbd::{Client, Limits, Operation, Uri};
use tool::{Folder, Server, program, run, serve, signal};

/// A time within which every wait ends unless something hangs.
const LIMIT: Duration = Duration::from_secs(60);

const TABLE: &str = "0 8192 linear /dev/wd0 0";

fn connect(server: &Server, device: &str) -> Client {
    let uri = Uri::parse(&server.uri(device)).unwrap();
    Client::connect(&uri, Limits::default()).unwrap()
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 512 % 251 + 1) as u8).collect()
}

/// Starts a program that reads or writes a device all the time, until it is killed.
fn busy(server: &Server, number: u32) -> Child {
    let mut command = match number % 3 {
        0 => program("nbdcopy"),
        1 => program("qemu-io"),
        _ => program("qemu-img"),
    };
    let uri = server.uri("vol");
    match number % 3 {
        0 => command.args([&uri, "null:"]),
        1 => command
            .args(["-f", "raw", "-c", "aio_write -P 3 0 2M", "-c", "aio_read 0 4M"])
            .args(["-c", "aio_flush", &uri]),
        _ => command.args(["bench", "-f", "raw", "-c", "1000000", "-s", "65536", &uri]),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The first report of all: a reader that is killed takes the server with it.
#[test]
fn killed_readers_and_writers() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", TABLE]).ok();
    let client = connect(&server, "vol");
    for round in 0..24 {
        let mut child = busy(&server, round);
        // Somewhere in the midst of what it does; where does not matter.
        for _ in 0..round {
            assert_eq!(client.read(0, 4096).map(|data| data.len()), Ok(4096));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let image = data(1 << 20);
    client.call(Operation::write(1 << 20, image.clone(), true)).unwrap();
    assert!(client.read(1 << 20, 1 << 20) == Ok(image));
    drop(client);
    server.end();
}

/// Sends requests for 64 MiB and reads nothing.
fn stalled(server: &Server) -> UnixStream {
    let mut stream = UnixStream::connect(server.folder.path("nbd")).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&3u32.to_be_bytes()).unwrap();
    stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x03vol").unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    for number in 0..64u64 {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend([0; 4]);
        request.extend(number.to_be_bytes());
        request.extend(0u64.to_be_bytes());
        request.extend((1u32 << 20).to_be_bytes());
        stream.write_all(&request).unwrap();
    }
    stream
}

#[test]
fn clients_that_do_not_read_their_answers() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", TABLE]).ok();
    let _stalled = [stalled(&server), stalled(&server)];
    let client = connect(&server, "vol");
    for _ in 0..20 {
        client.call(Operation::write(0, data(100_000), false)).unwrap();
        assert!(client.read(0, 100_000) == Ok(data(100_000)));
    }
    // They have a few seconds.
    let began = Instant::now();
    server.end();
    assert!(began.elapsed() < LIMIT);
}

#[test]
fn a_second_signal_waits_for_nobody() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", TABLE]).ok();
    let _stalled = stalled(&server);
    signal(server.id(), "TERM");
    server.end();
}

#[test]
fn stopped_in_the_midst() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", TABLE]).ok();
    let mut reader = program("nbdcopy");
    reader.arg(server.uri("vol")).arg("-").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = reader.spawn().unwrap();
    reader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    signal(reader.id(), "STOP");
    server.end();
    signal(reader.id(), "KILL");
    reader.wait().unwrap();
}

/// Waits until something answers at the control socket.
fn wait_for(folder: &Folder, child: &mut Child) {
    let began = Instant::now();
    while UnixStream::connect(folder.path("nbd")).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(began.elapsed() < LIMIT, "it does not start");
        std::thread::yield_now();
    }
}

fn ends_well(folder: &Folder, mut child: Child) {
    signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    for socket in ["control", "nbd"] {
        assert!(!folder.path(socket).exists(), "{socket} is left");
    }
}

#[test]
fn standard_output_that_takes_nothing() {
    for what in ["full", "closed", "nobody", "nothing at all"] {
        let folder = Folder::new();
        let disk = format!("wd0={}", folder.disk("wd0", 64).display());
        let mut command = serve(&folder, &[disk], &[]);
        match what {
            "full" => {
                let full = || File::options().write(true).open("/dev/full").unwrap();
                command.stdout(full()).stderr(full());
            }
            "nobody" => {
                // The other ends are closed below.
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            _ => {
                let words: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
                let how = if what == "closed" { ">&-" } else { "<&- >&- 2>&-" };
                command = Command::new("sh");
                command.args(["-c", &format!("exec \"$0\" \"$@\" {how}"), tool::TOOL]).args(words);
                command.stdin(Stdio::null()).stderr(Stdio::null());
            }
        }
        let mut child = command.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        wait_for(&folder, &mut child);
        ends_well(&folder, child);
    }
}

#[test]
fn signals_that_were_ignored_stay_so() {
    let folder = Folder::new();
    let disk = format!("wd0={}", folder.disk("wd0", 64).display());
    let words: Vec<_> = serve(&folder, &[disk], &[]).get_args().map(|a| a.to_owned()).collect();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\"", tool::TOOL]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_for(&folder, &mut child);
    for name in ["HUP", "INT", "HUP"] {
        signal(child.id(), name);
    }
    let control = folder.path("control").display().to_string();
    tool::tool(&["ctl", "--socket", &control, "version"], "").ok();
    assert!(child.try_wait().unwrap().is_none());
    ends_well(&folder, child);
}

#[test]
fn every_signal_ends_it_and_so_does_a_client() {
    for name in ["HUP", "QUIT", "TERM", "INT"] {
        let mut server = Server::start();
        signal(server.id(), name);
        let (status, said) = server.wait();
        assert!(status.success() && said.contains("flushed and ended"), "{name}: {status} {said}");
        let left = ["nbd", "control"].map(|socket| server.folder.path(socket).exists());
        assert_eq!(left, [false; 2], "{name}");
    }
    let mut server = Server::start();
    server.ctl(&["shutdown"]).ok();
    let (status, said) = server.wait();
    assert!(status.success() && said.contains("flushed and ended"), "{said}");
}

/// A server that fails to start leaves nothing behind.
#[test]
fn a_failed_start_leaves_no_sockets() {
    let folder = Folder::new();
    let disk = format!("wd0={}", folder.disk("wd0", 64).display());
    run(&mut serve(&folder, &["wd0=/nowhere"], &[]), "").fails(2);
    run(&mut serve(&folder, &[&disk], &["--tcp", "999.0.0.1:1"]), "").fails(2);
    run(&mut serve(&folder, &[&disk, &format!("xd0={}", folder.path("wd0").display())], &[]), "")
        .fails(2);
    assert!(!folder.path("nbd").exists() && !folder.path("control").exists());
}

/// Listing is done once for all, without opening the devices.
#[test]
fn many_exports_and_busy_ones_are_listed() {
    let server = Server::start();
    for number in 0..200 {
        server.ctl(&["create", &format!("v{number}"), "--table", "0 8 zero"]).ok();
    }
    server.ctl(&["create", "low", "--table", "0 64 linear /dev/wd0 0"]).ok();
    let minor = server.ctl(&["info", "-c", "--noheadings", "low"]).ok();
    let minor = minor.split_whitespace().nth(2).unwrap().to_owned();
    let table = format!("0 64 linear 169:{minor} 0");
    server.ctl(&["create", "top", "--table", &table]).ok();
    let list = run(program("nbdinfo").args(["--list", "--json"]).arg(server.uri("")), "").ok();
    assert_eq!(list.matches("\"export-name\"").count(), 202);
    // The one below can be asked about, and not be used.
    assert_eq!(list.matches("\"export-size\": 32768").count(), 2, "{list}");
    let uri = Uri::parse(&server.uri("low")).unwrap();
    let why = Client::connect(&uri, Limits::default()).err().unwrap();
    assert!(why.0.contains("in use"), "{why}");
    server.end();
}
