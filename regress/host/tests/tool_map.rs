//! `dm-host map`: where a table sends each range, and all that is wrong with it.

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
    assert!(said.contains("linear, striped, zero, error"), "{said}");
    let said = tool(&["map", "-", "--disk", "nonsense"], "").fails(2);
    assert!(said.contains("NAME=FILE"), "{said}");
}
