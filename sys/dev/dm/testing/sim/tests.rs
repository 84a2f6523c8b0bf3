//! The games are played, and planted bugs are found.

use super::games::GAMES;
use super::planted::{BUGS, TWIN};
use super::*;

/// Seeds of games that were lost once.
const SEEDS: &[(&str, &str)] = &[("twin", include_str!("seeds/twin"))];

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
        let make = if *name == "twin" { TWIN } else { games::find(name).unwrap() };
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
fn a_target_that_waits_keeps_its_promises() {
    (0..3 * GAMES_EACH).for_each(|seed| won("twin", TWIN, seed));
}

#[test]
fn every_target_has_a_game() {
    for kind in crate::targets::TARGETS {
        assert!(games::find(kind.name).is_some(), "{} has none", kind.name);
    }
}

#[test]
fn planted_bugs_are_found() {
    for (what, make) in BUGS {
        let mut lost = (0..100).filter_map(|seed| play(*make, seed, 200).err());
        let found = lost.next().unwrap_or_else(|| panic!("not found: {what}"));
        std::println!("{what}: game {}: {}", found.seed, found.why);
        // To the letter.
        let again = play(*make, found.seed, 200).unwrap_err();
        assert_eq!((again.why, again.story), (found.why, found.story));
    }
}
