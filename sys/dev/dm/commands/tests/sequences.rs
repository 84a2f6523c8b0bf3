// SPDX-License-Identifier: BSD-2-Clause

//! Random sequences of commands on several devices, with calls that fail, against a slow, obvious
//! model.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::Errno;
use crate::testing::model::play;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_driver_does_what_the_model_does(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
        play(&bytes);
    }
}

/// The same games in every run, so that the test can demand that they meet everything.
#[test]
fn games_that_never_change_meet_every_command_and_error() {
    let mut met = BTreeMap::new();
    for game in 0..48u64 {
        let mut state = game.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = core::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        for (answer, times) in play(&bytes.take(2000).collect::<Vec<_>>()) {
            *met.entry(answer).or_insert(0) += times;
        }
    }
    let times = |command, errno: Errno| met.get(&(command, errno.raw())).copied().unwrap_or(0);
    for command in [
        "create",
        "reload",
        "resume",
        "suspend",
        "clear",
        "remove",
        "remove_all",
        "rename",
        "info",
        "table",
        "deps",
        "message",
        "names",
    ] {
        assert!(met.get(&(command, 0)).is_some_and(|n| *n > 10), "{command}: {met:?}");
    }
    for errno in [
        Errno::EINVAL,
        Errno::ELOOP,
        Errno::EROFS,
        Errno::ENOENT,
        Errno::ENOTBLK,
        Errno::ENXIO,
        Errno::EIO,
    ] {
        assert!(times("reload", errno) > 2, "{errno:?}: {met:?}");
    }
    for (command, errno) in [
        ("create", Errno::EEXIST),
        ("create", Errno::EBUSY),
        ("create", Errno::ENOMEM),
        ("remove", Errno::EBUSY),
        ("rename", Errno::EEXIST),
        ("rename", Errno::EINVAL),
        ("resume", Errno::EINTR),
        ("suspend", Errno::EINTR),
    ] {
        assert!(times(command, errno) > 2, "{command} {errno:?}: {met:?}");
    }
}
