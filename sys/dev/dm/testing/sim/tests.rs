// SPDX-License-Identifier: BSD-2-Clause

//! Games are won, and planted bugs are found.

mod log_writes;
mod mirror;
mod sharing;
mod stores;
mod verity;

use super::games::GAMES;
use super::planted::{RIGHT, WRONG};
use super::*;
use alloc::collections::BTreeMap;

/// Seeds of games that were lost once.
const SEEDS: &[(&str, &str)] = &[
    ("twin", include_str!("seeds/twin")),
    ("log-writes", include_str!("seeds/log-writes")),
    ("mirror", include_str!("seeds/mirror")),
    ("snapshot", include_str!("seeds/snapshot")),
    ("snapshot-origin", include_str!("seeds/snapshot-origin")),
];

/// Games of 200 steps of each kind; `cargo xtask simulate` plays on.
const GAMES_EACH: u64 = 20;

fn won(name: &str, make: Make, seed: u64) {
    if let Err(lost) = play(make, seed, 200) {
        panic!("{lost}\n{name} is lost");
    }
}

#[test]
fn games_that_were_lost_once_are_won() {
    for (name, seeds) in SEEDS {
        let make = RIGHT.iter().chain(GAMES).find(|(known, _)| known == name).unwrap().1;
        for seed in seeds.lines() {
            won(name, make, seed.parse().unwrap());
        }
    }
}

#[test]
fn games_are_won() {
    for (name, make) in GAMES {
        (0..GAMES_EACH).for_each(|seed| won(name, *make, seed));
    }
}

#[test]
fn targets_that_wait_keep_their_promises() {
    for (name, make) in RIGHT {
        (0..3 * GAMES_EACH).for_each(|seed| won(name, *make, seed));
    }
}

#[test]
fn every_target_has_a_game() {
    for kind in crate::targets::TARGETS {
        assert!(games::find(kind.name).is_some(), "{} has none", kind.name);
    }
}

/// The events that games are for do happen in them.
#[test]
fn games_meet_everything() {
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    let everything = [
        "Read ",
        "Write ",
        "Write FUA",
        "Flush",
        "Discard",
        "is answered: done",
        "is answered: EIO",
        "is given back",
        "forwarded",
        "ends: EIO",
        "is suspended (Flush)",
        "is suspended (NoFlush)",
        "is being suspended",
        "is resumed with the new table",
        "it does not start",
        "the power is cut",
        "fails now and then",
        "stalls",
        "ms pass",
    ];
    for (_, make) in RIGHT {
        for seed in 0..12 {
            for line in story(*make, seed, 200) {
                for what in everything.iter().filter(|what| line.contains(**what)) {
                    *met.entry(what).or_default() += 1;
                }
            }
        }
    }
    for what in everything {
        assert!(met.contains_key(what), "no game has {what:?}: {met:?}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for (what, make) in WRONG {
        let mut lost = (0..100).filter_map(|seed| play(*make, seed, 200).err());
        let found = lost.next().unwrap_or_else(|| panic!("not found: {what}"));
        std::println!("{what}: game {}: {}", found.seed, found.why);
        // The same seed gives the same story.
        let again = play(*make, found.seed, 200).unwrap_err();
        assert_eq!((&again.why, &again.story), (&found.why, &found.story));
        // A shorter game with the same seed is lost too.
        let short = shorten(*make, *found, 200);
        assert!(short.steps <= 200 && play(*make, short.seed, short.steps).is_err());
    }
}
