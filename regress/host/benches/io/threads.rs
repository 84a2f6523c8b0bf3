// SPDX-License-Identifier: BSD-2-Clause

//! What linear devices give to several threads at once, of what their component alone gives to as many.

use std::sync::{Arc, Barrier};
use std::time::Instant;

use dm_host::{Config, Dev, DiskSpec, Flags, Io, Machine, Node, Request};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::{BLOCK, Bed, SECTORS, dm_bench_measured, median};

const THREADS: [usize; 3] = [1, 2, 4];
const DEVICES: usize = 4;

/// Reads of a round, of all its threads together: some milliseconds, so that whatever else the machine does meets the
/// component and the devices alike.
const READS: usize = 80_000;
const ROUNDS: usize = 31;

/// CPUs that this process may run on.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("a process has CPUs");
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// Keeps the calling thread on one CPU: a round is too short for the scheduler to spread its threads.
fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &set).expect("one of the process's CPUs");
}

/// Millions of reads a second of `threads` threads, each of which reads from all `devs` in turn.
fn rate(machine: &Machine, devs: &[Dev], threads: usize) -> f64 {
    let cpus = cpus();
    let together = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (together, devs) = (Arc::clone(&together), devs.to_vec());
            let cpu = cpus[thread % cpus.len()];
            machine.spawn(move || {
                stay_on(cpu);
                let mut io = Io::new(BLOCK);
                together.wait();
                let start = Instant::now();
                for dev in devs.iter().cycle().skip(thread).take(READS / threads) {
                    dm_bench_measured(&raw mut io, *dev, &Request::read(0), 1);
                }
                (start, Instant::now())
            })
        })
        .collect();
    let times: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
    let start = times.iter().map(|time| time.0).min().expect("a thread");
    let end = times.iter().map(|time| time.1).max().expect("a thread");
    (READS / threads * threads) as f64 / 1e6 / (end - start).as_secs_f64()
}

/// A line of the table: the component's rate, and the shares of one device and of all. They take turns, and who is
/// first changes from round to round.
fn line(machine: &Machine, component: Dev, devs: &[Dev], threads: usize) -> [f64; 3] {
    let subjects = [&[component], &devs[..1], devs];
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let mut rates = [0.0; 3];
            for turn in 0..3 {
                let which = (round + turn) % 3;
                rates[which] = rate(machine, subjects[which], threads);
            }
            rates
        })
        .collect();
    let of = |which: fn(&[f64; 3]) -> f64| median(rounds.iter().map(which).collect());
    [of(|r| r[0]), of(|r| r[1] / r[0]), of(|r| r[2] / r[0])]
}

/// Prints the table: medians of rounds.
pub fn measure() {
    println!(
        "threads that read 4 KiB, on {} CPUs (more threads than these share them): reads a second of the component \
         alone, in millions; the shares of it that one linear device gives, and that {DEVICES} give, which each thread \
         reads in turn",
        cpus().len()
    );
    println!("component  threads  alone  1 device  {DEVICES} devices");
    for (kind, spec) in
        [("null", DiskSpec::null("wd0", SECTORS)), ("memory", DiskSpec::memory("wd0", SECTORS))]
    {
        // The hosted kernel has as many CPUs as threads: each counts its I/O where no other does.
        let bed = Bed::with(Config { ncpu: THREADS[2], ..Config::bench() }, spec);
        let devs: Vec<_> = (0..DEVICES).map(|n| bed.linear(&format!("d{n}"), 1)).collect();
        let open =
            |dev: &Dev| bed.machine.open(Node::Block(*dev), Flags::READ_WRITE).expect("opens");
        let held: Vec<_> = devs.iter().map(open).collect();
        for threads in THREADS {
            let [alone, one, all] = line(&bed.machine, bed.component, &devs, threads);
            println!("{kind:9}  {threads:7}  {alone:5.2}  {one:8.2}  {all:9.2}");
        }
        drop(held);
    }
}
