// SPDX-License-Identifier: BSD-2-Clause

//! `unstriped COUNT CHUNK INDEX DEV OFFSET`: one stripe of what `striped` dealt out over one
//! component: the other way round.

use core::fmt;
use core::num::NonZeroU64;

use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType,
};
use crate::{Errno, Sector};

/// The target type `unstriped`.
pub static TYPE: TargetType = TargetType { name: "unstriped", version: [1, 1, 0], new };

struct Unstriped {
    component: ComponentIndex,
    offset: Sector,
    /// Sectors that lie together.
    chunk: NonZeroU64,
    /// The number of stripes.
    count: NonZeroU64,
    /// The stripe that the line shows, counted from 0.
    index: u64,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let invalid = |why| Mistake::new(Errno::EINVAL, why);
    let count = line.params.small_number("the number of stripes is no number below 2^32")?;
    let count = NonZeroU64::new(u64::from(count)).ok_or(invalid("there must be a stripe"))?;
    let chunk = line.params.small_number("the chunk is not a number of sectors below 2^32")?;
    let chunk = NonZeroU64::new(u64::from(chunk)).ok_or(invalid("a chunk must have a sector"))?;
    let index = line.params.small_number("the stripe's index is no number below 2^32")?;
    let index = u64::from(index);
    if index >= count.get() {
        return Err(invalid("there is no stripe with this index")
            .about(format_args!("{index}, of {count} that count from 0")));
    }
    let path = line.params.path()?;
    let offset = Sector(line.params.number("the offset is not a number of sectors")?);
    line.params.end()?;
    if !line.length.0.is_multiple_of(chunk.get()) {
        return Err(invalid("the length is not whole chunks")
            .about(format_args!("{} sectors in chunks of {chunk}", line.length)));
    }
    // From the offset to the end of the stripe's last chunk.
    let rows_before = (line.length.0 / chunk).saturating_sub(1);
    let before = rows_before.checked_mul(count.get()).and_then(|n| n.checked_add(index));
    let reach = before.and_then(|n| n.checked_add(1)?.checked_mul(chunk.get()));
    let reach = reach.ok_or(invalid("the range ends beyond its component"))?;
    let component = line.component(path, offset, Sector(reach))?;
    line.aligned(component, Sector(chunk.get()))?;
    Ok(Made::maps(Unstriped { component, offset, chunk, count, index }))
}

impl Target for Unstriped {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        let (row, within) = (io.start.0 / self.chunk, io.start.0 % self.chunk);
        let length = Sector(io.length.0.min(self.chunk.get().wrapping_sub(within)));
        // Nothing can wrap: the line's last sector was checked against the component's end.
        let chunks = row.wrapping_mul(self.count.get()).wrapping_add(self.index);
        let start = chunks.wrapping_mul(self.chunk.get()).wrapping_add(within);
        let start = Sector(self.offset.0.wrapping_add(start));
        Mapping::Send { component: self.component, start, length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let Unstriped { component, offset, chunk, count, index } = self;
        write!(out, "{count} {chunk} {index} {} {offset}", devs.get(*component))
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        // One stretch from the first chunk to the last: what lies between belongs to others, and
        // `locate` tells them apart.
        let skip = self.index.wrapping_mul(self.chunk.get());
        let rows_before = (length.0 / self.chunk).saturating_sub(1);
        let rows = rows_before.wrapping_mul(self.count.get()).wrapping_mul(self.chunk.get());
        each(Extent {
            component: self.component,
            start: Sector(self.offset.0.wrapping_add(skip)),
            length: Sector(rows.wrapping_add(self.chunk.get())),
        });
    }

    fn locate(
        &self,
        component: ComponentIndex,
        sector: Sector,
        length: Sector,
        each: &mut dyn FnMut(Sector),
    ) {
        let there = sector.checked_sub(self.offset).filter(|_| component == self.component);
        let at = there.and_then(|Sector(there)| {
            let (number, within) = (there / self.chunk, there % self.chunk);
            let (row, stripe) = (number / self.count, number % self.count);
            (stripe == self.index).then(|| {
                // Smaller than `there`.
                Sector(row.wrapping_mul(self.chunk.get()).wrapping_add(within))
            })
        });
        if let Some(at) = at.filter(|at| *at < length) {
            each(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use crate::Errno;
    use crate::job::Op;
    use crate::table::{Builder, Piece, Table};
    use crate::targets::tests::Disks;
    use crate::testing::{Disk, range};

    fn table(length: u64, params: &str) -> Result<Table<Disk>, Errno> {
        let mut builder = Builder::new(&Disks);
        builder.line(0, length, "unstriped", params).map_err(|e| e.mistake.errno)?;
        builder.build().map_err(|e| e.mistake.errno)
    }

    /// The sector of the component that each sector of a table lies at.
    fn places(table: &Table<Disk>) -> Vec<u64> {
        let place = |at| match table.map(range(at, 1), Op::Read) {
            Some(Piece::Send(_, to)) => to.start.0,
            _ => panic!("sector {at} lies nowhere"),
        };
        (0..table.size().0).map(place).collect()
    }

    #[test]
    fn the_stripes_of_a_striped_line_come_back_one_by_one() {
        // The sectors of a striped device, by the order in which they lie on it.
        for (count, chunk, rows) in [(1u64, 8u64, 5u64), (2, 8, 4), (3, 7, 9), (5, 1, 20)] {
            for index in 0..count {
                let params = alloc::format!("{count} {chunk} {index} /dev/a 3");
                let got = places(&table(chunk * rows, &params).unwrap());
                let all = 0..count * chunk * rows;
                let mine = all.filter(|at| at / chunk % count == index).map(|at| at + 3);
                assert_eq!(got, mine.collect::<Vec<_>>(), "{params}");
            }
        }
    }

    #[test]
    fn the_last_chunk_must_lie_on_the_component() {
        // 1000 sectors: 62 rows of 2 * 8, and one more chunk.
        assert!(table(63 * 8, "2 8 0 /dev/a 0").is_ok());
        assert_eq!(table(63 * 8, "2 8 1 /dev/a 0").err(), Some(Errno::EINVAL));
        assert!(table(62 * 8, "2 8 1 /dev/a 0").is_ok());
        assert!(table(62 * 8, "2 8 1 /dev/a 8").is_ok());
        assert_eq!(table(62 * 8, "2 8 1 /dev/a 9").err(), Some(Errno::EINVAL));
        assert_eq!(table(4, "2 8 1 /dev/a 0").err(), Some(Errno::EINVAL));
        let huge = "4294967295 4294967295 4294967294 /dev/a 0";
        assert_eq!(table(4_294_967_295, huge).err(), Some(Errno::EINVAL));
        assert_eq!(table(4_294_967_295 << 20, huge).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn there_is_a_stripe_with_the_index() {
        for wrong in ["2 8 2 /dev/a 0", "1 8 1 /dev/a 0", "0 8 0 /dev/a 0", "2 0 0 /dev/a 0"] {
            assert_eq!(table(8, wrong).err(), Some(Errno::EINVAL), "{wrong}");
        }
    }
}
