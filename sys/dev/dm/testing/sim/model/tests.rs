// SPDX-License-Identifier: BSD-2-Clause

use super::*;

fn sector(value: Value) -> Vec<u8> {
    let mut data = vec![0; SECTOR];
    value.fill(&mut data);
    data
}

/// A device of one sector that write 0 has written.
fn written() -> Model {
    let mut model = Model::new(1);
    model.begin(0, 1, 1, |at| Value::of(0, at));
    model.end((0, 1), 1, 2, (true, false), 2);
    model
}

fn write(model: &mut Model, number: u64, from: Moment) {
    model.begin(0, 1, from, |at| Value::of(number, at));
}

fn reads(model: &Model, number: u64, from: Moment) -> bool {
    model.clone().read(0, from, &sector(Value::of(number, 0))).is_ok()
}

#[test]
fn a_read_gives_the_last_write_that_was_answered() {
    let mut model = written();
    assert!(reads(&model, 0, 3) && !reads(&model, 1, 3));
    write(&mut model, 1, 3);
    // Under way: either.
    assert!(reads(&model, 0, 4) && reads(&model, 1, 4));
    model.end((0, 1), 3, 5, (true, false), 4);
    assert!(!reads(&model, 0, 6) && reads(&model, 1, 6));
    // One that began before the answer may still give the old.
    assert!(reads(&model, 0, 4));
}

#[test]
fn of_two_writes_at_once_either_may_win() {
    let mut model = written();
    write(&mut model, 1, 3);
    write(&mut model, 2, 4);
    model.end((0, 1), 4, 5, (true, false), 5);
    model.end((0, 1), 3, 6, (true, false), 6);
    assert!(!reads(&model, 0, 7) && reads(&model, 1, 7) && reads(&model, 2, 7));
}

#[test]
fn a_failed_write_may_be_there_until_another_succeeds() {
    let mut model = written();
    write(&mut model, 1, 3);
    model.end((0, 1), 3, 4, (false, false), 4);
    assert!(reads(&model, 0, 5) && reads(&model, 1, 5));
    write(&mut model, 2, 5);
    model.end((0, 1), 5, 6, (true, false), 6);
    assert!(!reads(&model, 0, 7) && !reads(&model, 1, 7) && reads(&model, 2, 7));
}

#[test]
fn a_crash_loses_what_was_not_flushed_and_no_more() {
    let mut model = written();
    model.flushed(3, 3);
    write(&mut model, 1, 4);
    model.end((0, 1), 4, 5, (true, false), 5);
    write(&mut model, 2, 6);
    let mut crashed = model.clone();
    crashed.crash(7);
    assert!((0..3).all(|number| reads(&crashed, number, 8)));
    // The sector keeps the content that was read.
    crashed.read(0, 8, &sector(Value::of(1, 0))).unwrap();
    assert!(!reads(&crashed, 0, 9) && reads(&crashed, 1, 9) && !reads(&crashed, 2, 9));
    // A flush that began before the answer does not cover it.
    model.flushed(4, 6);
    let mut crashed = model.clone();
    crashed.crash(7);
    assert!(reads(&crashed, 0, 8));
    model.flushed(6, 6);
    model.crash(7);
    assert!(!reads(&model, 0, 8) && reads(&model, 1, 8) && reads(&model, 2, 8));
}

#[test]
fn what_was_written_with_fua_survives() {
    let mut model = written();
    write(&mut model, 1, 3);
    model.end((0, 1), 3, 4, (true, true), 4);
    model.crash(5);
    assert!(!reads(&model, 0, 6) && reads(&model, 1, 6));
}

#[test]
fn a_sector_nobody_knows_is_what_it_is_read_as() {
    let mut model = Model::new(1);
    model.read(0, 1, &sector(Value::of(7, 3))).unwrap();
    assert!(model.clone().read(0, 2, &sector(Value::of(7, 3))).is_ok());
    assert!(model.read(0, 2, &sector(Value::of(8, 3))).is_err());
}

#[test]
fn what_was_discarded_is_anything_each_time() {
    let mut model = written();
    model.begin(0, 1, 3, |_| Value::ANY);
    model.end((0, 1), 3, 4, (true, false), 4);
    assert!(reads(&model, 5, 5) && reads(&model, 6, 6));
    model.crash(7);
    model.read(0, 8, &sector(Value::of(5, 0))).unwrap();
    assert!(reads(&model, 6, 9));
    write(&mut model, 7, 10);
    model.end((0, 1), 10, 11, (true, false), 11);
    assert!(!reads(&model, 6, 12) && reads(&model, 7, 12));
}

#[test]
fn zeroes_stay_zeroes() {
    let mut model = Model::new(2);
    model.zeroes(1..2);
    model.begin(0, 2, 1, |at| Value::of(0, at));
    model.end((0, 2), 1, 2, (true, false), 2);
    let mut both = sector(Value::of(0, 0));
    both.extend(sector(Value::ZERO));
    model.read(0, 3, &both).unwrap();
    both[SECTOR] = 1;
    assert!(model.read(0, 3, &both).unwrap_err().contains("sector 1 reads as junk"));
}
