// SPDX-License-Identifier: BSD-2-Clause

//! The reasons of failures: told to the user who gave the command, with line, names and numbers, whether or not the
//! console has room for them.

mod tool;

use std::fs;
use std::os::unix::net::UnixStream;

use dm_host::Errno;
use dm_host::wire::{Kind, Reply, Request};
use tool::Server;

/// The line is that of the user's text, with comments and empty lines counted.
#[test]
fn the_line_is_as_the_user_counts() {
    let server = Server::start();
    for (text, why) in [
        (
            "# one\n# two\n\n0 2048 linear /dev/wd0 0\n# five\n1024 2048 linear /dev/wd0 4096\n",
            "the line overlaps another: it begins at sector 1024, and the other ends before 2048",
        ),
        (
            "# one\n# two\n\n0 2048 linear /dev/wd0 0\n# five\n2048 18446744073709551000 zero\n",
            "the line ends beyond any disk",
        ),
        (
            "# one\n# two\n\n0 2048 linear /dev/wd0 0\n# five\n2048 2048 linear /dev/wd0 7000\n",
            "sectors 7000 to 9047 of `/dev/wd0`, which has 8192",
        ),
        ("\n\n\n\n\n0 8 linear /dev/wd7 0", "a component does not exist: `/dev/wd7`"),
    ] {
        let said = server.ctl_with(&["create", "x"], text).fails(1);
        assert!(said.contains("line 6: ") && said.contains(why), "{said}");
        let wrong = text.trim_end().rsplit('\n').next().unwrap();
        assert!(said.contains(&format!("\n  {wrong}\n")), "the line is not shown: {said}");
        assert_eq!(server.ctl(&["ls"]).ok(), "No devices found\n");
    }
    server.end();
}

/// A table that goes in several requests has lines in all of them.
#[test]
fn lines_are_counted_over_all_requests() {
    let server = Server::start();
    let mut text = String::from("# a comment\n");
    text.extend((0..3000).map(|n| format!("{n} 1 linear /dev/wd0 {n}\n")));
    text.push_str("3000 1 linear /dev/wd0 8192\n");
    let said = server.ctl_with(&["create", "x"], &text).fails(1);
    assert!(said.contains("line 3002: "), "{said}");
    server.end();
}

/// The console says ten lines a second, and keeps 4,096: a client that has been refused often is
/// told each time. It does not ask for reasons; the server does for it.
#[test]
fn reasons_outlast_the_console() {
    let server = Server::start();
    server.ctl(&["create", "x", "--notable"]).ok();
    let mut stream = UnixStream::connect(server.folder.path("control")).unwrap();
    let body = "<plist version=\"1.0\"><dict><key>command</key><string>reload</string>\
                <key>name</key><string>x</string><key>cmd_data</key><array><dict>\
                <key>start</key><integer>0</integer><key>length</key><integer>8</integer>\
                <key>type</key><string>linear</string><key>params</key>\
                <string>/dev/wd0 99999999</string></dict></array></dict></plist>";
    let request = Request { kind: Kind::Ioctl, body: body.into() };
    for _ in 0..5000 {
        request.write(&mut stream).unwrap();
        let reply = Reply::read(&mut stream).unwrap();
        let said = String::from_utf8(reply.body).unwrap();
        assert_eq!(reply.errno, Errno::EINVAL.0);
        assert!(said.starts_with("line 1: the range ends beyond its component"), "{said}");
    }
    // A body that is no request for the driver gets an answer with words, too.
    let large = Request { kind: Kind::Ioctl, body: vec![b'x'; 70_000] };
    large.write(&mut stream).unwrap();
    let reply = Reply::read(&mut stream).unwrap();
    assert!(reply.errno != 0 && !reply.body.is_empty(), "{reply:?}");
    server.end();
}

/// Two clients are refused at once; each is told of its own table.
#[test]
fn each_is_told_its_own() {
    let server = Server::start();
    for name in ["a", "b"] {
        server.ctl(&["create", name, "--notable"]).ok();
    }
    std::thread::scope(|scope| {
        for (name, disk) in [("a", "/dev/wd8"), ("b", "/dev/wd9")] {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..20 {
                    let table = format!("0 8 linear {disk} 0");
                    let said = server.ctl(&["reload", name, "--table", &table]).fails(1);
                    assert!(said.contains(disk), "{said}");
                }
            });
        }
    });
    server.end();
}

#[test]
fn hints_fit_what_went_wrong() {
    let server = Server::start();
    let said = server.ctl(&["sysctl", "hw.dm.devices=7"]).fails(1);
    assert!(said.contains("read-only") && !said.contains("as-user"), "{said}");
    let said = server.ctl(&["create", "x", "-m", "65536", "--notable"]).fails(1);
    assert!(said.contains("from 1 to 65535"), "{said}");
    let said = server.ctl(&["create", "x", "-m", "0", "--notable"]).fails(2);
    assert!(said.contains("minor 0 is the control node's"), "{said}");
    let said = server.ctl(&["create", "control", "--notable"]).fails(1);
    assert!(said.trim_end().ends_with("that is the name of the control node"), "{said}");
    let said = server.ctl(&["create", "x", "--table", "0 8 linear /dev/wd7 0"]).fails(1);
    assert!(said.contains("ctl disks"), "{said}");
    let said = server.ctl(&["create", "x", "--table", "0 8 linear 19:3 0"]).fails(1);
    assert!(said.contains("`19:3`") && !said.contains("ctl ls"), "{said}");
    let said = server.ctl(&["remove", "none"]).fails(1);
    assert!(said.contains("ctl ls"), "{said}");
    server.end();
}

/// A table that reaches a label's sectors is loaded, and the user who loads it is warned.
#[test]
fn warnings_reach_whoever_loads_the_table() {
    let server = Server::start();
    // A NetBSD label: its magic number, at byte 0 of sector 1, is all that the driver looks for.
    let disk = server.folder.path("wd0");
    let mut image = fs::read(&disk).unwrap();
    image[512..516].copy_from_slice(&0x8256_4557u32.to_le_bytes());
    fs::write(&disk, image).unwrap();
    let done = server.ctl(&["create", "v", "--table", "0 64 linear /dev/wd0 0"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("warning: the table uses sector 0 of 0:3"), "{done:?}");
    assert!(done.err.contains("kept for its label"), "{done:?}");
    let done = server.ctl(&["create", "w", "--table", "0 64 linear /dev/wd1 0"]);
    assert!(done.code == 0 && done.err.is_empty(), "{done:?}");
    server.end();
}

/// Control characters that a request has are shown as numbers, and do not act on the terminal.
#[test]
fn control_characters_are_shown_by_number() {
    let server = Server::start();
    let name = "a\x1b[2Jb\nc";
    server.ctl(&["create", name, "--uuid", "u\x07", "--table", "0 8 zero"]).ok();
    let shown = "a\\x1b[2Jb\\x0ac";
    for args in [&["ls"][..], &["info"], &["info", "-c"], &["table"], &["status"], &["deps"]] {
        let text = server.ctl(args).ok();
        assert!(text.contains(shown) && !text.contains('\x1b'), "{args:?}: {text:?}");
    }
    assert!(server.ctl(&["info", "-c"]).ok().contains("u\\x07"));
    let json: serde_json::Value =
        serde_json::from_str(&server.ctl(&["--json", "ls"]).ok()).unwrap();
    assert_eq!(json["devices"][0]["name"], name);
    let said = server.ctl(&["create", name, "--notable"]).fails(1);
    assert!(said.contains(shown) && !said.contains('\x1b'), "{said:?}");
    let said = server.ctl(&["reload", name, "--table", "0 8 linear \x1b[2J 0"]).fails(1);
    assert!(said.contains("`\\x1b[2J`") && !said.contains('\x1b'), "{said:?}");
    server.ctl(&["remove", name]).ok();
    server.end();
}
