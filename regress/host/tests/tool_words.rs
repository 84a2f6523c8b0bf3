// SPDX-License-Identifier: BSD-2-Clause

//! The words of dmsetup(8), JSON, completion, and help that is true.

mod tool;

use std::process::Command;

use serde_json::Value;
use tool::{Server, TOOL, program, run, tool};

#[test]
fn what_dmsetup_takes_is_taken() {
    let server = Server::start();
    for words in [
        &["help"][..],
        &["help", "-c"],
        &["info", "-c", "-o", "name"],
        &["info", "-c", "-o", "+uuid"],
        &["info", "-c", "-o", "help"],
        &["info", "-c", "--separator", ":", "l1"],
        &["info", "-c", "-O", "-minor,name"],
        &["info", "-c", "-n"],
        &["info", "-j", "169", "-m", "1"],
        &["info", "-c", "-o", "all"],
        &["info", "--noopencount", "l1"],
        &["info", "l1", "l2"],
        &["ls", "--tree"],
        &["ls", "--tree", "-o", "inverted,ascii,blkdevname,uuid,open,rw,active"],
        &["ls", "--target", "linear"],
        &["ls", "--exec", "true"],
        &["suspend", "--nolockfs", "--noflush", "l1", "l2"],
        &["resume", "l1", "l2"],
        &["table", "--concise"],
        &["deps", "-o", "blkdevname"],
        &["wipe_table", "l1"],
        &["remove", "-f", "l1"],
        &["remove", "--retry", "l2"],
        &["create", "x", "--readahead", "8", "--table", "0 8 zero"],
        &["create", "--concise", "y,,,,0 8 zero,8 8 error;z,U-9,77,ro,0 8 zero"],
        &["remove", "x", "y", "z"],
        &["remove_all", "-f"],
        &["splitname", "vg-lv"],
        &["--version"],
        &["target-version", "linear"],
        &["mknodes"],
    ] {
        let names = server.ctl(&["ls"]).ok();
        for name in ["l1", "l2"].iter().filter(|name| !names.contains(**name)) {
            server.ctl(&["create", name, "--table", "0 64 linear /dev/wd0 0"]).ok();
            if *name == "l1" && names.starts_with("No") {
                server.ctl(&["rename", "l1", "--setuuid", "U-1"]).ok();
            }
        }
        server.ctl(words).ok();
    }
    server.end();
}

#[test]
fn reports_trees_and_concise_lines() {
    let server = Server::start();
    let ctl = |args: &[&str]| server.ctl(args).ok();
    ctl(&["create", "low", "--table", "0 64 linear /dev/wd0 0"]);
    // A device is a component by its path.
    let table = "0 32 linear /dev/mapper/low 0\n32 32 linear /dev/wd1 0";
    ctl(&["create", "top", "--uuid", "U", "--table", table]);
    assert_eq!(
        ctl(&["info", "-c", "--separator", ":", "-o", "name,devno,devs_used,names_using_dev"]),
        "Name:DevNo:DevNamesUsed:DevNamesUsing\nlow:169:1::top\ntop:169:2:low:\n"
    );
    let sorted = ["info", "-c", "--noheadings", "--separator", " ", "-o", "name", "-O", "-minor"];
    assert_eq!(ctl(&sorted), "top\nlow\n");
    assert_eq!(
        ctl(&["ls", "--tree", "-o", "ascii"]),
        "top (169:2)\n |-low (169:1)\n |  `- (0:3)\n `- (0:19)\n"
    );
    assert_eq!(
        ctl(&["ls", "--tree", "-o", "utf,inverted"]),
        " (0:3)\n └─low (169:1)\n    └─top (169:2)\n (0:19)\n └─top (169:2)\n"
    );
    let concise = ctl(&["table", "--concise"]);
    assert_eq!(
        concise,
        "low,,1,rw,0 64 linear 0:3 0;top,U,2,rw,0 32 linear 169:1 0,32 32 linear 0:19 0\n"
    );
    assert_eq!(ctl(&["ls", "--target", "zero"]), "No devices found\n");
    assert_eq!(ctl(&["deps", "-o", "blkdevname", "top"]), "2 dependencies\t: (low) (wd1)\n");
    // Devices are named by their nodes, too.
    assert_eq!(ctl(&["table", "/dev/mapper/low"]), "0 64 linear 0:3 0\n");
    ctl(&["remove", "top", "low"]);
    server.ctl_with(&["create", "--concise"], &concise).ok();
    assert_eq!(ctl(&["table", "--concise"]), concise);
    // A removal that waits shows.
    ctl(&["remove", "--deferred", "low"]);
    assert!(ctl(&["info", "low"]).contains("ACTIVE (DEFERRED REMOVE)\n"));
    let info: Value = serde_json::from_str(&ctl(&["--json", "info", "low"])).unwrap();
    assert_eq!(info["devices"][0]["deferred_remove"], true);
    // By force, what keeps it open lets it go.
    ctl(&["wipe_table", "top"]);
    assert_eq!(ctl(&["table", "top"]), "0 64 error \n");
    assert_eq!(ctl(&["ls"]), "top\t(169, 2)\n");
    server.end();
}

#[test]
fn everything_that_is_listed_is_json_if_asked_for() {
    let server = Server::start();
    let table = "0 8 linear /dev/wd0 64\n8 8 zero";
    server.ctl(&["create", "v", "--uuid", "U-1", "--table", table]).ok();
    let ask = |args: &[&str]| -> Value {
        let text = server.ctl(&[&["--json"], args].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    };
    let expected = [
        (&["ls"][..], r#"{"devices":[{"name":"v","major":169,"minor":1}]}"#),
        (
            &["info"],
            r#"{"devices":[{"name":"v","uuid":"U-1","major":169,"minor":1,"suspended":false,
                "read_only":false,"deferred_remove":false,"active_table":true,
                "inactive_table":false,"open_count":0,"event_nr":0,"lines":2}]}"#,
        ),
        (
            &["table"],
            r#"{"devices":[{"name":"v","minor":1,"lines":[
                {"start":0,"length":8,"target":"linear","params":"0:3 64"},
                {"start":8,"length":8,"target":"zero","params":""}]}]}"#,
        ),
        (
            &["status", "--target", "zero"],
            r#"{"devices":[{"name":"v","minor":1,"lines":[
                {"start":8,"length":8,"target":"zero","params":""}]}]}"#,
        ),
        (
            &["deps", "v"],
            r#"{"devices":[{"name":"v","minor":1,"dependencies":[{"major":0,"minor":3}]}]}"#,
        ),
        (
            &["ls", "--tree"],
            r#"{"devices":[{"name":"v","major":169,"minor":1,
                "below":[{"name":"wd0","major":0,"minor":3,"below":[]}]}]}"#,
        ),
        (&["splitname", "vg-lv"], r#"{"vg_name":"vg","lv_name":"lv","lv_layer":""}"#),
        (&["sysctl", "hw.dm.devices"], r#"{"name":"hw.dm.devices","value":"1"}"#),
        (&["target-version", "linear"], r#"{"targets":[{"name":"linear","version":"1.0.2"}]}"#),
    ];
    for (args, json) in expected {
        let json: Value = serde_json::from_str(json).unwrap();
        assert_eq!(ask(args), json, "{args:?}");
    }
    let disks = ask(&["disks"]);
    assert_eq!(disks["disks"][2]["read_only"], true);
    assert_eq!(disks["disks"][0]["sectors"], 8192);
    assert_eq!(ask(&["version"])["driver"], "4.16.0");
    assert!(ask(&["targets"])["targets"].as_array().is_some_and(|all| all.len() > 3));
    server.ctl(&["remove", "v"]).ok();
    assert_eq!(ask(&["info"])["devices"], Value::Array(Vec::new()));
    server.end();
}

/// The counts of devices since they were made; exact where no other program reads or writes.
#[test]
fn iostat_tells_what_a_device_has_done() {
    let server = Server::start();
    server.ctl(&["create", "v", "--table", "0 8192 linear /dev/wd0 0"]).ok();
    let mut io = program("qemu-io");
    io.args(["-f", "raw", "-c", "write 0 64k", "-c", "read 0 32k"]).arg(server.uri("v"));
    assert_eq!(run(&mut io, "").code, 0);
    let text = server.ctl(&["--json", "iostat"]).ok();
    let json: Value = serde_json::from_str(&text).unwrap();
    let device = &json["devices"][0];
    assert_eq!(device["name"], "v");
    assert!(device["written_bytes"].as_u64().is_some_and(|n| n >= 65_536), "{text}");
    assert!(device["read_bytes"].as_u64().is_some_and(|n| n >= 32_768), "{text}");
    assert_eq!((&device["held"], &device["in_flight"]), (&0.into(), &0.into()));
    let text = server.ctl(&["iostat", "v", "-w", "1", "-c", "2"]).ok();
    assert!(text.contains("held") && text.matches("\nv ").count() == 2, "{text}");
    assert!(server.ctl(&["iostat", "none"]).fails(1).contains("no such device"));
    server.end();
}

/// Completion as `bash` asks for it: subcommands, options, and the devices' names.
#[test]
fn bash_completes_words_and_names() {
    let server = Server::start();
    for name in ["alpha", "beta"] {
        server.ctl(&["create", name, "--table", "0 8 zero"]).ok();
    }
    let control = server.folder.path("control").display().to_string();
    let script = r#"
        set -u
        source <("$0" completion bash)
        F=$(complete -p dm-host | sed 's/.*-F \([^ ]*\).*/\1/')
        COMP_WORDS=(dm-host "$@"); COMP_CWORD=$#; COMPREPLY=()
        "$F" dm-host "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        echo "${COMPREPLY[*]}""#;
    let complete = |words: &[&str]| {
        let mut bash = Command::new("bash");
        bash.args(["-c", script, TOOL]).args(words).env("DM_HOST_CONTROL", &control);
        run(&mut bash, "").ok()
    };
    assert_eq!(complete(&["c"]).trim(), "ctl completion");
    for (words, offered) in [
        (&["ctl", "re"][..], "reload"),
        (&["serve", "--d"], "--disk"),
        (&["ctl", "create", "x", "--t"], "--table"),
        (&["ctl", "info", "al"], "alpha"),
        (&["ctl", "--socket", control.as_str(), "remove", ""], "beta"),
        (&["uri", ""], "alpha"),
    ] {
        let reply = complete(words);
        assert!(reply.split_whitespace().any(|word| word == offered), "{words:?}: {reply}");
    }
    server.end();
}

/// Help is about the command that it is asked for, and names things that exist.
#[test]
fn help_is_true() {
    let help = tool(&["--help"], "").ok();
    let first = help.lines().next().unwrap();
    assert_eq!(
        first,
        "NetBSD's device mapper, dm(4), in a Unix process: serves devices, steers \
                       them, shows tables"
    );
    // Each subcommand has a line of its own about itself.
    for (command, words) in [
        ("serve", "Boot the kernel in this process"),
        ("ctl", "Steer a served machine"),
        ("map", "Show where a table sends each range"),
        ("uri", "Print the NBD URI of a device"),
        ("completion", "Print a completion script"),
    ] {
        assert!(tool(&[command, "--help"], "").ok().starts_with(words), "{command}");
    }
    // Every example of `ctl --help` is taken by a server.
    let server = Server::start();
    server.ctl(&["create", "vol", "--table", "0 8 zero"]).ok();
    let help = tool(&["ctl", "--help"], "").ok();
    let examples = help.lines().filter_map(|line| line.trim().strip_prefix("dm-host ctl "));
    let mut tried = 0;
    for example in examples {
        // Without redirections, files, and what does not end.
        if ["<", "new.table", "-w", "create"].iter().any(|word| example.contains(word)) {
            continue;
        }
        let words: Vec<&str> = example.split("  ").next().unwrap().split_whitespace().collect();
        server.ctl(&words).ok();
        tried += 1;
    }
    assert!(tried >= 4, "{help}");
    // A command that changes nothing does not say that it has not.
    let said = tool(&["map", "-"], "0 8 nope").fails(2);
    assert!(said.contains("no such target type") && !said.contains("changed"), "{said}");
    let said = tool(&["map", "-"], "").fails(2);
    assert!(said.contains("the table has no lines") && !said.contains("line 0"), "{said}");
    server.end();
}
