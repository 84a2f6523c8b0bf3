// SPDX-License-Identifier: BSD-2-Clause

use alloc::vec::Vec;

use super::*;

fn taken(ready: &Ready, runner: usize) -> Vec<usize> {
    let mut lanes = Vec::new();
    ready.take(runner, |lane, at| {
        assert_eq!(lane, at * ready.runners() + runner);
        lanes.push(lane);
    });
    lanes
}

#[test]
fn a_lane_is_its_runners_and_only_the_first_to_set_it_wakes() {
    for runners in [1, 2, 3] {
        let ready = Ready::new(200, runners);
        assert_eq!(ready.runners(), runners);
        for lane in [0, 1, 63, 64, 65, 127, 199] {
            assert_eq!(ready.set(lane), Some(lane % runners), "{lane} of {runners}");
            assert_eq!(ready.set(lane), None);
            for runner in 0..runners {
                assert_eq!(ready.any(runner), runner == lane % runners);
                let mine = if runner == lane % runners { [lane].to_vec() } else { Vec::new() };
                assert_eq!(taken(&ready, runner), mine);
                assert!(!ready.any(runner));
            }
        }
    }
}

#[test]
fn lanes_are_taken_lowest_first_or_as_a_scheduler_chooses() {
    let ready = Ready::new(140, 2);
    let all = [3, 9, 131, 139];
    all.iter().for_each(|lane| assert!(ready.set(*lane).is_some()));
    assert!(taken(&ready, 0).is_empty());
    assert_eq!(taken(&ready, 1), all);
    assert_eq!(ready.take_one(1, 0), None);
    all.iter().for_each(|lane| assert!(ready.set(*lane).is_some()));
    // The choice is counted round.
    assert_eq!(ready.take_one(1, 6), Some(131));
    assert_eq!(ready.take_one(1, 2), Some(139));
    assert_eq!(ready.take_one(1, 1), Some(9));
    assert_eq!(taken(&ready, 1), [3]);
}

#[test]
fn no_lane_at_all_and_one_beyond_are_nothing() {
    let none = Ready::new(0, 0);
    assert_eq!((none.runners(), none.set(1000), none.any(0)), (1, None, false));
    assert_eq!(none.take_one(5, 0), None);
}
