// SPDX-License-Identifier: BSD-2-Clause

//! Reasons in the reply to a request with the key `reasons`.

use std::string::String;

use crate::Errno;
use crate::commands::flags;
use crate::guard::GuardedSectors;
use crate::kernel::LabelGuard;
use crate::testing::plist::Dict;
use crate::testing::{Bench, Disk, Request};
use crate::units::{Sector, SectorRange};

/// Sends a request with the key `reasons`.
fn ask(bench: &Bench, request: &Request) -> Dict {
    bench.done(&request.clone().with("reasons", 1u64))
}

fn refused(bench: &Bench, request: &Request, errno: Errno) -> (Option<u64>, String) {
    let before = bench.picture();
    let reply = ask(bench, request);
    assert_eq!(reply.number("errno"), Some(errno.raw() as u64), "{reply:?}");
    assert_eq!(bench.picture(), before, "something has changed");
    (reply.number("line"), reply.string("reason").expect("a reason").into())
}

#[test]
fn a_refused_table_is_told_with_its_line_and_its_numbers() {
    let bench = super::one();
    let table = [(0, 8, "zero", ""), (8, 8, "linear", "/dev/b 999999999")];
    let (line, reason) = refused(&bench, &Request::reload("d", &table), Errno::EINVAL);
    assert_eq!(line, Some(2));
    let expected = "the range ends beyond its component: sectors 999999999 to 1000000006 of \
                    `/dev/b`, which has 1000000";
    assert_eq!(reason, expected);
}

#[test]
fn every_refusal_of_a_table_has_a_reason_and_most_a_line() {
    let bench = super::one();
    for (line, why, errno) in [
        ((0, 8, "cheese", ""), "no such target type: `cheese`; there are linear,", Errno::ENOENT),
        ((0, 8, "linear", "/dev/no 0"), "does not exist: `/dev/no`", Errno::ENOENT),
        ((0, 8, "linear", "/dev/a x"), "not a number of sectors: `x`", Errno::EINVAL),
        ((0, 8, "zero", "a\x1b[2J"), "too many parameters: from `a\\x1b[2J` on", Errno::EINVAL),
        ((8, 8, "zero", ""), "its first line begins at sector 8", Errno::EINVAL),
        ((0, u64::MAX, "zero", ""), "18446744073709551615 sectors from sector 0", Errno::EINVAL),
        ((0, 9, "striped", "2 4 /dev/a 0 /dev/b 0"), "9 sectors on 2 stripes", Errno::EINVAL),
        ((0, 8, "striped", "1025 4"), "1025, of 1024 at most", Errno::E2BIG),
    ] {
        let (at, reason) = refused(&bench, &Request::reload("d", &[line]), errno);
        assert_eq!(at, Some(1), "{reason}");
        assert!(reason.contains(why), "{reason}");
    }
    let (line, reason) = refused(&bench, &Request::reload("d", &[]), Errno::EINVAL);
    assert_eq!((line, reason.as_str()), (None, "the table has no lines"));
}

#[test]
fn other_commands_have_reasons_too() {
    let bench = super::one();
    for (request, errno, why) in [
        (Request::on("create", "control"), Errno::EINVAL, "name of the control node"),
        (Request::on("create", "a/b"), Errno::EINVAL, "has no slash"),
        (Request::on("create", "d"), Errno::EEXIST, "another device has this name"),
        (Request::on("remove", "none"), Errno::ENXIO, "no such device"),
        (Request::new("dance"), Errno::EINVAL, "there is no command `dance`"),
        (Request::on("info", &"n".repeat(128)), Errno::EINVAL, "128 bytes, of 127 at most"),
        (
            Request::on("create", "e").with("minor", 65_536u64).flags(flags::PERSISTENT_DEV),
            Errno::EINVAL,
            "from 1 to 65535, and 65536 is none",
        ),
        (Request::on("message", "d").with("message", "x"), Errno::EINVAL, "at sector 0"),
        (Request::new("version").with("version", "4"), Errno::EINVAL, "three numbers"),
    ] {
        let (_, reason) = refused(&bench, &request, errno);
        assert!(reason.contains(why), "{request:?}: {reason}");
    }
    bench.kernel.privileged(false);
    let (_, reason) = refused(&bench, &Request::on("remove", "d"), Errno::EPERM);
    assert!(reason.contains("super-user"), "{reason}");
}

#[test]
fn success_is_errno_0_and_has_no_reason() {
    let bench = super::one();
    let reply = ask(&bench, &Request::on("info", "d"));
    assert_eq!(reply.number("errno"), Some(0));
    assert!(reply.string("reason").is_none() && reply.string("warning").is_none());
}

#[test]
fn whoever_does_not_ask_for_reasons_gets_errors() {
    let bench = super::one();
    bench.refused(&Request::on("remove", "none"), Errno::ENXIO);
    bench.refused(&Request::on("remove", "none").with("reasons", 0u64), Errno::ENXIO);
    // A key of a wrong type counts as absent.
    bench.refused(&Request::on("remove", "none").with("reasons", "yes"), Errno::ENXIO);
    let reply = bench.done(&Request::on("info", "d"));
    assert_eq!(reply.number("errno"), None);
}

#[test]
fn legacy_errors_hide_the_error_and_leave_the_reason() {
    let bench = super::one();
    bench.kernel.set_legacy_errors(true);
    let reply = ask(&bench, &Request::on("remove", "none"));
    assert_eq!(reply.number("errno"), Some(0));
    assert_eq!(reply.string("reason"), Some("there is no such device"));
    bench.done(&Request::on("remove", "none"));
}

/// The console takes a few messages a second; reasons in replies are not among them.
#[test]
fn a_silent_console_takes_no_reason_away() {
    let bench = super::one();
    for _ in 0..100 {
        let (line, _) =
            refused(&bench, &Request::reload("d", &[(1, 8, "zero", "")]), Errno::EINVAL);
        assert_eq!(line, Some(1));
    }
}

#[test]
fn a_warning_about_a_table_comes_with_its_reply() {
    let bench = Bench::new();
    bench.on("create", "d");
    let label = SectorRange { start: Sector(63), length: Sector(2) };
    let guard = Some(GuardedSectors { label, first_safe: Sector(65) });
    bench.kernel.disk("/dev/labelled", Disk { guard, ..Disk::new(19, 99, 1000) });
    bench.kernel.set_label_guard(LabelGuard::Writes);
    let table = Request::reload("d", &[(0, 8, "linear", "/dev/labelled 60")]);
    let reply = ask(&bench, &table);
    assert_eq!(reply.number("errno"), Some(0));
    assert!(reply.string("warning").expect("a warning").contains("kept for its label"));
    assert!(bench.done(&table).string("warning").is_none(), "not asked for");
    let safe = Request::reload("d", &[(0, 8, "linear", "/dev/labelled 65")]);
    assert!(ask(&bench, &safe).string("warning").is_none());
}
