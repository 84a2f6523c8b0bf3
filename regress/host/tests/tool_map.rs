// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host map`: the places of a table's ranges, and all its mistakes.

mod tool;

use tool::{Folder, tool};

const TABLE: &str = "0 1024 linear /dev/wd0 2048\n1024 2048 striped 2 64 /dev/wd0 4096 /dev/wd1 0\n\
                     3072 8 error\n";

#[test]
fn every_range_of_a_good_table() {
    let folder = Folder::new();
    let disk = format!("wd0={}", folder.disk("disk", 8192).display());
    let text = tool(&["map", "-", "--disk", &disk, "--disk", "wd1:2048"], TABLE).ok();
    assert_eq!(
        text,
        "\
3 lines, 3080 sectors (1.5 MiB), sectors of 512 bytes

  LINE        FIRST         LAST  TARGET   GOES TO
     1            0         1023  linear   wd0 2048..3071
     2         1024         3071  striped  wd0 4096..5119
                                           wd1 0..1023
     3         3072         3079  error    fails with EIO

wd0: 8192 sectors (4.0 MiB)
             0         2047  not used
          2048         3071  line 1
          3072         4095  not used
          4096         5119  line 2
          5120         8191  not used
wd1: 2048 sectors (1.0 MiB)
             0         1023  line 2
          1024         2047  not used
"
    );
}

#[test]
fn bars_are_drawn_where_asked_for() {
    let args = ["map", "-", "--disk", "wd0:8192", "--disk", "wd1:2048", "--draw", "always"];
    let text = tool(&args, TABLE).ok();
    assert_eq!(text.matches('▕').count(), 2, "{text}");
    // 1/8 of wd0 is line 1's, and half of wd1 is line 2's.
    let bars: Vec<_> = text.lines().filter(|line| line.contains('▕')).collect();
    let cells = |bar: &str| bar.matches(['█', '·', '▒']).count();
    assert_eq!(cells(bars[0]), cells(bars[1]));
    assert_eq!(bars[1].matches('█').count() * 2, cells(bars[1]));
}

#[test]
fn every_mistake_with_its_line() {
    let text = "0 8 linear /dev/wd0 99999\nfoo 8 zero\n16 8 cheese\n24 8 linear /dev/wd7 0\n\
                28 8 zero\n";
    let said = tool(&["map", "-", "--disk", "wd0:8192"], text).fails(2);
    for line in ["line 1:", "line 2:", "line 3:", "line 4:", "line 5:"] {
        assert!(said.contains(line), "no {line} in {said}");
    }
    assert!(said.contains("no such target type: `cheese`; there are linear, "), "{said}");
    let said = tool(&["map", "-", "--disk", "nonsense"], "").fails(2);
    assert!(said.contains("NAME=FILE"), "{said}");
}

/// A picture is XML, has every line of the table, and says where each goes.
#[test]
fn a_picture_has_every_line() {
    let folder = Folder::new();
    let file = folder.path("picture.svg").display().to_string();
    let disks = ["--disk", "wd0:8192", "--disk", "wd1:2048", "--svg", file.as_str()];
    assert_eq!(tool(&[&["map", "-"], &disks[..]].concat(), TABLE).ok(), "");
    let picture = std::fs::read_to_string(&file).unwrap();
    assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
    // The device's three lines, and the ranges below: one, two, none.
    assert_eq!(picture.matches("<path ").count(), 3);
    assert!(picture.contains("line 1: linear, sectors 0 to 1023 go to wd0, sectors 2048 to 3071"));
    let many: String =
        (0..1000).map(|n| format!("{} 8 linear /dev/wd0 {}\n", n * 8, n * 8)).collect();
    assert_eq!(tool(&[&["map", "-"], &disks[..]].concat(), &many).ok(), "");
    let picture = std::fs::read_to_string(&file).unwrap();
    assert_eq!(picture.matches("<path ").count(), 1000);
    assert!(picture.contains("line 1000: linear, sectors 7992 to 7999"));
}

#[test]
fn the_listing_and_the_mistakes_are_json_if_asked_for() {
    let args = ["map", "-", "--json", "--disk", "wd0:8192", "--disk", "wd1:2048"];
    let json: serde_json::Value = serde_json::from_str(&tool(&args, TABLE).ok()).unwrap();
    assert_eq!((&json["sectors"], &json["sector_bytes"]), (&3080.into(), &512.into()));
    let to = &json["lines"][1]["goes_to"];
    assert_eq!((&to[1]["component"], &to[1]["last"]), (&"wd1".into(), &1023.into()));
    let done = tool(&args, "\n0 8 cheese\n");
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.code, &json["mistakes"][0]["line"]), (2, &2.into()));
}

/// A generator of numbers, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// `map` and a served driver take the same tables and the same names, and refuse the same for the
/// same reason.
#[test]
fn map_and_the_driver_agree() {
    const NAMES: &[&str] = &[
        "/dev/wd0",
        "/dev/wd1",
        "/dev/wd2",
        "wd0",
        "0:3",
        "0:19",
        "00:3",
        "0:03",
        "0:4",
        "0:999",
        "99:1",
        "/dev//wd0",
        "/dev/./wd1",
        "/dev/wd0/",
        "/dev/wd0d",
        "/dev/wd0a",
        "/dev/wd0c",
        "/dev/rwd0",
        "/dev/wd9",
        "/dev",
        "/",
        ".",
        "/dev/mapper/base",
        "/dev/mapper/none",
        "169:1",
        "169:0",
        "169:60000",
        "/dev/mapper/control",
        "/dev/wd0/x",
        "4294967296:3",
        ":",
        "0:",
        "-1:3",
        "/dev/WD0",
        "/dev/wd00",
    ];
    let server = tool::Server::start();
    server.ctl(&["create", "base", "--table", "0 4096 zero"]).ok();
    let mut random = Random(14);
    let disks = [
        "--disk",
        "mapper/base:4096",
        "--disk",
        "wd0:8192",
        "--disk",
        "wd1:8192",
        "--disk",
        "wd2:2048,ro",
    ];
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..150 {
        let mut text = String::new();
        let mut at = 0;
        for _ in 0..1 + random.below(3) {
            let length = [8, 16, 1024, 4096, 0, 7][random.below(6) as usize];
            let offset = [0, 64, 4096, 8184, 8192, 100_000][random.below(6) as usize];
            let params = match random.of(&["linear", "linear", "linear", "striped", "zero"]) {
                "linear" => format!("linear {} {offset}", random.of(NAMES)),
                "striped" => {
                    let (a, b) = (random.of(NAMES), random.of(NAMES));
                    format!("striped 2 4 {a} {offset} {b} 0")
                }
                _ => random.of(&["zero", "zero 1", "error", "cheese", "Linear /dev/wd0 0"]).into(),
            };
            text.push_str(&format!("{at} {length} {params}\n"));
            at += if random.below(12) == 0 { length + 8 } else { length };
        }
        let map = tool(&[&["map", "-"], &disks[..]].concat(), &text);
        let driver = server.ctl_with(&["create", "x"], &text);
        if driver.code == 0 {
            assert_eq!(map.code, 0, "the driver takes what map does not:\n{text}{map:?}");
            server.ctl(&["remove", "x"]).ok();
            taken += 1;
            continue;
        }
        assert_eq!((map.code, driver.code), (2, 1), "{text}{map:?}\n{driver:?}");
        refused += 1;
        // The driver's reason, with its line, is among those that map tells.
        let reason = driver.err.lines().nth(1).expect("a reason").trim();
        assert!(map.err.contains(reason), "{text}{reason}\n{}", map.err);
    }
    assert!(taken > 10 && refused > 10, "{taken} taken, {refused} refused");
    server.end();
}
