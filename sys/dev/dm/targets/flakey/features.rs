// SPDX-License-Identifier: BSD-2-Clause

//! The features of a flakey line: its conduct while it is bad.

use core::fmt;

use crate::Errno;
use crate::job::{Job, Op};
use crate::mistake::Mistake;
use crate::target::Words;

/// The words of all features together, and one more.
const WORDS: u64 = 11;

/// Chances are out of so many.
const CERTAIN: u32 = 1_000_000_000;

/// The flags of a write, and of one that must be on stable storage, as Linux has them:
/// corrupt_bio_byte may ask for both. No I/O here has any of Linux's other flags.
const WRITE_FLAG: u32 = 1;
const FUA_FLAG: u32 = 1 << 17;

/// The features of a line. Without any, all I/O fails.
#[derive(Clone, Copy, Default)]
pub(super) struct Features {
    pub(super) drop_writes: bool,
    error_reads: bool,
    error_writes: bool,
    corrupt: Option<Corrupt>,
    /// The chance that a read has a byte changed, out of [`CERTAIN`].
    random_reads: u32,
    random_writes: u32,
}

/// `corrupt_bio_byte`: one byte of each I/O that is long enough.
#[derive(Clone, Copy)]
struct Corrupt {
    /// Counted from 1.
    byte: u32,
    writes: bool,
    value: u8,
    /// Flags that the I/O must have.
    flags: u32,
}

/// A byte of an I/O's data that is to be another.
#[derive(Clone, Copy)]
pub(super) struct Change {
    /// Counted from 0.
    pub(super) at: usize,
    value: u8,
}

impl Change {
    /// Changes the byte in data that begins with byte `first`, if it is there.
    pub(super) fn apply(self, data: &mut [u8], first: usize) {
        if let Some(byte) = self.at.checked_sub(first).and_then(|at| data.get_mut(at)) {
            *byte = self.value;
        }
    }
}

impl Features {
    /// Reads `[COUNT WORD…]`. Further words are ignored, as by Linux.
    pub(super) fn new(params: &mut Words<'_>) -> Result<Features, Mistake> {
        let invalid = |why| Mistake::new(Errno::EINVAL, why);
        let mut features = Features::default();
        if params.left() == 0 {
            return Ok(features);
        }
        let wrong = "the number of feature words is wrong";
        let count = params.number(wrong)?;
        if count > WORDS || count > params.left() as u64 {
            return Err(invalid(wrong).about(format_args!("{count}")));
        }
        // The number of words behind the features.
        let rest = params.left().saturating_sub(count as usize);
        while params.left() > rest {
            let words = params.left().saturating_sub(rest);
            let name = params.word(wrong)?;
            let is = |feature: &str| name.eq_ignore_ascii_case(feature);
            let twice = match () {
                () if is("error_reads") => core::mem::replace(&mut features.error_reads, true),
                () if is("error_writes") => core::mem::replace(&mut features.error_writes, true),
                () if is("drop_writes") => core::mem::replace(&mut features.drop_writes, true),
                () if is("corrupt_bio_byte") && words >= 5 => {
                    features.corrupt.replace(Corrupt::new(params)?).is_some()
                }
                () if is("random_read_corrupt") && words >= 2 => {
                    core::mem::replace(&mut features.random_reads, chance(params)?) > 0
                }
                () if is("random_write_corrupt") && words >= 2 => {
                    core::mem::replace(&mut features.random_writes, chance(params)?) > 0
                }
                () => return Err(invalid("there is no such feature, or its words are missing")),
            };
            if twice {
                return Err(invalid("a feature is there twice"));
            }
        }
        let changes_writes = features.change_writes();
        if features.drop_writes && features.error_writes {
            return Err(invalid("writes cannot both fail and be dropped"));
        } else if changes_writes && (features.drop_writes || features.error_writes) {
            return Err(invalid("writes that fail or are dropped cannot be changed"));
        } else if features.error_reads && features.change_reads() {
            return Err(invalid("reads that fail cannot be changed"));
        }
        Ok(features)
    }

    fn any(&self) -> bool {
        self.drop_writes || self.error_reads || self.error_writes || self.change()
    }

    fn change(&self) -> bool {
        self.corrupt.is_some() || self.random_reads > 0 || self.random_writes > 0
    }

    pub(super) fn fail_reads(&self) -> bool {
        self.error_reads || !self.any()
    }

    pub(super) fn fail_writes(&self) -> bool {
        self.error_writes || !self.any()
    }

    /// `true` if reads' data may change.
    pub(super) fn change_reads(&self) -> bool {
        self.random_reads > 0 || self.corrupt.is_some_and(|corrupt| !corrupt.writes)
    }

    /// `true` if writes' data may change.
    pub(super) fn change_writes(&self) -> bool {
        self.random_writes > 0 || self.corrupt.is_some_and(|corrupt| corrupt.writes)
    }

    /// The bytes of a job with so many bytes that are to change.
    pub(super) fn changes(
        &self,
        job: &Job,
        bytes: usize,
        mut random: impl FnMut() -> u64,
    ) -> [Option<Change>; 2] {
        let (flags, chance) = match job.op() {
            Op::Read => (0, self.random_reads),
            Op::Write => (WRITE_FLAG | if job.fua() { FUA_FLAG } else { 0 }, self.random_writes),
            Op::Flush | Op::Discard => return [None; 2],
        };
        let corrupt = self.corrupt.filter(|corrupt| {
            corrupt.writes == job.is_write() && corrupt.flags & flags == corrupt.flags
        });
        let fixed = corrupt.map(|corrupt| Change {
            at: (corrupt.byte as usize).saturating_sub(1),
            value: corrupt.value,
        });
        let mut by_chance = None;
        if chance > 0 && random() % u64::from(CERTAIN) < u64::from(chance) {
            let at = random().checked_rem(bytes as u64).unwrap_or(0) as usize;
            by_chance = Some(Change { at, value: random() as u8 });
        }
        [fixed.filter(|change| change.at < bytes), by_chance]
    }
}

fn chance(params: &mut Words<'_>) -> Result<u32, Mistake> {
    let wrong = "a chance is a number from 0 to 1000000000";
    let chance = params.small_number(wrong)?;
    if chance > CERTAIN {
        return Err(Mistake::new(Errno::EINVAL, wrong).about(format_args!("{chance}")));
    }
    Ok(chance)
}

impl Corrupt {
    /// Reads `BYTE r|w VALUE FLAGS`.
    fn new(params: &mut Words<'_>) -> Result<Corrupt, Mistake> {
        let invalid = |why| Mistake::new(Errno::EINVAL, why);
        let wrong = "the byte to change is a number from 1";
        let byte = params.small_number(wrong)?;
        if byte == 0 {
            return Err(invalid(wrong));
        }
        let wrong = "bytes are changed in r or w";
        let direction = params.word(wrong)?;
        let writes = match () {
            () if direction.eq_ignore_ascii_case("r") => false,
            () if direction.eq_ignore_ascii_case("w") => true,
            () => return Err(invalid(wrong)),
        };
        let wrong = "a byte's value is a number from 0 to 255";
        let value = u8::try_from(params.small_number(wrong)?).map_err(|_| invalid(wrong))?;
        let flags = params.small_number("the flags are no number below 2^32")?;
        Ok(Corrupt { byte, writes, value, flags })
    }
}

/// The features as Linux prints them, with a space behind each word.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.error_reads, 1u32),
            (self.drop_writes, 1),
            (self.error_writes, 1),
            (self.corrupt.is_some(), 5),
            (self.random_reads > 0, 2),
            (self.random_writes > 0, 2),
        ];
        let count: u32 = words.iter().filter(|(there, _)| *there).map(|(_, count)| count).sum();
        write!(f, "{count} ")?;
        for (there, name) in [
            (self.error_reads, "error_reads "),
            (self.drop_writes, "drop_writes "),
            (self.error_writes, "error_writes "),
        ] {
            f.write_str(if there { name } else { "" })?;
        }
        if let Some(Corrupt { byte, writes, value, flags }) = self.corrupt {
            let direction = if writes { 'w' } else { 'r' };
            write!(f, "corrupt_bio_byte {byte} {direction} {value} {flags} ")?;
        }
        for (chance, name) in [
            (self.random_reads, "random_read_corrupt"),
            (self.random_writes, "random_write_corrupt"),
        ] {
            if chance > 0 {
                write!(f, "{name} {chance} ")?;
            }
        }
        Ok(())
    }
}
