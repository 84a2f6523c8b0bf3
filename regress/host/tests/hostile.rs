//! What userland could send, and disks could hold, that the kernel's own functions would not survive.

mod common;

use common::{Bench, Request};
use dm_core::limits;
use dm_host::Errno;

/// A request with that many containers in one another, the dictionary counted, under a key that the
/// driver does not know: alternately arrays and dictionaries.
fn nested(command: &str, depth: usize) -> String {
    let (mut before, mut after) = (String::new(), String::new());
    for level in 1..depth {
        let (open, close) = match level % 2 {
            1 => ("<array>", "</array>"),
            _ => ("<dict><key>k</key>", "</dict>"),
        };
        before += open;
        after.insert_str(0, close);
    }
    format!(
        "<plist version=\"1.0\"><dict><key>command</key><string>{command}</string>\
         <key>name</key><string>d</string><key>deep</key>{before}<true/>{after}</dict></plist>"
    )
}

#[test]
fn requests_nest_as_deep_as_the_limit_and_no_deeper() {
    for legacy in [0, 1] {
        let bench = Bench::new();
        let value = dm_host::sysctl::Value::Int(legacy);
        bench.machine.sysctl_set("hw.dm.legacy_errors", &value).unwrap();
        let send = |command, depth| bench.control.plist_ioctl(&nested(command, depth));
        let reply = send("version", limits::NESTING).unwrap();
        assert!(reply.contains("<key>deep</key>"), "what is unknown comes back: {reply}");
        for depth in [limits::NESTING + 1, limits::NESTING + 2, 1000] {
            for command in ["version", "names", "create", "info", "nonsense"] {
                assert_eq!(send(command, depth), Err(Errno::EINVAL), "{command}, {depth}");
            }
        }
        // As deep as anyone's request can be, and one of those who may change devices.
        let question = bench.machine.as_user(1000, || send("version", 3000));
        assert_eq!(question, Err(Errno::EINVAL));
        assert_eq!(send("create", 100_000), Err(Errno::EINVAL));
        assert_eq!(bench.machine.sysctl_int("hw.dm.devices"), Ok(0));
        bench.end();
    }
}

#[test]
fn wide_requests_are_not_deep() {
    let bench = Bench::new();
    let wide = "<array/><dict><key>k</key><array><dict/></array></dict>".repeat(500);
    let request = format!(
        "<plist version=\"1.0\"><dict><key>command</key><string>version</string>\
         <key>wide</key><array>{wide}</array></dict></plist>"
    );
    let reply = bench.control.plist_ioctl(&request).unwrap();
    assert_eq!(reply.matches("<array/>").count(), 500);
    bench.send(&Request::new("names")).unwrap();
    bench.end();
}
