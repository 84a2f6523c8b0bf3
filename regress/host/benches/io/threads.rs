// SPDX-License-Identifier: BSD-2-Clause

//! Linear devices against their component alone: reads by several threads at once.

use std::sync::{Arc, Barrier};
use std::time::Instant;

use dm_host::{Config, Dev, DiskSpec, Flags, Io, Machine, Node, Request};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::{BLOCK, Bed, SECTORS, dm_bench_measured, median};

const THREADS: [usize; 3] = [1, 2, 4];

/// Devices, and components: no fewer than threads.
const DEVICES: usize = 4;

/// Reads of a round, by all its threads together: some milliseconds, so that other load on the machine meets the
/// component and the devices alike.
const READS: usize = 80_000;
const ROUNDS: usize = 21;

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

/// Millions of reads a second of `threads` threads, each of which reads from its `devs` in turn.
fn rate(machine: &Machine, threads: usize, devs: &dyn Fn(usize) -> Vec<Dev>) -> f64 {
    let cpus = cpus();
    let together = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (together, devs) = (Arc::clone(&together), devs(thread));
            let cpu = cpus[thread % cpus.len()];
            machine.spawn(move || {
                stay_on(cpu);
                let mut io = Io::new(BLOCK);
                together.wait();
                let start = Instant::now();
                for dev in devs.iter().cycle().take(READS / threads) {
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

/// A machine's components, and its linear devices: as many on the first component, and one on each.
struct Devices {
    components: Vec<Dev>,
    on_one: Vec<Dev>,
    on_each: Vec<Dev>,
}

impl Devices {
    fn new(bed: &Bed, spec: fn(&str) -> DiskSpec) -> Devices {
        let on_one: Vec<_> = (0..DEVICES).map(|n| bed.linear(&format!("d{n}"), 1)).collect();
        let (mut components, mut on_each) = (vec![bed.component], vec![on_one[0]]);
        for n in 1..DEVICES {
            let disk = bed.machine.attach_disk(spec(&format!("wd{n}"))).expect("attaches");
            let params = format!("{} 0", disk.path());
            components.push(disk.dev());
            on_each.push(bed.device(&format!("e{n}"), &[(0, 64, "linear", params.as_str())]));
        }
        Devices { components, on_one, on_each }
    }

    /// The figures of a line of the table: the component's rate, and the shares of it that one device and all on it
    /// give; the rate of a component for each thread, and the share of it that a device on each gives. The
    /// measurements take turns, and the first changes from round to round.
    fn line(&self, machine: &Machine, threads: usize) -> [f64; 5] {
        let subjects: [&dyn Fn(usize) -> Vec<Dev>; 5] = [
            &|_| vec![self.components[0]],
            &|_| vec![self.on_one[0]],
            &|thread| [&self.on_one[thread..], &self.on_one[..thread]].concat(),
            &|thread| vec![self.components[thread]],
            &|thread| vec![self.on_each[thread]],
        ];
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|round| {
                let mut rates = [0.0; 5];
                for turn in 0..rates.len() {
                    let which = (round + turn) % rates.len();
                    rates[which] = rate(machine, threads, subjects[which]);
                }
                rates
            })
            .collect();
        let of = |which: fn(&[f64; 5]) -> f64| median(rounds.iter().map(which).collect());
        [of(|r| r[0]), of(|r| r[1] / r[0]), of(|r| r[2] / r[0]), of(|r| r[3]), of(|r| r[4] / r[3])]
    }
}

/// Prints the table: medians of rounds.
pub fn measure() {
    println!(
        "threads that read 4 KiB, on {} CPUs (more threads than these share them): reads a second of the component \
         alone, in millions, and the shares of it that one linear device gives and {DEVICES} give, which each thread \
         reads in turn; then with a component for each thread, and a device on it",
        cpus().len()
    );
    println!(
        "component  threads  alone  1 device  {DEVICES} devices  alone, each its own  a device on each"
    );
    let null: fn(&str) -> DiskSpec = |name| DiskSpec::null(name, SECTORS);
    let memory: fn(&str) -> DiskSpec = |name| DiskSpec::memory(name, SECTORS);
    for (kind, spec) in [("null", null), ("memory", memory)] {
        // The hosted kernel has as many CPUs as threads: each counts its I/O where no other does.
        let bed = Bed::with(Config { ncpu: DEVICES, ..Config::bench() }, spec("wd0"));
        let devices = Devices::new(&bed, spec);
        let open =
            |dev: &Dev| bed.machine.open(Node::Block(*dev), Flags::READ_WRITE).expect("opens");
        let held: Vec<_> = devices.on_one.iter().chain(&devices.on_each[1..]).map(open).collect();
        for threads in THREADS {
            let [alone, one, all, own, each] = devices.line(&bed.machine, threads);
            println!(
                "{kind:9}  {threads:7}  {alone:5.2}  {one:8.2}  {all:9.2}  {own:19.2}  {each:16.2}"
            );
        }
        drop(held);
    }
}
