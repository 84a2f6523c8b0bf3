// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host ctl` against a served machine: the output of dmsetup(8) and dmctl(8), and the errors.

mod tool;

use std::process::{Command, Stdio};

use tool::Server;

#[test]
fn a_device_from_create_to_remove() {
    let server = Server::start();
    let ctl = |args: &[&str]| server.ctl(args).ok();
    assert_eq!(ctl(&["ls"]), "No devices found\n");
    assert_eq!(ctl(&["table"]), "No devices found\n");
    let table = "# two disks\n0 1024 linear /dev/wd0 64\n1024 1024 striped 2 16 /dev/wd0 2048 \
                 /dev/wd1 0\n\n2048 8 zero\n2056 8 error\n";
    assert_eq!(server.ctl_with(&["create", "vol", "--uuid", "U-1"], table).ok(), "");
    assert_eq!(ctl(&["ls"]), "vol\t(169, 1)\n");
    let shown = "0 1024 linear 0:3 64\n1024 1024 striped 2 16 0:3 2048 0:19 0\n2048 8 zero \n\
                 2056 8 error \n";
    assert_eq!(ctl(&["table", "vol"]), shown);
    assert_eq!(ctl(&["table", "-u", "U-1"]), shown);
    assert_eq!(ctl(&["table", "-m", "1", "--target", "zero"]), "2048 8 zero \n");
    let all: String = shown.lines().map(|line| format!("vol: {line}\n")).collect();
    assert_eq!(ctl(&["table"]), all);
    assert_eq!(
        ctl(&["status", "vol"]),
        "0 1024 linear \n1024 1024 striped 2 0:3 0:19 1 AA\n2048 8 zero \n2056 8 error \n"
    );
    assert_eq!(ctl(&["deps", "vol"]), "2 dependencies\t: (0, 3) (0, 19)\n");
    assert_eq!(ctl(&["deps"]), "vol: 2 dependencies\t: (0, 3) (0, 19)\n");
    assert_eq!(
        ctl(&["info", "vol"]),
        "Name:              vol\nState:             ACTIVE\nTables present:    LIVE\n\
         Open count:        0\nEvent number:      0\nMajor, minor:      169, 1\n\
         Number of targets: 4\nUUID: U-1\n\n"
    );
    let columns = ctl(&["info", "-c", "--noheadings"]);
    assert_eq!(columns.trim_end(), "vol              169   1 L--w    0    4      0 U-1");

    // The output of `table` loads.
    server.ctl_with(&["reload", "vol"], shown).ok();
    assert!(ctl(&["info", "vol"]).contains("Tables present:    LIVE & INACTIVE\n"));
    assert_eq!(ctl(&["table", "--inactive", "vol"]), shown);
    ctl(&["clear", "vol"]);
    assert!(ctl(&["info", "vol"]).contains("Tables present:    LIVE\n"));

    assert!(ctl(&["-v", "suspend", "vol"]).contains("State:             SUSPENDED\n"));
    assert!(ctl(&["-v", "resume", "vol"]).contains("State:             ACTIVE\n"));
    ctl(&["rename", "vol", "other"]);
    assert_eq!(ctl(&["ls"]), "other\t(169, 1)\n");
    ctl(&["setgeometry", "other", "2", "16", "63", "0"]);
    ctl(&["mknodes"]);
    // The event number is another than 0: there is nothing to wait for.
    assert!(ctl(&["-v", "wait", "other", "0"]).contains("Event number:"));
    let refused = server.ctl(&["message", "other", "0", "hello", "there"]).fails(1);
    assert!(refused.contains("EINVAL"), "{refused}");
    ctl(&["remove", "other"]);
    ctl(&["create", "bare", "--notable", "--minor", "7"]);
    assert_eq!(ctl(&["ls"]), "bare\t(169, 7)\n");
    ctl(&["rename", "bare", "--setuuid", "U-2"]);
    assert!(ctl(&["info", "bare"]).contains("UUID: U-2\n"));
    ctl(&["remove_all"]);
    assert_eq!(ctl(&["ls"]), "No devices found\n");
    server.end();
}

#[test]
fn dmctls_words_and_output() {
    let server = Server::start();
    let ctl = |args: &[&str]| server.ctl(&[&["--style", "dmctl"], args].concat()).ok();
    assert_eq!(
        ctl(&["version"]),
        "Library protocol version 4:0:0\nKernel protocol version 4:16:0\n"
    );
    assert!(ctl(&["targets"]).starts_with("Target name: linear\nTarget version 1.0.2\n\n"));
    assert_eq!(ctl(&["ls"]), "");
    assert_eq!(ctl(&["create", "vol"]), "");
    let line = "0 65 linear /dev/wd0 100\n";
    assert_eq!(server.ctl_with(&["--style", "dmctl", "reload", "vol"], line).ok(), "");
    assert_eq!(ctl(&["resume", "vol"]), "");
    assert_eq!(ctl(&["ls"]), "Device name: vol, device minor: 1 \n");
    let table = "Getting device table for device vol\n         0         65 linear\n";
    assert_eq!(ctl(&["table", "vol"]), table);
    assert_eq!(ctl(&["status", "vol"]), table);
    assert_eq!(ctl(&["deps", "vol"]), "Device vol dependiences \nmajor: 0 minor: 3\n");
    let info = ctl(&["info", "vol"]);
    assert!(info.starts_with("Printing Device info for:\nDevice name: \t\tvol\n"), "{info}");
    assert_eq!(ctl(&["suspend", "vol"]), "");
    assert_eq!(ctl(&["rename", "vol", "new"]), "");
    assert_eq!(ctl(&["remove", "new"]), "");
    server.end();
}

#[test]
fn wrong_tables_are_refused_and_change_nothing() {
    let server = Server::start();
    server.ctl(&["create", "keep", "--table", "0 8 zero"]).ok();
    server.ctl(&["reload", "keep", "--table", "0 16 zero"]).ok();
    let wide = format!("0 256 striped 1025 1{}", " /dev/wd0 0".repeat(1025));
    // Each with the error that the driver must give.
    let wrong = [
        ("0 8 linear", "EINVAL"),
        ("0 8 linear /dev/wd0", "EINVAL"),
        ("0 8 linear /dev/wd0 abc", "EINVAL"),
        ("0 8 linear /dev/wd0 -5", "EINVAL"),
        ("0 8 linear /dev/wd0 18446744073709551621", "EINVAL"),
        ("0 8 linear /dev/wd0 0 0", "EINVAL"),
        ("0 8 striped 2 0 /dev/wd0 0 /dev/wd1 0", "EINVAL"),
        ("0 8 striped 0 4", "EINVAL"),
        ("0 8 striped 2", "EINVAL"),
        ("0 8 striped 2 4 /dev/wd0 0", "EINVAL"),
        ("0 9 striped 2 4 /dev/wd0 0 /dev/wd1 0", "EINVAL"),
        (wide.as_str(), "E2BIG"),
        ("0 8 striped 2 4 /dev/wd0 0 /dev/wd9 0", "ENOENT"),
        ("0 8 linear /dev/wd9 0", "ENOENT"),
        ("0 8 nothing", "ENOENT"),
        ("0 8 zero word", "EINVAL"),
        ("0 8 zero\n4 8 zero", "EINVAL"),
        ("0 8 zero\n16 8 zero", "EINVAL"),
        ("8 8 zero", "EINVAL"),
        ("0 0 zero", "EINVAL"),
        ("0 18446744073709551615 zero", "EINVAL"),
        ("36028797018963968 8 zero", "EINVAL"),
        ("0 8193 linear /dev/wd0 0", "EINVAL"),
        ("0 8 linear /dev/wd0 8185", "EINVAL"),
        ("0 8 linear /dev/mapper/keep 0", "ELOOP"),
        ("0 8 linear /dev/wd2 0", "EROFS"),
        ("", "EINVAL"),
    ];
    let before = server.ctl(&["info", "keep"]).ok();
    for (table, errno) in wrong {
        let create = server.ctl_with(&["create", "new"], table);
        assert!(errno == "ELOOP" || create.code != 0, "taken: {table}");
        if errno != "ELOOP" {
            let said = create.fails(1);
            assert!(said.contains(&format!("({errno})")), "{table}: {said}");
        } else {
            // For a device of another name it is no loop.
            create.ok();
            server.ctl(&["remove", "new"]).ok();
        }
        assert_eq!(server.ctl(&["ls"]).ok(), "keep\t(169, 1)\n", "{table}");
        let said = server.ctl_with(&["reload", "keep"], table).fails(1);
        assert!(said.contains(&format!("({errno})")), "{table}: {said}");
        assert_eq!(server.ctl(&["info", "keep"]).ok(), before, "{table}");
        assert_eq!(server.ctl(&["table", "--inactive", "keep"]).ok(), "0 16 zero \n", "{table}");
    }
    server.end();
}

/// The error says which line it was, also behind comments.
#[test]
fn a_wrong_line_is_named() {
    let server = Server::start();
    let said = server.ctl_with(&["create", "new"], "# one\n0 8 zero\n8 8 linear /dev/wd0\n");
    let said = said.fails(1);
    assert!(said.contains("line 3: ") && said.contains("\n  8 8 linear /dev/wd0\n"), "{said}");
    assert!(!said.contains("line 2"), "{said}");
    server.end();
}

#[test]
fn other_refusals() {
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", "0 64 linear /dev/wd0 0"]).ok();
    let fails = |args: &[&str], errno: &str| {
        let said = server.ctl(args).fails(1);
        assert!(said.contains(errno), "{args:?}: {said}");
    };
    fails(&["create", "vol", "--table", "0 8 zero"], "EEXIST");
    fails(&["create", "two", "--minor", "1", "--table", "0 8 zero"], "EBUSY");
    fails(&["create", &"n".repeat(128), "--notable"], "EINVAL");
    fails(&["create", "a/b", "--notable"], "EINVAL");
    fails(&["create", "", "--notable"], "EINVAL");
    fails(&["create", "u", "--uuid", &"u".repeat(129), "--notable"], "EINVAL");
    fails(&["remove", "none"], "ENXIO");
    fails(&["table", "none"], "no such device");
    fails(&["info", "none"], "no such device");
    server.ctl(&["create", "two", "--table", "0 8 linear 169:1 0"]).ok();
    fails(&["rename", "two", "vol"], "EEXIST");
    fails(&["remove", "vol"], "EBUSY");
    server.ctl(&["remove", "--deferred", "vol"]).ok();
    assert!(server.ctl(&["ls"]).ok().contains("vol\t"));
    server.ctl(&["remove", "two"]).ok();
    assert_eq!(server.ctl(&["ls"]).ok(), "No devices found\n");
    assert!(server.ctl(&["sysctl", "hw.nothing"]).fails(1).contains("ENOENT"));
    assert_eq!(server.ctl(&["sysctl", "hw.dm.legacy_errors=1"]).ok(), "hw.dm.legacy_errors = 1\n");
    server.ctl(&["remove", "none"]).ok();
    server.end();
}

#[test]
fn ten_thousand_lines_come_back_as_they_went() {
    let server = Server::start();
    let line = |n: u32| match n % 2 {
        0 => format!("{n} 1 linear 0:3 {}\n", n % 8192),
        _ => format!("{n} 1 linear 0:19 {}\n", n % 8192),
    };
    let table: String = (0..10_000).map(line).collect();
    server.ctl_with(&["create", "large"], &table).ok();
    assert_eq!(server.ctl(&["table", "large"]).ok(), table);
    // A mistake far behind is found, and the device undone.
    let wrong = format!("{table}10000 1 linear 0:3 8192\n");
    let said = server.ctl_with(&["create", "wrong"], &wrong).fails(1);
    assert!(said.contains("line 10001:"), "{said}");
    assert_eq!(server.ctl(&["ls"]).ok(), "large\t(169, 1)\n");
    server.end();
}

#[test]
fn exit_codes_tell_whose_fault_it_was() {
    let server = Server::start();
    assert_eq!(server.ctl(&["create"]).code, 2);
    assert_eq!(server.ctl(&["nonsense"]).code, 2);
    let said = server.ctl_with(&["create", "vol"], "0 8\nx 8 zero\n").fails(2);
    assert!(said.contains("line 1:") && said.contains("line 2:"), "{said}");
    assert!(server.ctl(&["create", "vol", "/no/such/file"]).fails(2).contains("/no/such/file"));
    let nowhere = server.folder.path("nowhere").display().to_string();
    let said = tool::tool(&["ctl", "--socket", &nowhere, "ls"], "").fails(3);
    assert!(said.contains("dm-host serve"), "{said}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(tool::tool(&["completion", shell], "").ok().contains("dm-host"));
    }
    for help in [&["--help"][..], &["serve", "--help"], &["ctl", "--help"], &["map", "--help"]] {
        assert!(tool::tool(help, "").ok().contains("Examples:"), "{help:?}");
    }
    server.end();
}

#[test]
fn somebody_who_is_not_root_may_only_ask() {
    let server = Server::with(&["--as-user"]);
    assert!(server.ctl(&["create", "vol", "--table", "0 8 zero"]).fails(1).contains("EPERM"));
    assert!(server.ctl(&["sysctl", "hw.dm.legacy_errors=1"]).fails(1).contains("EPERM"));
    assert!(server.ctl(&["shutdown"]).fails(1).contains("EPERM"));
    assert_eq!(server.ctl(&["ls"]).ok(), "No devices found\n");
    assert!(server.ctl(&["version"]).ok().contains("Driver version:    4.16.0\n"));
    server.end();
}

/// Waiters sleep in the kernel: the end of their client, and of the server, must wake them.
#[test]
fn waiters_keep_nothing_from_ending() {
    let mut server = Server::start();
    server.ctl(&["create", "vol", "--table", "0 8 zero"]).ok();
    let control = server.folder.path("control");
    let waiter = || {
        let mut wait = Command::new(tool::TOOL);
        wait.arg("ctl").arg("--socket").arg(&control).args(["wait", "vol", "0"]);
        wait.stderr(Stdio::null()).spawn().expect("the tool")
    };
    let (mut gone, mut stays, mut woken) = (waiter(), waiter(), waiter());
    gone.kill().expect("it runs");
    gone.wait().expect("it ends");
    // A mirror whose legs are the same raises an event when it starts. Those that come after it find
    // one that has been.
    for leg in ["a", "b"] {
        server.ctl(&["create", leg, "--table", "0 8 zero"]).ok();
    }
    let table = "0 8 mirror core 2 8 nosync 2 /dev/mapper/a 0 /dev/mapper/b 0";
    server.ctl(&["reload", "vol", "--table", table]).ok();
    server.ctl(&["resume", "vol"]).ok();
    assert!(woken.wait().expect("it ends").success());
    assert!(stays.wait().expect("it ends").success());
    // This one is still waiting when the server ends.
    let mut last = Command::new(tool::TOOL);
    last.arg("ctl").arg("--socket").arg(&control).args(["wait", "vol", "1"]);
    let mut last = last.stderr(Stdio::null()).spawn().expect("the tool");
    // Or is about to: both must do.
    server.ctl(&["shutdown"]).ok();
    let (status, said) = server.wait();
    assert!(status.success() && said.contains("flushed and ended"), "{status}: {said}");
    assert_ne!(last.wait().expect("it ends").code(), Some(0));
}
