// SPDX-License-Identifier: BSD-2-Clause

//! The commands that are not about tables: version, targets, names, create, rename, message,
//! setgeometry.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::one;
use crate::Errno;
use crate::commands::flags;
use crate::kernel::Geometry;
use crate::targets::TARGETS;
use crate::testing::plist::Object;
use crate::testing::{Bench, Request};
use crate::units::Sector;

fn names(bench: &Bench) -> Vec<(String, u64)> {
    let reply = bench.done(&Request::new("names"));
    let list = reply.array("cmd_data").expect("a list").iter().map(|entry| {
        let entry = entry.dict().expect("a dictionary");
        assert!(matches!(entry.at("dev"), Some(Object::Unsigned(_))));
        (entry.string("name").expect("a name").into(), entry.number("dev").expect("a minor"))
    });
    list.collect()
}

#[test]
fn version_announces_its_features_where_old_tools_do_not_look() {
    let reply = Bench::new().done(&Request::new("version"));
    let features = reply.array("features").and_then(|list| list.first()?.dict()).unwrap();
    assert_eq!(features.number("reload_more"), Some(1 << 30));
    assert!(features.number("lines").unwrap() >= 10_000);
    assert!(features.number("stripes").unwrap() >= 127);
    assert_eq!(reply.at("cmd_data"), None);
}

#[test]
fn targets_lists_every_target_with_a_version_of_three() {
    let reply = Bench::new().done(&Request::new("targets"));
    let list = reply.array("cmd_data").unwrap().iter().map(|entry| {
        let entry = entry.dict().unwrap();
        let version = entry.array("ver").unwrap();
        assert_eq!(version.len(), 3);
        assert!(version.iter().all(|n| matches!(n, Object::Signed(_))), "as the C driver has it");
        entry.string("name").unwrap()
    });
    let list: Vec<_> = list.collect();
    assert_eq!(list[..4], ["linear", "striped", "zero", "error"]);
    assert!(list.into_iter().eq(TARGETS.iter().map(|kind| kind.name)));
}

#[test]
fn names_lists_all_devices_with_their_minors() {
    let bench = Bench::new();
    assert_eq!(names(&bench), []);
    bench.on("create", "b");
    bench.on("create", "a");
    assert_eq!(names(&bench), [("b".into(), 1), ("a".into(), 2)]);
}

#[test]
fn create_makes_a_device_that_is_suspended_until_its_first_resume() {
    let bench = Bench::new();
    let reply = bench.on("create", "d");
    assert_eq!(reply.number("minor"), Some(1));
    assert_eq!(reply.number("flags"), Some(u64::from(flags::EXISTS | flags::SUSPEND)));
    assert_eq!(bench.flags("d"), flags::EXISTS | flags::SUSPEND);
    assert_eq!(bench.on("resume", "d").number("flags"), Some(u64::from(flags::EXISTS)));
    assert_eq!(bench.flags("d"), flags::EXISTS);
}

#[test]
fn create_with_a_taken_name_or_uuid_is_eexist() {
    let bench = Bench::new();
    bench.done(&Request::on("create", "d").with("uuid", "u"));
    bench.refused(&Request::on("create", "d"), Errno::EEXIST);
    bench.refused(&Request::on("create", "d").with("uuid", "v"), Errno::EEXIST);
    bench.refused(&Request::on("create", "e").with("uuid", "u"), Errno::EEXIST);
    bench.done(&Request::on("create", "e").with("uuid", "v"));
}

#[test]
fn create_wants_a_name_that_can_stand_in_dev_mapper() {
    let bench = Bench::new();
    bench.refused(&Request::new("create"), Errno::EINVAL);
    for name in ["", "/", "a/b", "/a", "control", ".", ".."] {
        bench.refused(&Request::on("create", name), Errno::EINVAL);
    }
    for name in [" ", "a b", "%n", "<&>", "…", "...", "controls"] {
        bench.on("create", name);
        assert_eq!(bench.on("info", name).string("name"), Some(name));
    }
}

#[test]
fn create_with_a_persistent_minor_gets_that_minor_or_ebusy() {
    let bench = Bench::new();
    let persistent = |name, minor: u64| {
        Request::on("create", name).flags(flags::PERSISTENT_DEV).with("minor", minor)
    };
    assert_eq!(bench.done(&persistent("d", 7)).number("minor"), Some(7));
    bench.refused(&persistent("e", 7), Errno::EBUSY);
    assert_eq!(bench.done(&persistent("last", 65_535)).number("minor"), Some(65_535));
    bench.refused(&persistent("e", 65_536), Errno::EINVAL);
    bench.refused(&persistent("e", u64::MAX), Errno::EINVAL);
    // 0 asks for any minor, and is none itself.
    assert_eq!(bench.done(&persistent("any", 0)).number("minor"), Some(1));
}

#[test]
fn create_without_persistent_dev_does_not_take_the_minor_for_an_order() {
    let bench = Bench::new();
    assert_eq!(bench.done(&Request::on("create", "d").with("minor", 9)).number("minor"), Some(1));
}

#[test]
fn minors_pass_over_those_in_use_and_are_not_reused_at_once() {
    let bench = Bench::new();
    let two = Request::on("create", "two").flags(flags::PERSISTENT_DEV).with("minor", 2);
    bench.done(&two);
    let minors = ["a", "b"].map(|name| bench.on("create", name).number("minor"));
    assert_eq!(minors, [Some(1), Some(3)]);
    bench.on("remove", "b");
    assert_eq!(bench.on("create", "b").number("minor"), Some(4));
}

#[test]
fn a_failed_create_leaves_nothing_behind() {
    let bench = Bench::new();
    for errno in [Errno::ENOMEM, Errno::ENXIO, Errno::EBUSY] {
        bench.kernel.fail_attach(Some(errno));
        bench.refused(&Request::on("create", "d").with("uuid", "u"), errno);
    }
    bench.kernel.fail_attach(None);
    bench.done(&Request::on("create", "d").with("uuid", "u"));
}

#[test]
fn rename_gives_a_new_name() {
    let bench = one();
    let reply = bench.done(&Request::on("rename", "d").with("cmd_data", vec!["e".into()]));
    assert_eq!((reply.string("name"), reply.number("minor")), (Some("e"), Some(1)));
    assert_eq!(names(&bench), [("e".into(), 1)]);
    assert_eq!(bench.on("info", "d").number("flags"), Some(0));
}

#[test]
fn rename_to_a_taken_name_is_eexist_and_to_a_bad_one_einval() {
    let bench = one();
    bench.on("create", "e");
    let to = |name: &str| Request::on("rename", "d").with("cmd_data", vec![name.into()]);
    bench.refused(&to("e"), Errno::EEXIST);
    for bad in ["", "a/b", "control", &"n".repeat(128)] {
        bench.refused(&to(bad), Errno::EINVAL);
    }
}

#[test]
fn rename_with_the_uuid_flag_sets_a_first_uuid() {
    let bench = one();
    let to = |uuid: &str| {
        Request::on("rename", "d").flags(flags::UUID).with("cmd_data", vec![uuid.into()])
    };
    bench.refused(&to(""), Errno::EINVAL);
    bench.refused(&to(&"u".repeat(129)), Errno::EINVAL);
    let reply = bench.done(&to("u"));
    assert_eq!((reply.string("name"), reply.string("uuid")), (Some("d"), Some("u")));
    assert_eq!(bench.done(&Request::new("info").with("uuid", "u")).string("name"), Some("d"));
    // Only the first uuid of a device is taken.
    bench.refused(&to("v"), Errno::EINVAL);
    bench.done(&to("u"));
    bench.on("create", "e");
    let taken = Request::on("rename", "e").flags(flags::UUID).with("cmd_data", vec!["u".into()]);
    bench.refused(&taken, Errno::EEXIST);
}

#[test]
fn message_goes_to_the_target_that_holds_the_sector() {
    let bench = Bench::new();
    bench.device("d", &[(0, 8, "zero", ""), (8, 8, "linear", "/dev/a 0")]);
    let say = |sector: u64, text: &str| {
        Request::on("message", "d").with("sector", sector).with("message", text)
    };
    // No target of this table takes one; a sector beyond the table is as wrong.
    for sector in [0, 8, 15, 16, u64::MAX] {
        bench.refused(&say(sector, "hello"), Errno::EINVAL);
    }
    bench.refused(&Request::on("message", "d"), Errno::EINVAL);
    bench.refused(&say(0, "@nosuch"), Errno::EINVAL);
    bench.on("create", "empty");
    bench.refused(&Request::on("message", "empty").with("message", "hello"), Errno::ENXIO);
}

#[test]
fn setgeometry_reaches_the_disk() {
    let bench = one();
    bench.done(&Request::on("setgeometry", "d").with("geometry", "65535 255 63 2048"));
    let geometry = Geometry { cylinders: 65_535, heads: 255, sectors: 63, start: Sector(2048) };
    assert_eq!(bench.unit("d").geometry(), Some(geometry));
}

#[test]
fn a_malformed_geometry_is_einval() {
    let bench = one();
    for text in ["", "1", "1 1 1", "1 1 1 0 0", "-1 1 1 0", "a 1 1 0", "65536 1 1 0", "1 256 1 0"] {
        bench.refused(&Request::on("setgeometry", "d").with("geometry", text), Errno::EINVAL);
    }
    bench.refused(&Request::on("setgeometry", "d"), Errno::EINVAL);
    let far = format!("1 1 1 {}", u64::MAX);
    let far = Request::on("setgeometry", "d").with("geometry", far.as_str());
    bench.refused(&far, Errno::EINVAL);
    assert_eq!(bench.unit("d").geometry(), None);
}

#[test]
fn a_geometry_that_begins_behind_its_own_end_is_einval() {
    let bench = one();
    let geometry = |text: &str| Request::on("setgeometry", "d").with("geometry", text);
    bench.refused(&geometry("2 3 4 25"), Errno::EINVAL);
    assert_eq!(bench.unit("d").geometry(), None);
    bench.done(&geometry("2 3 4 24"));
}
