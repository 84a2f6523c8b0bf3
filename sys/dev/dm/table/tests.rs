// SPDX-License-Identifier: BSD-2-Clause

//! Tables against a slow, obvious model that maps sector by sector.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use proptest::sample::Index;

use super::{Builder, Component, Opener, Piece, Table};
use crate::aes::Aes;
use crate::device;
use crate::guard::GuardedSectors;
use crate::hash::Hash;
use crate::job::Op;
use crate::mistake::TableError;
use crate::target::ComponentIndex;
use crate::testing::{Disk, aes, hash, range};
use crate::{Dev, Errno, Sector, SectorRange, limits};

/// Disks that a table can be built on, named by `major:minor` or as `/dev/N`.
struct Disks(Vec<Disk>);

impl Opener for Disks {
    type Component = Disk;

    fn open(&self, path: &str) -> Result<Disk, Errno> {
        let by_name = |at: usize| path == format!("/dev/{at}");
        let disks = self.0.iter().enumerate();
        let mut found = disks.filter(|(at, d)| by_name(*at) || path == format!("{}", d.dev));
        found.next().map(|(_, disk)| disk.clone()).ok_or(Errno::ENOENT)
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        Some(&aes::RUST)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn read_only(&self) -> bool {
        true
    }
}

/// The size of every disk.
const SIZE: u64 = 512;

/// Two disks with sectors of 512 bytes, one of 2,048, one of 4,096.
fn disks() -> Disks {
    let disk = |minor, sector_size| Disk { sector_size, ..Disk::new(19, minor, SIZE) };
    Disks(vec![disk(3, 512), disk(19, 512), disk(35, 2048), disk(51, 4096)])
}

/// The destination of a sector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Goes {
    Zero,
    Fail,
    At(Dev, u64),
}

/// A line, and the destination of each of its sectors.
#[derive(Clone, Debug)]
struct DrawnLine {
    start: u64,
    length: u64,
    kind: &'static str,
    params: String,
    places: Vec<Goes>,
}

/// A line of some kind, on disks whose sectors are at most `unit` sectors of 512 bytes.
fn line(unit: u64) -> impl Strategy<Value = DrawnLine> {
    let usable = match unit {
        1 => 2usize,
        4 => 3,
        _ => 4,
    };
    let one = (0..usable, 0..SIZE / 2 / unit, any::<bool>());
    let linear = (one.clone(), 1..20u64).prop_map(move |((disk, at, named), length)| {
        let (at, length) = (at * unit, length * unit);
        let path = name(disk, named);
        let dev = disks().0[disk].dev;
        let places = (0..length).map(|n| Goes::At(dev, at + n)).collect();
        DrawnLine { start: 0, length, kind: "linear", params: format!("{path} {at}"), places }
    });
    let striped = (prop::collection::vec(one, 1..6), 1..5u64, 1..5u64);
    let striped = striped.prop_map(move |(stripes, chunk, rows)| {
        let chunk = chunk * unit;
        let mut params = format!("{} {chunk}", stripes.len());
        for (disk, at, named) in &stripes {
            params += &format!(" {} {}", name(*disk, *named), at * unit);
        }
        let mut places = Vec::new();
        for row in 0..rows {
            for (disk, at, _) in &stripes {
                let first = at * unit + row * chunk;
                let dev = disks().0[*disk].dev;
                places.extend((first..first + chunk).map(|sector| Goes::At(dev, sector)));
            }
        }
        DrawnLine { start: 0, length: places.len() as u64, kind: "striped", params, places }
    });
    let flat = |kind, place| {
        (1..20u64).prop_map(move |length| {
            let length = length * unit;
            let places = vec![place; length as usize];
            DrawnLine { start: 0, length, kind, params: String::new(), places }
        })
    };
    prop_oneof![linear, striped, flat("zero", Goes::Zero), flat("error", Goes::Fail)]
}

fn name(disk: usize, named: bool) -> String {
    if named { format!("/dev/{disk}") } else { format!("{}", disks().0[disk].dev) }
}

/// Lines that make a table, in the order of their starts.
fn lines() -> impl Strategy<Value = Vec<DrawnLine>> {
    let lines = prop_oneof![Just(1u64), Just(4), Just(8)]
        .prop_flat_map(|unit| prop::collection::vec(line(unit), 1..7));
    lines.prop_map(|mut lines| {
        let mut end = 0;
        for line in &mut lines {
            line.start = end;
            end += line.length;
        }
        lines
    })
}

fn places(lines: &[DrawnLine]) -> Vec<Goes> {
    lines.iter().flat_map(|line| line.places.iter().copied()).collect()
}

fn build(disks: &Disks, lines: &[DrawnLine]) -> Result<Table<Disk>, TableError> {
    let mut builder = Builder::new(disks);
    for line in lines {
        builder.line(line.start, line.length, line.kind, &line.params)?;
    }
    builder.build()
}

/// The destinations of an I/O's sectors, as the table maps its pieces.
fn mapped(table: &Table<Disk>, start: u64, length: u64, write: bool) -> Vec<Goes> {
    let (mut at, mut left, mut places) = (start, length, Vec::new());
    while left > 0 {
        let Some(piece) = table.map(range(at, left), Op::rw(write)) else { break };
        let n = piece.length().0;
        assert!((1..=left).contains(&n), "{n} of {left}");
        match piece {
            Piece::Send(disk, to) => {
                places.extend(to.sectors().map(|s| Goes::At(disk.dev, s.0)));
            }
            Piece::Zero(_) => places.extend((0..n).map(|_| Goes::Zero)),
            Piece::Fail(_, errno) => {
                assert_eq!(errno, Errno::EIO);
                places.extend((0..n).map(|_| Goes::Fail));
            }
            Piece::Take(..) | Piece::Track(..) => panic!("none of these targets serves I/O"),
        }
        (at, left) = (at + n, left - n);
    }
    places
}

fn errno(result: Result<Table<Disk>, TableError>) -> Option<Errno> {
    result.err().map(|error| error.mistake.errno)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_sector_goes_where_the_model_says(lines in lines()) {
        let (table, model) = (build(&disks(), &lines).unwrap(), places(&lines));
        prop_assert_eq!(table.size().0, model.len() as u64);
        for (sector, place) in model.iter().enumerate() {
            for write in [false, true] {
                prop_assert_eq!(mapped(&table, sector as u64, 1, write), [*place]);
            }
        }
        prop_assert!(table.map(range(table.size().0, 1), Op::Read).is_none());
        prop_assert!(table.target(table.size()).is_none());
    }

    #[test]
    fn an_io_is_split_into_pieces_that_cover_it_exactly(
        lines in lines(),
        ios in prop::collection::vec((any::<Index>(), 1..200u64), 1..20),
    ) {
        let (table, model) = (build(&disks(), &lines).unwrap(), places(&lines));
        for (start, length) in ios {
            let start = start.index(model.len());
            let end = model.len().min(start + length as usize);
            // The caller has cut off sectors beyond the end.
            prop_assert_eq!(mapped(&table, start as u64, length, true), &model[start..end]);
        }
        prop_assert_eq!(mapped(&table, 0, u64::MAX, false), model);
    }

    #[test]
    fn a_table_tells_what_it_is_made_of(lines in lines()) {
        let table = build(&disks(), &lines).unwrap();
        let used: BTreeSet<Dev> = places(&lines).iter().filter_map(|place| match place {
            Goes::At(dev, _) => Some(*dev),
            _ => None,
        }).collect();
        let devs: BTreeSet<Dev> = table.devs().iter().copied().collect();
        prop_assert_eq!(table.devs().len(), devs.len(), "each once");
        prop_assert_eq!(&used, &devs);
        prop_assert_eq!(table.components().len(), devs.len());
        let sector = table.components().iter().map(Component::sector_size).max().unwrap_or(512);
        prop_assert_eq!(table.sector_size(), sector);
        prop_assert_eq!(table.len(), lines.len());
        for ((range, target), line) in table.lines().zip(&lines) {
            prop_assert_eq!((range.start.0, range.length.0), (line.start, line.length));
            prop_assert_eq!(target.kind().name, line.kind);
        }
    }

    #[test]
    fn what_table_prints_loads_the_same_table(lines in lines()) {
        let disks = disks();
        let table = build(&disks, &lines).unwrap();
        let printed = device::lines(&table);
        let mut builder = Builder::new(&disks);
        for line in &printed {
            builder.line(line.start, line.length, &line.kind, &line.params).unwrap();
        }
        let again = builder.build().unwrap();
        prop_assert_eq!(mapped(&again, 0, u64::MAX, false), places(&lines));
        let again = device::lines(&again);
        prop_assert_eq!(format!("{:?}", again), format!("{:?}", printed));
    }

    #[test]
    fn lines_may_come_in_any_order(
        (lines, shuffled) in lines().prop_flat_map(|lines| {
            (Just(lines.clone()), Just(lines).prop_shuffle())
        }),
    ) {
        let table = build(&disks(), &shuffled).unwrap();
        prop_assert_eq!(mapped(&table, 0, u64::MAX, false), places(&lines));
    }

    #[test]
    fn lines_that_leave_a_gap_overlap_or_miss_sector_0_are_einval(
        mut lines in lines(),
        which in any::<Index>(),
        by in 1..40u64,
        later in any::<bool>(),
    ) {
        let which = which.index(lines.len());
        let moved = &mut lines[which];
        match later {
            true => moved.start += by,
            false if moved.start >= by => moved.start -= by,
            // The line before cannot make room for the gap.
            false => return Err(TestCaseError::reject("nowhere to move it")),
        }
        let end = lines.iter().map(|line| line.start + line.length).max();
        let total: u64 = lines.iter().map(|line| line.length).sum();
        // Two lines of the same length may have changed places.
        let mut starts: Vec<_> = lines.iter().map(|line| (line.start, line.length)).collect();
        starts.sort_unstable();
        let good = starts.iter().try_fold(0, |end, (s, l)| (*s == end).then_some(s + l));
        prop_assume!(good.is_none() || end != Some(total));
        prop_assert_eq!(errno(build(&disks(), &lines)), Some(Errno::EINVAL));
    }

    #[test]
    fn a_length_of_0_or_one_that_wraps_is_einval(
        mut lines in lines(),
        which in any::<Index>(),
        length in prop_oneof![Just(0), u64::MAX - 1000..=u64::MAX, (1u64 << 54)..=(1 << 63)],
    ) {
        which.get_mut(&mut lines).length = length;
        let mut again = lines.clone();
        which.get_mut(&mut again).start = u64::MAX - 8;
        prop_assert_eq!(errno(build(&disks(), &lines)), Some(Errno::EINVAL));
        prop_assert_eq!(errno(build(&disks(), &again)), Some(Errno::EINVAL));
    }

    #[test]
    fn a_range_beyond_its_component_is_einval(
        disk in 0..4usize,
        (at, length) in (0..100u64, 1..100u64),
        huge in any::<u64>(),
    ) {
        // In units of 8, which every disk takes.
        let (at, length) = (at * 8, length * 8);
        let tried = |at: u64| {
            let params = format!("{} {at}", name(disk, true));
            build(&disks(), &[DrawnLine { start: 0, length, kind: "linear", params, places: vec![] }])
        };
        let expected = (at + length > SIZE).then_some(Errno::EINVAL);
        prop_assert_eq!(errno(tried(at)), expected);
        prop_assert_eq!(errno(tried(huge.max(SIZE))), Some(Errno::EINVAL));
    }

    #[test]
    fn a_range_that_cuts_a_sector_is_einval(
        (disk, sectors) in prop_oneof![Just((2usize, 4u64)), Just((3, 8))],
        (at, length) in (0..100u64, 1..100u64),
        chunk in 1..20u64,
    ) {
        let disks = disks();
        let whole = |n: u64| n.is_multiple_of(sectors);
        let params = format!("{} {at}", name(disk, true));
        let linear = DrawnLine { start: 0, length, kind: "linear", params, places: vec![] };
        let expected = (!whole(at) || !whole(length)).then_some(Errno::EINVAL);
        prop_assert_eq!(errno(build(&disks, &[linear])), expected);
        let params = format!("2 {chunk} /dev/0 {at} {} {at}", name(disk, true));
        let striped = DrawnLine { start: 0, length: 4 * chunk, kind: "striped", params, places: vec![] };
        let expected = (!whole(at) || !whole(chunk)).then_some(Errno::EINVAL);
        prop_assert_eq!(errno(build(&disks, &[striped])), expected);
    }

    #[test]
    fn extents_are_the_sectors_that_map_reaches_and_locate_finds_them(lines in lines()) {
        let table = build(&disks(), &lines).unwrap();
        for ((range, target), line) in table.lines().zip(&lines) {
            let mut reached = BTreeSet::new();
            target.extents(range.length, &mut |extent| {
                let dev = table.devs()[extent.component.0 as usize];
                reached.extend(extent.range().sectors().map(|sector| Goes::At(dev, sector.0)));
            });
            let model = line.places.iter().copied();
            let model: BTreeSet<_> = model.filter(|p| matches!(p, Goes::At(..))).collect();
            prop_assert_eq!(&reached, &model);
            let mut shown: BTreeMap<Goes, Vec<usize>> = BTreeMap::new();
            for (at, place) in line.places.iter().enumerate() {
                shown.entry(*place).or_default().push(at);
            }
            for (dev, component) in table.devs().iter().zip(0..) {
                for sector in 0..SIZE {
                    let mut found = Vec::new();
                    target.locate(ComponentIndex(component), Sector(sector), range.length, &mut |at| {
                        found.push(at.0 as usize);
                    });
                    found.sort_unstable();
                    let model = shown.remove(&Goes::At(*dev, sector)).unwrap_or_default();
                    prop_assert_eq!(found, model);
                }
            }
        }
    }

    #[test]
    fn hits_label_is_exact(
        lines in lines(),
        labels in prop::collection::vec(prop::option::of((0..SIZE, 0..20u64)), 4),
        ios in prop::collection::vec((any::<Index>(), 1..40u64), 20),
    ) {
        let mut disks = disks();
        for (disk, label) in disks.0.iter_mut().zip(&labels) {
            disk.guard = label.map(|(start, length)| {
                let (start, length) = (Sector(start), Sector(length));
                GuardedSectors { label: SectorRange { start, length }, first_safe: Sector(0) }
            });
        }
        let guarded = |place: &Goes| match place {
            Goes::At(dev, sector) => {
                let disk = disks.0.iter().find(|disk| disk.dev == *dev).and_then(|d| d.guard);
                disk.is_some_and(|guard| guard.label.sectors().any(|s| s.0 == *sector))
            }
            _ => false,
        };
        let (table, model) = (build(&disks, &lines).unwrap(), places(&lines));
        for (sector, place) in model.iter().enumerate() {
            prop_assert_eq!(table.hits_label(range(sector as u64, 1)), guarded(place));
        }
        for (start, length) in ios {
            let start = start.index(model.len());
            let end = model.len().min(start + length as usize);
            let hit = model[start..end].iter().any(guarded);
            prop_assert_eq!(table.hits_label(range(start as u64, length)), hit);
        }
    }

    #[test]
    fn any_text_at_all_makes_a_table_or_a_mistake(
        kind in prop_oneof![Just("linear"), Just("striped"), Just("zero"), Just("error")],
        words in prop::collection::vec(
            prop_oneof![
                Just(String::from("/dev/0")),
                Just(String::from("19:3")),
                any::<u64>().prop_map(|n| format!("{n}")),
                (0..20u64).prop_map(|n| format!("{n}")),
                ".*",
            ],
            0..8,
        ),
        (start, length) in (prop_oneof![Just(0), any::<u64>()], prop_oneof![0..40u64, any::<u64>()]),
    ) {
        let disks = disks();
        let mut builder = Builder::new(&disks);
        if builder.line(start, length, kind, &words.join(" ")).is_ok()
            && let Ok(table) = builder.build()
        {
            prop_assert_eq!((start, length), (0, table.size().0));
            let some = length.min(1000);
            prop_assert_eq!(mapped(&table, length - some, some, true).len() as u64, some);
        }
    }
}

#[test]
fn as_many_stripes_as_the_limit_map_as_the_model_says() {
    for (count, chunk) in [(1, 1), (127, 1), (limits::STRIPES as u64, 3)] {
        let mut params = format!("{count} {chunk}");
        let mut model = Vec::new();
        (0..count).for_each(|n| params += &format!(" /dev/{} {}", n % 2, n % 200));
        for row in 0..2 {
            for n in 0..count {
                let dev = disks().0[(n % 2) as usize].dev;
                let first = n % 200 + row * chunk;
                model.extend((first..first + chunk).map(|sector| Goes::At(dev, sector)));
            }
        }
        let length = model.len() as u64;
        let line = DrawnLine { start: 0, length, kind: "striped", params, places: vec![] };
        let table = build(&disks(), &[line]).unwrap();
        assert_eq!(mapped(&table, 0, length, false), model);
    }
}

#[test]
fn a_mistake_names_its_line_as_it_came() {
    let disks = disks();
    let mut builder = Builder::new(&disks);
    builder.line(8, 8, "zero", "").unwrap();
    let error = builder.line(0, 8, "linear", "/dev/0").unwrap_err();
    assert_eq!(format!("{error}"), "line 2: the offset is not a number of sectors");
    let mut builder = Builder::new(&disks);
    builder.line(16, 8, "zero", "").unwrap();
    builder.line(0, 8, "zero", "").unwrap();
    let error = builder.build().err().unwrap();
    assert_eq!((error.line, error.mistake.errno), (Some(0), Errno::EINVAL));
    assert_eq!(format!("{error}"), "line 1: there is a gap before the line: sectors 8 to 15");
    assert_eq!(
        format!("{}", Builder::new(&disks).build().err().unwrap()),
        "the table has no lines"
    );
}

#[test]
fn one_device_by_several_names_is_one_component() {
    let params = ["/dev/0 0", "19:3 8", "/dev/0 16"];
    let lines = (0..3).map(|n| DrawnLine {
        start: n * 8,
        length: 8,
        kind: "linear",
        params: params[n as usize].into(),
        places: vec![],
    });
    assert_eq!(build(&disks(), &lines.collect::<Vec<_>>()).unwrap().devs().len(), 1);
}
