// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host luks open` and `close`: disks of cryptsetup's and QEMU's served through the target crypt, written by the one and
//! read by the other.

mod tool;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tool::{Done, Folder, TOOL, program, run};

const PASSPHRASE: &str = "between you and me";
const PATTERN: usize = 64 << 10;

struct Bench {
    folder: Folder,
    image: PathBuf,
    key_file: PathBuf,
}

impl Drop for Bench {
    /// Closes the disks that a test has opened.
    fn drop(&mut self) {
        let _ = self.command(&["luks", "close", "home", "--force"]).output();
    }
}

impl Bench {
    fn new() -> Bench {
        let folder = Folder::new();
        let (image, key_file) = (folder.path("a,b.img"), folder.path("key"));
        fs::write(&key_file, PASSPHRASE).unwrap();
        Bench { folder, image, key_file }
    }

    /// A bench with an image that cryptsetup makes with these options.
    fn of_cryptsetup(words: &str) -> Bench {
        let bench = Bench::new();
        fs::File::create(&bench.image).unwrap().set_len(20 << 20).unwrap();
        let mut format = program("cryptsetup");
        format.args(["-q", "luksFormat", "--pbkdf-force-iterations", "1000"]);
        format.args(words.split_whitespace()).args([&bench.image, &bench.key_file]);
        run(&mut format, "").ok();
        bench
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        command
            .args(args)
            .env("XDG_RUNTIME_DIR", self.folder.0.path())
            .env_remove("DM_HOST_CONTROL");
        command
    }

    fn tool(&self, args: &[&str]) -> Done {
        run(&mut self.command(args), "")
    }

    fn try_open(&self, more: &[&str]) -> Done {
        let open = ["luks", "open", text(&self.image), "home", "--key-file", text(&self.key_file)];
        self.tool(&[&open[..], more].concat())
    }

    /// Opens the disk, and returns the URI of its data.
    #[track_caller]
    fn open(&self, more: &[&str]) -> String {
        let uri = self.try_open(more).ok();
        assert_eq!(self.tool(&["uri", "home"]).ok(), uri);
        uri.trim().to_string()
    }

    #[track_caller]
    fn close(&self) {
        assert_eq!(self.tool(&["luks", "close", "home"]).ok(), "");
        let left: Vec<_> = fs::read_dir(self.folder.path("dm-host")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Has qemu-io do something to the data, by its own LUKS.
    #[track_caller]
    fn qemu(&self, command: &str) {
        let secret = format!("secret,id=s0,data={PASSPHRASE}");
        let name = text(&self.image).replace(',', ",,");
        let opts = format!("driver=luks,key-secret=s0,file.filename={name}");
        check(qemu_io(&["--object", &secret, "--image-opts", &opts, "-c", command]));
    }

    /// Checks both directions: QEMU's writes are read here, and ours by QEMU.
    #[track_caller]
    fn both_ways(&self) {
        self.qemu("write -P 0x11 0 64k");
        self.qemu("write -P 0x12 1M 4k");
        let uri = self.open(&[]);
        through(&uri, "read -P 0x11 0 64k");
        through(&uri, "read -P 0x12 1M 4k");
        through(&uri, "write -P 0x21 512 1k");
        through(&uri, "write -P 0x22 2M 128k");
        through(&uri, "read -P 0x22 2M 128k");
        self.close();
        self.qemu("read -P 0x11 0 512");
        self.qemu("read -P 0x21 512 1k");
        self.qemu("read -P 0x11 1536 62k");
        self.qemu("read -P 0x22 2M 128k");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn qemu_io(args: &[&str]) -> Done {
    run(program("qemu-io").args(args), "")
}

/// A read that finds another pattern is told on standard output.
#[track_caller]
fn check(done: Done) {
    let failed = done.out.contains("failed") || done.out.contains("error");
    assert!(done.code == 0 && !failed, "{done:?}");
}

/// Has qemu-io do something to the data, by way of our server.
#[track_caller]
fn through(uri: &str, command: &str) {
    check(qemu_io(&["-f", "raw", uri, "-c", command]));
}

/// Runs a command of qemu-io on an export that takes no writes.
#[track_caller]
fn read_only(uri: &str, command: &str) {
    check(qemu_io(&["-r", "-f", "raw", uri, "-c", command]));
}

#[test]
fn data_of_luks1_in_every_mode_that_crypt_has() {
    for mode in [
        "aes-xts-plain64 -s 256",
        "aes-xts-plain64 -s 512",
        "aes-xts-plain -s 512",
        "aes-cbc-essiv:sha256 -s 128",
        "aes-cbc-essiv:sha256 -s 256",
        "aes-cbc-plain -s 256",
        "aes-cbc-plain64 -s 128",
    ] {
        eprintln!("{mode}");
        Bench::of_cryptsetup(&format!("--type luks1 -c {mode}")).both_ways();
    }
}

#[test]
fn data_of_an_image_of_qemus() {
    let bench = Bench::new();
    let secret = format!("secret,id=s0,data={PASSPHRASE}");
    let mut create = program("qemu-img");
    create.args(["create", "-q", "-f", "luks", "--object", &secret]);
    run(create.args(["-o", "key-secret=s0,iter-time=10", text(&bench.image), "4M"]), "").ok();
    bench.both_ways();
}

/// QEMU reads no LUKS2: cryptsetup makes LUKS1 of it, in place, and the data stay where they are.
#[test]
fn data_of_luks2() {
    let bench = Bench::of_cryptsetup("--type luks2 --pbkdf pbkdf2 --sector-size 512");
    let uri = bench.open(&[]);
    through(&uri, "write -P 0x31 0 64k");
    through(&uri, "write -P 0x32 3M 64k");
    bench.close();
    run(program("cryptsetup").args(["-q", "convert", "--type", "luks1", text(&bench.image)]), "")
        .ok();
    bench.qemu("read -P 0x31 0 64k");
    bench.qemu("read -P 0x32 3M 64k");
    bench.both_ways();
}

#[test]
fn large_sectors_and_argon2() {
    let bench = Bench::of_cryptsetup(
        "--type luks2 --pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 64 \
         --pbkdf-parallel 1 --sector-size 4096",
    );
    let uri = bench.open(&[]);
    through(&uri, "write -P 0x41 0 64k");
    through(&uri, "write -P 0x42 4k 4k");
    bench.close();
    let uri = bench.open(&["--readonly"]);
    read_only(&uri, "read -P 0x41 0 4k");
    read_only(&uri, "read -P 0x42 4k 4k");
    read_only(&uri, "read -P 0x41 8k 56k");
    bench.close();
}

#[test]
fn a_detached_header() {
    let header = Folder::new();
    let at = header.disk("header", 20 << 11);
    let words = format!("--type luks1 --header {}", text(&at));
    let bench = Bench::of_cryptsetup(&words);
    let uri = bench.open(&["--header", text(&at)]);
    through(&uri, "write -P 0x51 0 64k");
    bench.close();
    assert!(fs::read(&bench.image).unwrap()[..PATTERN] != [0; PATTERN]);
    let uri = bench.open(&["--header", text(&at), "--readonly"]);
    read_only(&uri, "read -P 0x51 0 64k");
    bench.close();
}

#[test]
fn a_disk_that_is_only_read_stays_as_it_is() {
    let bench = Bench::of_cryptsetup("--type luks1");
    let before = fs::read(&bench.image).unwrap();
    let uri = bench.open(&["--readonly"]);
    let done = qemu_io(&["-f", "raw", &uri, "-c", "write -P 0x61 0 64k"]);
    assert!(done.code != 0 || done.out.contains("failed"), "{done:?}");
    read_only(&uri, "read 0 64k");
    bench.close();
    assert!(fs::read(&bench.image).unwrap() == before);
}

/// A client that stays connected until it is dropped.
struct Client(std::process::Child);

impl Client {
    fn start(uri: &str) -> Client {
        let mut command = program("qemu-io");
        command.args(["-f", "raw", uri]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // When qemu-io shows its prompt it has connected.
        let mut byte = [0];
        assert_eq!(child.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1);
        Client(child)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_is_connected_keeps_it_open() {
    let bench = Bench::of_cryptsetup("--type luks1");
    let uri = bench.open(&[]);
    let client = Client::start(&uri);
    let said = bench.tool(&["luks", "close", "home"]).fails(1);
    assert!(said.contains("EBUSY") && said.contains("somebody is connected"), "{said}");
    assert!(bench.try_open(&[]).fails(2).contains("home is open already"));
    assert_eq!(bench.tool(&["luks", "close", "home", "--force"]).ok(), "");
    drop(client);
    let said = bench.tool(&["luks", "close", "home"]).fails(3);
    assert!(said.contains("home is not open"), "{said}");
    // The image is not locked any more.
    bench.open(&[]);
    bench.close();
}

#[test]
fn what_cannot_be_opened_leaves_nothing_behind() {
    let bench = Bench::of_cryptsetup("--type luks1 -c aes-cbc-benbi -s 256");
    fs::write(&bench.key_file, "between others").unwrap();
    assert!(bench.try_open(&[]).fails(1).contains("opens no keyslot"));
    fs::write(&bench.key_file, PASSPHRASE).unwrap();
    let uri = bench.open(&["--key-slot", "0"]);
    let mut second = bench.command(&["luks", "open", text(&bench.image), "other", "--key-file"]);
    let said = run(second.arg(&bench.key_file), "").fails(2);
    assert!(said.contains("somebody else") && !said.contains("nolock"), "{said}");
    assert!(!said.ends_with("\n\n"), "{said:?}");
    let said = bench.tool(&["luks", "close", "a/b"]).fails(2);
    assert!(said.contains("a/b: a device's name has"), "{said}");
    assert!(uri.starts_with("nbd+unix:///home?socket="), "{uri}");
    bench.close();
}

/// The addresses of a text in another process's memory; `None` if its memory cannot be read.
fn looked_for(text: &str, process: &Path) -> Option<Vec<u64>> {
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(process.join("mem")).ok()?;
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    let (mut found, mut seen) = (Vec::new(), 0);
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        if !rest.starts_with("rw") || to - from > 1 << 30 {
            continue;
        }
        let mut bytes = vec![0; (to - from) as usize];
        // Some of it has no memory behind it yet.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        seen += bytes.len();
        let windows = bytes.windows(text.len()).enumerate();
        found.extend(
            windows.filter(|(_, at)| *at == text.as_bytes()).map(|(at, _)| from + at as u64),
        );
    }
    (seen > 0).then_some(found)
}

/// The process that stays has no key among its words, none as text in its memory, and leaves no core file.
#[test]
fn the_keeper_has_no_secrets_that_others_see() {
    let bench = Bench::of_cryptsetup("--type luks1");
    bench.open(&[]);
    let table = ["luks", "table", text(&bench.image), "--key-file", text(&bench.key_file)];
    let table = bench.tool(&table).ok();
    let key = table.split(' ').nth(4).unwrap();
    assert_eq!(key.len(), 128);
    let image = text(&bench.image);
    let mut keepers = 0;
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(words) = fs::read(process.path().join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words).into_owned();
        if !words.contains("luks-keeper") || !words.contains(&image.replace(',', ",,")) {
            continue;
        }
        keepers += 1;
        let environment = fs::read(process.path().join("environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(!words.contains(key) && !environment.contains(key));
        let control = bench.folder.path("dm-host/luks-home.control");
        let ctl =
            |args: &[&str]| bench.tool(&[&["ctl", "--socket", text(&control)], args].concat());
        let shown = ctl(&["table", "home"]).ok();
        assert!(shown.contains(" crypt aes-xts-plain64 "), "{shown}");
        // The uuid is the one that cryptsetup gives.
        let dump = bench.tool(&["luks", "dump", text(&bench.image), "--json"]).ok();
        let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
        let uuid = dump["uuid"].as_str().unwrap().replace('-', "");
        let shown = ctl(&["info", "-c", "--noheadings", "-o", "uuid", "home"]).ok();
        assert_eq!(shown.trim(), format!("CRYPT-LUKS1-{uuid}-home"));
        let begun = Instant::now();
        loop {
            match looked_for(key, &process.path()) {
                None => eprintln!("not tried: the system lets nobody look into processes"),
                // The copies in the reply above are wiped soon after it was sent.
                Some(found) if !found.is_empty() => {
                    let limit = Duration::from_secs(20);
                    assert!(begun.elapsed() < limit, "the key's text is at {found:x?}");
                    continue;
                }
                Some(_) => {}
            }
            break;
        }
        let limits = fs::read_to_string(process.path().join("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        let folder = fs::read_link(process.path().join("cwd")).unwrap();
        assert_eq!(folder, Path::new("/"));
    }
    assert_eq!(keepers, 1);
    bench.close();
}

/// In the foreground the program prints the URI, and ends well when it is interrupted. The disk may be an export.
#[test]
fn in_the_foreground_on_an_export() {
    let bench = Bench::of_cryptsetup("--type luks1");
    bench.qemu("write -P 0x71 0 64k");
    let disk = format!("wd0={},ro", text(&bench.image).replace(',', ",,"));
    let server = tool::Server::on(Folder::new(), &[disk], &[]);
    let sectors = (20 << 11).to_string();
    server.ctl(&["create", "-r", "all", "--table", &format!("0 {sectors} linear /dev/wd0 0")]).ok();
    let mut command = bench.command(&["luks", "open", &server.uri("all"), "home", "--readonly"]);
    command.args(["--foreground", "--key-file", text(&bench.key_file)]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let uri = lines.next().unwrap().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "Ctrl-C ends it.");
    read_only(&uri, "read -P 0x71 0 64k");
    tool::signal(child.id(), "INT");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "dm-host: flushed and ended\n");
    server.end();
}
