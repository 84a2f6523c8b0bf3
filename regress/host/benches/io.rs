// SPDX-License-Identifier: BSD-2-Clause

//! The cost of the driver, as ratios within one run, and in instructions.
//!
//! `cargo xtask bench` runs it. Times are medians of interleaved rounds; instructions are counted
//! by running this program again under callgrind, and do not depend on how busy the machine is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dm_core::testing::{Disk as FakeDisk, Fake, Request as Plist, kernel};
use dm_host::{
    Completion, Config, Dev, DiskSpec, File, Flags, Io, Machine, Node, Request, makedev,
};

#[path = "io/crypt.rs"]
mod crypt;
#[path = "io/recovery.rs"]
mod recovery;
#[path = "io/threads.rs"]
mod threads;
#[path = "io/verity.rs"]
mod verity;

const BLOCK: usize = 4096;

/// Memory in whole pages, as kmem(9) gives it where a page is asked for, or more; in large ones where it is as large as
/// those, which a disk in memory is. A copy between two buffers that lie otherwise takes up to twice as long.
struct Pages;

/// Bytes of a large page.
const LARGE: usize = 2 << 20;

impl Pages {
    fn layout(layout: Layout) -> Layout {
        let align = match layout.size() {
            LARGE.. => LARGE,
            BLOCK.. => BLOCK,
            _ => 1,
        };
        layout.align_to(align).unwrap_or(layout)
    }
}

// SAFETY: the system's allocator, asked for no less than the caller asks for, and the same each time for one block.
unsafe impl GlobalAlloc for Pages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let at = unsafe { System.alloc(Pages::layout(layout)) };
        if layout.size() >= LARGE && !at.is_null() {
            // SAFETY: the block is whole pages at its start, and what it says of them is advice. A system that has
            // no large pages refuses.
            unsafe { libc::madvise(at.cast(), layout.size() & !(LARGE - 1), libc::MADV_HUGEPAGE) };
        }
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, Pages::layout(layout)) }
    }
}

#[global_allocator]
static ALLOCATOR: Pages = Pages;

/// Sectors of a component that has data.
const SECTORS: u64 = 2048;

/// A machine with a component that completes at once, and devices on it.
struct Bed {
    // Closed before the machine goes.
    control: File,
    path: String,
    component: Dev,
    machine: Machine,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.send(&Plist::new("remove_all"));
    }
}

impl Bed {
    fn new() -> Bed {
        Bed::on(DiskSpec::null("wd0", 1 << 32))
    }

    fn on(spec: DiskSpec) -> Bed {
        Bed::with(Config::bench(), spec)
    }

    fn with(config: Config, spec: DiskSpec) -> Bed {
        let machine = Machine::boot(config).expect("boots");
        let disk = machine.attach_disk(spec).expect("attaches");
        let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).expect("opens");
        let (path, component) = (disk.path(), disk.dev());
        Bed { control, path, component, machine }
    }

    fn send(&self, request: &Plist) -> dm_core::testing::Dict {
        let reply = self.control.plist_ioctl(&request.dict().print()).expect("the driver agrees");
        dm_core::testing::Dict::parse(&reply).expect("a reply is a dictionary")
    }

    /// A device with these lines, made through the ioctl as a tool would.
    fn device(&self, name: &str, lines: &[(u64, u64, &str, &str)]) -> Dev {
        self.device_with(name, lines, 0)
    }

    /// Makes a device as [`Bed::device`] does, with flags for the last request.
    fn device_with(&self, name: &str, lines: &[(u64, u64, &str, &str)], flags: u32) -> Dev {
        let minor = self.send(&Plist::on("create", name)).number("minor").expect("a minor");
        // The kernel takes 64 KiB in a request, before NetBSD 11.
        let (last, first) = lines.split_last().expect("a line");
        for part in first.chunks(250) {
            self.send(&Plist::on("reload", name).lines(part).flags(1 << 30));
        }
        self.send(&Plist::on("reload", name).lines(&[*last]).flags(flags));
        self.send(&Plist::on("resume", name));
        makedev(169, u32::try_from(minor).expect("a minor"))
    }

    fn linear(&self, name: &str, count: u64) -> Dev {
        let params: Vec<_> = (0..count).map(|i| format!("{} {}", self.path, i * 64)).collect();
        let lines: Vec<_> =
            (0u64..).zip(&params).map(|(i, p)| (i * 64, 64, "linear", p.as_str())).collect();
        self.device(name, &lines)
    }

    /// A machine for the case of this name, the device to read from, files that stay open meanwhile, and the request.
    fn case(name: &str) -> (Bed, Dev, Vec<File>, Request) {
        let (name, kind) = name.split_once(" on ").unwrap_or((name, "null"));
        let bed = match kind {
            "memory" => Bed::on(DiskSpec::memory("wd0", SECTORS)),
            "file" => {
                let mut file = tempfile::NamedTempFile::new().expect("makes a file");
                file.write_all(&vec![0; SECTORS as usize * 512]).expect("writes");
                // Without its name it stays as long as it is open.
                Bed::on(DiskSpec::file("wd0", file.path(), false).expect("opens"))
            }
            "thread" => Bed::on(DiskSpec::null("wd0", 1 << 32).completion(Completion::Thread)),
            _ => Bed::new(),
        };
        let (dev, at) = match name {
            "component" | "component, write" => (bed.component, 0),
            // Both legs on one component, and nothing to copy. The write's region is marked by the first.
            "mirror" | "mirror, write" => {
                let params = format!("core 2 1024 nosync 2 {0} 0 {0} 1048576", bed.path);
                (bed.device("a", &[(0, 65_536, "mirror", params.as_str())]), 0)
            }
            "snapshot"
            | "snapshot, copied"
            | "snapshot, copied, write"
            | "origin, copied, write" => {
                let store = bed.machine.attach_disk(DiskSpec::null("wd1", 1 << 20));
                let store = store.expect("attaches").path();
                let origin = bed.device("o", &[(0, 65_536, "snapshot-origin", &bed.path)]);
                let params = format!("{} {store} P 8", bed.path);
                let snapshot = bed.device("s", &[(0, 65_536, "snapshot", params.as_str())]);
                if name != "snapshot" {
                    assert!(Io::new(BLOCK).run(snapshot, Request::write(0)).is_complete(BLOCK));
                }
                (if name.starts_with("origin") { origin } else { snapshot }, 0)
            }
            // Bad all the time, and the byte that it changes is behind the read's end: each read is a job
            // that a lane sends on as it is, and ends.
            "job" => {
                let params = format!("{} 0 0 1 5 corrupt_bio_byte 65536 r 1 0", bed.path);
                (bed.device("a", &[(0, 65_536, "flakey", params.as_str())]), 0)
            }
            "linear" => (bed.linear("a", 1), 0),
            "10,000 lines" => (bed.linear("a", 10_000), 5_000 * 64),
            "last of 1,000" => {
                for n in 1..1000 {
                    bed.linear(&format!("d{n}"), 1);
                }
                (bed.linear("last", 1), 0)
            }
            "striped" | "striped, across" => {
                let params = format!("2 16 {0} 0 {0} 1048576", bed.path);
                let at = if name == "striped" { 0 } else { 12 };
                (bed.device("a", &[(0, 65_536, "striped", params.as_str())]), at)
            }
            "zero" => (bed.device("a", &[(0, 65_536, "zero", "")]), 0),
            "stacked" => {
                bed.linear("a", 1);
                let params = "169:1 0";
                (bed.device("b", &[(0, 64, "linear", params)]), 0)
            }
            other => panic!("no case {other}"),
        };
        // A device is open while there is I/O to it.
        let flags = Flags::READ_WRITE;
        let node = Node::Block(dev);
        let open = (dev != bed.component).then(|| bed.machine.open(node, flags).expect("opens"));
        let component = Node::Block(bed.component);
        let held = match open {
            Some(open) => vec![open],
            None => vec![bed.machine.open(component, flags).expect("opens")],
        };
        let write = name.ends_with(", write");
        (bed, dev, held, if write { Request::write(at) } else { Request::read(at) })
    }
}

/// The part that callgrind counts: its name is the command line's `--toggle-collect`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dm_bench_measured(io: *mut Io, dev: Dev, request: &Request, rounds: usize) {
    // SAFETY: the callers hand over an Io that they do not use meanwhile.
    let io = unsafe { &mut *io };
    for _ in 0..rounds {
        black_box(io.run(dev, *request));
    }
}

const CASES: &[&str] = &[
    "component",
    "linear",
    "10,000 lines",
    "last of 1,000",
    "striped",
    "striped, across",
    "zero",
    "stacked",
    "mirror",
    "component, write",
    "mirror, write",
    "snapshot",
    "snapshot, copied",
    "snapshot, copied, write",
    "origin, copied, write",
];

/// Counts the instructions of one read, with the caches, pools and tables warm.
fn instructions(case: &str) -> Option<f64> {
    const ROUNDS: usize = 1000;
    let program = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=dm_bench_measured"])
        .arg(program)
        .args(["--count", case, &ROUNDS.to_string()])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    let count: f64 = line.rsplit(' ').next()?.parse().ok()?;
    output.status.success().then_some(count / ROUNDS as f64)
}

/// Counts the instructions of one read in all threads: what more reads cost more. The slow ways through a mutex are
/// left out, where a thread spins and sleeps until another lets go of it: they depend on when the host switches
/// threads.
fn instructions_of_all(case: &str) -> Option<f64> {
    const WAITING: [&str; 3] = ["lock_contended", "mutex::enter_slowly", "mutex::exit_slowly"];
    let count = |rounds: usize| -> Option<f64> {
        let file = tempfile::NamedTempFile::new().ok()?;
        let counted = Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", file.path().display()))
            .arg(std::env::current_exe().ok()?)
            .args(["--count", case, &rounds.to_string()])
            .stdin(Stdio::null())
            .output();
        let listed =
            Command::new("callgrind_annotate").arg("--threshold=100").arg(file.path()).output();
        let (counted, listed) = (counted.ok()?, listed.ok()?);
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        // A line each for all and for every function: "1,234 (56.78%)  file:name [object]".
        let number = |line: &str| -> Option<f64> {
            line.split_whitespace().next()?.replace(',', "").parse().ok()
        };
        let all = text.lines().find(|line| line.contains("PROGRAM TOTALS")).and_then(number)?;
        let waits = |line: &&str| WAITING.iter().any(|name| line.contains(name));
        let waiting: f64 = text.lines().filter(waits).filter_map(number).sum();
        (counted.status.success() && listed.status.success()).then_some(all - waiting)
    };
    const ROUNDS: usize = 1000;
    Some((count(2 * ROUNDS)? - count(ROUNDS)?) / ROUNDS as f64)
}

/// Nanoseconds of one read: the median of rounds.
fn time(case: &str) -> f64 {
    const ROUNDS: usize = 20_000;
    let (bed, dev, held, request) = Bed::case(case);
    let mut io = Io::new(BLOCK);
    dm_bench_measured(&raw mut io, dev, &request, ROUNDS);
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let start = Instant::now();
            dm_bench_measured(&raw mut io, dev, &request, ROUNDS);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    drop((io, held, bed));
    times[times.len() / 2].as_nanos() as f64 / ROUNDS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds to load and resume a table of `count` lines: through the ioctl, and the driver's
/// own part, which leaves out the property lists.
fn loading(count: u64) -> (f64, f64) {
    let bed = Bed::new();
    let all = median(
        (0..5)
            .map(|n| {
                let start = Instant::now();
                bed.linear(&format!("d{n}"), count);
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect(),
    );
    let fake = Fake::new();
    fake.disk("/dev/wd0a", FakeDisk::new(0, 0, 1 << 32));
    let driver = kernel::driver(fake);
    let name = dm_core::name::Name::new("a").expect("a name");
    let device = driver.create(name, None, None, false).expect("creates").device;
    let lines: Vec<_> = (0..count)
        .map(|i| dm_core::device::LineRequest {
            start: i * 64,
            length: 64,
            kind: "linear".into(),
            params: format!("/dev/wd0a {}", i * 64),
        })
        .collect();
    let own = median(
        (0..5)
            .map(|_| {
                let lines = lines.clone();
                let start = Instant::now();
                driver.reload(&device, lines, dm_core::device::Load::default()).expect("loads");
                driver
                    .resume(
                        &device,
                        dm_core::worker::Quiesce::Flush,
                        dm_core::device::FileSystem::Leave,
                    )
                    .expect("resumes");
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect(),
    );
    (all, own)
}

/// Prints the cost of a job that a lane sends on as it is, beside the component and the two switches of thread.
/// A component that completes in a thread of its own shows what these cost.
fn jobs() {
    let count = ["component", "component on thread", "job"].map(instructions_of_all);
    let [Some(component), Some(thread), Some(job)] = count else {
        return println!("a job: no valgrind");
    };
    println!(
        "a job: {job:.0} instructions in all threads without waiting for a mutex, {component:.0} of them the \
         component's and {:.0} two switches of thread; {:.0} beside them",
        thread - component,
        job - thread
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, case, rounds] = arguments.as_slice()
        && flag == "--count"
    {
        let rounds = rounds.parse().expect("a number");
        let (bed, dev, held, request) = Bed::case(case);
        let mut io = Io::new(BLOCK);
        // Outside the counted function: what is built once is built here.
        for _ in 0..100 {
            io.run(dev, request);
        }
        dm_bench_measured(&raw mut io, dev, &request, rounds);
        drop((io, held, bed));
        return;
    }
    // `cargo test --benches` only wants to know that it runs.
    if arguments.iter().any(|a| a == "--test") {
        let (bed, dev, held, request) = Bed::case("linear");
        let mut io = Io::new(BLOCK);
        assert!(io.run(dev, request).is_complete(BLOCK));
        drop((io, held, bed));
        return;
    }

    if arguments.iter().any(|a| a == "--jobs") {
        return jobs();
    }
    if arguments.iter().any(|a| a == "--crypt") {
        return crypt::measure();
    }
    if arguments.iter().any(|a| a == "--threads") {
        return threads::measure();
    }
    if arguments.iter().any(|a| a == "--verity") {
        return verity::measure();
    }
    if arguments.iter().any(|a| a == "--recovery") {
        return recovery::measure();
    }
    // A mirror's write is two of the component's.
    println!("a 4 KiB read      ns   ratio  instructions  added to the component's");
    let (mut base_time, mut base_count) = (0.0, 0.0);
    for case in CASES {
        let (time, count) = (time(case), instructions(case));
        if *case == "component" {
            (base_time, base_count) = (time, count.unwrap_or(0.0));
        }
        let counts = match count {
            Some(count) => format!("{count:12.0}  {:12.0}", count - base_count),
            None => "no valgrind".to_owned(),
        };
        println!("{case:16}{time:6.0}  {:6.2}  {counts}", time / base_time);
        let _ = std::io::stdout().flush();
    }
    jobs();
    verity::measure();
    recovery::measure();
    for kind in ["memory", "file"] {
        let times = [time(&format!("component on {kind}")), time(&format!("linear on {kind}"))];
        println!(
            "{kind}: {:.0} ns, linear {:.0} ns, {:.2}",
            times[0],
            times[1],
            times[1] / times[0]
        );
    }
    threads::measure();
    crypt::measure();
    let (thousand, ten) = (loading(1_000), loading(10_000));
    println!(
        "loading and resuming 1,000 lines {:.1} ms, 10,000 lines {:.1} ms, ratio {:.1}; \
         the driver's own part {:.2} ms and {:.2} ms",
        thousand.0,
        ten.0,
        ten.0 / thousand.0,
        thousand.1,
        ten.1
    );
}
