// SPDX-License-Identifier: BSD-2-Clause

//! Runs scripts of device-mapper commands and I/O twice, on Linux in a QEMU guest and on this repository's driver in
//! a process, and compares the answers and the disks afterwards.
//!
//! `cargo xtask linux` makes the guest and calls it; `share/doc/linux-judge.md` describes both.

mod guest;
mod hosted;
mod judge;
mod replay;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Compares Linux's device mapper with this driver.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run scripts on both and compare
    Run(judge::Options),
    /// Measure Linux in a guest that counts instructions
    Bench {
        /// The guest's folder: its kernel and initramfs
        #[arg(long)]
        guest: PathBuf,
        /// The folder for the guest's console
        #[arg(long)]
        work: PathBuf,
    },
    /// Carry out a job on this driver (what `run` calls for each stage)
    Hosted {
        /// The job's folder
        job: PathBuf,
        /// An empty folder for the images in use
        work: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Run(options) => judge::main(&options),
        What::Bench { guest, work } => guest::bench(&guest, &work).map(|text| {
            print!("{text}");
            true
        }),
        What::Hosted { job, work } => judge::hosted(&job, &work).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("dm-compare: {why}");
            ExitCode::FAILURE
        }
    }
}
