// SPDX-License-Identifier: BSD-2-Clause

//! Limits of the work and memory that a header may ask for.

use crate::Error;

/// The work and memory that a header may cost for one keyslot. A header has at most 32 keyslots that are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// HMACs that PBKDF2 computes for one key: iterations times the blocks of its output.
    pub pbkdf2_rounds: u64,
    /// Memory for argon2, in KiB.
    pub argon2_kib: u32,
    /// KiB of memory that argon2 fills: its memory times its passes.
    pub argon2_work_kib: u64,
    /// Lanes of argon2, each of which may be a thread.
    pub argon2_lanes: u32,
}

impl Default for Limits {
    /// 400 million rounds of PBKDF2; 1 GiB of memory for argon2, which is the most that cryptsetup takes
    /// of itself, 64 GiB of it filled, in 64 lanes. A machine of 2026 takes a minute or two for each.
    fn default() -> Limits {
        Limits {
            pbkdf2_rounds: 400_000_000,
            argon2_kib: 1 << 20,
            argon2_work_kib: 64 << 20,
            argon2_lanes: 64,
        }
    }
}

impl Limits {
    pub(crate) fn pbkdf2(&self, iterations: u32, out: usize, block: usize) -> Result<(), Error> {
        let blocks = out.div_ceil(block.max(1)) as u64;
        let rounds = u64::from(iterations).saturating_mul(blocks);
        if rounds <= self.pbkdf2_rounds {
            return Ok(());
        }
        Err(Error::Costly(format!(
            "it wants {rounds} rounds of PBKDF2, and {} are allowed",
            self.pbkdf2_rounds
        )))
    }

    pub(crate) fn argon2(&self, time: u32, kib: u32, lanes: u32) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Costly(what));
        if kib > self.argon2_kib {
            let allowed = self.argon2_kib;
            return refuse(format!("it wants {kib} KiB for argon2, and {allowed} are allowed"));
        }
        if lanes > self.argon2_lanes {
            let allowed = self.argon2_lanes;
            return refuse(format!("it wants {lanes} lanes of argon2, and {allowed} are allowed"));
        }
        let work = u64::from(kib).saturating_mul(u64::from(time));
        if work > self.argon2_work_kib {
            let allowed = self.argon2_work_kib;
            return refuse(format!(
                "it wants {time} passes of argon2 over {kib} KiB, and {allowed} KiB in all are allowed"
            ));
        }
        Ok(())
    }
}
