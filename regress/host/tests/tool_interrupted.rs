// SPDX-License-Identifier: BSD-2-Clause

//! Clients that are interrupted, and clients that wait: neither keeps others from their work.

mod tool;

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use dm_host::wire::{Kind, Reply, Request};
use tool::{Server, TOOL, signal};

fn plist(command: &str, name: &str, flags: u32, lines: &[u64], more: &str) -> Request {
    let line = |at: &u64| {
        format!(
            "<dict><key>start</key><integer>{at}</integer><key>length</key><integer>8</integer>\
             <key>type</key><string>zero</string><key>params</key><string></string></dict>"
        )
    };
    let lines: String = lines.iter().map(line).collect();
    let body = format!(
        "<plist version=\"1.0\"><dict><key>command</key><string>{command}</string><key>name</key>\
         <string>{name}</string><key>flags</key><integer>{flags}</integer><key>cmd_data</key>\
         <array>{lines}</array>{more}</dict></plist>"
    );
    Request { kind: Kind::Ioctl, body: body.into_bytes() }
}

const MORE: u32 = 1 << 30;

fn send(stream: &mut UnixStream, request: &Request) -> Reply {
    request.write(stream).unwrap();
    Reply::read(stream).unwrap()
}

/// Lines that a client sent belong to it, and go when it goes, although another stays.
#[test]
fn lines_of_a_client_that_is_gone_are_mixed_with_none() {
    let server = Server::start();
    server.ctl(&["create", "v", "--table", "0 8 zero"]).ok();
    let connect = || UnixStream::connect(server.folder.path("control")).unwrap();
    let (mut stays, mut goes) = (connect(), connect());
    assert_eq!(send(&mut stays, &plist("info", "v", 0, &[], "")).errno, 0);
    assert_eq!(send(&mut goes, &plist("reload", "v", MORE, &[0, 8], "")).errno, 0);
    drop(goes);
    // A plain client's table is its own.
    let mut other = connect();
    assert_eq!(send(&mut other, &plist("reload", "v", 0, &[0], "")).errno, 0);
    assert_eq!(server.ctl(&["table", "--inactive", "v"]).ok(), "0 8 zero \n");
    server.end();
}

/// A command that was begun is undone at the connection's end, unless it was finished.
#[test]
fn what_a_client_began_is_undone_when_it_goes() {
    let server = Server::start();
    let undo = |name| {
        let remove = plist("remove", name, 0, &[], "");
        Request { kind: Kind::AtEnd, body: remove.body }
    };
    let connect = || UnixStream::connect(server.folder.path("control")).unwrap();
    let mut stream = connect();
    assert_eq!(send(&mut stream, &plist("create", "begun", 0, &[], "")).errno, 0);
    assert_eq!(send(&mut stream, &undo("begun")).errno, 0);
    // A request that failed has begun nothing.
    assert_ne!(send(&mut stream, &plist("create", "begun", 0, &[], "")).errno, 0);
    assert_ne!(send(&mut stream, &undo("other")).errno, 0);
    assert_eq!(server.ctl(&["ls"]).ok(), "begun\t(169, 1)\n");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // The server closes the connection when it has undone what was begun.
    assert!(Reply::read(&mut stream).is_err());
    assert_eq!(server.ctl(&["ls"]).ok(), "No devices found\n");
    let mut stream = connect();
    assert_eq!(send(&mut stream, &plist("create", "done", 0, &[], "")).errno, 0);
    assert_eq!(send(&mut stream, &undo("done")).errno, 0);
    assert_eq!(send(&mut stream, &Request { kind: Kind::AtEnd, body: Vec::new() }).errno, 0);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(Reply::read(&mut stream).is_err());
    assert_eq!(server.ctl(&["ls"]).ok(), "done\t(169, 2)\n");
    server.end();
}

fn start(server: &Server, args: &[&str]) -> Child {
    let mut command = Command::new(TOOL);
    command.arg("ctl").arg("--socket").arg(server.folder.path("control")).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the tool")
}

/// Wherever `create` and `reload` are interrupted, later ones work.
#[test]
fn interrupted_commands_leave_nothing_in_the_way() {
    let server = Server::start();
    let large = server.folder.path("large");
    let table: String =
        (0..20_000).map(|n| format!("{n} 1 linear /dev/wd0 {}\n", n % 8192)).collect();
    fs::write(&large, table).unwrap();
    let large = large.display().to_string();
    server.ctl(&["create", "v", "--table", "0 8 zero"]).ok();
    for round in 0..12 {
        let (command, name) = if round % 2 == 0 { ("reload", "v") } else { ("create", "w") };
        let mut child = start(&server, &[command, name, &large]);
        // As far as it comes while another client asks this many times.
        for _ in 0..round / 2 {
            server.ctl(&["ls"]).ok();
        }
        // Killed, it leaves what is to be undone to the server; interrupted, it waits for that.
        if child.try_wait().expect("a child").is_none() {
            signal(child.id(), "INT");
        }
        child.wait().expect("it ends");
        server.ctl(&["reload", "v", "--table", "0 16 zero"]).ok();
        let create = server.ctl(&["create", "w", "--table", "0 16 zero"]);
        // It may have come to its end before.
        if create.code != 0 {
            let table = server.ctl(&["table", "w"]).ok();
            assert_eq!(table.lines().count(), 20_000, "half made: {create:?}");
        }
        server.ctl(&["remove", "w"]).ok();
    }
    server.end();
}

/// As many waiting requests as the driver allows do not keep others from the control socket.
#[test]
fn waiters_lock_nobody_out() {
    let server = Server::start();
    server.ctl(&["create", "v", "--table", "0 8 zero"]).ok();
    let connect = || UnixStream::connect(server.folder.path("control")).unwrap();
    let seen = "<key>event_nr</key><integer>0</integer>";
    let mut waiters = Vec::new();
    for _ in 0..dm_core::limits::WAITERS {
        let mut stream = connect();
        plist("waitevent", "v", 0, &[], seen).write(&mut stream).unwrap();
        waiters.push(stream);
    }
    assert!(server.ctl(&["ls"]).ok().contains("v\t"));
    // Idle clients without end: those that wait keep their places.
    let idle: Vec<_> = (0..300).map(|_| connect()).collect();
    assert!(server.ctl(&["ls"]).ok().contains("v\t"));
    server.ctl(&["rename", "v", "w"]).ok();
    for stream in &mut waiters {
        let reply = Reply::read(stream).expect("an answer");
        assert_eq!(reply.errno, 0, "{}", String::from_utf8_lossy(&reply.body));
    }
    drop(idle);
    server.end();
}
