// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host luks`: its output about disks, the ways to give it passphrases, and its refusals. The keys are tested by
//! `lib/luks` itself.

mod tool;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::Value;
use tool::{Folder, TOOL, program, run, signal, tool};

const PASSPHRASE: &[u8] = b"for your eyes";

struct Bench {
    folder: Folder,
    image: PathBuf,
    key_file: PathBuf,
}

impl Bench {
    fn new(words: &str) -> Bench {
        let folder = Folder::new();
        let key_file = folder.path("key");
        fs::write(&key_file, PASSPHRASE).unwrap();
        let image = folder.disk("disk.img", 20 << 11);
        let mut format = program("cryptsetup");
        format.args(["-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
        format.args(words.split_whitespace()).args([&image, &key_file]);
        run(&mut format, "").ok();
        Bench { folder, image, key_file }
    }

    fn luks(&self, command: &str, args: &[&str]) -> tool::Done {
        self.typed(command, args, "")
    }

    fn typed(&self, command: &str, args: &[&str], input: &str) -> tool::Done {
        let mut all = vec!["luks", command, text(&self.image)];
        all.extend(args);
        tool(&all, input)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn dump() {
    let bench = Bench::new(
        "--type luks2 --label home --sector-size 4096 --uuid \
                            7f0a6a5c-0001-4000-8000-00805f9b34fb",
    );
    let wanted = "\
LUKS2, UUID 7f0a6a5c-0001-4000-8000-00805f9b34fb, label `home`

    COPY    AT BYTE      BYTES   CHANGE
       1          0      16384        3  used
       2      16384      16384        3

 SEGMENT        FIRST         LAST   BYTES  CIPHER
       0        32768          end    4096  aes-xts-plain64

 KEYSLOT  BITS  CIPHER                   KEY DERIVED BY
       0   512  aes-xts-plain64          pbkdf2 with sha256, 1000 iterations
";
    assert_eq!(bench.luks("dump", &[]).ok(), wanted);
    let json: Value = serde_json::from_str(&bench.luks("dump", &["--json"]).ok()).unwrap();
    assert_eq!(json["uuid"], "7f0a6a5c-0001-4000-8000-00805f9b34fb");
    assert_eq!(json["keyslots"][0]["kdf"]["iterations"], 1000);
    assert_eq!(json["segments"][0]["offset_bytes"], 16 << 20);
    // A damaged copy is shown as one.
    let mut disk = fs::read(&bench.image).unwrap();
    disk[5000] ^= 1;
    fs::write(&bench.image, &disk).unwrap();
    let said = bench.luks("dump", &[]).ok();
    assert!(said.contains("       1          0 damaged: the checksum is not"), "{said}");
    assert!(said.contains("       2      16384      16384        3  used"), "{said}");
    disk[16384 + 5000] ^= 1;
    fs::write(&bench.image, &disk).unwrap();
    let said = bench.luks("dump", &[]).fails(2);
    assert!(said.contains("the LUKS header is damaged: its first copy: the checksum"), "{said}");
}

/// Texts of a disk reach no terminal as they are.
#[test]
fn control_characters_are_shown_as_such() {
    let bench = Bench::new("--type luks1");
    let mut disk = fs::read(&bench.image).unwrap();
    disk[168..173].copy_from_slice(b"\x1b[31m");
    fs::write(&bench.image, &disk).unwrap();
    let said = bench.luks("dump", &[]).ok();
    assert!(said.starts_with("LUKS1, UUID \\x1b[31m"), "{said}");
}

#[test]
fn passphrases() {
    let bench = Bench::new("--type luks1");
    let key_file = text(&bench.key_file);
    assert_eq!(bench.luks("test", &["--key-file", key_file]).ok(), "keyslot 0\n");
    assert_eq!(bench.typed("test", &["--key-file", "-"], "for your eyes").ok(), "keyslot 0\n");
    let said = bench.typed("test", &["--key-file", "-"], "for your eyes\n").fails(1);
    assert!(said.ends_with("the passphrase opens no keyslot; 1 was tried\n"), "{said}");
    assert_eq!(bench.typed("test", &[], "for your eyes\nmore").ok(), "keyslot 0\n");
    assert_eq!(bench.typed("test", &["--key-slot", "0"], "for your eyes").ok(), "keyslot 0\n");
    bench.typed("test", &[], "for your ears\n").fails(1);
    bench.typed("test", &[], "\n").fails(1);
    assert!(bench.typed("test", &[], "").fails(2).contains("no passphrase"));
    assert!(bench.typed("test", &[], &"x".repeat(513)).fails(2).contains("at most 512 bytes"));
    let said = bench.typed("test", &["--key-slot", "4"], "for your eyes").fails(2);
    assert!(said.ends_with("keyslot 4 holds no key\n"), "{said}");
    let part = bench.folder.path("part");
    fs::write(&part, b"garbage for your eyes garbage").unwrap();
    let part = ["--key-file", text(&part), "--keyfile-offset", "8", "--keyfile-size"];
    assert_eq!(bench.luks("test", &[&part[..], &["13"]].concat()).ok(), "keyslot 0\n");
    bench.luks("test", &[&part[..], &["14"]].concat()).fails(1);
    let said = bench.luks("test", &[&part[..], &["99"]].concat()).fails(2);
    assert!(said.contains("not as many bytes"), "{said}");
    bench.luks("test", &["--key-file", "/nowhere"]).fails(2);
}

#[test]
fn table() {
    let bench = Bench::new("--type luks2 --sector-size 4096");
    let key_file = text(&bench.key_file);
    let dump = bench.folder.path("volume-key");
    let mut cryptsetup = program("cryptsetup");
    cryptsetup.args(["-q", "luksDump", "--dump-volume-key", "--key-file", key_file]);
    cryptsetup.args(["--volume-key-file", text(&dump), text(&bench.image)]);
    run(&mut cryptsetup, "").ok();
    let hex: String = fs::read(dump).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let table = bench.luks("table", &["--key-file", key_file, "--device", "/dev/wd7"]).ok();
    let wanted =
        format!("0 8192 crypt aes-xts-plain64 {hex} 0 /dev/wd7 32768 1 sector_size:4096\n");
    assert_eq!(table, wanted);
    bench.typed("table", &[], "another").fails(1);
}

#[test]
fn what_is_no_luks_disk() {
    let folder = Folder::new();
    let empty = folder.disk("empty.img", 64);
    let said = tool(&["luks", "dump", text(&empty)], "").fails(2);
    assert!(said.contains("empty.img: there is no LUKS header"), "{said}");
    tool(&["luks", "dump", text(&folder.path("nothing.img"))], "").fails(2);
    tool(&["luks", "dump", text(folder.0.path())], "").fails(2);
    let qcow = folder.path("q.qcow2");
    run(program("qemu-img").args(["create", "-q", "-f", "qcow2", text(&qcow), "1M"]), "").ok();
    let said = tool(&["luks", "dump", text(&qcow)], "").fails(2);
    assert!(said.contains("a qcow2 image, not a raw image"), "{said}");
}

/// A terminal whose other end is ours, and a program that asks there.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    child: std::process::Child,
    err: std::process::ChildStderr,
}

impl Drop for Terminal {
    /// A program that waits for an answer does not outlive its test.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    fn start(bench: &Bench) -> Terminal {
        let pty = openpty(None, None).unwrap();
        let mut command = Command::new(TOOL);
        command.args(["luks", "test", text(&bench.image)]);
        command.stdin(pty.slave.try_clone().unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let err = child.stderr.take().unwrap();
        Terminal { ours: File::from(pty.master), theirs: pty.slave, child, err }
    }

    /// Reads the program's output until it asks for a passphrase.
    fn asked(&mut self) -> String {
        let (mut said, mut byte) = (Vec::new(), [0]);
        loop {
            assert_eq!(self.err.read(&mut byte).unwrap(), 1, "it does not ask");
            said.push(byte[0]);
            let text = String::from_utf8_lossy(&said);
            if text.contains("Passphrase for ") && text.ends_with(": ") {
                return text.into_owned();
            }
        }
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.theirs).unwrap().local_flags.contains(LocalFlags::ECHO)
    }
}

#[test]
fn the_terminal_shows_nothing_of_what_is_typed() {
    let bench = Bench::new("--type luks1");
    let mut terminal = Terminal::start(&bench);
    let asked = terminal.asked();
    assert!(asked.starts_with("Passphrase for "), "{asked}");
    assert!(!terminal.echoes());
    terminal.ours.write_all(b"for your ears\n").unwrap();
    let again = terminal.asked();
    assert!(again.contains("the passphrase opens no keyslot"), "{again}");
    terminal.ours.write_all(b"for your eyes\n").unwrap();
    let mut out = String::new();
    terminal.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(terminal.child.wait().unwrap().success());
    assert_eq!(out, "keyslot 0\n");
    assert!(terminal.echoes());
    // A mark at the end of the terminal's output.
    File::from(terminal.theirs.try_clone().unwrap()).write_all(b"end").unwrap();
    let (mut shown, mut byte) = (Vec::new(), [0]);
    while !shown.ends_with(b"end") {
        assert_eq!(terminal.ours.read(&mut byte).unwrap(), 1);
        shown.push(byte[0]);
    }
    assert_eq!(shown, b"end");
}

#[test]
fn an_interrupt_gives_the_terminal_back() {
    let bench = Bench::new("--type luks1");
    let mut terminal = Terminal::start(&bench);
    terminal.asked();
    assert!(!terminal.echoes());
    signal(terminal.child.id(), "INT");
    let status = terminal.child.wait().unwrap();
    assert!(!status.success());
    assert!(terminal.echoes());
}
